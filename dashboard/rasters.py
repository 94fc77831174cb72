"""Token grids as rasters: the same cells for painting, for pointing, and for the page.

A grid is any number of views. Views that lie side by side with equal cells are one raster, however many they are; views
that overlap, such as a thumbnail under its crops, are different levels, of which a map shows one at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compression.grid import Box, TokenGrid, View

NO_TOKEN = -1
_OVERLAP = 0.01  # share of the smaller view that two views of one level may share: rounding of crops
_SPARSE = 4  # a raster may have this many times as many cells as tokens before its views stay apart


@dataclass(frozen=True)
class Part:
    """Where one view lies in its raster.

    Args:
        view: Index of the view in the grid.
        start: Its first token.
        rows, cols: Its size in tokens.
        row, col: Its upper left cell in the raster.
    """

    view: int
    start: int
    rows: int
    cols: int
    row: int
    col: int


@dataclass(frozen=True, eq=False)
class Raster:
    """Equal cells over a box.

    Args:
        box: (left, top, right, bottom) in original pixels.
        index: int32 [rows, cols], the token of each cell, -1 where there is none.
        parts: The views it is made of.
    """

    box: Box
    index: NDArray[np.int32]
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, cols)."""
        return self.index.shape[0], self.index.shape[1]

    @property
    def cell(self) -> tuple[float, float]:
        """(width, height) of a cell in original pixels."""
        left, top, right, bottom = self.box
        rows, cols = self.shape
        return (right - left) / cols, (bottom - top) / rows

    def tokens_at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int32]:
        """The token under each point in original pixels, int32 of the points' shape; -1 outside."""
        rows, cols = self.shape
        width, height = self.cell
        with np.errstate(invalid="ignore"):
            col, row = np.floor((x - self.box[0]) / width), np.floor((y - self.box[1]) / height)
            inside = (col >= 0) & (col < cols) & (row >= 0) & (row < rows)
        found = np.full(x.shape, NO_TOKEN, dtype=np.int32)
        found[inside] = self.index[row[inside].astype(np.intp), col[inside].astype(np.intp)]
        return found


@dataclass(frozen=True, eq=False)
class Level:
    """Views that do not overlap each other."""

    name: str
    rasters: tuple[Raster, ...]
    tokens: int

    def tokens_at(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.int32]:
        """The token under each point in original pixels, -1 where there is none."""
        found = self.rasters[0].tokens_at(x, y)
        for raster in self.rasters[1:]:
            found = np.where(found == NO_TOKEN, raster.tokens_at(x, y), found)
        return found

    @property
    def cell(self) -> tuple[float, float]:
        """(width, height) in original pixels of the cells of the raster with the most of them."""
        return max(self.rasters, key=lambda raster: raster.index.size).cell


def levels_of(grid: TokenGrid) -> tuple[Level, ...]:
    """The levels of a grid in the order of their first view."""
    boxes = np.array([view.box for view in grid.views])
    levels: list[list[int]] = []
    for view in range(len(grid.views)):
        for level in levels:
            if not _overlaps(boxes[view], boxes[level]):
                level.append(view)
                break
        else:
            levels.append([view])
    return tuple(_level(grid, views) for views in levels)


def finest(levels: tuple[Level, ...]) -> int:
    """The level with the most tokens, the first of equals."""
    return max(range(len(levels)), key=lambda level: (levels[level].tokens, -level))


def _overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    """Whether a box [4] shares more than a sliver with any of the others [n, 4]."""
    sides = np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return bool((shared > _OVERLAP * np.minimum(areas, (box[2:] - box[:2]).prod())).any())


def _level(grid: TokenGrid, views: list[int]) -> Level:
    groups: dict[tuple[float, ...], list[int]] = {}
    for view in views:
        groups.setdefault(_lattice(grid.views[view]), []).append(view)
    rasters: list[Raster] = []
    for group in groups.values():
        rasters.extend(_joined(grid, group))
    name = grid.views[views[0]].name if len(views) == 1 else f"{len(views):,} views"
    return Level(name, tuple(rasters), sum(len(grid.views[view]) for view in views))


def _lattice(view: View) -> tuple[float, ...]:
    """Size and offset of the cells: equal for views whose cells continue each other."""
    left, top, right, bottom = view.box
    width, height = (right - left) / view.cols, (bottom - top) / view.rows
    # A thousandth of a cell is far above rounding and far below what the eye sees.
    offsets = (round(left / width % 1, 3) % 1, round(top / height % 1, 3) % 1)
    return (float(f"{width:.6g}"), float(f"{height:.6g}"), *offsets)


def _joined(grid: TokenGrid, views: list[int]) -> list[Raster]:
    """One raster over all views, or one for each where they are far apart."""
    first = grid.views[views[0]]
    width, height = (first.box[2] - first.box[0]) / first.cols, (first.box[3] - first.box[1]) / first.rows
    left = min(grid.views[view].box[0] for view in views)
    top = min(grid.views[view].box[1] for view in views)
    parts = []
    for view in views:
        shape = grid.views[view]
        row, col = round((shape.box[1] - top) / height), round((shape.box[0] - left) / width)
        parts.append(Part(view, grid.starts[view], shape.rows, shape.cols, row, col))
    rows = max(part.row + part.rows for part in parts)
    cols = max(part.col + part.cols for part in parts)
    if len(views) > 1 and rows * cols > _SPARSE * sum(part.rows * part.cols for part in parts):
        return [raster for view in views for raster in _joined(grid, [view])]
    index = np.full((rows, cols), NO_TOKEN, dtype=np.int32)
    for part in parts:
        tokens = np.arange(part.start, part.start + part.rows * part.cols, dtype=np.int32)
        index[part.row : part.row + part.rows, part.col : part.col + part.cols] = tokens.reshape(part.rows, part.cols)
    right = max(grid.views[view].box[2] for view in views)
    bottom = max(grid.views[view].box[3] for view in views)
    return [Raster((left, top, right, bottom), index, tuple(parts))]
