"""The Runs tab: what is stored, found by filters, opened, compared again, put side by side, deleted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from dashboard.context import Context
from dashboard.markup import task_words
from dashboard.messages import explain
from dashboard.pages.notices import error_notice, plain_notice
from dashboard.pages.rail import html
from dashboard.pages.run_table import choices_of, run_table, selection_bar
from dashboard.pages.stored import Filters, delete, find, values_of


@dataclass(frozen=True)
class RunsPage:
    """The tab's components."""

    notice: gr.HTML
    text: gr.Textbox
    strategy: gr.Dropdown
    model: gr.Dropdown
    task: gr.Dropdown
    correct: gr.Dropdown
    page: gr.Number
    selection: gr.HTML
    table: gr.HTML

    @property
    def filters(self) -> list[Any]:
        """What `read_filters` reads."""
        return [self.text, self.strategy, self.model, self.task, self.correct, self.page]

    @property
    def listed(self) -> list[Any]:
        """What `list_runs` writes."""
        return [self.notice, *self.filters, self.selection, self.table]


def build_runs() -> RunsPage:
    """Lay the tab out, empty; the list is read when the tab is opened."""
    with gr.Column(elem_id="runs-page"):
        gr.HTML(
            '<div class="title"><div><h1>Runs</h1><p>Everything that was asked and answered here, read from the '
            "store.</p></div></div>",
            padding=False,
            apply_default_css=False,
            js_on_load=None,
        )
        notice = html("runs-notice")
        with gr.Row(elem_id="run-filters"):
            text = gr.Textbox(
                label="Text",
                placeholder="question, answer, image, strategy",
                max_length=200,
                lines=1,
                max_lines=1,
                elem_id="filter-text",
                scale=2,
                min_width=180,
            )
            strategy, model, task = (_filter(name) for name in ("Strategy", "Model", "Task"))
            correct = gr.Dropdown(
                choices=[("right and wrong", ""), ("right", "right"), ("wrong", "wrong")],
                value="",
                label="Verdict",
                filterable=False,
                elem_id="filter-verdict",
                min_width=120,
                interactive=True,
            )
        selection = html("run-selection", script="window.keepmap.runSelection(element, trigger)")
        table = html("run-list", script="window.keepmap.runList(element, trigger, watch)")
    return RunsPage(notice, text, strategy, model, task, correct, gr.Number(0, visible=False), selection, table)


def _filter(name: str) -> gr.Dropdown:
    return gr.Dropdown(
        choices=[("all", "")],
        value="",
        label=name,
        filterable=False,
        elem_id=f"filter-{name.lower()}",
        min_width=120,
        interactive=True,
    )


def read_filters(text: str, strategy: str, model: str, task: str, correct: str, page: float) -> Filters:
    """The filters that the components hold."""
    return Filters(text or "", strategy or "", model or "", task or "", correct or "", int(page or 0))


def list_runs(context: Context, filters: Filters, owner: str | None, notice: str = "") -> list[Any]:
    """Updates for `RunsPage.listed`."""
    local = not context.settings.public
    try:
        listed = find(context, filters, owner)
        strategies, models, tasks = values_of(context, owner)
    except Exception as error:  # the tab stays, with one sentence
        return [str(error_notice(explain(error))), *[gr.skip()] * 8]
    menus = [
        gr.update(
            choices=[(word and task_words(word), name) for word, name in choices_of(values, "all")],
            value=value if value in values else "",
        )
        for values, value in ((strategies, filters.strategy), (models, filters.model), (tasks, filters.task))
    ]
    return [
        notice,
        filters.text,
        *menus,
        filters.correct,
        listed.filters.page,
        str(selection_bar()) if listed.runs else "",
        str(run_table(listed, local=local)),
    ]


def act_in_list(context: Context, data: Mapping[str, Any], filters: Filters, owner: str | None) -> list[Any]:
    """A press inside the list that stays in the list: another page, no filters, or a run deleted."""
    act, notice = data.get("act"), ""
    if act == "page":
        filters = replace(filters, page=int(data.get("page", 0)))
    elif act == "clear":
        filters = Filters()
    elif act == "delete":
        try:
            delete(context, str(data.get("run", "")), owner)
            notice = str(plain_notice("Deleted.", "The run is gone from the store, with what only it used."))
        except Exception as error:
            notice = str(error_notice(explain(error)))
    return list_runs(context, filters, owner, notice)
