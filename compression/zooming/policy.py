"""The fixed rules of a zoom: which box may be looked at next."""

from __future__ import annotations

from dataclasses import dataclass

from compression.grid import Box
from compression.zooming.boxes import encloses, widened

LEAST_SIDE = 28
"""Pixels along each side of a box that may be looked at: one visual token of the models that agents build on."""


@dataclass(frozen=True)
class Ruling:
    """What the policy says about a box.

    Args:
        box: What may be looked at; None where the box was rejected.
        reason: Why it was rejected, or what was done to it; "" where it was taken as it is.
    """

    box: Box | None
    reason: str = ""


def rule(box: Box, previous: Box) -> Ruling:
    """Rule on a box after the one before it, or after the whole image.

    A box must lie inside the previous one. One with a side below `LEAST_SIDE` pixels is expanded around its centre,
    and moved where it would leave the previous one.
    """
    if not encloses(previous, box):
        return Ruling(None, "does not lie inside the previous box")
    if box == previous:
        return Ruling(None, "is the previous box again")
    wider = widened(box, LEAST_SIDE, previous)
    if wider is None:
        return Ruling(None, f"lies in a box of less than {LEAST_SIDE} pixels a side")
    if wider == previous:
        return Ruling(None, "is the previous box again")
    if wider != box:
        return Ruling(wider, f"expanded to {LEAST_SIDE} pixels a side")
    return Ruling(box)
