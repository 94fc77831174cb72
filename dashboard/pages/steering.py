"""Handlers of the rail: plain functions from what the components hold to what they show next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from analysis.pipeline import open_image
from compression.errors import CompressionError
from dashboard.context import Context
from dashboard.errors import InvalidInquiry
from dashboard.markup import EMPTY
from dashboard.messages import explain, explain_upload
from dashboard.pages import rail_view as view
from dashboard.pages import shown as pieces
from dashboard.pages.asking import Picked, questions_for
from dashboard.pages.choice import FEWEST, MOST, first_choices, read_strategies, read_strategy, rescaled
from dashboard.pages.earlier import earlier_note
from dashboard.pages.notices import upload_notice
from dashboard.pages.steer import Steer
from storage import Comparison

LONGEST_NAME = 120


def start_of(context: Context, comparison: Comparison | None) -> Steer:
    """What the rail starts with: what a comparison asked, or a sample without a question."""
    if comparison is not None:
        return steer_of(context, comparison)
    picked = Picked(sample=0)
    total = total_of(context, picked)
    return Steer(picked, "", "", first_choices(total, view.provides(context)), total)


def steer_of(context: Context, comparison: Comparison) -> Steer:
    """The rail as it was when a comparison was asked; strategies that are not known here any more are left out."""
    picked = Picked.of(comparison.image, context)
    total = total_of(context, picked, (comparison.image.height, comparison.image.width))
    choices = []
    for pane in comparison.panes[:MOST]:
        try:
            choices.append(read_strategy(pane.strategy, total))
        except CompressionError:
            continue
    if len(choices) < FEWEST:
        choices = list(first_choices(total, view.provides(context)))
    own = own_choices_of(context, comparison)
    return Steer(picked, comparison.question, own, tuple(choices), total, on_screen=comparison.id)


def own_choices_of(context: Context, comparison: Comparison) -> str:
    """The answers that a user gave, as typed; "" where they are the question's own."""
    if not context.models.is_ready() or not comparison.choices:
        return ""
    try:
        usual = context.models.get().prompt(comparison.question).choices
    except CompressionError:
        usual = ()
    return "" if comparison.choices == usual else ", ".join(comparison.choices)


def total_of(context: Context, picked: Picked, size: tuple[int, int] | None = None) -> int:
    """Visual tokens of the image under the model; 256 while the model is not loaded."""
    if not context.models.is_ready():
        return 256
    return context.models.tokens(size or picked.size(context))


def everything(context: Context, steer: Steer, owner: str | None, *, busy: bool = False) -> list[Any]:
    """Updates for all of `Rail.everything`."""
    note, task, ready = view.question_note(context, steer.picked, steer.question, steer.own_choices)
    return [
        str(view.toggle(context, steer.picked, len(steer.choices))),
        str(view.gallery(context, steer.picked)),
        str(view.image_note(context, steer.picked)),
        str(view.question_head(task)),
        gr.update(choices=questions_for(context, steer.picked), value=None),
        steer.question,
        str(note),
        *view.row_updates(context, steer.choices, steer.total, steer.picked),
        *view.more_updates(len(steer.choices)),
        view.text_of(steer.choices, steer.total),
        steer.own_choices,
        run_button(ready=ready, busy=busy),
        under_button(context, steer, ready, owner),
        str(steer.picked),
        len(steer.choices),
        steer.total,
    ]


def run_button(*, ready: bool, busy: bool) -> Any:
    """The Compare button: at rest, not possible yet, or at work."""
    return gr.update(value="Running…" if busy else "Compare", interactive=ready and not busy)


def under_button(context: Context, steer: Steer, ready: bool, owner: str | None) -> str:
    """How long it will take, and the stored answers where all of it was asked before."""
    note = earlier_note(context, steer, owner) if ready else EMPTY
    return str(view.estimate(context, len(steer.choices), steer.total, ready, owner) + note)


def pick_sample(context: Context, steer: Steer, index: int, owner: str | None) -> list[Any]:
    """Another scene: its questions, the first one asked unless the user wrote an own one."""
    if not 0 <= index < len(context.samples):
        return [gr.skip()] * size_of_everything()
    picked = Picked(sample=index)
    questions = questions_for(context, picked)
    question = steer.question if is_own(context, steer) else questions[0]
    return everything(context, _moved(context, steer, picked, question), owner)


def is_own(context: Context, steer: Steer) -> bool:
    """Whether the user wrote the question: one that came with an image goes with it."""
    offered = steer.question in questions_for(context, steer.picked) or context.samples.knows(steer.question)
    return bool(steer.question.strip()) and not offered


def pick_upload(context: Context, steer: Steer, path: str, owner: str | None) -> tuple[str, list[Any]]:
    """An own image: judged by its content and kept. Returns the notice, and the rail as it then is."""
    name = Path(path).name[:LONGEST_NAME]
    try:
        open_image(Path(path), name=name)
        digest = context.store.put_image(Path(path))
        picked = Picked(digest=digest, name=name)
        question = steer.question if is_own(context, steer) else ""
        return "", everything(context, _moved(context, steer, picked, question), owner)
    except Exception as error:  # whatever a visitor sends, the page says what was wrong and stays as it was
        return str(upload_notice(explain_upload(error, name))), [gr.skip()] * size_of_everything()


def _moved(context: Context, steer: Steer, picked: Picked, question: str) -> Steer:
    total = total_of(context, picked)
    return Steer(
        picked,
        question,
        steer.own_choices,
        tuple(rescaled(choice, steer.total, total) for choice in steer.choices),
        total,
    )


def question_changed(context: Context, steer: Steer, owner: str | None) -> list[Any]:
    """Other words: head, note, button, estimate."""
    note, task, ready = view.question_note(context, steer.picked, steer.question, steer.own_choices)
    return [
        str(view.question_head(task)),
        str(note),
        run_button(ready=ready, busy=False),
        under_button(context, steer, ready, owner),
    ]


def rows_changed(context: Context, steer: Steer, owner: str | None, *, sliders: bool = True) -> list[Any]:
    """Other strategies or budgets: rows, buttons, text, estimate, number of rows, and the fold's words."""
    ready = bool(steer.question.strip())
    return [
        *view.row_updates(context, steer.choices, steer.total, steer.picked, sliders=sliders),
        *view.more_updates(len(steer.choices)),
        view.text_of(steer.choices, steer.total),
        under_button(context, steer, ready, owner),
        len(steer.choices),
        str(view.toggle(context, steer.picked, len(steer.choices))),
    ]


def written(context: Context, steer: Steer, text: str, owner: str | None) -> tuple[str, list[Any]]:
    """The strategies as the text says. Returns a note, and the rows; a text that cannot be read changes nothing."""
    try:
        choices = read_strategies(text or "", steer.total)
    except (CompressionError, InvalidInquiry) as error:
        return str(view.text_note(explain(error))), [gr.skip()] * size_of_rows()
    return "", rows_changed(context, replace(steer, choices=choices), owner)


def empty_page(context: Context, steer: Steer) -> str:
    """The page before anything was asked, with what is chosen already."""
    ready = (["question"] if steer.question.strip() else []) + (["strategies"] if len(steer.choices) >= FEWEST else [])
    picked = steer.picked
    return str(
        pieces.empty(context, picked.sample, ready)
        if picked.sample is not None
        else pieces.empty_own(picked.name, picked.digest, ready)
    )


def size_of_everything() -> int:
    """How many components `everything` writes."""
    return 7 + view.PARTS * MOST + 9


def size_of_rows() -> int:
    """How many components `rows_changed` writes."""
    return view.PARTS * MOST + 6
