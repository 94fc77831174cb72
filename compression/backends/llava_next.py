"""LLaVA-NeXT checkpoints: LLaVA on an image of any resolution.

What this backend changes of `LlavaBackend`:

* an image becomes one view of the whole and the tiles of a sheet (`anyres`); each tile is a view of the grid, so that
  strategies that look at a view and its [CLS] see what the tower saw;
* tokens on the sheet's padding are removed and belong to no view, as in the stock model;
* one placeholder stands for the picture: the whole view, then the sheet row by row across the tiles;
* `image_newline` is no visual token. It follows each row of the sheet of which a token is left; outputs without a place
  of their own follow the last row. Outputs in an order that a strategy defined keep it tile by tile, and a newline
  follows each tile;
* for an image that was read smaller than it is, the tiling is still that of the original size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlavaNextForConditionalGeneration

from compression.backends.anyres import Tiling
from compression.backends.sequence import SEPARATOR, blocks_of
from compression.backends.tiled import TiledBackend
from compression.grid import TokenGrid, View
from compression.selection import Selection


class LlavaNextBackend(TiledBackend):
    """A LLaVA-NeXT checkpoint: the whole image and tiles of it, rows of tiles with a newline token behind each."""

    family = "llava_next"
    model_class: ClassVar[Any] = LlavaNextForConditionalGeneration

    def tiling(self, image_size: tuple[int, int]) -> Tiling:
        """How an image of (height, width) lies on tiles."""
        patch = int(self.config.vision_config.patch_size)
        return Tiling.of(image_size, self.config.image_grid_pinpoints, self.side, patch)

    # ------------------------------------------------------------------ image
    def resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) of the image on the sheet of tiles, without the padding."""
        return self.tiling(image_size).resized

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The patches of the whole view and those of the tiles that lie on the image; newlines do not count."""
        return sum(len(view) for view in self.tiling(image_size).views())

    def view_lengths(self, image_size: tuple[int, int]) -> tuple[int, ...]:
        """Those of the whole view and of each tile."""
        return tuple(len(view) for view in self.tiling(image_size).views())

    def cut(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> tuple[Tensor, tuple[View, ...]]:
        """The whole image and its tiles; see `LlavaBackend.cut`."""
        tiling = self.tiling(image_size)
        return self.pixels(tiling.squares(image, self._resize)), tiling.views()

    def _on_image(self, views: Sequence[View], image_size: tuple[int, int]) -> Tensor:
        return torch.from_numpy(self.tiling(image_size).inside())

    # ------------------------------------------------------------------ question
    def places(self, grid: TokenGrid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column on the sheet of each token behind the whole view, two int64 [tokens]."""
        return self.tiling(grid.shown_size).places()

    def blocks(self, selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
        """One block: the whole view's outputs, then row by row those of the sheet and a separator.

        Outputs in an order of their own, such as a path, keep it, with one separator behind each tile: rows would
        break it up.
        """
        whole, *tiles = blocks_of(selection, grid)
        outputs = np.concatenate(tiles)
        anchor = selection.anchor[outputs]
        placed = outputs[anchor >= 0]
        rows, cols = (of[anchor[anchor >= 0] - grid.starts[1]] for of in self.places(grid))
        if (np.diff(anchor[anchor >= 0]) < 0).any():
            return [np.concatenate([whole, *(np.append(tile, SEPARATOR) for tile in tiles if len(tile))])]
        placed, rows = placed[order := np.lexsort((cols, rows))], rows[order]
        parts = [whole]
        for row in np.unique(rows):
            parts += [placed[rows == row], np.array([SEPARATOR])]
        return [np.concatenate([*parts, outputs[anchor < 0]])]

    def pack(self, features: Tensor, blocks: Sequence[NDArray[np.int64]]) -> Any:
        """The blocks with the newline embedding at each separator."""
        newline: Tensor = self.model.model.image_newline
        # The separator's index is that of the last row.
        return super().pack(torch.cat([features, newline[None].to(features)]), blocks)
