"""Charts and tables of decompositions: the spectrum, the difference to the uncompressed model, depth, training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import plotly.graph_objects as go
from markupsafe import Markup
from plotly.subplots import make_subplots

from analysis.spectrum import ATOMS, Interval, Spectrum
from compression.strategies import CATALOGUE
from dashboard.figures import escaped, layout, short
from dashboard.markup import EMPTY, join, percent, task_words
from dashboard.theme import palette

WORDS = {
    "redundancy": "Redundancy",
    "unique_vision": "Unique vision",
    "unique_language": "Unique language",
    "synergy": "Synergy",
}
"""The atoms as the page calls them."""
SHORT = {"redundancy": "R", "unique_vision": "U vision", "unique_language": "U language", "synergy": "S"}
_COLOURS = {"redundancy": "cat-4", "unique_vision": "cat-1", "unique_language": "cat-2", "synergy": "cat-3"}
# Pattern, mark and dash beside colour: nobody has to tell the atoms by hue.
_PATTERNS = {"redundancy": "x", "unique_vision": "", "unique_language": "/", "synergy": "."}
_MARKS = {"redundancy": "x", "unique_vision": "circle", "unique_language": "square", "synergy": "diamond"}
_DASHES = {"redundancy": "dot", "unique_vision": "solid", "unique_language": "dash", "synergy": "dashdot"}
_BAR, _HEAD, _FOOT = 26, 30, 66  # pixels
_HAIR = 0.004  # bits: a narrower interval is no wider than its own line
REGIMES = {
    "question": "In the question alone",
    "picture": "In the picture alone",
    "either": "In either",
    "both": "Only in both together",
}
"""What is known by construction about the benchmark's questions, by regime."""
REGIME_OF = {"knowledge": "question", "region": "picture", "told": "either", "quarter": "both"}
"""The regime of a task of the embedded benchmark."""


def name_of(spectrum: Spectrum) -> str:
    """The strategy for people: its title and its budget."""
    info = CATALOGUE.info_of(spectrum.strategy)
    title = info.title if info is not None else spectrum.strategy_name
    if spectrum.budget is None or spectrum.strategy_name == "identity":
        return title
    budget = f"{spectrum.budget:g}" if spectrum.budget <= 1 else f"{spectrum.budget:.0f} tokens"
    return f"{title} {budget}"


def task_of(spectrum: Spectrum) -> str:
    """The questions for people: what is known about them where it is the benchmark's, else the task or family."""
    regime = REGIME_OF.get(spectrum.task, "")
    if regime and spectrum.model.family == "embedded":
        return f"{REGIMES[regime]} ({task_words(spectrum.task)})"
    return task_words(spectrum.task) or spectrum.family or "all questions"


def by_task(spectra: Sequence[Spectrum]) -> list[tuple[str, list[Spectrum]]]:
    """Spectra of the same questions together, in order of appearance; the uncompressed model first, then by budget."""
    order = list(dict.fromkeys((one.task, one.family) for one in spectra))
    ranked = sorted(
        spectra, key=lambda one: (order.index((one.task, one.family)), one.strategy_name != "identity", -one.retention)
    )
    return [(task_of(group[0]), group) for _, group in ((k, list(g)) for k, g in groupby(ranked, _question))]


def _question(one: Spectrum) -> tuple[str, str]:
    return one.task, one.family


def spectrum(spectra: Sequence[Spectrum], *, dark: bool = False) -> go.Figure:
    """Stacked atoms per strategy, one block per kind of question; whiskers are intervals."""
    colours = palette(dark=dark)
    groups = by_task(spectra)
    figure = _blocks([(title, len(group)) for title, group in groups], colours)
    widest = max([one.total.value for one in spectra] + [0.1])
    for row, (_, group) in enumerate(groups, 1):
        ends = [0.0] * len(group)
        for number, atom in enumerate(ATOMS):
            parts = [one.atoms[atom] for one in group]
            ends = [end + part.value for end, part in zip(ends, parts, strict=True)]
            figure.add_trace(_bars(atom, parts, colours, in_legend=row == 1), row=row, col=1)
            # Whiskers of one bar on four lines: three of them often end in the same place.
            clear = [place for place, part in enumerate(parts) if part.high - part.low > _HAIR]
            figure.add_trace(
                go.Scatter(
                    x=[ends[place] for place in clear],
                    y=[place + (number - 1.5) * 0.17 for place in clear],
                    mode="markers",
                    marker={"size": 1, "color": colours["ink"]},
                    error_x=_whiskers([parts[place] for place in clear], colours["ink"]),
                    showlegend=False,
                    hoverinfo="skip",
                ),
                row=row,
                col=1,
            )
        _name_rows(figure, group, row)
    figure.update_layout(barmode="relative")
    figure.update_xaxes(range=[min(0.0, _lowest(spectra)) - 0.02 * widest, widest * 1.12])
    return figure


def differences(spectra: Sequence[Spectrum], *, dark: bool = False) -> go.Figure:
    """What compression changed: each atom less that of the uncompressed model, on the same samples."""
    colours = palette(dark=dark)
    groups = [(title, [one for one in group if one.differences]) for title, group in by_task(spectra)]
    groups = [(title, group) for title, group in groups if group]
    figure = _blocks([(title, len(group)) for title, group in groups], colours)
    reach = 0.05
    for row, (_, group) in enumerate(groups, 1):
        for number, atom in enumerate(ATOMS):
            parts = [one.differences[atom] for one in group]
            reach = max([reach, *(max(abs(part.low), abs(part.high), abs(part.value)) for part in parts)])
            figure.add_trace(
                go.Scatter(
                    x=[part.value for part in parts],
                    y=[place + (number - 1.5) * 0.17 for place in range(len(group))],
                    mode="markers",
                    name=WORDS[atom],
                    legendgroup=atom,
                    showlegend=row == 1,
                    marker={"symbol": _MARKS[atom], "size": 8, "color": colours[_COLOURS[atom]]},
                    error_x=_whiskers(parts, colours[_COLOURS[atom]]),
                    customdata=[said(part) for part in parts],
                    hovertemplate=f"{WORDS[atom]} %{{customdata}}<extra></extra>",
                ),
                row=row,
                col=1,
            )
        _name_rows(figure, group, row)
    figure.update_xaxes(range=[-1.1 * reach, 1.1 * reach], zeroline=True, zerolinecolor=colours["ink-3"])
    return figure


def curves(
    panels: Sequence[tuple[str, Sequence[Spectrum]]],
    along: str,
    *,
    dark: bool = False,
) -> go.Figure:
    """Atoms along the layers or along the training, one panel after the other, with bands.

    Args:
        panels: Title, and spectra in order.
        along: "layer" or "checkpoint".
        dark: Colours of the dark theme.
    """
    colours = palette(dark=dark)
    figure = make_subplots(
        rows=max(len(panels), 1),
        cols=1,
        subplot_titles=[f"<b>{escaped(title)}</b>" for title, _ in panels] or None,
        vertical_spacing=min(0.4 / max(len(panels), 1), 0.12),
    )
    for row, (_, points) in enumerate(panels, 1):
        places = [float(_place(one, along)) for one in points]
        for atom in ATOMS:
            parts = [one.atoms[atom] for one in points]
            colour = colours[_COLOURS[atom]]
            figure.add_trace(
                go.Scatter(
                    x=places + places[::-1],
                    y=[part.high for part in parts] + [part.low for part in parts][::-1],
                    mode="lines",
                    fill="toself",
                    fillcolor=_faint(colour),
                    line={"width": 0},
                    hoverinfo="skip",
                    showlegend=False,
                    legendgroup=atom,
                ),
                row=row,
                col=1,
            )
            figure.add_trace(
                go.Scatter(
                    x=places,
                    y=[part.value for part in parts],
                    mode="lines+markers",
                    name=WORDS[atom],
                    legendgroup=atom,
                    showlegend=row == 1,
                    line={"color": colour, "width": 2, "dash": _DASHES[atom]},
                    marker={"symbol": _MARKS[atom], "size": 7, "color": colour},
                    customdata=[said(part) for part in parts],
                    hovertemplate=f"{WORDS[atom]} %{{customdata}}<extra></extra>",
                ),
                row=row,
                col=1,
            )
    figure.update_layout(layout(colours, height=_FOOT + 230 * max(len(panels), 1)))
    figure.update_layout(legend=_legend(), margin={"l": 8, "r": 24, "t": 34, "b": 60})
    title = "Layer of the language model, from 1" if along == "layer" else "Training step, logarithmic"
    ticks = sorted({_place(one, along) for _, points in panels for one in points})
    figure.update_xaxes(
        type="linear" if along == "layer" else "log",
        tickvals=ticks,
        ticktext=[f"{tick:,}" for tick in ticks],
        fixedrange=True,
        showgrid=False,
        color=colours["ink-3"],
    )
    figure.update_xaxes(title={"text": title, "font": {"size": 12}}, row=max(len(panels), 1), col=1)
    figure.update_yaxes(
        title={"text": "bits", "font": {"size": 12}}, fixedrange=True, gridcolor=colours["line"],
        zerolinecolor=colours["line"], color=colours["ink-3"], automargin=True,
    )  # fmt: skip
    _left_titles(figure, colours)
    return figure


def said(part: Interval) -> str:
    """A value with its interval, in bits."""
    return f"{part.value:.3f} bits ({part.low:.3f} to {part.high:.3f}{', one-sided' if part.is_one_sided else ''})"


def spectrum_table(spectra: Sequence[Spectrum]) -> Markup:
    """The numbers of the spectrum: one row per strategy and kind of question."""
    heads = ("Strategy", "Questions", "Read", *(WORDS[atom] for atom in ATOMS), "Total", "Certificate",
             "Gated F / V / L", "Incoherence", "Right", "Blind")  # fmt: skip
    rows = []
    for title, group in by_task(spectra):
        rows.append(_group_row(title, len(heads)))
        for one in group:
            gated = " / ".join(f"{one.gated.get(name, 0):.2f}" for name in ("full", "vision", "language"))
            cells = [
                f"{one.samples:,}",
                percent(one.retention, 0),
                *(_with_interval(one.atoms[atom]) for atom in ATOMS),
                _with_interval(one.total),
                f"{one.upper - one.lower:.1e}",
                gated,
                f"{one.incoherence:.3f}",
                "–" if one.accuracy is None else percent(one.accuracy, 0),
                "–" if one.accuracy_blind is None else percent(one.accuracy_blind, 0),
            ]
            rows.append(_row(name_of(one), cells))
    return _table("Atoms in bits with their intervals", heads, rows)


def difference_table(spectra: Sequence[Spectrum]) -> Markup:
    """The numbers of the differences."""
    heads = ("Strategy", "Questions", *(WORDS[atom] for atom in ATOMS))
    rows = []
    for title, group in by_task(spectra):
        changed = [one for one in group if one.differences]
        if changed:
            rows.append(_group_row(title, len(heads)))
            rows += [
                _row(
                    name_of(one),
                    [f"{one.samples:,}", *(_with_interval(one.differences[atom], signed=True) for atom in ATOMS)],
                )
                for one in changed
            ]
    return _table("Difference to the uncompressed model in bits, paired intervals", heads, rows)


def curve_table(panels: Sequence[tuple[str, Sequence[Spectrum]]], along: str) -> Markup:
    """The numbers of a curve."""
    heads = ("Layer" if along == "layer" else "Step", "Questions", *(WORDS[atom] for atom in ATOMS), "Total", "Right")
    rows = []
    for title, points in panels:
        rows.append(_group_row(title, len(heads)))
        for one in points:
            right = "–" if one.accuracy is None else percent(one.accuracy, 0)
            atoms = (_with_interval(one.atoms[atom]) for atom in ATOMS)
            cells = [f"{one.samples:,}", *atoms, _with_interval(one.total), right]
            rows.append(_row(f"{_place(one, along):,}", cells))
    return _table(f"Atoms in bits along the {'layers' if along == 'layer' else 'training'}", heads, rows)


def _place(one: Spectrum, along: str) -> int:
    if along == "layer":
        return (one.model.layers if one.layer is None else one.layer + 1) or 0
    return one.checkpoint or 0


def _group_row(title: str, width: int) -> Markup:
    return Markup('<tr class="group"><th scope="rowgroup" colspan="{}">{}</th></tr>').format(width, title)


def _row(name: str, cells: Sequence[str | Markup]) -> Markup:
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(
        name, join(Markup("<td>{}</td>").format(cell) for cell in cells)
    )


def _table(label: str, heads: Sequence[str], rows: Sequence[Markup]) -> Markup:
    if not rows:
        return EMPTY
    return Markup(
        '<details class="figure-table"><summary>Table</summary><div class="tablewrap" tabindex="0" role="region" '
        'aria-label="{}"><table class="km-table"><caption class="sr">{}</caption><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div></details>"
    ).format(label, label, join(Markup('<th scope="col">{}</th>').format(head) for head in heads), join(rows))


def _with_interval(part: Interval, *, signed: bool = False) -> Markup:
    sign = "+" if signed else ""
    return Markup('{}<small class="ci">{} to {}{}</small>').format(
        f"{part.value:{sign}.3f}",
        f"{part.low:{sign}.3f}",
        f"{part.high:{sign}.3f}",
        Markup('<abbr title="one-sided: the atom lies at its boundary 0">*</abbr>') if part.is_one_sided else EMPTY,
    )


def _blocks(groups: Sequence[tuple[str, int]], colours: dict[str, str]) -> go.Figure:
    """One block of rows per kind of question, under each other, so that a phone shows them as well."""
    sizes = [max(count, 1) for _, count in groups] or [1]
    height = _FOOT + sum(_HEAD + _BAR * size for size in sizes)
    inside = height - _FOOT
    figure = make_subplots(
        rows=len(sizes),
        cols=1,
        shared_xaxes=True,
        row_heights=[float(size) for size in sizes],
        vertical_spacing=min(_HEAD / inside, 0.9 / max(len(sizes) - 1, 1)) if len(sizes) > 1 else 0.0,
        subplot_titles=[f"<b>{escaped(title)}</b>" for title, _ in groups] or None,
    )
    figure.update_layout(layout(colours, height=height))
    figure.update_layout(legend=_legend(), margin={"l": 8, "r": 24, "t": 26, "b": 62}, bargap=0.2)
    figure.update_xaxes(fixedrange=True, showgrid=True, gridcolor=colours["line"], zeroline=True,
                        zerolinecolor=colours["ink-3"], color=colours["ink-3"])  # fmt: skip
    figure.update_xaxes(title={"text": "bits", "font": {"size": 12}}, row=len(sizes), col=1)
    figure.update_yaxes(fixedrange=True, showgrid=False, zeroline=False, color=colours["ink-2"], automargin=True)
    _left_titles(figure, colours)
    return figure


def _left_titles(figure: go.Figure, colours: dict[str, str]) -> None:
    for annotation in figure.layout.annotations:
        annotation.update(x=0, xanchor="left", font={"size": 12, "color": colours["ink"]})


def _legend() -> dict[str, object]:
    return {
        "orientation": "h",
        "x": 0,
        "y": 0,
        "yref": "container",
        "yanchor": "bottom",
        "font": {"size": 12},
        "itemclick": False,
        "itemdoubleclick": False,
    }


def _bars(atom: str, parts: Sequence[Interval], colours: dict[str, str], *, in_legend: bool) -> go.Bar:
    """The segments of one atom, told apart by colour and pattern."""
    return go.Bar(
        x=[part.value for part in parts],
        y=list(range(len(parts))),
        orientation="h",
        name=WORDS[atom],
        legendgroup=atom,
        showlegend=in_legend,
        width=0.66,
        marker={
            "color": colours[_COLOURS[atom]],
            "line": {"color": colours["paper"], "width": 1},
            "pattern": {
                "shape": _PATTERNS[atom],
                "size": 6,
                "solidity": 0.22,
                "fgcolor": colours["paper"],
                "bgcolor": colours[_COLOURS[atom]],
            },
        },
        customdata=[said(part) for part in parts],
        hovertemplate=f"{WORDS[atom]} %{{customdata}}<extra></extra>",
    )


def _name_rows(figure: go.Figure, group: Sequence[Spectrum], row: int) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(group))),
        ticktext=[escaped(short(name_of(one), 26)) for one in group],
        range=[len(group) - 0.5, -0.5],
        ticklabelstandoff=10,
        row=row,
        col=1,
    )


def _whiskers(parts: Sequence[Interval], colour: str) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(part.high - part.value, 0.0) for part in parts],
        "arrayminus": [max(part.value - part.low, 0.0) for part in parts],
        "thickness": 1.2,
        "width": 3,
        "color": colour,
    }


def _lowest(spectra: Sequence[Spectrum]) -> float:
    return min((sum(min(one.atoms[atom].value, 0.0) for atom in ATOMS) for one in spectra), default=0.0)


def _faint(colour: str) -> str:
    """A hex colour at a fifth of its strength."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.18)"
