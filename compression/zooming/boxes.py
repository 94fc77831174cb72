"""Boxes that a model points at, in pixels of the original image, and how they lie to each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compression.grid import Box


@dataclass(frozen=True)
class Finding:
    """A place that a model pointed at.

    Args:
        box: (left, top, right, bottom) in pixels of the original image.
        label: What the model says is there, "" for nothing.
        confidence: In [0, 1]; 1 where nobody said.
    """

    box: Box
    label: str = ""
    confidence: float = 1.0


def area(box: Box) -> float:
    """Square pixels; 0 for a box without any."""
    left, top, right, bottom = box
    return max(0.0, right - left) * max(0.0, bottom - top)


def common(one: Box, other: Box) -> Box:
    """The part that two boxes share; its area is 0 where there is none."""
    return max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])


def overlap(one: Box, other: Box) -> float:
    """Intersection over union, in [0, 1]; 0 for two boxes without area.

    >>> overlap((0, 0, 2, 2), (1, 0, 3, 2))
    0.3333333333333333
    """
    shared = area(common(one, other))
    union = area(one) + area(other) - shared
    return shared / union if union > 0 else 0.0


def bounds(boxes: Sequence[Box]) -> Box:
    """The smallest box that holds some boxes, at least one.

    >>> bounds([(0, 1, 2, 3), (1, 0, 3, 2)])
    (0, 0, 3, 3)
    """
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def encloses(outer: Box, inner: Box) -> bool:
    """Whether a box holds another entirely; edges may touch."""
    return outer[0] <= inner[0] and outer[1] <= inner[1] and inner[2] <= outer[2] and inner[3] <= outer[3]


def widened(box: Box, least: float, bounds: Box) -> Box | None:
    """A box of at least `least` pixels a side: grown around its centre, and moved where it would leave the bounds.

    >>> widened((10, 40, 14, 80), 28, (0, 0, 100, 100))
    (0, 40, 28, 80)

    Returns:
        The box, or None where the bounds themselves are smaller than that.
    """
    if bounds[2] - bounds[0] < least or bounds[3] - bounds[1] < least:
        return None
    edges = []
    for low, high, first, last in ((box[0], box[2], bounds[0], bounds[2]), (box[1], box[3], bounds[1], bounds[3])):
        if high - low < least:
            low = min(max((low + high - least) / 2, first), last - least)
            high = low + least
        edges.append((low, high))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom
