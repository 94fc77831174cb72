"""What strangers write into an address, as values: each is checked, and what cannot be used is said in one sentence."""

from __future__ import annotations

import math
from typing import Literal, cast, get_args

from compression.grid import Box
from dashboard.answers import Missing, Refused
from dashboard.layers import Compared, Kind, Layer, layer_names
from dashboard.opened import Opened
from dashboard.palette import Theme

_MOST_LAYERS = 1000


def level_of(run: Opened, value: int | None) -> int:
    """The level of views that is asked for, the finest without a wish.

    Raises:
        Missing: the run has no such level.
    """
    if value is None:
        return run.level
    if not 0 <= value < len(run.levels):
        raise Missing(
            f"this run has {len(run.levels)} level{'' if len(run.levels) == 1 else 's'} of views, counted from 0"
        )
    return value


def depth_of(value: int) -> int:
    """A layer of the language model, from 0.

    Raises:
        Missing: no model has it.
    """
    if not 0 <= value < _MOST_LAYERS:
        raise Missing(f"layers are counted from 0 to {_MOST_LAYERS - 1}")
    return value


def layer_of(text: str) -> Layer:
    """A layer of the map.

    Raises:
        Missing: there is none of that name.
    """
    if text not in layer_names():
        raise Missing(f"there is no layer of that name; there are: {', '.join(layer_names())}")
    return text


def kind_of(text: str) -> Kind:
    """From where attention is asked for.

    Raises:
        Refused: the text is none of the kinds.
    """
    return cast("Kind", _one_of(text, get_args(Kind), "of"))


def compared_of(text: str) -> Compared:
    """What a difference is of.

    Raises:
        Refused: the text is none of that.
    """
    return cast("Compared", _one_of(text, get_args(Compared), "compared"))


def theme_of(text: str) -> Theme:
    """A theme.

    Raises:
        Refused: the text is none of them.
    """
    return cast("Theme", _one_of(text, get_args(Theme), "theme"))


def scale_of(text: str) -> tuple[float, float] | None:
    """The ends of a colour scale, None for the run's own.

    Raises:
        Refused: the text is not two finite numbers.
    """
    if not text:
        return None
    low, high = _numbers(text, 2, "scale")
    return low, high


def box_of(text: str, run: Opened) -> Box:
    """A box in pixels of the run's image, cut to its surroundings: a huge one must not cost more than the whole.

    Raises:
        Refused: the text is not four finite numbers in order.
    """
    left, top, right, bottom = _numbers(text, 4, "bbox")
    if left > right or top > bottom:
        raise Refused("bbox must be left,top,right,bottom in pixels of the image with left <= right and top <= bottom")
    width, height = run.image.width, run.image.height
    left, right = (min(max(x, -width), 2 * width) for x in (left, right))
    top, bottom = (min(max(y, -height), 2 * height) for y in (top, bottom))
    return left, top, right, bottom


def _one_of(text: str, allowed: tuple[str, ...], name: Literal["of", "compared", "theme"]) -> str:
    if text not in allowed:
        raise Refused(f"{name} must be {' or '.join(allowed)}")
    return text


def _numbers(text: str, count: int, name: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",", count)]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise Refused(f"{name} must be {count} numbers with commas between them")
    return values
