"""The kinds of question the embedded model is taught.

Road tracing ("is there a road from ... to ...", "is the road network connected") is left out of training and of the
offer: a study of this recipe learnt nothing but its prior (.64 with the picture, .67 without). Its labels are in the
scenes.
"""

from __future__ import annotations

from dataclasses import dataclass

from compression.backends.embedded.cells import CELL_NAMES
from compression.backends.embedded.facts import FACTS
from compression.backends.embedded.textures import COLOUR_NAMES, COVERS, TYPES
from compression.backends.embedded.vocabulary import NUMBERS, QUARTERS, SIDES, YES_NO

LAND = tuple(cover for cover in COVERS if cover != "water")
FAMILIES = ("object-semantic", "scene-geometric", "knowledge")


@dataclass(frozen=True)
class Template:
    """A kind of question the model was taught.

    Attributes:
        task: name of the task.
        family: one of FAMILIES.
        pattern: the question with {slots}.
        slots: what each slot may hold.
        answers: the one-word answers.
        example: the pattern with its slots filled, as a sentence.
    """

    task: str
    family: str
    pattern: str
    slots: dict[str, tuple[str, ...]]
    answers: tuple[str, ...]
    example: str


def sentence(text: str) -> str:
    """Write a lower-case question as one or more sentences.

    >>> sentence("it is red. what colour is it")
    'It is red. What colour is it?'
    """
    return ". ".join(f"{part[0].upper()}{part[1:]}" for part in text.split(". ")) + "?"


_SEMANTIC, _GEOMETRIC, _KNOWLEDGE = FAMILIES
_TYPE_PLURALS = tuple(f"{kind}s" for kind in TYPES)
_NAMED = {"colour": COLOUR_NAMES, "type": TYPES}
_PATTERNS: tuple[tuple[str, str, str, dict[str, tuple[str, ...]], tuple[str, ...]], ...] = (
    ("presence", _SEMANTIC, "is there a {colour} {type}", _NAMED, YES_NO),
    ("count", _SEMANTIC, "how many {types} are there", {"types": _TYPE_PLURALS}, NUMBERS),
    ("count", _SEMANTIC, "how many {colour} objects are there", {"colour": COLOUR_NAMES}, NUMBERS),
    ("colour", _SEMANTIC, "what colour is the {type}", {"type": TYPES}, COLOUR_NAMES),
    ("type", _SEMANTIC, "what is the {colour} object", {"colour": COLOUR_NAMES}, TYPES),
    ("surround", _SEMANTIC, "what land cover is around the {colour} {type}", _NAMED, LAND),
    (
        "dir",
        _GEOMETRIC,
        "where is the {colour} {type} relative to the {other_colour} {other_type}",
        {**_NAMED, "other_colour": COLOUR_NAMES, "other_type": TYPES},
        QUARTERS,
    ),
    ("side", _GEOMETRIC, "on which side of the river is the {colour} {type}", _NAMED, SIDES),
    ("region", _GEOMETRIC, "which quarter has the most buildings", {}, QUARTERS),
    ("corner", _GEOMETRIC, "what land cover is in the {quarter} corner", {"quarter": QUARTERS}, COVERS),
    ("dominant", _GEOMETRIC, "which land cover is the largest", {}, COVERS),
    ("quarter", _GEOMETRIC, "in which quarter is the {colour} {type}", _NAMED, QUARTERS),
    ("cell", _GEOMETRIC, "in which cell is the {colour} {type}", _NAMED, CELL_NAMES),
    ("cellcover", _GEOMETRIC, "what land cover is in cell {cell}", {"cell": CELL_NAMES}, COVERS),
    (
        "told",
        _GEOMETRIC,
        "the {colour} {type} is in the {quarter} quarter. in which quarter is the {colour} {type}",
        {**_NAMED, "quarter": QUARTERS},
        QUARTERS,
    ),
)
# Tasks that need cells, and tasks that only the information analysis asks.
CELL_TASKS = ("cell", "cellcover")
REGIME_TASKS = ("told",)
_EXAMPLE = {
    "colour": "yellow",
    "type": "car",
    "types": "ships",
    "other_colour": "purple",
    "other_type": "truck",
    "quarter": "northwest",
    "cell": "b3",
}
TEMPLATES = tuple(
    Template(task, family, pattern, slots, answers, sentence(pattern.format(**_EXAMPLE)))
    for task, family, pattern, slots, answers in _PATTERNS
) + tuple(Template("knowledge", _KNOWLEDGE, fact.text, {}, fact.choices, sentence(fact.text)) for fact in FACTS)
ANSWERS = {template.task: template.answers for template in TEMPLATES}
FAMILY_OF = {template.task: template.family for template in TEMPLATES}
TASKS = tuple(dict.fromkeys(template.task for template in TEMPLATES))
