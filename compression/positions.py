"""Position ids of what is left of a picture: kept as they were, or moved up without gaps."""

from __future__ import annotations

from typing import Literal

from compression.compressor import Compressor, Parameter

Positions = Literal["original", "renumbered"]


def positions_parameter(released: Positions | None) -> Parameter:
    """The parameter `positions`, with the released convention as its default; None where it depends on others."""
    return Parameter(
        "positions",
        released,
        "Whether what is left keeps its position ids (original) or moves up without gaps (renumbered); the default is "
        "as released.",
        choices=("original", "renumbered"),
        kind=str,
    )


def positions_entering() -> Parameter:
    """The parameter `positions` of every strategy before the language model, which follows it; see `positions_of`."""
    return Parameter(
        "positions",
        None,
        "Whether the language model reads what is left at the position ids of the whole picture (original) or without "
        "gaps (renumbered); the default is as released: renumbered, and original where ids have rows and columns.",
        choices=("original", "renumbered"),
        kind=str,
    )


def positions_of(compressor: Compressor, usual: Positions) -> Positions:
    """The convention that a strategy was asked for, else the usual one."""
    asked = compressor.parameters.get("positions")
    return usual if asked is None else "original" if asked == "original" else "renumbered"
