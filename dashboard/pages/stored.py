"""Stored runs: found by filters, opened, put side by side, deleted; all from the store, no model is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.run import Run, new_id, utc_now
from dashboard.context import Context
from dashboard.errors import NotComparable
from dashboard.pages.choice import FEWEST, MOST
from dashboard.visitors import is_id, read_id
from storage import Comparison, NotFound, Pane, RunNotFound, RunSummary

PAGE = 20


@dataclass(frozen=True)
class Filters:
    """What the list is narrowed to; empty fields narrow nothing.

    Args:
        text: Words of the question, the answer or the image's name.
        correct: "right", "wrong", or "" for all.
        page: From 0.
    """

    text: str = ""
    strategy: str = ""
    model: str = ""
    task: str = ""
    correct: str = ""
    page: int = 0

    @property
    def is_correct(self) -> bool | None:
        """As the store takes it."""
        return {"right": True, "wrong": False}.get(self.correct)


@dataclass(frozen=True)
class Listed:
    """One page of the list: its runs, how many there are in all, and the filters."""

    runs: tuple[RunSummary, ...]
    count: int
    filters: Filters

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.count // PAGE))


def find(context: Context, filters: Filters, owner: str | None) -> Listed:
    """A page of the visitor's runs and the samples, newest first; a page past the end is the last one."""
    wanted = {"text": filters.text.strip(), "strategy": filters.strategy, "model": filters.model, "task": filters.task}
    count = context.store.count(**wanted, correct=filters.is_correct, owner=owner)
    page = min(max(0, filters.page), max(0, -(-count // PAGE) - 1))
    runs = context.store.find(**wanted, correct=filters.is_correct, owner=owner, limit=PAGE, offset=page * PAGE)
    return Listed(tuple(runs), count, Filters(**{**filters.__dict__, "page": page}))


def side_by_side(context: Context, run_ids: Sequence[str], owner: str) -> Comparison:
    """A comparison of stored runs of one image and one question: the one they were made in, or a new one.

    Raises:
        NotComparable: too many runs, or of different images or questions.
        RunNotFound: one is not there.
    """
    wanted = list(dict.fromkeys(run_id for run_id in run_ids if is_id(run_id)))
    if not 1 <= len(wanted) <= MOST:
        raise NotComparable(f"{FEWEST} to {MOST} runs are shown side by side, got {len(wanted)}; choose as many")
    runs = [context.store.get(run_id) for run_id in wanted]
    _check_same(runs)
    first = runs[0]
    if (existing := _comparison_of(context, first)) and [pane.run for pane in existing.panes] == wanted:
        return existing
    comparison = Comparison(
        id=new_id(),
        created_utc=utc_now(),
        image=first.request.image,
        question=first.request.question,
        choices=first.request.choices,
        expected=first.answer.expected,
        evidence=first.evidence,
        family=first.family,
        task=first.task,
        model=first.request.model.name,
        panes=tuple(Pane(strategy=run.request.strategy, run=run.id, state="done") for run in runs),
        owner=owner,
    )
    context.store.add_comparison(comparison, owner)
    return comparison


def _comparison_of(context: Context, run: Run) -> Comparison | None:
    """The comparison that a run was made in, unless it was deleted."""
    try:
        return context.store.comparison(run.comparison) if run.comparison else None
    except NotFound:
        return None


def _check_same(runs: Sequence[Run]) -> None:
    images = {run.request.image.digest for run in runs}
    if len(images) > 1:
        names = ", ".join(sorted({run.request.image.name for run in runs}))
        raise NotComparable(
            f"maps are synchronised over one image, got runs of {len(images)} images ({names}); choose runs of one "
            f"image"
        )
    questions = sorted({run.request.question for run in runs})
    if len(questions) > 1:
        raise NotComparable(
            f"answers are compared for one question, got {len(questions)}: {' / '.join(questions)}; choose runs of "
            f"one question"
        )


def delete(context: Context, run_id: str, owner: str | None) -> None:
    """Delete a run; its pane in a comparison says so.

    Raises:
        RunNotFound: there is none, or it is another visitor's or a sample.
    """
    context.store.delete(read_id(run_id, RunNotFound), owner)


def values_of(context: Context, owner: str | None) -> tuple[list[str], list[str], list[str]]:
    """Strategies, models and tasks that occur among the newest runs, for the filters."""
    runs = context.store.find(owner=owner, limit=1000)
    return tuple(
        sorted({getattr(run, name) for run in runs if getattr(run, name)})
        for name in ("strategy_name", "model", "task")
    )  # type: ignore[return-value]
