"""The quiet rail beside the maps: image, question, strategies, and the button. Layout only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from compression.backends.wording import MOST_CHARACTERS
from dashboard.markup import key
from dashboard.pages.choice import MOST
from dashboard.settings import LARGEST_SEED

ACT = "window.keepmap.acts(element, trigger)"
"""Sends presses of [data-act] inside an HTML component to its click event, with all data- attributes (pages.js)."""


@dataclass(frozen=True)
class Row:
    """The components of one strategy."""

    box: gr.Row
    name: gr.Dropdown
    readout: gr.HTML
    budget: gr.Slider
    router: gr.Checkbox
    hint: gr.HTML
    parameters: gr.Textbox

    @property
    def values(self) -> list[Any]:
        """What a handler reads of a row."""
        return [self.name, self.budget, self.router, self.parameters]

    @property
    def shown(self) -> list[Any]:
        """What a handler writes of a row."""
        return [self.box, self.name, self.readout, self.budget, self.router, self.hint, self.parameters]


@dataclass(frozen=True)
class Rail:
    """The components of the rail."""

    gallery: gr.HTML
    upload: gr.UploadButton
    image_note: gr.HTML
    question_head: gr.HTML
    templates: gr.Dropdown
    question: gr.Textbox
    choices: gr.HTML
    rows: tuple[Row, ...]
    add: gr.Button
    remove: gr.Button
    text: gr.Textbox
    apply: gr.Button
    text_note: gr.HTML
    own_choices: gr.Textbox
    seed: gr.Number
    run: gr.Button
    estimate: gr.HTML
    picked: gr.Textbox  # which image, as `Picked` writes it
    shown_rows: gr.Number  # how many rows are in use
    total: gr.Number  # visual tokens of the image

    @property
    def everything(self) -> list[Any]:
        """What `steering.everything` writes, after the fold's words."""
        return [
            self.gallery,
            self.image_note,
            self.question_head,
            self.templates,
            self.question,
            self.choices,
            *self.row_parts,
            self.add,
            self.remove,
            self.text,
            self.own_choices,
            self.run,
            self.estimate,
            self.picked,
            self.shown_rows,
            self.total,
        ]

    @property
    def held(self) -> list[Any]:
        """What `Steer.read` reads, after the comparison on screen."""
        return [
            self.picked,
            self.question,
            self.own_choices,
            self.seed,
            self.shown_rows,
            self.total,
            *self.row_values,
        ]

    @property
    def row_values(self) -> list[Any]:
        """All rows' values, one after the other."""
        return [part for row in self.rows for part in row.values]

    @property
    def row_parts(self) -> list[Any]:
        """All rows' components, one after the other."""
        return [part for row in self.rows for part in row.shown]


def html(elem_id: str = "", classes: str = "", *, acts: bool = False, value: str = "", script: str = "") -> gr.HTML:
    """Our own escaped markup, without Gradio's prose styles.

    Args:
        acts: Whether presses of [data-act] inside it are sent as its click event.
        script: A call into pages.js instead, for what listens to more.
    """
    return gr.HTML(
        value,
        elem_id=elem_id or None,
        elem_classes=classes or None,
        padding=False,
        container=False,
        apply_default_css=False,
        js_on_load=script or (ACT if acts else None),
    )


def kept(elem_id: str = "") -> gr.Textbox:
    """A value that the browser keeps and nobody sees: ids only.

    Not a gr.State: that would hold a connection open for every page.
    """
    return gr.Textbox("", visible=False, elem_id=elem_id or None, container=False)


def build_rail() -> Rail:
    """Lay the rail out, empty; what it shows is filled in when the page loads."""
    with gr.Column(scale=0, min_width=284, elem_id="rail"):
        gallery = html("gallery", acts=True)
        upload = gr.UploadButton("Upload an image", elem_id="upload", size="sm", variant="secondary")
        image_note = html("image-note")
        question_head = html("question-head")
        with gr.Column(elem_classes="asked", min_width=0):
            question = gr.Textbox(
                label="Question",
                show_label=False,
                lines=2,
                max_lines=4,
                max_length=MOST_CHARACTERS,
                elem_id="question",
                placeholder="Choose or write a question",
                container=False,
            )
            templates = gr.Dropdown(
                choices=[],
                value=None,
                label="Questions to choose from",
                show_label=False,
                elem_id="templates",
                container=False,
                filterable=True,
                # The list changes with the image while the browser still holds a question of the one before.
                allow_custom_value=True,
                interactive=True,
            )
        choices = html("choices", acts=True)
        gr.HTML(
            '<h2 class="head">Strategies <small>2 to 4</small></h2>',
            padding=False,
            apply_default_css=False,
            js_on_load=None,
            elem_id="strategies-head",
        )
        rows = tuple(_row(position) for position in range(MOST))
        with gr.Row(elem_id="more"):
            add = gr.Button("Add a strategy", elem_id="add", elem_classes="quiet", size="sm", min_width=0)
            remove = gr.Button("Remove", elem_id="remove", elem_classes="quiet", size="sm", min_width=0)
        with gr.Accordion("Advanced", open=False, elem_id="advanced"):
            text = gr.Textbox(
                label="Strategies as text",
                info="One a line: name:parameter=value@budget, steps joined by +",
                lines=3,
                max_lines=4,
                elem_id="strategy-text",
                max_length=1200,
            )
            apply = gr.Button("Use this text", elem_classes="quiet", size="sm", min_width=0)
            text_note = html("text-note")
            own_choices = gr.Textbox(
                label="Answers to choose from",
                info="Separated by commas; empty for the question's own",
                elem_id="own-choices",
                max_length=400,
            )
            seed = gr.Number(
                label="Seed", value=0, precision=0, minimum=0, maximum=LARGEST_SEED, elem_id="seed", buttons=[]
            )
        with gr.Column(elem_id="go"):
            run = gr.Button("Compare", variant="primary", elem_id="run")
            estimate = html("estimate", acts=True)
    return Rail(
        gallery,
        upload,
        image_note,
        question_head,
        templates,
        question,
        choices,
        rows,
        add,
        remove,
        text,
        apply,
        text_note,
        own_choices,
        seed,
        run,
        estimate,
        picked=kept("picked"),
        shown_rows=gr.Number(3, visible=False),
        total=gr.Number(256, visible=False),
    )


def _row(position: int) -> Row:
    with gr.Row(elem_classes="strat", elem_id=f"strategy-{position}", visible=position < 3) as box:
        gr.HTML(
            str(key(position)),
            padding=False,
            apply_default_css=False,
            js_on_load=None,
            elem_classes="letter",
        )
        letter = "ABCD"[position]
        name = gr.Dropdown(
            choices=[],
            label=f"Strategy {letter}",
            show_label=False,
            elem_classes="name",
            container=False,
            filterable=False,
            interactive=True,
            min_width=0,
        )
        readout = html(classes="readout")
        budget = gr.Slider(
            1,
            256,
            value=64,
            step=1,
            label=f"Budget of strategy {letter}, visual tokens",
            show_label=False,
            elem_classes="budget",
            buttons=[],
            container=False,
            interactive=True,
            min_width=0,
        )
        router = gr.Checkbox(
            False,
            label="Router chooses",
            elem_classes="router",
            container=False,
            interactive=True,
            min_width=0,
            visible=False,
        )
        hint = html(classes="hint", acts=True)
        parameters = kept()
    return Row(box, name, readout, budget, router, hint, parameters)
