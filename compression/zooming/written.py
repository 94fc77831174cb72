"""Boxes that a model wrote, read out of its text. Nothing that it writes may stop a run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from compression.grid import Box
from compression.zooming.boxes import Finding, area, common

MOST_CHARACTERS = 8_000
"""Longer texts are read up to here: a model that does not end repeats itself."""
MOST_BOXES = 64
_LABEL_CHARACTERS = 80
_BOX_KEYS = ("bbox_2d", "bbox", "box_2d", "box", "bounding_box")
_LABEL_KEYS = ("label", "name", "object")
_CONFIDENCE_KEYS = ("confidence", "score")


class Coordinates(StrEnum):
    """What the numbers of a written box count; a convention that each family of models was taught."""

    PIXELS = "pixels"  # of the picture as the model was shown it
    UNIT = "unit"  # shares of its width and height, 0 to 1
    THOUSAND = "thousand"  # thousandths of its width and height, 0 to 1000

    @property
    def words(self) -> str:
        """For people."""
        return {"pixels": "pixels", "unit": "shares from 0 to 1", "thousand": "thousandths from 0 to 1000"}[self.value]


def read_boxes(
    text: str, coordinates: Coordinates, frame: Box, shown: tuple[int, int]
) -> tuple[list[Finding], list[str]]:
    """The boxes in a text, in original pixels, and what could not be used.

    A box is a list of four numbers (left, top, right, bottom), alone or under one of the usual keys of a JSON object,
    anywhere in the text; an object may add a label and a confidence. Corners in the wrong order are put right, what
    lies over the picture's border is cut off.

    Args:
        text: What the model wrote.
        coordinates: The convention of the model's family.
        frame: The part of the original image that the picture showed, in original pixels.
        shown: (height, width) of the picture as the model was shown it.

    Returns:
        At most `MOST_BOXES` boxes in the order of the text; sentences for the user.
    """
    width, height = {
        Coordinates.PIXELS: (float(shown[1]), float(shown[0])),
        Coordinates.UNIT: (1.0, 1.0),
        Coordinates.THOUSAND: (1000.0, 1000.0),
    }[coordinates]
    found: list[Finding] = []
    outside = 0
    for numbers, label, confidence in _written(text[:MOST_CHARACTERS]):
        left, right = sorted((numbers[0], numbers[2]))
        top, bottom = sorted((numbers[1], numbers[3]))
        inside = common((left, top, right, bottom), (0.0, 0.0, width, height))
        if area(inside) <= 0:
            outside += 1
        elif len(found) < MOST_BOXES:
            found.append(Finding(_placed(inside, width, height, frame), label, confidence))
    notices = []
    if outside:
        notices.append(
            f"{outside} of the boxes that the model wrote {'has' if outside == 1 else 'have'} no area inside the "
            f"picture, read as {coordinates.words}, and {'was' if outside == 1 else 'were'} left out."
        )
    if not found and not outside:
        notices.append("The model wrote no box that could be read.")
    return found, notices


def _placed(box: Box, width: float, height: float, frame: Box) -> Box:
    """A box of a picture of this width and height in the pixels in which the frame is given."""
    across, down = (frame[2] - frame[0]) / width, (frame[3] - frame[1]) / height
    return (
        frame[0] + box[0] * across,
        frame[1] + box[1] * down,
        frame[0] + box[2] * across,
        frame[1] + box[3] * down,
    )


def _written(text: str) -> Iterator[tuple[list[float], str, float]]:
    """Four numbers, label and confidence of each box in a text; an unfinished list gives those that are complete."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text):
        if text[at] not in "[{":
            at += 1
            continue
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        yield from _in_value(value)
        at = end


def _in_value(value: Any) -> Iterator[tuple[list[float], str, float]]:
    """The boxes inside a JSON value, in order; without recursion, for a model may nest its brackets at will."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            if (numbers := _four_numbers(one)) is not None:
                yield numbers, "", 1.0
            else:
                waiting += reversed(one)
        elif isinstance(one, dict):
            numbers = next((four for key in _BOX_KEYS if (four := _four_numbers(one.get(key))) is not None), None)
            if numbers is not None:
                yield numbers, _label(one), _confidence(one)
            else:
                waiting += reversed(one.values())


def _four_numbers(value: Any) -> list[float] | None:
    if not isinstance(value, list) or len(value) != 4:
        return None
    if any(isinstance(one, bool) or not isinstance(one, int | float) for one in value):
        return None
    try:
        numbers = [float(one) for one in value]
    except OverflowError:  # a whole number beyond any float
        return None
    return numbers if all(math.isfinite(one) for one in numbers) else None


def _label(value: dict[str, Any]) -> str:
    said = next((value[key] for key in _LABEL_KEYS if isinstance(value.get(key), str)), "")
    # Half a surrogate pair, which JSON can write and no page can send, becomes "?".
    return " ".join(str(said).encode("utf-8", "replace").decode("utf-8").split())[:_LABEL_CHARACTERS]


def _confidence(value: dict[str, Any]) -> float:
    for key in _CONFIDENCE_KEYS:
        said = value.get(key)
        if isinstance(said, int | float) and not isinstance(said, bool) and 0 < said <= 1:
            return float(said)
    return 1.0
