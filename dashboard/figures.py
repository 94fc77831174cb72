"""Plotly charts of the compared runs, drawn from the same numbers as the table and coloured from the tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence

import plotly.graph_objects as go
from gradio.components.plot import PlotData

from dashboard.markup import LETTERS, milliseconds
from dashboard.tables import Numbered
from dashboard.theme import palette

_MARKS = ("cat-1", "cat-3", "cat-2", "cat-5")
_FONT = "sans-serif"  # pages.css gives the page's own family to all text of a chart
_APART = 0.05  # of the axis: letters of equal probabilities stand side by side, as far as a mark is wide
STAGES = ("encode", "compress", "prefill")


def for_page(figure: go.Figure) -> PlotData:
    """The figure as Gradio's plot takes it, without Plotly's tool bar."""
    content = json.loads(figure.to_json()) | {
        "config": {"displayModeBar": False, "responsive": True, "scrollZoom": False}
    }
    return PlotData(type="plotly", plot=json.dumps(content))


def probabilities(rows: Sequence[Numbered], *, dark: bool = False) -> go.Figure:
    """Dot plot: one line per answer, one lettered mark per pane; the expected answer is ringed."""
    colours = palette(dark=dark)
    answers = list(dict.fromkeys(choice for row in rows for choice in row.facts.choices))
    expected = next((choice for row in rows for choice in row.facts.choices if row.facts.is_expected(choice)), None)
    figure = go.Figure()
    placed = {
        answer: _side_by_side({row.position: p for row in rows if (p := _probability(row, answer)) is not None})
        for answer in answers
    }
    for row in rows:
        shown = [answer for answer in answers if row.position in placed[answer]]
        true = [_probability(row, answer) or 0.0 for answer in shown]
        figure.add_trace(
            go.Scatter(
                x=[placed[answer][row.position] for answer in shown],
                y=[answers.index(answer) for answer in shown],
                customdata=true,
                mode="markers+text",
                text=LETTERS[row.position],
                textfont={"size": 10, "weight": 700, "color": _on(row.position, colours, dark=dark)},
                marker={
                    "size": 18,
                    "color": colours[_MARKS[row.position]],
                    "line": {
                        "width": [2.2 if answer == expected else 1.5 for answer in shown],
                        "color": [colours["ink"] if answer == expected else colours["paper"] for answer in shown],
                    },
                },
                name=f"{LETTERS[row.position]} {row.title}",
                hovertemplate="%{customdata:.1%}<extra>" + escaped(f"{LETTERS[row.position]} {row.title}") + "</extra>",
                cliponaxis=False,
                showlegend=False,
            )
        )
    ticks = [f"<b>{escaped(short(answer))}</b>" if answer == expected else escaped(short(answer)) for answer in answers]
    figure.update_layout(
        layout(colours, height=54 + 30 * len(answers)),
        xaxis={
            "range": [-0.03, 1.03],
            "tickvals": [0, 0.25, 0.5, 0.75, 1],
            "ticktext": ["0", "25", "50", "75", "100 %"],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
            "color": colours["ink-3"],
        },
        yaxis={
            "tickvals": list(range(len(answers))),
            "ticktext": ticks,
            "range": [len(answers) - 0.5, -0.5],
            "showgrid": True,
            "gridcolor": colours["line"],
            "zeroline": False,
            "fixedrange": True,
            "color": colours["ink-2"],
            "ticklabelstandoff": 14,
            "automargin": True,
        },
    )
    return figure


def cost(rows: Sequence[Numbered], *, dark: bool = False) -> go.Figure:
    """Stacked bars: milliseconds up to the first token, the stages apart by tone and hatch, the total at the end."""
    colours = palette(dark=dark)
    looks = {
        "encode": {"color": colours["well"], "line": {"color": colours["ink-3"], "width": 1}},
        "compress": {
            "color": colours["surface"],
            "line": {"color": colours["ink"], "width": 1},
            "pattern": {
                "shape": "/",
                "size": 4,
                "solidity": 0.3,
                "fgcolor": colours["ink"],
                "bgcolor": colours["surface"],
            },
        },
        "prefill": {"color": colours["accent"], "line": {"color": colours["accent"], "width": 1}},
    }
    places = [row.position for row in rows]
    figure = go.Figure()
    for stage in STAGES:
        seconds = [getattr(row.facts.cost, stage) for row in rows]
        if not any(seconds):
            continue
        figure.add_trace(
            go.Bar(
                x=[value.median * 1e3 if value else 0 for value in seconds],
                y=places,
                orientation="h",
                name=stage,
                marker=looks[stage],
                width=0.56,
                hovertemplate=f"{stage} %{{x:.1f}} ms<extra></extra>",
            )
        )
    longest = max((row.facts.cost.total_seconds * 1e3 for row in rows), default=1.0)
    figure.add_trace(
        go.Scatter(
            x=[row.facts.cost.total_seconds * 1e3 for row in rows],
            y=places,
            mode="text",
            text=[f"<b>&nbsp;{milliseconds(row.facts.cost.total_seconds)}</b>" for row in rows],
            textposition="middle right",
            textfont={"color": colours["ink"], "size": 12},
            showlegend=False,
            hoverinfo="skip",
            cliponaxis=False,
        )
    )
    figure.update_layout(
        layout(colours, height=54 + 38 * len(rows)),
        barmode="stack",
        legend={
            "orientation": "h",
            "x": 0,
            "y": -0.06,
            "yanchor": "top",
            "traceorder": "normal",
            "font": {"size": 12},
            "entrywidth": 54,
            "entrywidthmode": "pixels",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        xaxis={"range": [0, longest * 1.16 or 1], "visible": False, "fixedrange": True},
        yaxis={
            "tickvals": places,
            "ticktext": [f"<b>{LETTERS[row.position]}</b> {escaped(short(row.title))}" for row in rows],
            "range": [max(places, default=0) + 0.5, min(places, default=0) - 0.5],
            "fixedrange": True,
            "showgrid": False,
            "zeroline": False,
            "color": colours["ink-2"],
            "ticklabelstandoff": 14,
            "automargin": True,
        },
    )
    return figure


def cost_caption(rows: Sequence[Numbered]) -> str:
    """What the times are: unit, repeats, device, type of number."""
    if not rows:
        return ""
    first = rows[0].facts.cost
    same = all(
        (r.facts.cost.device, r.facts.cost.dtype, r.facts.cost.prefill.repeats)
        == (first.device, first.dtype, first.prefill.repeats)
        for r in rows
    )
    if not same:
        return "Milliseconds; the runs were measured on different devices or with different repeats, see the CSV"
    repeats = f"median of {first.prefill.repeats} passes" if first.prefill.repeats > 1 else "one pass"
    where = (
        f"{first.threads} CPU {'thread' if first.threads == 1 else 'threads'}"
        if first.device == "cpu"
        else first.device.removeprefix("cuda: ")
    )
    return f"Milliseconds, {repeats}, {where}, {first.dtype}"


def _probability(row: Numbered, answer: str) -> float | None:
    return dict(zip(row.facts.choices, row.facts.probabilities, strict=True)).get(answer)


def _side_by_side(values: dict[int, float]) -> dict[int, float]:
    """Places on the axis, moved apart as far as needed: ascending, then back inside the axis."""
    order = sorted(values, key=lambda position: (values[position], position))
    placed: dict[int, float] = {}
    last = -1.0
    for position in order:
        placed[position] = last = max(values[position], last + _APART)
    limit = 1.0
    for position in reversed(order):
        placed[position] = min(placed[position], limit)
        limit = placed[position] - _APART
    return placed


def _on(position: int, colours: dict[str, str], *, dark: bool) -> str:
    """The letter's colour on its mark."""
    return (
        "#10201f"
        if dark and position < 3
        else colours["ink"]
        if not dark and _MARKS[position] == "cat-2"
        else "#10201f"
        if dark
        else "#ffffff"
    )


def layout(colours: dict[str, str], *, height: int) -> dict[str, object]:
    """What all charts share: no frame, no background, the page's colours."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 24, "t": 4, "b": 28},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": _FONT, "size": 12, "color": colours["ink-2"]},
        "hoverlabel": {
            "bgcolor": colours["surface"],
            "bordercolor": colours["line"],
            "font": {"color": colours["ink"], "size": 12},
        },
        "dragmode": False,
        "template": None,
    }


def short(text: str, length: int = 22) -> str:
    """A label that fits, cut with an ellipsis."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def escaped(text: str) -> str:
    """Plotly reads a few tags in its texts, and %{…} in its templates."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")
