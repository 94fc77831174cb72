"""Text-only facts: the knowledge questions, which no picture helps to answer."""

from __future__ import annotations

from dataclasses import dataclass

from compression.backends.embedded.textures import COLOURS, COVERS, TYPES

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
_YES_NO = ("yes", "no")
# Clockwise, so that a right turn is one step on.
_COMPASS = ("north", "east", "south", "west")


@dataclass(frozen=True)
class Fact:
    """A lower-case question without its mark, the right answer, and the answers it is chosen from."""

    text: str
    answer: str
    choices: tuple[str, ...]


_PLAIN: tuple[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], ...] = (
    (
        TYPES,
        (
            ("which of these floats on water", "ship"),
            ("which of these can fly", "plane"),
            ("which of these carries heavy cargo on a road", "truck"),
            ("which of these stores oil", "tank"),
            ("where does a helicopter land", "helipad"),
            ("which of these is a small vehicle for a family", "car"),
        ),
    ),
    (
        tuple(COLOURS),
        (
            ("what is the colour of snow", "white"),
            ("what is the colour of the sea", "blue"),
            ("what is the colour of blood", "red"),
            ("what is the colour of a lemon", "yellow"),
            ("what is the colour of a plum", "purple"),
        ),
    ),
    (
        COVERS,
        (
            ("which land cover is made of trees", "forest"),
            ("where are crops grown", "farmland"),
            ("which land cover is dry and sandy", "desert"),
            ("where do fish live", "water"),
            ("where do cows graze", "grass"),
        ),
    ),
    (
        _COMPASS,
        (
            ("where does the sun rise", "east"),
            ("where does the sun set", "west"),
            ("where is the arctic", "north"),
            ("where is the antarctic", "south"),
        ),
    ),
    (
        _NUMBERS,
        (
            ("how many wheels does a car have", "four"),
            ("how many wings does a plane have", "two"),
            ("how many poles does the earth have", "two"),
            ("how many suns are in the sky", "one"),
            ("how many legs does an insect have", "six"),
            ("how many fingers are on one hand", "five"),
            ("how many corners does a triangle have", "three"),
        ),
    ),
    (
        _YES_NO,
        (
            ("is a ship larger than a car", "yes"),
            ("can a truck float on water", "no"),
            ("do rivers carry water", "yes"),
            ("is a desert wet", "no"),
            ("can a plane fly", "yes"),
            ("can a car fly", "no"),
        ),
    ),
)


def _facts() -> tuple[Fact, ...]:
    """Write out the list: the plain facts, sums up to six, and compass turns."""
    facts = [Fact(text.replace(" an ", " a "), answer, choices) for choices, rows in _PLAIN for text, answer in rows]
    for first in range(7):
        for second in range(7 - first):
            facts.append(Fact(f"what is {_NUMBERS[first]} plus {_NUMBERS[second]}", _NUMBERS[first + second], _NUMBERS))
    for index, heading in enumerate(_COMPASS):
        facts.append(Fact(f"what is the opposite of {heading}", _COMPASS[(index + 2) % 4], _COMPASS))
        for turn, step in (("right", 1), ("left", -1)):
            text = f"a ship sails {heading} and turns {turn} where does it sail now"
            facts.append(Fact(text, _COMPASS[(index + step) % 4], _COMPASS))
    return tuple(facts)


FACTS = _facts()
