"""Answers that are stored already: the same request of the same visitor is offered instead of asked again."""

from __future__ import annotations

from markupsafe import Markup

from analysis.errors import AnalysisError
from analysis.pipeline import RECORD_ALL, request_for
from compression.errors import CompressionError
from dashboard.context import Context
from dashboard.errors import DashboardError
from dashboard.markup import EMPTY, button
from dashboard.pages.asking import inquiry
from dashboard.pages.steer import Steer
from storage import StorageError


def earlier_runs(context: Context, steer: Steer, owner: str | None) -> tuple[str, ...]:
    """The newest stored run of each strategy, in their order; empty unless all of them were asked before."""
    if not steer.question.strip() or not context.models.is_ready():
        return ()
    vlm = context.models.get()
    try:
        asked, _ = inquiry(context, steer.picked, steer.question, steer.own_choices)
        prompt = vlm.prompt(asked.question, asked.choices)
        found = []
        for choice in steer.choices:
            request = request_for(asked, choice.plan(steer.total), vlm, prompt, seed=steer.seed, record=RECORD_ALL)
            runs = context.store.find(request=request.digest, owner=owner, limit=1)
            if not runs:
                return ()
            found.append(runs[0].run)
    except (AnalysisError, CompressionError, DashboardError, StorageError):
        return ()  # what is wrong with the question is said where it is asked
    return tuple(found)


def _on_screen(context: Context, steer: Steer) -> set[str]:
    try:
        return {pane.run for pane in context.store.comparison(steer.on_screen).panes if pane.run is not None}
    except StorageError:
        return set()


def earlier_note(context: Context, steer: Steer, owner: str | None) -> Markup:
    """The offer under the Compare button; none where these answers are on screen already."""
    runs = earlier_runs(context, steer, owner)
    if not runs or set(runs) <= _on_screen(context, steer):
        return EMPTY
    show = button("show the stored answers", "compare", quiet=True, runs=",".join(runs))
    return Markup('<p class="under">Asked before: {}</p>').format(show)
