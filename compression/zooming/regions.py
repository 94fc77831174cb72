"""From where a model looks to boxes: connected regions of the strongest visual tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compression.grid import Box, TokenGrid
from compression.zooming.boxes import Finding


def strongest(values: NDArray[np.floating], share: float) -> NDArray[np.bool_]:
    """The fewest tokens, strongest first, that hold a share of the whole mass; the lower index first among equals.

    >>> strongest(np.array([0.1, 0.5, 0.2, 0.2]), 0.6).tolist()
    [False, True, True, False]

    Args:
        values: Float [tokens], not negative.
        share: In (0, 1].

    Returns:
        bool [tokens]; nothing where there is no mass.
    """
    chosen = np.zeros(len(values), dtype=bool)
    total = float(values.sum())
    if total <= 0:
        return chosen
    order = np.argsort(-values, kind="stable")
    held = np.cumsum(values[order])
    # A hair less, because the sums are rounded.
    count = int(np.searchsorted(held, share * total * (1 - 1e-9))) + 1
    chosen[order[: min(count, len(values))]] = True
    return chosen


def components(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the regions of a mask that touch along an edge or at a corner.

    Args:
        mask: bool [rows, cols].

    Returns:
        int64 [rows, cols]: 0 outside, regions from 1 in the order of their first token.
    """
    numbers = np.zeros(mask.shape, dtype=np.int64)
    count = 0
    for row, col in zip(*np.nonzero(mask), strict=True):
        if numbers[row, col]:
            continue
        count += 1
        numbers[row, col] = count
        waiting = [(int(row), int(col))]
        while waiting:
            y, x = waiting.pop()
            rows, cols = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
            fresh = mask[rows, cols] & (numbers[rows, cols] == 0)
            numbers[rows, cols][fresh] = count
            waiting += [(rows.start + int(dy), cols.start + int(dx)) for dy, dx in zip(*np.nonzero(fresh), strict=True)]
    return numbers


def regions(values: NDArray[np.floating], grid: TokenGrid, share: float) -> list[Finding]:
    """Boxes around the connected regions of the strongest tokens, the one with most mass first.

    Args:
        values: Float [tokens], such as attention; what is not a number counts as nothing.
        grid: Where the tokens lie. Regions do not reach from one view into another.
        share: Of the mass, in (0, 1].

    Returns:
        Findings without label; the confidence is the region's share of the whole mass.
    """
    mass = np.clip(np.nan_to_num(np.asarray(values, dtype=np.float64), nan=0.0), 0, None)
    chosen = strongest(mass, share)
    boxes = grid.boxes()
    found = []
    for view in range(len(grid.views)):
        part = grid.tokens_of(view)
        numbers = components(grid.paint(chosen, view)).ravel()
        for number in range(1, int(numbers.max()) + 1):
            members = part.start + np.flatnonzero(numbers == number)
            inside = boxes[members]
            box: Box = (
                float(inside[:, 0].min()),
                float(inside[:, 1].min()),
                float(inside[:, 2].max()),
                float(inside[:, 3].max()),
            )
            found.append(Finding(box, "", float(mass[members].sum() / mass.sum())))
    return sorted(found, key=lambda one: -one.confidence)
