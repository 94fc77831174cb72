"""Which press calls which handler. Nothing is decided here; the handlers are plain functions elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr
from gradio.events import api
from markupsafe import Markup

from dashboard.context import Context
from dashboard.markup import HALF_MOON, LOGO
from dashboard.pages import endpoints, following, information, runs, steer, steering
from dashboard.pages.choice import MOST
from dashboard.pages.compare import ComparePage, build_compare
from dashboard.pages.information import InformationPage, build_information
from dashboard.pages.methods import build_methods
from dashboard.pages.runs import RunsPage, build_runs
from dashboard.pages.steer import Steer
from dashboard.pages.stored import Filters

TABS = ("compare", "information", "runs", "methods")
_ADDRESS = "(id) => { window.keepmap && window.keepmap.show(id); }"
_LOOK = "() => { window.keepmap && window.keepmap.look(); }"
_OPENED = "(id, job) => { window.keepmap && window.keepmap.opened(id, job); }"
_JOB_ADDRESS = "(id) => { window.keepmap && window.keepmap.started(id); }"
_DARK = "() => document.body.classList.contains('dark')"
_HELD_AND_DARK = "(study, strategy, _) => [study, strategy, document.body.classList.contains('dark')]"
PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# Values come as the browser sent them: the library would refuse a budget slider that still stands above the tokens of
# the image that was just chosen, with a traceback. `Steer.read` trusts nothing and brings it into range.
QUICK: dict[str, Any] = {**PRIVATE, "queue": False, "preprocess": False}


def build_blocks(context: Context) -> gr.Blocks:
    """The page: brand, tabs, and what happens."""
    with gr.Blocks(fill_width=True, title="Keepmap", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        gr.HTML(
            '<a class="skip" href="#the-maps">Skip to the maps</a>',
            elem_id="skip",
            padding=False,
            apply_default_css=False,
            js_on_load=None,
        )
        gr.HTML(str(_brand()), elem_id="brand", padding=False, apply_default_css=False, js_on_load=None)
        where = gr.HTML(
            str(bar_end(context)),
            elem_id="where",
            padding=False,
            apply_default_css=False,
            js_on_load="window.keepmap.watchTheme(trigger)",
        )
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Compare", id="compare"):
                compare = build_compare()
            with gr.Tab("Information", id="information") as information_tab:
                informed = build_information()
            with gr.Tab("Runs", id="runs") as runs_tab:
                stored = build_runs()
            with gr.Tab("Methods", id="methods") as methods_tab:
                build_methods()
        _wire_load(context, blocks, tabs, compare, stored, informed, where)
        _wire_rail(context, compare)
        _wire_job(context, compare, where)
        _wire_runs(context, tabs, runs_tab, compare, stored)
        _wire_information(context, information_tab, informed, compare, where)
        _add_endpoints(context)
        for tab, name in ((information_tab, "information"), (runs_tab, "runs"), (methods_tab, "methods")):
            tab.select(None, None, None, js=f"() => {{ window.keepmap.address({{tab: '{name}'}}); }}", **PRIVATE)
    return blocks


def _brand() -> Markup:
    return Markup('<a href="/" aria-label="Keepmap, home">{}<span>Keepmap</span></a>').format(LOGO)


def bar_end(context: Context) -> Markup:
    """Which model answers, and the switch between light and dark."""
    return Markup(
        '<div class="bar-end"><span class="txt">{}</span><button type="button" class="icon" data-km="theme" '
        'aria-label="Switch between light and dark">{}</button></div>'
    ).format(context.models.where(), HALF_MOON)


def _wire_load(
    context: Context,
    blocks: gr.Blocks,
    tabs: gr.Tabs,
    page: ComparePage,
    stored: RunsPage,
    informed: InformationPage,
    where: gr.HTML,
) -> None:
    rail, stage = page.rail, page.stage

    def load(dark: bool, request: gr.Request) -> list[Any]:
        owner = context.owner(request)
        query = {name: str(value) for name, value in dict(request.query_params).items()}
        opened, comparison = following.open_address(context, query, owner, dark=dark)
        tab = query.get("tab", "compare")
        listed = runs.list_runs(context, Filters(), owner) if tab == "runs" else [gr.skip()] * 9
        told = information.show(context, "", "", owner, dark=dark) if tab == "information" else [gr.skip()] * 16
        held = steering.start_of(context, comparison)
        return [
            gr.update(selected=tab if tab in TABS else "compare"),
            str(bar_end(context)),
            *opened.updates(),
            *steering.everything(context, held, owner, busy=bool(opened.job_id)),
            *listed,
            *told,
        ]

    outputs = [tabs, where, *_followed(page), page.toggle, *rail.everything, *stored.listed, *informed.shown]
    opened = blocks.load(load, stage.dark, outputs, js=_DARK, **QUICK)
    opened.then(None, [stage.comparison, stage.job_id], None, js=_OPENED, **PRIVATE)


def _followed(page: ComparePage) -> list[Any]:
    """What `Follow.updates` writes."""
    stage = page.stage
    return [stage.notice, stage.job, *stage.printed, stage.job_id, stage.timer, page.rail.run, page.rail.estimate]


def _wire_rail(context: Context, page: ComparePage) -> None:
    rail, stage = page.rail, page.stage
    everything = [page.toggle, *rail.everything]
    held = page.held
    rows = [*rail.row_parts, rail.add, rail.remove, rail.text, rail.estimate, rail.shown_rows, page.toggle]

    def picked(event: gr.EventData, request: gr.Request, *values: Any) -> list[Any]:
        index = event._data.get("index") if event._data else None
        if index is None or not str(index).isdigit():
            return [gr.skip()] * len(everything)
        return steering.pick_sample(context, Steer.read(context, values), int(index), context.owner(request))

    def still_empty(*values: Any) -> Any:
        now = Steer.read(context, values)
        return gr.skip() if now.on_screen else steering.empty_page(context, now)

    def uploaded(path: str | None, request: gr.Request, *values: Any) -> list[Any]:
        if not path:
            return [gr.skip()] * (1 + len(everything))
        notice, updates = steering.pick_upload(context, Steer.read(context, values), str(path), context.owner(request))
        return [notice, *updates]

    def asked(request: gr.Request, *values: Any) -> list[Any]:
        return steering.question_changed(context, Steer.read(context, values), context.owner(request))

    def moved(request: gr.Request, *values: Any) -> list[Any]:
        return steering.rows_changed(context, Steer.read(context, values), context.owner(request), sliders=False)

    def changed(change: Callable[[Steer], Steer]) -> Callable[..., list[Any]]:
        def handler(request: gr.Request, *values: Any) -> list[Any]:
            return steering.rows_changed(context, change(Steer.read(context, values)), context.owner(request))

        return handler

    def raised(event: gr.EventData, request: gr.Request, *values: Any) -> list[Any]:
        data = event._data or {}
        if data.get("act") != "lowest":
            return [gr.skip()] * len(rows)
        after = steer.raised(Steer.read(context, values), int(data.get("pane", -1)), int(data.get("tokens", 0)))
        return steering.rows_changed(context, after, context.owner(request))

    def written(text: str, request: gr.Request, *values: Any) -> list[Any]:
        note, updates = steering.written(context, Steer.read(context, values), text, context.owner(request))
        return [note, *updates]

    chosen = rail.gallery.click(picked, held, everything, **QUICK)
    given = rail.upload.upload(uploaded, [rail.upload, *held], [stage.notice, *everything], **PRIVATE)
    given.then(None, None, None, js=_LOOK, **PRIVATE)
    for step in (chosen, given):
        step.then(still_empty, held, stage.empty, **QUICK)
    rail.templates.input(lambda text: text or gr.skip(), rail.templates, rail.question, **QUICK)
    for field in (rail.question, rail.own_choices, rail.seed):
        done = field.change(
            asked,
            held,
            [rail.question_head, rail.choices, rail.run, rail.estimate],
            trigger_mode="always_last",
            **QUICK,
        )
        done.then(still_empty, held, stage.empty, **QUICK)
    for position in range(MOST):
        row = rail.rows[position]
        row.name.input(changed(partial(steer.renamed, position=position)), held, rows, **QUICK)
        row.router.input(changed(lambda now: now), held, rows, **QUICK)
        row.budget.change(moved, held, rows, trigger_mode="always_last", **QUICK)
        row.hint.click(raised, held, rows, **QUICK)
    stage.results.click(raised, held, rows, **QUICK)
    rail.add.click(changed(steer.added), held, rows, **QUICK)
    rail.remove.click(changed(steer.removed), held, rows, **QUICK)
    rail.apply.click(written, [rail.text, *held], [rail.text_note, *rows], **QUICK)


def _wire_job(context: Context, page: ComparePage, where: gr.HTML) -> None:
    rail, stage = page.rail, page.stage

    def start(request: gr.Request, *values: Any) -> list[Any]:
        return following.start(context, Steer.read(context, values), context.owner(request)).updates()

    def tick(job_id: str, comparison_id: str, signature: str, dark: bool, request: gr.Request) -> list[Any]:
        return following.follow(context, job_id, comparison_id, signature, context.owner(request), dark=dark).updates()

    def stop(job_id: str, request: gr.Request) -> Any:
        notice = following.cancel(context, job_id, context.owner(request))
        return gr.skip() if notice is None else notice

    def themed(event: gr.EventData, comparison_id: str) -> list[Any]:
        dark = bool((event._data or {}).get("dark"))
        return [dark, *following.redraw(context, comparison_id, dark=dark)]

    def named() -> str:
        return str(bar_end(context))

    started = rail.run.click(start, page.held, _followed(page), **QUICK)
    started.then(None, stage.job_id, None, js=_JOB_ADDRESS, **PRIVATE)
    looked = stage.timer.tick(
        tick,
        [stage.job_id, stage.comparison, stage.signature, stage.dark],
        _followed(page),
        trigger_mode="once",
        **QUICK,
    )
    looked.then(None, stage.comparison, None, js=_ADDRESS, **PRIVATE)
    stage.job.click(stop, stage.job_id, stage.notice, **QUICK)
    where.apply(themed, stage.comparison, [stage.dark, stage.probabilities, stage.cost], **QUICK)
    rail.run.click(named, None, where, **QUICK)


def _wire_runs(context: Context, tabs: gr.Tabs, tab: gr.Tab, page: ComparePage, stored: RunsPage) -> None:
    rail, stage = page.rail, page.stage
    opened = [tabs, *_followed(page), page.toggle, *rail.everything, *stored.listed]
    nothing = [gr.skip()] * len(opened)

    def first_page(text: str, strategy: str, model: str, task: str, correct: str, request: gr.Request) -> list[Any]:
        return runs.list_runs(
            context, runs.read_filters(text, strategy, model, task, correct, 0), context.owner(request)
        )

    def open_tab(
        text: str, strategy: str, model: str, task: str, correct: str, number: float, request: gr.Request
    ) -> list[Any]:
        return runs.list_runs(
            context, runs.read_filters(text, strategy, model, task, correct, number), context.owner(request)
        )

    def pressed(
        event: gr.EventData,
        dark: bool,
        text: str,
        strategy: str,
        model: str,
        task: str,
        correct: str,
        number: float,
        request: gr.Request,
    ) -> list[Any]:
        data, owner = event._data or {}, context.owner(request)
        filters = runs.read_filters(text, strategy, model, task, correct, number)
        if data.get("act") in ("open", "again", "compare"):
            follow, comparison, notice = following.open_stored(context, data, owner, dark=dark)
            if comparison is None:
                return [*nothing[: len(nothing) - 9], *runs.list_runs(context, filters, owner, notice)]
            held = steering.start_of(context, comparison)
            return [
                gr.update(selected="compare"),
                *follow.updates(),
                *steering.everything(context, held, owner),
                *[gr.skip()] * 9,
            ]
        return [*nothing[: len(nothing) - 9], *runs.act_in_list(context, data, filters, owner)]

    tab.select(open_tab, stored.filters, stored.listed, **QUICK)
    # A one-line text field sends no input event in this version of Gradio, so its change is listened to.
    for happens in (
        stored.text.change,
        stored.strategy.input,
        stored.model.input,
        stored.task.input,
        stored.correct.input,
    ):
        happens(first_page, stored.filters[:5], stored.listed, trigger_mode="always_last", **QUICK)
    for source in (stored.table, stored.selection, rail.estimate):
        done = source.click(pressed, [stage.dark, *stored.filters], opened, **QUICK)
        done.then(None, stage.comparison, None, js=_ADDRESS, **PRIVATE)


def _wire_information(
    context: Context, tab: gr.Tab, informed: InformationPage, page: ComparePage, where: gr.HTML
) -> None:
    def shown(study: str, strategy: str, dark: bool, request: gr.Request) -> list[Any]:
        return information.show(context, study or "", strategy or "", context.owner(request), dark=dark)

    def themed(event: gr.EventData, study: str, strategy: str, request: gr.Request) -> list[Any]:
        # The tab that nobody opened is not drawn for a change of theme.
        if not study:
            return [gr.skip()] * len(informed.shown)
        dark = bool((event._data or {}).get("dark"))
        return information.show(context, study, strategy or "", context.owner(request), dark=dark)

    asked = [*informed.held, page.stage.dark]
    tab.select(shown, asked, informed.shown, js=_HELD_AND_DARK, **QUICK)
    for menu in informed.held:
        menu.input(shown, asked, informed.shown, js=_HELD_AND_DARK, **QUICK)
    where.apply(themed, informed.held, informed.shown, **QUICK)
    informed.solve.click(information.self_test, None, informed.check, **QUICK)


def _add_endpoints(context: Context) -> None:
    """What a program may ask by name; everything else of the page is its own affair."""

    def strategies() -> list[dict[str, Any]]:
        """The strategies of this server: name, title, stage, what each does and needs, labels, source."""
        return endpoints.strategies()

    def comparison(comparison_id: str, request: gr.Request) -> dict[str, Any]:
        """A stored comparison by its id: image, question, and the numbers of each pane."""
        return endpoints.comparison(context, comparison_id)

    api(strategies, api_name="strategies", queue=False)
    api(comparison, api_name="comparison", queue=False)
