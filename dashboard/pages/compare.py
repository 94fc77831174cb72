"""The Compare tab: the rail, the maps, the results; and the wiring between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from dashboard import figures
from dashboard.context import Context
from dashboard.pages import shown as pieces
from dashboard.pages.rail import Rail, build_rail, html, kept
from dashboard.pages.shown import Shown

OPENING = '<p class="opening" role="status">Opening…</p>'


@dataclass(frozen=True)
class Stage:
    """The main column's components, and what the page keeps in mind."""

    notice: gr.HTML
    empty: gr.HTML
    title: gr.HTML
    job: gr.HTML
    maps: gr.HTML
    results: gr.HTML
    numbers_head: gr.HTML
    charts: gr.Row
    probabilities_head: gr.HTML
    probabilities: gr.Plot
    cost_head: gr.HTML
    cost: gr.Plot
    numbers: gr.HTML
    foot: gr.HTML
    comparison: gr.Textbox
    job_id: gr.Textbox
    signature: gr.Textbox
    dark: gr.Checkbox
    timer: gr.Timer

    @property
    def printed(self) -> list[Any]:
        """What changes with the comparison."""
        return [
            self.empty,
            self.title,
            self.maps,
            self.results,
            self.numbers_head,
            self.charts,
            self.probabilities_head,
            self.probabilities,
            self.cost_head,
            self.cost,
            self.numbers,
            self.foot,
            self.comparison,
            self.signature,
        ]


@dataclass(frozen=True)
class ComparePage:
    """The tab's two halves."""

    rail: Rail
    stage: Stage
    toggle: gr.HTML

    @property
    def held(self) -> list[Any]:
        """What `Steer.read` reads: the comparison on screen, and what the rail holds."""
        return [self.stage.comparison, *self.rail.held]


def build_compare() -> ComparePage:
    """Lay the tab out, empty."""
    toggle = html("rail-toggle")
    with gr.Row(elem_id="shell"):
        rail = build_rail()
        with gr.Column(scale=1, min_width=0, elem_id="main"):
            notice, title, job, empty = (
                html("notice", acts=True),
                html("title", value=OPENING),
                html("job", acts=True),
                html("empty", acts=True),
            )
            maps = html("maps")
            results = html("results", script="window.keepmap.results(element, trigger)")
            numbers_head = html("numbers-head")
            with gr.Row(elem_id="charts", visible=False) as charts:
                with gr.Column(min_width=0):
                    probabilities_head = html()
                    probabilities = gr.Plot(show_label=False, container=False, elem_id="probabilities", buttons=[])
                with gr.Column(min_width=0):
                    cost_head = html()
                    cost = gr.Plot(show_label=False, container=False, elem_id="cost", buttons=[])
            numbers = html("numbers")
            foot = html("foot")
    dark = gr.Checkbox(False, visible=False)
    stage = Stage(
        notice,
        empty,
        title,
        job,
        maps,
        results,
        numbers_head,
        charts,
        probabilities_head,
        probabilities,
        cost_head,
        cost,
        numbers,
        foot,
        kept(),
        kept(),
        kept(),
        dark,
        gr.Timer(0.4, active=False),
    )
    return ComparePage(rail, stage, toggle)


def print_comparison(
    context: Context, shown: Shown, *, dark: bool, map_state: dict[str, str] | None = None, frame: bool = True
) -> list[Any]:
    """Updates for `Stage.printed`.

    Args:
        frame: Whether the maps' frame is set as well; False keeps the one on the page and its view.
    """
    has_numbers = shown.is_over and bool(shown.rows)
    plots = draw(shown, dark=dark) if has_numbers else [gr.skip(), gr.skip()]
    return [
        "",
        str(pieces.title(shown)),
        str(pieces.maps(shown, map_state)) if frame else gr.skip(),
        str(pieces.result_grid(shown)),
        str(pieces.numbers_head(shown)) if has_numbers else "",
        gr.update(visible=has_numbers),
        str(pieces.chart_head("Probability of each answer", pieces.ringed(shown))) if has_numbers else "",
        plots[0],
        str(pieces.chart_head("Time per stage", figures.cost_caption(shown.rows))) if has_numbers else "",
        plots[1],
        str(pieces.numbers(shown)) if has_numbers else "",
        str(pieces.foot(context, shown)) if has_numbers else "",
        shown.comparison.id,
        shown.signature,
    ]


def print_empty(context: Context, sample: int, ready: list[str]) -> list[Any]:
    """Updates for `Stage.printed` when there is nothing to show yet."""
    return [
        str(pieces.empty(context, sample, ready)),
        "",
        "",
        "",
        "",
        gr.update(visible=False),
        "",
        gr.skip(),
        "",
        gr.skip(),
        "",
        "",
        "",
        "",
    ]


def draw(shown: Shown, *, dark: bool) -> list[Any]:
    """Both charts in the colours of the theme."""
    return [
        figures.for_page(figures.probabilities(shown.rows, dark=dark)),
        figures.for_page(figures.cost(shown.rows, dark=dark)),
    ]
