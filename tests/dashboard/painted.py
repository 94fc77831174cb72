"""Small runs whose layers can be painted on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.run import ImageRef, Recording, Run
from compression.grid import TokenGrid
from compression.selection import Selection
from dashboard.opened import Opened
from tests.factories import make_run

CELL = 64
"""Pixels of a token's side in `four_by_four`, and on the screen in its only tile."""


def four_by_four(
    selection: Selection, *, attention: Sequence[float] | None = None, strategy: str = "divprune@0.25"
) -> Opened:
    """A run of 4 x 4 tokens over 256 x 256 plain pixels, opened."""
    return Opened.of(run_of(selection, attention=attention, strategy=strategy))


def run_of(selection: Selection, *, attention: Sequence[float] | None = None, strategy: str = "divprune@0.25") -> Run:
    """A run of that selection over a square grid that covers 256 x 256 plain pixels."""
    side = round(selection.tokens**0.5)
    image = ImageRef(digest="0" * 64, name="paper.png", width=256, height=256)
    rows: NDArray[Any] | None = None if attention is None else np.array([attention], dtype=np.float16)
    run = make_run(strategy=strategy, image=image, tokens=(side, side), evidence=())
    mass = None if rows is None else np.nansum(rows.astype(np.float32), axis=1)
    return replace(
        run,
        grid=TokenGrid.single(side, side, (256, 256)),
        selection=selection,
        recording=Recording(answer=rows, answer_mass=mass),
    )


def one_of_each() -> Selection:
    """4 x 4 tokens: token 5 kept and joined by token 6, token 10 kept alone, the others dropped."""
    return Selection.merge(16, [5, 10], [([5, 6], [0.5, 0.5]), ([10], [1.0])])


def cell(picture: NDArray[np.uint8], row: int, col: int, side: int = CELL) -> NDArray[np.uint8]:
    """The pixels of one cell without its outline."""
    return picture[row * side + 4 : (row + 1) * side - 4, col * side + 4 : (col + 1) * side - 4]
