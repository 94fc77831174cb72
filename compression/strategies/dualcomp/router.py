"""The router by rule: which words of a question ask for objects, and which for the geometry of the scene.

The paper trains a router of about a million parameters; without its weights the words decide, and the run says so.
"""

from __future__ import annotations

import re
from typing import Final

GEOMETRY: Final = (
    *("route", "path", "road network", "network", "connected", "boundary", "edge", "border"),
    *("between", "adjacent", "next to", "relative to", "along", "across", "distance"),
    *("layout", "plan", "region", "land use", "land cover", "largest"),
    *("direction", "north", "south", "east", "west", "left", "right"),
    *("where", "position", "located", "corner", "quarter", "side"),
)
OBJECTS: Final = (
    *("how many", "count", "number", "is there", "are there"),
    *("colour", "color", "coloured", "colored"),
    *("what is", "what are", "classify", "identify", "type", "kind", "category", "object"),
    *("motion state", "moving", "parked", "anomaly", "damaged", "around", "surrounding"),
)

GEOMETRY_LAMBDA: Final = 0.8
OBJECT_LAMBDA: Final = 0.2
OPEN_LAMBDA: Final = 0.5
OBJECT_RATIO: Final = 0.10
GEOMETRY_RATIO: Final = 0.25
OPEN_RATIO: Final = 0.25


def rule_router(question: str) -> tuple[float, str]:
    """The paper's lambda by rule and the words that decided: 0.8 for geometry, 0.2 for objects, else 0.5.

    >>> rule_router("Which quarter has the most buildings?")
    (0.8, 'geometry words: quarter')
    >>> rule_router("How many ships are there?")
    (0.2, 'object words: how many, are there')
    """
    geometry, objects = _found(question, GEOMETRY), _found(question, OBJECTS)
    if geometry and not objects:
        return GEOMETRY_LAMBDA, f"geometry words: {', '.join(geometry)}"
    if objects and not geometry:
        return OBJECT_LAMBDA, f"object words: {', '.join(objects)}"
    if geometry:
        return OPEN_LAMBDA, f"geometry words: {', '.join(geometry)}; object words: {', '.join(objects)}"
    return OPEN_LAMBDA, "no word of either kind"


def rule_ratio(lam: float) -> float:
    """The retention ratio by rule: 0.10 where objects are asked for, else 0.25.

    Objects are few and survive merging; a route over the scene needs room, and an open question gets as much.
    """
    if lam < OPEN_LAMBDA:
        return OBJECT_RATIO
    return GEOMETRY_RATIO if lam > OPEN_LAMBDA else OPEN_RATIO


def _found(question: str, words: tuple[str, ...]) -> list[str]:
    """The words that the question holds, singular or plural, in the order of `words`."""
    return [word for word in words if re.search(rf"\b{re.escape(word)}s?\b", question, re.IGNORECASE)]
