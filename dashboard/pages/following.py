"""Asking and following: a press of Compare becomes a job, which the page follows by its id to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from compression.errors import ModelUnavailable
from dashboard.context import Context
from dashboard.jobs import Asked
from dashboard.messages import Message, explain
from dashboard.pages import shown as pieces
from dashboard.pages.asking import check_count, inquiry
from dashboard.pages.compare import draw, print_comparison, print_empty
from dashboard.pages.notices import error_notice, plain_notice
from dashboard.pages.rail_view import estimate
from dashboard.pages.shown import Shown, load
from dashboard.pages.steer import Steer
from dashboard.pages.steering import run_button
from dashboard.pages.stored import side_by_side
from dashboard.visitors import is_id, read_id
from storage import Comparison, JobRow, NotFound, RunNotFound

PRINTED = 14  # components in `Stage.printed`


@dataclass(frozen=True)
class Follow:
    """What a handler of the main column returns.

    Args:
        notice, job: The banner and the progress line; None to leave them.
        printed: Updates for `Stage.printed`; None to leave them.
        job_id: The job that is followed from now on, "" for none; None to leave it.
        button: Update for the Compare button; None to leave it.
        estimate: The words under it; None to leave them.
    """

    notice: str | None = None
    job: str | None = None
    printed: list[Any] | None = None
    job_id: str | None = None
    button: Any | None = None
    estimate: str | None = None

    def updates(self) -> list[Any]:
        """In the order notice, job, printed, job id, timer, button, estimate."""
        printed = [gr.skip()] * PRINTED if self.printed is None else self.printed
        timer = gr.skip() if self.job_id is None else gr.update(active=bool(self.job_id))
        return [
            _or_skip(self.notice),
            _or_skip(self.job),
            *printed,
            _or_skip(self.job_id),
            timer,
            _or_skip(self.button),
            _or_skip(self.estimate),
        ]


def _or_skip(value: Any) -> Any:
    return gr.skip() if value is None else value


def start(context: Context, steer: Steer, owner: str | None) -> Follow:
    """Queue the comparison that the rail describes; what is on screen stays until it has begun."""
    try:
        check_count(steer.choices)
        asked, notices = inquiry(context, steer.picked, steer.question, steer.own_choices)
        total = context.models.tokens((asked.image.height, asked.image.width))
        plans = tuple(choice.plan(total) for choice in steer.choices)
        job = context.jobs.submit(Asked(asked, plans, context.models.default, steer.seed, notices), owner or "")
    except ModelUnavailable as error:
        return Follow(notice=str(error_notice(explain(error))), job="")
    except Exception as error:  # one sentence instead of a trace, and the page stays as it was
        return Follow(notice=str(error_notice(explain(error))))
    line = pieces.job_line(None, job, None, context.store.queue_position(job.id))
    return Follow(notice="", job=str(line), job_id=job.id, button=run_button(ready=True, busy=True))


def follow(
    context: Context, job_id: str, comparison_id: str, signature: str, owner: str | None, *, dark: bool
) -> Follow:
    """One look at a job: fill the panes that are new, say how far it is, and stop looking when it is over."""
    if not is_id(job_id):
        return Follow(job="", job_id="", button=run_button(ready=True, busy=False))
    try:
        job = context.store.job(job_id, owner)
        shown = load(context, job.comparison)
    except NotFound as error:
        return Follow(
            notice=str(error_notice(explain(error))), job="", job_id="", button=run_button(ready=True, busy=False)
        )
    except Exception as error:
        return Follow(notice=str(error_notice(explain(error))))
    if job.is_over:
        printed = print_comparison(context, shown, dark=dark, frame=comparison_id != shown.comparison.id)
        words = str(estimate(context, len(shown.panes), shown.rows[0].facts.total, True, owner)) if shown.rows else None
        return Follow(_ended(job, shown), "", printed, "", run_button(ready=True, busy=False), words)
    line = str(pieces.job_line(shown, job, context.jobs.elapsed(job_id), context.store.queue_position(job_id)))
    if job.state == "queued" or all(pane.state == "waiting" for pane in shown.panes):
        return Follow(job=line)
    if comparison_id == shown.comparison.id and signature == shown.signature:
        return Follow(job=line)
    return Follow(
        job=line, printed=print_comparison(context, shown, dark=dark, frame=comparison_id != shown.comparison.id)
    )


def _ended(job: JobRow, shown: Shown) -> str:
    if job.state == "failed":
        return str(error_notice_of("The comparison failed.", job.message))
    if job.state == "cancelled":
        ready = "The strategies that were ready are shown and stored; the others were not run."
        return str(
            plain_notice("Cancelled.", ready if shown.rows else "Nothing was run to its end, and nothing is stored.")
        )
    return ""


def error_notice_of(title: str, text: str) -> Any:
    """An error banner from words that are already for people."""
    return error_notice(Message(title, text))


def cancel(context: Context, job_id: str, owner: str | None) -> str | None:
    """Ask a job to stop; returns a notice where that is not possible."""
    try:
        if is_id(job_id):
            context.jobs.cancel(job_id, owner)
    except Exception as error:
        return str(error_notice(explain(error)))
    return None


def open_address(
    context: Context, query: Mapping[str, str], owner: str | None, *, dark: bool
) -> tuple[Follow, Comparison | None]:
    """What an address asks for: a job, a comparison, a run; else the sample comparison; else the empty page."""
    map_state = {name: query[f"km_{name}"] for name in pieces.MAP_STATE if query.get(f"km_{name}")}
    notice = ""
    try:
        found = addressed(context, query)
        if found is not None:
            return _opened(context, found, owner, map_state, dark=dark), found.comparison
    except NotFound as error:
        notice = str(error_notice(explain(error)))
    except Exception as error:
        notice = str(error_notice(explain(error)))
    sample = sample_comparison(context)
    if sample is not None:
        opened = _opened(context, sample, owner, map_state if not notice else {}, dark=dark)
        return Follow(notice, "", opened.printed, "", None), sample.comparison
    return Follow(notice, "", print_empty(context, 0, ["strategies"]), "", None), None


def _opened(context: Context, shown: Shown, owner: str | None, map_state: dict[str, str], *, dark: bool) -> Follow:
    job = None if shown.is_over else context.jobs.of_comparison(shown.comparison.id)
    printed = print_comparison(context, shown, dark=dark, map_state=map_state)
    if job is None or (owner is not None and job.owner != owner):
        return Follow("", "", printed, "", None)
    line = str(pieces.job_line(shown, job, context.jobs.elapsed(job.id), context.store.queue_position(job.id)))
    return Follow("", line, printed, job.id, None)


def addressed(context: Context, query: Mapping[str, str]) -> Shown | None:
    """The comparison that an address names by ?comparison=, ?run= or ?job=; None where it names none.

    Raises:
        NotFound: it names one that is not there.
    """
    if query.get("job"):  # first: the address still names the comparison from before while a job waits
        return load(context, context.store.job(query["job"]).comparison)
    if query.get("comparison"):
        return load(context, query["comparison"])
    if query.get("run"):
        return load(context, comparison_of_run(context, query["run"]).id)
    return None


def comparison_of_run(context: Context, run_id: str) -> Comparison:
    """The comparison that shows a run: its own one, else a new one with this run alone.

    Raises:
        RunNotFound: there is no such run.
    """
    summary = context.store.summary(read_id(run_id, RunNotFound))
    if summary.comparison:
        try:
            return context.store.comparison(summary.comparison)
        except NotFound:
            pass
    return side_by_side(context, [run_id], summary.owner)


def sample_comparison(context: Context) -> Shown | None:
    """The first finished comparison that came with Keepmap."""
    for comparison in context.store.comparisons(owner="", limit=200):
        if comparison.is_sample:
            return load(context, comparison.id)
    return None


def redraw(context: Context, comparison_id: str, *, dark: bool) -> list[Any]:
    """Both charts after a change of theme."""
    try:
        shown = load(context, comparison_id)
    except NotFound:
        return [gr.skip(), gr.skip()]
    return draw(shown, dark=dark) if shown.is_over and shown.rows else [gr.skip(), gr.skip()]


def open_stored(
    context: Context, data: Mapping[str, Any], owner: str | None, *, dark: bool
) -> tuple[Follow, Comparison | None, str]:
    """A press in the list of runs: open one, ask it again, or show several side by side; the last value is a notice."""
    try:
        if data.get("act") == "compare":
            runs = [part for part in str(data.get("runs", "")).split(",") if part]
            comparison = side_by_side(context, runs, owner or "")
        else:
            comparison = comparison_of_run(context, str(data.get("run", "")))
        shown = load(context, comparison.id)
    except Exception as error:
        return Follow(), None, str(error_notice(explain(error)))
    return _opened(context, shown, owner, {}, dark=dark), comparison, ""
