"""Free text brought onto the templates."""

from __future__ import annotations

import re
from dataclasses import dataclass

from compression.backends.embedded.prompts import split_options, with_options
from compression.backends.embedded.templates import TEMPLATES, Template, sentence
from compression.backends.embedded.textures import COLOUR_NAMES, TYPES
from compression.backends.embedded.vocabulary import LETTERS, VOCABULARY, tokenise_text


@dataclass(frozen=True)
class Match:
    """Free text brought onto a template.

    Attributes:
        text: the template's own wording of the question.
        task: name of the task.
        family: one of FAMILIES.
        choices: the answers the template offers.
        unknown: words of the text that the model does not know and that were left out.
    """

    text: str
    task: str
    family: str
    choices: tuple[str, ...]
    unknown: tuple[str, ...]


_ARTICLES = {"a", "the", "?"}
_KINDS = "|".join(TYPES)
# Turns of phrase → the templates' own, applied in this order to lower-case text.
_PHRASES = tuple(
    (re.compile(expression), wording)
    for expression, wording in (
        (r"\b(?:in|on) (?:the|this) (?:image|picture|photo|scene|map)\b", " "),
        (r"\b(?:please|exactly)\b", " "),
        (r"^\s*(?:(?:can|could) you (?:tell me|say) )", " "),
        (r"^\s*(?:do|can) (?:you|we|i) see (?:any )?", "is there "),
        (r"\b(?:is|are) there any\b", "is there"),
        (r"\b(?:can|do) (?:you|we|i) see\b", " "),
        (r"^\s*(?:what is the )?(?:number|count) of (.+?)\??$", r"how many \1 are there"),
        (rf"\bwhat is the colou?r of (?:the |a )?((?:{_KINDS})s?)\b", r"what colour is \1"),
        (rf"^\s*where is (?:the |a )?((?:{'|'.join(COLOUR_NAMES)}) (?:{_KINDS}))\W*$", r"in which quarter is \1"),
    )
)


def _bare(text: str) -> tuple[str, ...]:
    """A text's words in the templates' turns of phrase, without articles and question marks."""
    text = text.lower()
    for expression, wording in _PHRASES:
        text = expression.sub(wording, text)
    return tuple(word for word in tokenise_text(text) if word not in _ARTICLES)


def _expression(template: Template) -> re.Pattern[str]:
    """The template as an expression over bare text; singular and plural types are both taken."""
    parts: list[str] = []
    named: set[str] = set()
    for word in template.pattern.replace(".", "").split():
        if word in _ARTICLES:
            continue
        slot = word.strip("{}")
        if word == slot:
            parts.append("(?:is|are)" if word in ("is", "are") else word)
            continue
        if slot in named:
            parts.append(f"(?P={slot})")
            continue
        named.add(slot)
        stems = sorted(
            {
                value.removesuffix("s") if slot.endswith("type") or slot == "types" else value
                for value in template.slots[slot]
            }
        )
        plural = "s?" if slot.endswith("type") or slot == "types" else ""
        parts.append(f"(?P<{slot}>(?:{'|'.join(stems)}){plural})")
    return re.compile(" ".join(parts))


_EXPRESSIONS = tuple((template, _expression(template)) for template in TEMPLATES)


def match(text: str) -> Match | None:
    """Bring free text onto a template; None where none fits.

    >>> match("how many ship are there in the image").text
    'How many ships are there?'
    """
    stem, options = split_options(text)
    words = _bare(stem)
    unknown = tuple(dict.fromkeys(word for word in words if word not in VOCABULARY))
    known = " ".join(word for word in words if word in VOCABULARY)
    if not known:
        return None
    for template, expression in _EXPRESSIONS:
        found = expression.fullmatch(known) or expression.fullmatch(f"{known} are there")
        if found is None:
            continue
        slots = {
            name: f"{value.removesuffix('s')}s"
            if name == "types"
            else value.removesuffix("s")
            if "type" in name
            else value
            for name, value in found.groupdict().items()
        }
        wording = sentence(template.pattern.format(**slots))
        if options:
            letters = LETTERS[: len(options)]
            return Match(with_options(wording, options), template.task, template.family, letters, unknown)
        return Match(wording, template.task, template.family, template.answers, unknown)
    return None
