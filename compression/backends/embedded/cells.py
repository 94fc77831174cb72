"""How an image becomes views: one, or rows and columns of 256-pixel cells, each behind its name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from compression.backends.embedded.textures import PATCH, VIEW

MOST_CELLS = 4
"""Cells along one side of the largest layout that the model was taught."""
SIDE = VIEW // PATCH
TOKENS = SIDE**2
THUMBNAIL = "map"
"""The word before a view of the whole scene."""


def cell_name(row: int, col: int) -> str:
    """Name a cell as on a chess board, the letter for the column: row 2, column 1 is "b3"."""
    return f"{'abcdefgh'[col]}{row + 1}"


CELL_NAMES = tuple(cell_name(row, col) for row in range(MOST_CELLS) for col in range(MOST_CELLS))


@dataclass(frozen=True)
class Layout:
    """The views that an image is cut into, in the order in which the model reads them.

    Args:
        rows: Rows of cells, 1 to MOST_CELLS.
        cols: Columns of cells, 1 to MOST_CELLS.
        thumbnail: Whether a view of the whole comes before the cells.
        cells: Whether there are cells; without them the thumbnail stands alone.
    """

    rows: int = 1
    cols: int = 1
    thumbnail: bool = False
    cells: bool = True

    @property
    def is_single(self) -> bool:
        """Whether the image is one view without a name."""
        return self.rows == self.cols == 1 and not self.thumbnail

    @property
    def names(self) -> tuple[str, ...]:
        """The word before each view; "image", which is not said, for the only one."""
        if self.is_single:
            return ("image",)
        cells = [cell_name(row, col) for row in range(self.rows) for col in range(self.cols)]
        return (*((THUMBNAIL,) if self.thumbnail else ()), *(cells if self.cells else ()))

    @property
    def tokens(self) -> int:
        """Visual tokens of all views before any compression."""
        return len(self.names) * TOKENS

    @cached_property
    def cell_rows_cols(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of the cell over which each token lies, two int64 [tokens]."""
        rows, cols = self.rows_cols
        return rows // SIDE, cols // SIDE

    @cached_property
    def rows_cols(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each token in patches of the whole image, two int64 [tokens].

        A token of the thumbnail gets the patch under its centre.
        """
        inner = np.arange(TOKENS)
        rows, cols = [], []
        if self.thumbnail:
            rows.append((2 * (inner // SIDE) + 1) * self.rows // 2)
            cols.append((2 * (inner % SIDE) + 1) * self.cols // 2)
        for row in range(self.rows if self.cells else 0):
            for col in range(self.cols):
                rows.append(row * SIDE + inner // SIDE)
                cols.append(col * SIDE + inner % SIDE)
        return np.concatenate(rows), np.concatenate(cols)


def layout_for(image_size: tuple[int, int]) -> Layout:
    """The layout whose shape is nearest to an image of (height, width); larger images get the largest that fits.

    >>> layout_for((1024, 1024)).rows, layout_for((512, 1000)), layout_for((300, 200)).is_single
    (4, Layout(rows=2, cols=4, thumbnail=False, cells=True), True)
    """
    height, width = image_size
    shrink = min(1.0, MOST_CELLS * VIEW / max(height, width))
    # Halves round up, so that nothing is read at less than two thirds of its size where a cell more would hold it.
    rows, cols = (max(1, int(edge * shrink / VIEW + 0.5)) for edge in (height, width))
    return Layout(rows, cols)
