"""What families share that stretch an image onto tiles and make each visual token of a square of patches."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compression.backends.embedded.cells import cell_name
from compression.backends.tiled import TiledBackend
from compression.grid import THUMBNAIL, TokenGrid, View


class ShuffledBackend(TiledBackend):
    """An image stretched onto rows and columns of tiles, the whole image as one more tile behind them.

    A pixel shuffle puts the features of a square of patches side by side. Attention on a token is the sum over its
    patches, so that it is still a share; its key is their mean.
    """

    @property
    @abstractmethod
    def patch(self) -> int:
        """Edge of a patch in pixels."""

    @property
    @abstractmethod
    def merge(self) -> int:
        """Patches along one edge of a token."""

    @property
    def edge(self) -> int:
        """Tokens along one edge of a tile."""
        return self.side // self.patch // self.merge

    @abstractmethod
    def canvas(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles for an image of (height, width)."""

    def resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) of all tiles together."""
        rows, cols = self.canvas(image_size)
        return rows * self.side, cols * self.side

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """That the image is reduced much, or does not have the shape of its tiles."""
        height, width = self.resized(image_size)
        scale = image_size[0] / height, image_size[1] / width
        if max(scale) / min(scale) <= 1.05:
            return super().notices(image_size)
        squeezed = (
            f"The image does not have the shape of its tiles: the model sees it as {width:,} × {height:,} pixels."
        )
        return (*super().notices(image_size), squeezed)

    def views(self, image_size: tuple[int, int]) -> tuple[View, ...]:
        """Each tile's part of the image in reading order, then the whole where there are several.

        A side that is no multiple of a token's edge leaves a margin without tokens at the right and the bottom.
        """
        height, width = image_size
        rows, cols = self.canvas(image_size)
        seen = self.edge * self.merge * self.patch / self.side
        whole = (0.0, 0.0, width * seen, height * seen)
        if rows == cols == 1:
            return (View(self.edge, self.edge, whole),)
        made = []
        for row in range(rows):
            for col in range(cols):
                left, top = col * width / cols, row * height / rows
                box = (left, top, (col + seen) * width / cols, (row + seen) * height / rows)
                name = cell_name(row, col) if cols <= 8 else f"{row + 1},{col + 1}"
                made.append(View(self.edge, self.edge, box, name))
        return (*made, View(self.edge, self.edge, whole, THUMBNAIL))

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The tokens of all tiles and of the whole view."""
        return sum(len(view) for view in self.views(image_size))

    def patches_per_view(self, grid: TokenGrid) -> tuple[int, ...]:
        """Those of a whole tile for each view, before the shuffle."""
        return ((self.edge * self.merge) ** 2,) * len(grid.views)

    def sheet(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> NDArray[np.uint8]:
        """The image, or a decimated copy, stretched onto all tiles: uint8 [height, width, 3]."""
        return self._resize(image, self.resized(image_size))

    def whole(self, image: NDArray[np.uint8], sheet: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The view of the whole, uint8 [side, side, 3], of the image or of the sheet that was made of it."""
        return self._resize(image, (self.side, self.side))

    def cut(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> tuple[Tensor, tuple[View, ...]]:
        """The tiles and the whole image; see `LlavaBackend.cut`."""
        rows, cols = self.canvas(image_size)
        side, sheet = self.side, self.sheet(image, image_size)
        tiles = list(sheet.reshape(rows, side, cols, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3))
        if len(tiles) > 1:
            tiles.append(self.whole(image, sheet))
        return self.pixels(tiles), self.views(image_size)

    def pooled(self, patches: Tensor) -> Tensor:
        """Sums over the patches of each token, [..., patches] of a tile to [..., tokens]."""
        blocks: Tensor = patches.unflatten(-1, (self.edge, self.merge, self.edge, self.merge))
        summed: Tensor = blocks.sum((-3, -1)).flatten(-2)
        return summed

    def pooled_keys(self, key: Tensor) -> Tensor:
        """The mean key over the heads and patches of each token, [tokens, head dim] of [views, heads, patches, dim]."""
        keys: Tensor = self.pooled(key.mean(1).mT).mT / self.merge**2
        return keys.flatten(0, 1)
