"""What the rail shows for a state: escaped pieces and component updates; no event is wired here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from analysis.errors import AnalysisError
from compression.errors import CompressionError
from compression.strategies import CATALOGUE
from compression.tokens import Signal
from dashboard.context import Context
from dashboard.ground import image_words
from dashboard.markup import EMPTY, LETTERS, button, join, task_words
from dashboard.messages import Message, explain
from dashboard.pages.asking import Picked, known_about
from dashboard.pages.choice import FEWEST, MOST, Choice, offered, write_strategies
from storage import StorageError

PARTS = 7  # components of a row that a handler writes


def provides(context: Context) -> frozenset[Signal] | None:
    """What the model provides; None while it is not loaded."""
    return context.models.get().provides if context.models.is_ready() else None


def gallery(context: Context, picked: Picked) -> Markup:
    """The sample scenes as buttons, the chosen one pressed; an own image stands first."""
    tiles = []
    if picked.sample is None:
        tiles.append(
            Markup(
                '<button type="button" data-act="own" aria-pressed="true" aria-label="{}" title="{}"><img alt="" '
                'src="/uploads/{}.png"></button>'
            ).format(picked.name, picked.name, picked.digest)
        )
    tiles += [
        Markup(
            '<button type="button" data-act="sample" data-index="{}" aria-pressed="{}" aria-label="{}" title="{}">'
            '<img alt="" src="/samples/{}.png"></button>'
        ).format(
            index,
            "true" if picked.sample == index else "false",
            context.samples[index].label,
            context.samples[index].label,
            index,
        )
        for index in range(len(context.samples))
    ]
    return Markup('<h2 class="head">Image <small>{}</small></h2><div class="gallery">{}</div>').format(
        picked.title(context), join(tiles)
    )


def toggle(context: Context, picked: Picked, count: int) -> Markup:
    """The fold of the rail on a narrow page: what is chosen, and the word that opens it."""
    words = {2: "two", 3: "three", 4: "four"}
    source = f"/samples/{picked.sample}.png" if picked.sample is not None else f"/uploads/{picked.digest}.png"
    return Markup(
        '<button type="button" class="rail-toggle" data-km="rail" aria-expanded="false" aria-controls="rail"><img '
        'alt="" src="{}">'
        "<span>{}, {} strategies<small>Image, question, strategies</small></span><b>Change</b></button>"
    ).format(source, picked.title(context), words.get(count, count))


def image_note(context: Context, picked: Picked) -> Markup:
    """The facts of an own image, or that it is gone; a sample says them in the title soon enough."""
    if picked.sample is not None:
        return EMPTY
    try:
        return Markup('<p class="under">{}</p>').format(", ".join(image_words(picked.open(context))[1:]))
    except (AnalysisError, StorageError) as error:
        return Markup('<p class="under bad" role="alert">{}</p>').format(explain(error).text)


def question_head(task: str) -> Markup:
    """The heading of the question, with its kind where it is known."""
    return Markup('<h2 class="head">Question <small>{}</small></h2>').format(task_words(task))


def question_note(context: Context, picked: Picked, question: str, own_choices: str) -> tuple[Markup, str, bool]:
    """What is known about the words: the note under the field, the task, and whether it can be asked."""
    if not question.strip():
        return (
            Markup(
                '<p class="under">Questions for this image come with their choices and, where it is known, the right '
                "answer.</p>"
            ),
            "",
            False,
        )
    if not context.models.is_ready():
        return (
            Markup('<p class="under">The model is being loaded; its words are checked when you compare.</p>'),
            "",
            True,
        )
    try:
        known = known_about(context, picked, question, own_choices)
    except (CompressionError, AnalysisError, StorageError, ValueError) as error:
        return Markup('<p class="under bad" role="alert">{}</p>').format(explain(error).text), "", False
    parts = []
    if known.choices:
        parts.append(Markup('<p class="under">Choices: <b>{}</b></p>').format(", ".join(known.choices)))
    else:
        parts.append(Markup('<p class="under">No choices: the five likeliest words are shown.</p>'))
    parts += [Markup('<p class="under warn" role="status">{}</p>').format(note) for note in known.notices]
    return join(parts), known.task, True


def text_note(message: Message) -> Markup:
    """What is wrong with the text of strategies, under it."""
    return Markup('<p class="under bad" role="alert">{}</p>').format(message.text)


def row_updates(
    context: Context, choices: Sequence[Choice], total: int, picked: Picked | None = None, *, sliders: bool = True
) -> list[Any]:
    """Updates for all rows: those in use, the rest hidden. Without sliders, nothing moves under the user's thumb."""
    menu = offered(provides(context))
    updates: list[Any] = []
    for position in range(MOST):
        if position >= len(choices):
            updates += [gr.update(visible=False), *[gr.skip()] * (PARTS - 1)]
            continue
        choice = choices[position]
        bare = choice.keeps_all or (choice.router and choice.info.adaptive)
        slider = gr.update(
            value=min(choice.count, total),
            maximum=total,
            visible=not bare,
            step=1 if total <= 2048 else max(1, total // 1024),
        )
        updates += [
            gr.update(visible=True),
            gr.update(choices=menu, value=choice.name) if sliders else gr.skip(),
            str(readout(choice, total)),
            slider if sliders else gr.skip(),
            gr.update(visible=choice.info.adaptive, value=choice.router, label=choice.info.without_budget.capitalize())
            if sliders
            else gr.skip(),
            str(hint(context, choice, total, position, picked)),
            choice.written,
        ]
    return updates


def readout(choice: Choice, total: int) -> Markup:
    """The budget in words: "64 of 256"."""
    if choice.keeps_all:
        return Markup("<output>{}</output>").format(f"{total:,}")
    if choice.router and choice.info.adaptive:
        return Markup("<output>of {}</output>").format(f"{total:,}")
    return Markup('<output data-total="{}">{} of {}</output>').format(total, f"{choice.count:,}", f"{total:,}")


def hint(context: Context, choice: Choice, total: int, position: int, picked: Picked | None = None) -> Markup:
    """Under a row: what needs saying, above all a budget that cannot be reached on the image."""
    parts = []
    if choice.keeps_all:
        parts.append(Markup("<p>keeps everything, the reference</p>"))
    if choice.before:
        parts.append(Markup("<p>after {}</p>").format(" + ".join(CATALOGUE.split(choice.before))))
    if choice.parameters:
        parts.append(Markup("<p>{}</p>").format(choice.parameters.replace(",", ", ")))
    if not choice.keeps_all and not (choice.router and choice.info.adaptive):
        lowest = choice.lowest(total, context.models, _size(context, picked) if choice.looks else None)
        if choice.count < lowest:
            mend = button(
                f"use {lowest:,}",
                "lowest",
                quiet=True,
                pane=position,
                tokens=lowest,
                label=f"Use {lowest} tokens for strategy {LETTERS[position]}",
            )
            parts.append(
                Markup('<p class="bad" role="alert">at least {} of {} for this strategy · {}</p>').format(
                    f"{lowest:,}", f"{total:,}", mend
                )
            )
    return join(parts)


def _size(context: Context, picked: Picked | None) -> tuple[int, int] | None:
    """The size of the image; None where it is gone, which is said under the image."""
    try:
        return None if picked is None else picked.size(context)
    except (AnalysisError, StorageError):
        return None


def more_updates(count: int) -> list[Any]:
    """The buttons that add and take away a row."""
    last = LETTERS[max(0, count - 1)]
    return [gr.update(visible=count < MOST), gr.update(visible=count > FEWEST, value=f"Remove {last}")]


def text_of(choices: Sequence[Choice], total: int) -> str:
    """The rows as strategy text."""
    return write_strategies(choices, total)


def estimate(context: Context, strategies: int, total: int, ready: bool, owner: str | None) -> Markup:
    """Under the button: how long it will take, from earlier runs of this model on this server, or what is missing."""
    if not ready:
        return Markup('<p class="under">Choose a question first</p>')
    if not context.models.is_ready():
        return Markup('<p class="under">The model is loaded first, about five seconds</p>')
    recent = context.store.find(model=context.models.get().card.name, owner=owner, limit=24)
    usable = [run for run in recent if run.tokens_total > 0]
    if not usable:
        return Markup('<p class="under">The first comparison will tell how long this takes</p>')
    device = context.models.where().rpartition(" · ")[2]
    per_token = sorted(_seconds(run) / run.tokens_total for run in usable)[len(usable) // 2]
    passes = context.settings.repeats + 2
    seconds = per_token * total * passes * max(1, strategies)
    words = (
        f"about {seconds:.1f} s"
        if seconds < 10
        else f"about {seconds:.0f} s"
        if seconds < 90
        else f"about {seconds / 60:.0f} min"
    )
    return Markup('<p class="under">{} on this {}</p>').format(words, device)


def _seconds(run: Any) -> float:
    return sum(
        part or 0.0 for part in (run.encode_seconds, run.compress_seconds, run.prefill_seconds, run.decode_seconds)
    )
