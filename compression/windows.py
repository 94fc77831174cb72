"""Windows on a grid of visual tokens: how pooling cuts a view up, and how many windows a budget buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compression.grid import TokenGrid

Span = tuple[int, int]
"""Half-open range of rows or of columns."""


@dataclass(frozen=True)
class Windows:
    """Every span of rows crossed with every span of columns, row by row.

    Args:
        rows: Spans of rows, by rising start.
        cols: Spans of columns, by rising start.
        width: Columns of the view.
    """

    rows: Sequence[Span]
    cols: Sequence[Span]
    width: int

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    @property
    def size(self) -> list[int]:
        """[rows, columns] of windows, a plain value."""
        return [len(self.rows), len(self.cols)]

    def members(self) -> list[NDArray[np.int64]]:
        """The tokens of each window, ascending flat indices in the view."""
        found = []
        for top, bottom in self.rows:
            lines = np.arange(top, bottom)[:, None] * self.width
            found += [(lines + np.arange(left, right)).reshape(-1) for left, right in self.cols]
        return found

    def centres(self) -> NDArray[np.int64]:
        """The central token of each window, of an even number the later; ascending and unique int64 [windows]."""
        rows, cols = (np.array([sum(span) // 2 for span in spans]) for spans in (self.rows, self.cols))
        centres: NDArray[np.int64] = (rows[:, None] * self.width + cols).reshape(-1)
        return centres


def laid_out(grid: TokenGrid, windows: Sequence[Windows | None]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The central token and the tokens of every window, view by view, as indices into the grid.

    Args:
        grid: Where the tokens lie.
        windows: Of each view, at least one of them; None for a view without any.
    """
    placed = [(start, one) for start, one in zip(grid.starts, windows, strict=False) if one is not None]
    centres = np.concatenate([start + one.centres() for start, one in placed])
    return centres, [start + member for start, one in placed for member in one.members()]


def square_windows(rows: int, cols: int, side: int) -> Windows:
    """Windows of side x side tokens that do not overlap; those at the right and lower border are what is left.

    >>> square_windows(5, 4, 3).rows, square_windows(5, 4, 3).cols
    ([(0, 3), (3, 5)], [(0, 3), (3, 4)])
    """
    spans = [[(at, min(at + side, size)) for at in range(0, size, side)] for size in (rows, cols)]
    return Windows(spans[0], spans[1], cols)


def even_windows(rows: int, cols: int, height: int, width: int) -> Windows:
    """`height` x `width` windows that do not overlap and differ by one row and one column at most.

    >>> even_windows(5, 4, 2, 2).rows
    [(0, 2), (2, 5)]
    """
    wanted = ((rows, height), (cols, width))
    spans = [[(at * size // count, (at + 1) * size // count) for at in range(count)] for size, count in wanted]
    return Windows(spans[0], spans[1], cols)


def adaptive_windows(rows: int, cols: int, height: int, width: int) -> Windows:
    """`height` x `width` windows as adaptive pooling cuts them: each end is rounded up, so neighbours can overlap.

    >>> adaptive_windows(5, 4, 2, 2).rows
    [(0, 3), (2, 5)]
    """
    wanted = ((rows, height), (cols, width))
    spans = [[(at * size // count, -(-(at + 1) * size // count)) for at in range(count)] for size, count in wanted]
    return Windows(spans[0], spans[1], cols)


def pooled_size(rows: int, cols: int, count: int) -> tuple[int, int]:
    """The size (height, width) of at most `count` cells to which a view is pooled, in its proportions.

    Exactly proportional are sqrt(count*rows/cols) rows and sqrt(count*cols/rows) columns. One of the two is that number
    rounded down or up, within the view; the other is as large as the count allows. The size nearest to the proportional
    one is taken, by the product of the two factors between them; of equally near ones that of fewer rows.

    >>> pooled_size(24, 24, 64), pooled_size(24, 24, 192), pooled_size(16, 24, 7)
    ((8, 8), (13, 14), (2, 3))

    Args:
        rows, cols: Size of the view.
        count: 1..rows*cols.
    """
    high, wide = math.sqrt(count * rows / cols), math.sqrt(count * cols / rows)
    low_row, low_col = math.isqrt(count * rows // cols), math.isqrt(count * cols // rows)
    heights = [height for height in (low_row, low_row + 1) if 1 <= height <= min(rows, count)]
    widths = [width for width in (low_col, low_col + 1) if 1 <= width <= min(cols, count)]
    sizes = [(height, min(cols, count // height)) for height in heights]
    sizes += [(min(rows, count // width), width) for width in widths]

    def distance(size: tuple[int, int]) -> float:
        return max(size[0] / high, high / size[0]) * max(size[1] / wide, wide / size[1])

    return min(sizes, key=lambda size: (distance(size), size))


def square_side(rows: int, cols: int, count: int) -> int:
    """The side of the smallest square windows of which a view has at most `count`.

    >>> square_side(27, 27, 81), square_side(27, 27, 80)
    (3, 4)

    Args:
        rows, cols: Size of the view.
        count: At least 1.
    """
    side = 1
    while -(-rows // side) * -(-cols // side) > count:
        side += 1
    return side
