"""Images of any resolution as tiles of one size: which pixels each tile holds, which of its tokens lie on the image.

The image is resized into the listed resolution that keeps most of it, padded on both sides to that size, and cut into
tiles; a view of the whole image, squeezed to one square, stands in front of them (LLaVA-NeXT; the same numbers as the
library's `LlavaNextImageProcessorPil` and `unpad_image`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers.image_processing_utils import select_best_resolution

from compression.backends.embedded.cells import cell_name
from compression.grid import THUMBNAIL, View

Resize = Callable[[NDArray[np.uint8], tuple[int, int]], NDArray[np.uint8]]
"""Brings an image uint8 [height, width, 3] to a (height, width)."""


@dataclass(frozen=True)
class Tile:
    """The tokens of one tile that lie on the image.

    Args:
        row, col: Of the tile on the sheet.
        lines, across: First token row and column inside the tile, and the first behind, as (start, stop).
    """

    row: int
    col: int
    lines: tuple[int, int]
    across: tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """How an image lies on a sheet of tiles.

    Args:
        image_size: (height, width) of the original in pixels.
        sheet: (height, width) of all tiles in pixels.
        resized: (height, width) of the image on the sheet in pixels.
        offset: (top, left) of the image on the sheet in pixels.
        side, patch: Edges of a tile and of a token in pixels; what a token row does not fill at a tile's end is unseen.
        lines, across: Token rows and columns of the sheet that are kept, as (start, stop).
    """

    image_size: tuple[int, int]
    sheet: tuple[int, int]
    resized: tuple[int, int]
    offset: tuple[int, int]
    side: int
    patch: int
    lines: tuple[int, int]
    across: tuple[int, int]

    @classmethod
    def of(cls, image_size: tuple[int, int], resolutions: Sequence[Sequence[int]], side: int, patch: int) -> Tiling:
        """The tiling of an image of (height, width) on the best of some (height, width) resolutions."""
        height, width = image_size
        best: tuple[int, int] = select_best_resolution(image_size, list(resolutions))
        down, right = best[0] / height, best[1] / width
        if right < down:
            resized = min(math.ceil(height * right), best[0]), best[1]
        else:
            resized = best[0], min(math.ceil(width * down), best[1])
        edge = side // patch
        rows, cols = best[0] // side * edge, best[1] // side * edge
        # The library unpads by the ratio of the original edges, rounded down, and by the same amount on both sides.
        above = beside = 0
        if width / height > cols / rows:
            above = (rows - int(round(height * (cols / width), 7))) // 2
        else:
            beside = (cols - int(round(width * (rows / height), 7))) // 2
        offset = (best[0] - resized[0]) // 2, (best[1] - resized[1]) // 2
        return cls(image_size, best, resized, offset, side, patch, (above, rows - above), (beside, cols - beside))

    @property
    def edge(self) -> int:
        """Tokens along one edge of a tile."""
        return self.side // self.patch

    @property
    def shape(self) -> tuple[int, int]:
        """Kept token rows and columns of the sheet."""
        return self.lines[1] - self.lines[0], self.across[1] - self.across[0]

    def tiles(self) -> tuple[Tile, ...]:
        """The tiles that have a token on the image, in reading order."""
        return tuple(
            Tile(row, col, lines, across)
            for row, lines in self._parts(self.lines, self.sheet[0])
            for col, across in self._parts(self.across, self.sheet[1])
        )

    def _parts(self, kept: tuple[int, int], length: int) -> list[tuple[int, tuple[int, int]]]:
        """Along one edge of the sheet, the number of each tile with kept tokens, and which of its own these are."""
        parts = []
        for number in range(length // self.side):
            start, stop = (min(max(end - number * self.edge, 0), self.edge) for end in kept)
            if start < stop:
                parts.append((number, (start, stop)))
        return parts

    def views(self) -> tuple[View, ...]:
        """The whole image first, then each tile's part of it, boxes in original pixels."""
        height, width = self.image_size
        # A side that is no multiple of the patch leaves a margin without tokens.
        seen = self.edge * self.patch / self.side
        made = [View(self.edge, self.edge, (0.0, 0.0, width * seen, height * seen), THUMBNAIL)]
        for tile in self.tiles():
            top, bottom = (self._original(tile.row, line, 0) for line in tile.lines)
            left, right = (self._original(tile.col, place, 1) for place in tile.across)
            rows, cols = tile.lines[1] - tile.lines[0], tile.across[1] - tile.across[0]
            made.append(View(rows, cols, (left, top, right, bottom), cell_name(tile.row, tile.col)))
        return tuple(made)

    def _original(self, tile: int, token: int, axis: int) -> float:
        """Where a token of a tile begins along an axis, in original pixels."""
        pixel = tile * self.side + token * self.patch
        return (pixel - self.offset[axis]) * self.image_size[axis] / self.resized[axis]

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column on the sheet of each token of the tiles, in the order of the views; two int64 [tokens]."""
        rows, cols = [], []
        for tile in self.tiles():
            line, across = np.mgrid[slice(*tile.lines), slice(*tile.across)]
            rows.append(line.ravel() + tile.row * self.edge)
            cols.append(across.ravel() + tile.col * self.edge)
        return np.concatenate(rows), np.concatenate(cols)

    def inside(self) -> NDArray[np.int64]:
        """Which tokens of the tower's views lie on the image, int64 [tokens], flat over the whole image and `tiles`."""
        tiles = self.tiles()
        index = np.arange((1 + len(tiles)) * self.edge**2).reshape(-1, self.edge, self.edge)
        parts = [index[0].ravel()]
        parts += [index[1 + at, slice(*tile.lines), slice(*tile.across)].ravel() for at, tile in enumerate(tiles)]
        return np.concatenate(parts)

    def squares(self, image: NDArray[np.uint8], resize: Resize) -> list[NDArray[np.uint8]]:
        """The image squeezed to one square, and each of `tiles`: uint8 [side, side, 3]; padding is black."""
        sheet = np.zeros((*self.sheet, 3), dtype=np.uint8)
        (top, left), (height, width) = self.offset, self.resized
        sheet[top : top + height, left : left + width] = resize(image, self.resized)
        squares = [resize(image, (self.side, self.side))]
        for tile in self.tiles():
            top, left = tile.row * self.side, tile.col * self.side
            squares.append(sheet[top : top + self.side, left : left + self.side])
        return squares
