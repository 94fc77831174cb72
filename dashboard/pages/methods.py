"""The Methods tab: what each strategy does, from its own declaration, and the models there are."""

from __future__ import annotations

import re

import gradio as gr
from markupsafe import Markup

from compression.backends import KnownModel, known_models
from compression.compressor import Parameter, Stage, Strategy
from compression.strategies import CATALOGUE
from compression.tokens import SIGNALS
from dashboard.markup import EMPTY, join


def build_methods() -> None:
    """Lay the tab out; it depends on the code only, so it is written once."""
    gr.HTML(str(methods_markup()), elem_id="methods-page", padding=False, apply_default_css=False, js_on_load=None)


def methods_markup() -> Markup:
    """The whole tab."""
    kinds = list(CATALOGUE)
    contents = join(
        Markup('<li><a href="#method-{}">{}</a></li>').format(kind.info.name, kind.info.title) for kind in kinds
    )
    return Markup(
        '<div class="methods"><div class="title"><div><h1>Methods</h1><p>What each strategy does, where it acts, '
        "what it needs, and where this "
        "implementation differs from its paper. The text is the code's own.</p></div></div><nav "
        'aria-label="Strategies"><ul class="contents">{}'
        '<li><a href="#models">Models</a></li></ul></nav>{}{}</div>'
    ).format(contents, join(method(kind) for kind in kinds), models(known_models()))


def method(kind: type[Strategy]) -> Markup:
    """One strategy: its sentence, its declaration, its parameters, its deviations, its source."""
    info = kind.info
    first, *rest = paragraphs(kind.description())
    body = join(Markup("<p>{}</p>").format(text) for text in rest)
    needs = "; ".join(info.needs_words(lambda signal: SIGNALS[signal].title)) or "nothing but the tokens"
    facts = [("Acts", _WHERE[info.stage]), ("Does", _does(info.reduces)), ("Needs", needs), ("Budget", _budget(kind))]
    if info.score:
        facts.append(("Score", info.score))
    if info.paper:
        facts.append(("Source", info.paper))
    rows = join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, text) for name, text in facts)
    labels = join(
        Markup('<span class="label{}">{}</span>').format("" if "reconstruction" in label else " plain", label)
        for label in info.labels
    )
    return Markup(
        '<article class="method" id="method-{}"><header><h2>{}</h2><code class="mono">{}</code>{}</header><p '
        'class="lead">{}</p>'
        '<div class="method-body"><div class="prose-km">{}{}</div><dl class="declared">{}</dl></div>{}</article>'
    ).format(
        info.name,
        info.title,
        info.name,
        labels,
        first,
        body,
        _deviations(info.deviations),
        rows,
        _parameters(info.parameters),
    )


_WHERE = {
    Stage.ENCODING: "on the image: what the encoder reads, or inside it",
    Stage.ZOOM: "on the image, in turns",
    Stage.ENCODER: "before the language model, once",
    Stage.DECODER: "inside the language model, before one of its layers",
}


def paragraphs(text: str) -> list[str]:
    """A docstring as paragraphs, without the passages that the declaration says in a list: deviations and source."""
    parts = [
        re.sub(r"\s+", " ", part).strip()
        for part in re.split(r"\n\s*\n|\n(?=(?:Score|Differs from the paper|Source|Args|Raises):)", text)
    ]
    return [part for part in parts if part and not re.match(r"(Source|Differs from the paper|Args|Raises):", part)] or [
        ""
    ]


def _does(reduces: str) -> str:
    return {
        "nothing": "keeps every token",
        "prunes": "drops tokens",
        "merges": "merges tokens",
        "prunes and merges": "drops and merges tokens",
        "encodes fewer": "makes fewer tokens of the image",
    }.get(reduces, reduces)


def _budget(kind: type[Strategy]) -> str:
    if kind.info.reduces == "nothing":
        return "all tokens"
    return (
        {"no limit": "asked, or no limit"}.get(kind.info.without_budget, "asked, or left to its router")
        if kind.info.adaptive
        else "asked; a mean over the layers"
        if kind.info.stage is Stage.DECODER
        else "asked"
    )


def _deviations(deviations: tuple[str, ...]) -> Markup:
    if not deviations:
        return EMPTY
    return Markup("<h3>Differs from the paper</h3><ul>{}</ul>").format(
        join(Markup("<li>{}</li>").format(text) for text in deviations)
    )


def _parameters(parameters: tuple[Parameter, ...]) -> Markup:
    if not parameters:
        return EMPTY
    rows = join(
        Markup(
            '<tr><th scope="row" class="mono">{}</th><td class="l">{}</td><td class="l">{}</td><td '
            'class="l">{}{}</td></tr>'
        ).format(
            item.name,
            "chosen by the method" if item.default is None else item.format(item.default),
            item.allowed(),
            item.meaning,
            Markup(' <span class="label">reconstructed</span>') if item.reconstructed else EMPTY,
        )
        for item in parameters
    )
    return Markup(
        '<div class="tablewrap" tabindex="0" role="region" aria-label="Parameters"><table class="km-table '
        'parameters"><thead><tr><th scope="col" class="l">Parameter</th>'
        '<th scope="col" class="l">Default</th><th scope="col" class="l">Allowed</th><th scope="col" '
        'class="l">Meaning</th></tr></thead><tbody>{}</tbody></table></div>'
    ).format(rows)


def models(known: tuple[KnownModel, ...]) -> Markup:
    """The table of models that are offered by name."""
    rows = join(
        Markup(
            '<tr><th scope="row">{}</th><td class="l mono">{}</td><td class="l">{}</td><td class="l">{}</td><td '
            'class="l">{}</td></tr>'
        ).format(model.title, model.name, model.family, model.source, model.needs)
        for model in known
    )
    return Markup(
        '<article class="method" id="models"><header><h2>Models</h2></header><p class="lead">The server answers with '
        "the one it was started with: keepmap serve --model NAME. "
        "Any LLaVA-1.5, LLaVA-NeXT, LLaVA-OneVision, InternVL3, Qwen2.5-VL, Qwen3-VL, Idefics3 or SmolVLM checkpoint "
        "works, by its folder or its hub id; a strategy that needs what a model cannot give (the query of [CLS] where "
        'the tower has none) is refused with the reason.</p><div class="tablewrap" tabindex="0" '
        'role="region" aria-label="Models"><table class="km-table parameters">'
        '<thead><tr><th scope="col" class="l">Model</th><th scope="col" class="l">Name</th><th scope="col" '
        'class="l">Family</th><th scope="col" class="l">Weights</th>'
        '<th scope="col" class="l">Needs</th></tr></thead><tbody>{}</tbody></table></div></article>'
    ).format(rows)
