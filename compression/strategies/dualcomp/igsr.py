"""The scene-geometric stream: a route over the picture, from anchor to anchor along the strongest structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.grid import TokenGrid
from compression.similarity import ROWS_AT_ONCE

REGIONS = ((6, 6), (5, 5), (4, 4), (3, 4), (3, 3), (2, 3), (2, 2), (1, 2), (1, 1))
"""Rows and columns of regions, finest first."""

STEPS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True)
class Route:
    """A route over one view.

    Args:
        path: Cells in the order in which they are read, each once; flat indices in the view.
        anchors: Cells of the anchors in the order in which they are visited.
        regions: (rows, columns) of the regions that the anchors come from; (0, 0) for an empty route.
    """

    path: tuple[int, ...]
    anchors: tuple[int, ...]
    regions: tuple[int, int]


def structure(features: Tensor, grid: TokenGrid) -> Tensor:
    """S_geo(p) = || F_p - mean of F in the 3 x 3 cells around p ||^2, float32 [tokens] (Eq. 4).

    At the border the mean is over the cells inside the view. Differences are summed, not features, so that a flat
    area is exactly 0 and no rounding is taken for structure.
    """
    parts = []
    for view, start in zip(grid.views, grid.starts, strict=False):
        picture = features[start : start + len(view)].float().reshape(view.rows, view.cols, -1)
        difference = torch.zeros_like(picture)
        cells = torch.ones(view.rows, view.cols, device=picture.device)
        for down, right in STEPS:
            (y, near_y), (x, near_x) = _overlap(down, view.rows), _overlap(right, view.cols)
            difference[y, x] += picture[near_y, near_x] - picture[y, x]
            cells[y, x] += 1
        parts.append((difference.square().sum(dim=2) / cells.square()).reshape(-1))
    return torch.cat(parts)


def _overlap(step: int, size: int) -> tuple[slice, slice]:
    """The places that have a neighbour at this step, and those neighbours."""
    return slice(max(0, -step), size - max(0, step)), slice(max(0, step), size - max(0, -step))


def regional_maxima(score: NDArray[np.float32], regions: tuple[int, int]) -> list[int]:
    """The cell of largest score in each region, left to right, then right to left, row by row; the first on ties.

    Args:
        score: float32 [rows, cols].
        regions: (rows, columns) of equal rectangles, at most those of the score.
    """
    rows, cols = score.shape
    down, across = regions
    found = []
    for row in range(down):
        top, bottom = row * rows // down, (row + 1) * rows // down
        order = range(across) if row % 2 == 0 else range(across - 1, -1, -1)
        for col in order:
            left, right = col * cols // across, (col + 1) * cols // across
            y, x = divmod(int(score[top:bottom, left:right].argmax()), right - left)
            found.append((top + y) * cols + left + x)
    return found


def walk(score: Sequence[float], shape: tuple[int, int], anchors: Sequence[int], limit: int) -> list[int] | None:
    """The cells of the walk from anchor to anchor, first visits only, or None where they exceed `limit` (Eq. 6).

    Each step goes to the neighbour of largest score among those strictly nearer to the goal in Chebyshev distance; on
    ties to the first of `STEPS`.
    """
    rows, cols = shape
    visited = dict.fromkeys(anchors[:1])
    for start, goal in pairwise(anchors):
        (y, x), (goal_y, goal_x) = divmod(start, cols), divmod(goal, cols)
        while (y, x) != (goal_y, goal_x):
            near = max(abs(goal_y - y), abs(goal_x - x))
            options = [
                (y + down, x + right)
                for down, right in STEPS
                if 0 <= y + down < rows
                and 0 <= x + right < cols
                and max(abs(goal_y - y - down), abs(goal_x - x - right)) < near
            ]
            y, x = max(options, key=lambda cell: score[cell[0] * cols + cell[1]])
            visited[y * cols + x] = None
            if len(visited) > limit:
                return None
    return list(visited) if len(visited) <= limit else None


def fill(path: Sequence[int], score: NDArray[np.float32], cols: int, count: int) -> list[int]:
    """The path, lengthened to `count` cells by those of largest score outside it.

    Each is read just after the cell of the walk that is nearest in Chebyshev distance, the earliest on ties; cells
    after the same one are read by descending score.
    """
    ranked = np.argsort(-score, kind="stable")
    added = ranked[~np.isin(ranked, path)][: count - len(path)]
    rows_of, cols_of = np.divmod(np.asarray(path), cols)
    slots = []
    for start in range(0, len(added), ROWS_AT_ONCE):
        y, x = np.divmod(added[start : start + ROWS_AT_ONCE], cols)
        slots.append(np.maximum(abs(y[:, None] - rows_of), abs(x[:, None] - cols_of)).argmin(axis=1))
    slot = np.concatenate([np.arange(len(path)), *slots])
    cells = np.concatenate([np.asarray(path, dtype=np.int64), added])
    return [int(cell) for cell in cells[np.argsort(slot, kind="stable")]]


def trace(geometry: NDArray[np.float32], strength: NDArray[np.float32], count: int) -> Route:
    """The route of exactly `count` cells over one view, through the finest regions whose walk fits.

    Args:
        geometry: float32 [rows, cols], S_geo, whose maxima are the anchors.
        strength: float32 [rows, cols], S_str, which guides the walk (Eq. 5).
        count: 0..rows*cols.
    """
    rows, cols = geometry.shape
    flat = strength.reshape(-1)
    steps = flat.tolist()
    for regions in REGIONS:
        if regions[0] > rows or regions[1] > cols or regions[0] * regions[1] > count:
            continue
        anchors = regional_maxima(geometry, regions)
        path = walk(steps, (rows, cols), anchors, count)
        if path is not None:
            return Route(tuple(fill(path, flat, cols, count)), tuple(anchors), regions)
    return Route((), (), (0, 0))
