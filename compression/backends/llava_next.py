"""LLaVA-NeXT checkpoints: LLaVA on an image of any resolution.

What this backend changes of `LlavaBackend`:

* an image becomes one view of the whole and the tiles of a sheet (`anyres`); each tile is a view of the grid, so that
  strategies that look at a view and its [CLS] see what the tower saw;
* tokens on the sheet's padding are removed and belong to no view, as in the stock model;
* one placeholder stands for the picture: the whole view, then the sheet row by row across the tiles;
* `image_newline` is no visual token. It follows each row of the sheet of which a token is left; outputs without a place
  of their own follow the last row;
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
from transformers.image_utils import SizeDict

from compression.backends.anyres import Tiling
from compression.backends.llava import LlavaBackend
from compression.backends.sequence import PLACEHOLDER, SEPARATOR, blocks_of
from compression.grid import TokenGrid, View
from compression.selection import Selection


class LlavaNextBackend(LlavaBackend):
    """A LLaVA-NeXT checkpoint: the whole image and tiles of it, rows of tiles with a newline token behind each."""

    family = "llava_next"
    model_class: ClassVar[Any] = LlavaNextForConditionalGeneration

    def tiling(self, image_size: tuple[int, int]) -> Tiling:
        """How an image of (height, width) lies on tiles."""
        patch = int(self.config.vision_config.patch_size)
        return Tiling.of(image_size, self.config.image_grid_pinpoints, self.side, patch)

    # ------------------------------------------------------------------ image
    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Twice what the tiles hold at most."""
        resized = self.tiling(image_size).resized
        shrink = min(1.0, 2 * max(resized[0] / image_size[0], resized[1] / image_size[1]))
        return max(1, round(image_size[0] * shrink)), max(1, round(image_size[1] * shrink))

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """That the image is reduced before it is cut into tiles, where it is much."""
        resized = self.tiling(image_size).resized
        scale = max(image_size[0] / resized[0], image_size[1] / resized[1])
        if scale <= 1.5:
            return ()
        said = (
            f"The model reads this image at {resized[1]:,} × {resized[0]:,} pixels: {scale:.1f} pixels of the image "
            "become one, and smaller things vanish."
        )
        return (said,)

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The patches of the whole view and those of the tiles that lie on the image; newlines do not count."""
        return sum(len(view) for view in self.tiling(image_size).views())

    def cut(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> tuple[Tensor, tuple[View, ...]]:
        """The whole image and its tiles; see `LlavaBackend.cut`."""
        tiling = self.tiling(image_size)
        return self.pixels(tiling.squares(image, self._resize)), tiling.views()

    def _resize(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """An image uint8 [height, width, 3] at another (height, width), by the checkpoint's filter."""
        wanted = SizeDict(height=size[0], width=size[1])
        resized = self.processor.resize(image.transpose(2, 0, 1), wanted, resample=self.processor.resample)
        return np.asarray(resized, dtype=np.uint8).transpose(1, 2, 0)

    def _on_image(self, views: Sequence[View], image_size: tuple[int, int]) -> Tensor:
        return torch.from_numpy(self.tiling(image_size).inside())

    # ------------------------------------------------------------------ question
    def picture_text(self, grid: TokenGrid) -> str:
        """One placeholder for the picture and all its views."""
        return PLACEHOLDER

    def places(self, grid: TokenGrid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column on the sheet of each token behind the whole view, two int64 [tokens]."""
        return self.tiling(grid.image_size).places()

    def blocks(self, selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
        """One block: the whole view's outputs, then row by row those of the sheet and a separator."""
        whole, *tiles = blocks_of(selection, grid)
        outputs = np.concatenate(tiles)
        anchor = selection.anchor[outputs]
        placed = outputs[anchor >= 0]
        rows, cols = (of[anchor[anchor >= 0] - grid.starts[1]] for of in self.places(grid))
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
