"""The Information tab: where the information in the answers came from, per strategy, layer and training step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import gradio as gr
from markupsafe import Markup

import pid
from analysis.beliefs import INTERVENTIONS, SELECTIONS
from analysis.spectrum import ATOMS, MEANINGS, Spectrum
from dashboard import spectra
from dashboard.context import Context
from dashboard.figures import for_page
from dashboard.markup import EMPTY, join
from dashboard.messages import explain
from dashboard.pages.notices import error_notice
from dashboard.pages.rail import html
from pid import PidError

_TITLE = (
    '<div class="title"><div><h1>Information</h1><p>Where the information in an answer came from: from the picture, '
    "from the question, from either, or only from both together. Partial information decomposition, in bits."
    "</p></div></div>"
)
_MOST = 2000
"""Decompositions that are read for the page."""


@dataclass(frozen=True)
class Figure:
    """One figure of the tab: heading and conditions, chart, table."""

    head: gr.HTML
    chart: gr.Plot
    table: gr.HTML


@dataclass(frozen=True)
class InformationPage:
    """The tab's components."""

    notice: gr.HTML
    filters: gr.Row
    study: gr.Dropdown
    strategy: gr.Dropdown
    figures: tuple[Figure, Figure, Figure, Figure]
    check: gr.HTML
    solve: gr.Button

    @property
    def held(self) -> list[Any]:
        """What is asked of the tab: the study and the strategy of the depth curves."""
        return [self.study, self.strategy]

    @property
    def shown(self) -> list[Any]:
        """What `show` writes."""
        parts = [part for figure in self.figures for part in (figure.head, figure.chart, figure.table)]
        return [self.notice, self.filters, self.study, self.strategy, *parts]


@dataclass(frozen=True)
class Study:
    """Decompositions that may be compared: one model, one way of estimating, the same samples."""

    key: str
    title: str
    members: tuple[Spectrum, ...]

    def answers(self) -> list[Spectrum]:
        """Those of the finished model's answers, the latest of each strategy and kind of question."""
        return _latest(one for one in self.members if one.layer is None and one.checkpoint is None)

    def depths(self, strategy: str) -> list[tuple[str, list[Spectrum]]]:
        """Those along the layers of one strategy, per kind of question."""
        layers = _latest(one for one in self.members if one.layer is not None and one.strategy == strategy)
        return [(title, sorted(group, key=lambda one: one.layer or 0)) for title, group in spectra.by_task(layers)]

    def deep_strategies(self) -> list[str]:
        """Strategies whose layers were read."""
        return list(dict.fromkeys(one.strategy for one in self.members if one.layer is not None))


def studies(found: Sequence[Spectrum]) -> list[Study]:
    """What is stored, by model, weights, method and samples; those with several strategies first.

    Spectra of one request belong together: the layers of an answer are resampled less often than the answer.
    """
    requests: dict[str, list[Spectrum]] = {}
    for one in found:
        if one.checkpoint is None:
            requests.setdefault(one.request, []).append(one)
    groups: dict[str, list[Spectrum]] = {}
    for members in requests.values():
        groups.setdefault(_compared(next((one for one in members if one.layer is None), members[0])), []).extend(
            members
        )
    made = [Study(key, _title(members), tuple(members)) for key, members in groups.items()]
    twice = {title for title, times in Counter(one.title for one in made).items() if times > 1}
    made = [replace(one, title=f"{one.title}, {_apart(one.members[0])}") if one.title in twice else one for one in made]
    return sorted(made, key=lambda study: -len({one.strategy for one in study.members}))


def _compared(one: Spectrum) -> str:
    """What two spectra share where a figure may hold both."""
    method = " ".join(str(value) for value in asdict(one.method).values())
    samples = one.asked[:12] or f"{one.samples}/{one.n}"
    return f"{one.model.name} {one.model.revision[:12]} {method} {samples}"


def _title(members: Sequence[Spectrum]) -> str:
    first = members[0]
    said = [first.model.name, first.method.intervention, first.method.selection]
    said += [first.method.measure] if first.method.measure != "broja" else []
    return ", ".join([*said, f"{_span([one.samples for one in members])} questions"])


def _apart(one: Spectrum) -> str:
    """What tells two studies apart that have the same title."""
    method = one.method
    settings = f"gate {method.gate:g}, {method.partners} partners, {method.replicates:,} replicates, seed {method.seed}"
    return f"{settings}, samples {one.asked[:6] or 'not recorded'}, weights {one.model.revision[:6]}"


def _latest(spectra_: Any) -> list[Spectrum]:
    found: dict[tuple[object, ...], Spectrum] = {}
    for one in spectra_:
        found[one.strategy, one.task, one.family, one.layer, one.checkpoint] = one
    return list(found.values())


def build_information() -> InformationPage:
    """Lay the tab out, empty; the store is read when the tab is opened."""
    with gr.Column(elem_id="information-page"):
        html(value=_TITLE)
        html(value=str(_legend()))
        notice = html("information-notice")
        with gr.Row(elem_id="information-filters", visible=False) as filters:
            study = _menu("Decompositions", "study")
            strategy = _menu("Layers of", "depth-of")
        figures = []
        for name in ("spectrum", "differences", "depth", "training"):
            head = html(f"{name}-head")
            chart = gr.Plot(show_label=False, container=False, elem_id=f"{name}-chart", visible=False, buttons=[])
            figures.append(Figure(head, chart, html(f"{name}-table")))
        html(value=str(_check_head()))
        solve = gr.Button("Solve the test distributions", elem_id="solve", elem_classes="secondary")
        check = html("self-test")
    first, second, third, fourth = figures
    return InformationPage(notice, filters, study, strategy, (first, second, third, fourth), check, solve)


def _menu(label: str, name: str) -> gr.Dropdown:
    return gr.Dropdown(
        choices=[("none", "")], value="", label=label, filterable=False, elem_id=name, min_width=200, interactive=True
    )


def show(context: Context, study: str, strategy: str, owner: str | None, *, dark: bool) -> list[Any]:
    """Updates for `InformationPage.shown`.

    Args:
        context: The server's parts.
        study: Key of the decompositions to show; the first where it is not known.
        strategy: Whose layers; the first where it is not known.
        owner: Whose rows may be seen.
        dark: Colours of the dark theme.
    """
    try:
        found = context.store.find_spectra(owner=owner, limit=_MOST)
    except Exception as error:  # the tab stays, with one sentence
        return [str(error_notice(explain(error))), *[gr.skip()] * 15]
    known = studies(found)
    if not known:
        return [str(_nothing()), gr.update(visible=False), gr.skip(), gr.skip(), *_empty() * 4]
    chosen = next((one for one in known if one.key == study), known[0])
    deep = chosen.deep_strategies()
    strategy = strategy if strategy in deep else next(iter(deep), "")
    answers = chosen.answers()
    training = _training(found, chosen.members[0])
    return [
        "",
        gr.update(visible=True),
        gr.update(choices=[(one.title, one.key) for one in known], value=chosen.key),
        gr.update(choices=[(name, name) for name in deep] or [("not read", "")], value=strategy),
        *_spectrum(answers, dark=dark),
        *_differences(answers, dark=dark),
        *_depth(chosen.depths(strategy), strategy, dark=dark),
        *_moments(training, dark=dark),
    ]


def _training(found: Sequence[Spectrum], chosen: Spectrum) -> list[tuple[str, list[Spectrum]]]:
    """The moments of the training of the chosen model, of whatever is chosen above; those estimated last."""
    moments = [one for one in found if one.checkpoint is not None and one.model.name == chosen.model.name]
    moments = _latest(one for one in moments if _compared(one) == _compared(moments[-1]))
    return [(title, sorted(group, key=lambda one: one.checkpoint or 0)) for title, group in spectra.by_task(moments)]


def _spectrum(answers: list[Spectrum], *, dark: bool) -> list[Any]:
    if not answers:
        return _empty()
    head = _head(
        "Spectrum",
        "Each bar adds up to what picture and question together tell about the answer. Whiskers are intervals of "
        "the single atoms.",
        answers,
        brief=False,
    )
    table = spectra.spectrum_table(answers)
    return [str(head), gr.update(value=for_page(spectra.spectrum(answers, dark=dark)), visible=True), str(table)]


def _differences(answers: list[Spectrum], *, dark: bool) -> list[Any]:
    changed = [one for one in answers if one.differences]
    if not changed:
        return _empty()
    head = _head(
        "Difference to the uncompressed model",
        "Each atom less that of the model with all visual tokens, on the same samples; intervals are paired. Left of "
        "zero, compression took it away.",
        changed,
    )
    chart = gr.update(value=for_page(spectra.differences(changed, dark=dark)), visible=True)
    return [str(head), chart, str(spectra.difference_table(changed))]


def _depth(panels: list[tuple[str, list[Spectrum]]], strategy: str, *, dark: bool) -> list[Any]:
    if not panels:
        return _empty()
    head = _head(
        f"Along the layers: {strategy}",
        "What the answer position knows after each layer, read by final norm and head (logit lens). Bands are "
        "intervals.",
        [one for _, group in panels for one in group],
    )
    chart = gr.update(value=for_page(spectra.curves(panels, "layer", dark=dark)), visible=True)
    return [str(head), chart, str(spectra.curve_table(panels, "layer"))]


def _moments(panels: list[tuple[str, list[Spectrum]]], *, dark: bool) -> list[Any]:
    if not panels:
        return _empty()
    head = _head(
        "Along the training",
        "What the model that was being trained got from picture and question, at the moments that the training kept. "
        "Bands are intervals.",
        [one for _, group in panels for one in group],
    )
    chart = gr.update(value=for_page(spectra.curves(panels, "checkpoint", dark=dark)), visible=True)
    return [str(head), chart, str(spectra.curve_table(panels, "checkpoint"))]


def _empty() -> list[Any]:
    return ["", gr.update(visible=False), ""]


def _head(heading: str, text: str, shown: Sequence[Spectrum], *, brief: bool = True) -> Markup:
    """Heading, what the figure says, and the conditions under which its numbers hold."""
    return Markup('<div class="figure-head"><h2>{}</h2><p>{}</p><p class="under">{}</p>{}</div>').format(
        heading, text, conditions(shown, brief=brief), EMPTY if brief else _labels(shown)
    )


def conditions(shown: Sequence[Spectrum], *, brief: bool = False) -> str:
    """Estimator, intervention, n, gate, incoherence, intervals: what every figure states.

    Args:
        shown: What the figure shows.
        brief: Whether the choices are named only and not explained.
    """
    first = shown[0].method
    samples = _span([one.samples for one in shown])
    rows = _span([one.n for one in shown])
    gated = max((max(one.gated.values(), default=0.0) for one in shown), default=0.0)
    incoherence = max(abs(one.incoherence) for one in shown)
    width = max(one.upper - one.lower for one in shown)
    said = [
        f"{first.measure.upper()} by {first.estimator}, certified to {width:.0e} bits",
        _explained("intervention", first.intervention, INTERVENTIONS, brief=brief),
        _explained("selection", first.selection, SELECTIONS, brief=brief),
        f"{samples} questions" + (f", {rows} pairs" if rows != samples else ""),
        f"beliefs with less than {first.gate:g} on the choices count as uniform, at most {gated:.1%} of them",
        f"incoherence up to {incoherence:.3f} bits",
        f"{first.level:.0%} intervals, {first.interval}, {first.replicates:,} replicates, seed {first.seed}",
    ]
    return ". ".join(part[0].upper() + part[1:] for part in said) + "."


def _explained(what: str, name: str, meanings: Mapping[str, str], *, brief: bool) -> str:
    return f"{what} {name}" if brief else f"{what} {name}: {meanings.get(name, '').rstrip('.')}"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _labels(shown: Sequence[Spectrum]) -> Markup:
    labels = list(dict.fromkeys(f"{one.strategy_name}: {label}" for one in shown for label in one.labels))
    if not labels:
        return EMPTY
    return Markup('<div class="labels">{}</div>').format(
        join(Markup('<span class="label">{}</span>').format(label) for label in labels)
    )


def _legend() -> Markup:
    parts = join(
        Markup('<div><dt><i class="atom {}"></i>{}</dt><dd>{}</dd></div>').format(
            atom.replace("_", "-"), spectra.WORDS[atom], MEANINGS[atom]
        )
        for atom in ATOMS
    )
    return Markup('<dl class="atoms">{}</dl>').format(parts)


def _nothing() -> Markup:
    return Markup(
        '<div class="none-yet"><b>No decomposition is stored yet</b><span>Run <code class="mono">keepmap pid '
        "--regimes 128 -s identity -s dualcomp@0.25</code> to ask the embedded model, or <code "
        'class="mono">keepmap pid --by strategy,task</code> after questions were asked.</span></div>'
    )


def _check_head() -> Markup:
    return Markup(
        '<div class="figure-head"><h2>Self-test</h2><p>Distributions whose atoms are known exactly, solved here and '
        "now by the same solver. The certificate is the width of the interval that provably holds the union "
        "information.</p></div>"
    )


def self_test() -> str:
    """Solve every test distribution and say how far it is from the published values."""
    rows = []
    worst = 0.0
    for gate in pid.GATES:
        try:
            atoms = pid.decompose(gate.table)
        except PidError as error:
            rows.append(Markup('<tr><th scope="row">{}</th><td colspan="6">{}</td></tr>').format(gate.name, str(error)))
            continue
        found = atoms.values
        off = max(abs(one - other) for one, other in zip(found, gate.values, strict=True))
        worst = max(worst, off)
        cells = join(
            Markup('<td>{}<small class="ci">{}</small></td>').format(f"{round(one, 6) + 0.0:.6f}", f"{other:.6f}")
            for one, other in zip(found, gate.values, strict=True)
        )
        rows.append(
            Markup('<tr><th scope="row">{}</th>{}<td>{}</td><td>{}</td></tr>').format(
                gate.name, cells, f"{off:.1e}", f"{atoms.width:.1e}"
            )
        )
    heads = ("Distribution", "R", "U1", "U2", "S", "Error", "Certificate")
    table = Markup(
        '<div class="tablewrap" tabindex="0" role="region" aria-label="Self-test"><table class="km-table">'
        '<caption class="sr">Solved and published atoms in bits</caption><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(
        join(Markup('<th scope="col">{}</th>').format(head) for head in heads),
        join(rows),
    )
    said = Markup('<p class="under">{} distributions, largest error {} bits. Small figures are the published values.'
                  "</p>").format(len(pid.GATES), f"{worst:.1e}")  # fmt: skip
    return str(said + table)
