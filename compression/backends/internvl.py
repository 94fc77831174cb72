"""InternVL3 checkpoints: an InternViT tower, a pixel shuffle and a Qwen2 language model.

What this backend changes of `LlavaBackend`:

* the image is stretched onto the arrangement of tiles that is nearest to it in shape (`get_optimal_tiled_canvas` of the
  library); the whole image, as one more tile, comes last where there are several;
* a pixel shuffle makes one visual token of a square of patches, two by two at a `downsample_ratio` of 0.5: a token's
  box is that of its patches. `FEATURES` is what the projector reads, the patches' features side by side;
* attention on a token is the sum over its patches, so that it is still a share; its key is their mean. [CLS] has no way
  through the shuffle, so its feature and what is compared with it are not provided;
* all tokens stand behind one start token and before one end token, without separators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import GotOcr2ImageProcessorPil, InternVLForConditionalGeneration
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from compression.backends.embedded.cells import cell_name
from compression.backends.hooks import tapped
from compression.backends.llava import cls_row, received_by
from compression.backends.native import INSIDE
from compression.backends.sequence import blocks_of
from compression.backends.tiled import TiledBackend
from compression.errors import ModelUnavailable
from compression.grid import THUMBNAIL, TokenGrid, View
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens

PROVIDES = INSIDE | {
    Signal.FEATURES,
    Signal.PROJECTED,
    Signal.CLS_ATTENTION,
    Signal.EARLY_CLS_ATTENTION,
    Signal.RECEIVED_ATTENTION,
    Signal.KEYS,
}


class InternVLBackend(TiledBackend):
    """An InternVL3 checkpoint: tiles of one size, each token made of a square of patches."""

    family = "internvl"
    provides = PROVIDES
    model_class: ClassVar[Any] = InternVLForConditionalGeneration
    processor_class: ClassVar[Any] = GotOcr2ImageProcessorPil

    # ------------------------------------------------------------------ image
    @property
    def side(self) -> int:
        """Edge of a tile in pixels."""
        return int(self.config.vision_config.image_size[0])

    @property
    def merge(self) -> int:
        """Patches along one edge of a token."""
        return round(1 / float(self.config.downsample_ratio))

    @property
    def edge(self) -> int:
        """Tokens along one edge of a tile."""
        return self.side // int(self.config.vision_config.patch_size[0]) // self.merge

    def canvas(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles for an image of (height, width)."""
        least, most = self.processor.min_patches, self.processor.max_patches
        cols, rows = get_optimal_tiled_canvas(image_size, (self.side, self.side), least, most)
        return rows, cols

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
        """Each tile's part of the image in reading order, then the whole where there are several."""
        height, width = image_size
        rows, cols = self.canvas(image_size)
        whole = (0.0, 0.0, float(width), float(height))
        if rows == cols == 1:
            return (View(self.edge, self.edge, whole),)
        made = []
        for row in range(rows):
            for col in range(cols):
                box = (col * width / cols, row * height / rows, (col + 1) * width / cols, (row + 1) * height / rows)
                name = cell_name(row, col) if cols <= 8 else f"{row + 1},{col + 1}"
                made.append(View(self.edge, self.edge, box, name))
        return (*made, View(self.edge, self.edge, whole, THUMBNAIL))

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The tokens of all tiles and of the whole view."""
        return sum(len(view) for view in self.views(image_size))

    def patches_per_view(self, grid: TokenGrid) -> tuple[int, ...]:
        """Those of a whole tile for each view, before the shuffle."""
        return ((self.edge * self.merge) ** 2,) * len(grid.views)

    def cut(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> tuple[Tensor, tuple[View, ...]]:
        """The tiles and the whole image; see `LlavaBackend.cut`."""
        rows, cols = self.canvas(image_size)
        side = self.side
        sheet = self._resize(image, (rows * side, cols * side))
        tiles = list(sheet.reshape(rows, side, cols, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3))
        if len(tiles) > 1:
            tiles.append(self._resize(image, (side, side)))
        return self.pixels(tiles), self.views(image_size)

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> VisualTokens:
        """Visual tokens of one image; see `LlavaBackend.encode`."""
        pixels, views = self.cut(image, image_size)
        layer = self.config.vision_feature_layer
        if self.config.vision_feature_select_strategy != "default" or not isinstance(layer, int):
            raise ModelUnavailable(
                "only checkpoints whose vision_feature_select_strategy is 'default' and whose vision_feature_layer is "
                "one layer are supported; choose another checkpoint"
            )
        tower = self.model.model.vision_tower
        attend = tower.encoder.layer[layer if layer < 0 else layer - 1].attention
        first = tower.encoder.layer[0].attention
        norms = {"query": attend.q_norm, "key": attend.k_norm, "q0": first.q_norm, "k0": first.k_norm}
        with tapped(norms) as heard:
            made = tower(pixels, output_hidden_states=True)
        # The last layer's states pass the tower's norm, as in the stock model; those of others do not.
        states = made.last_hidden_state if layer == -1 else made.hidden_states[layer]
        length = self.edge * self.merge
        square = states[:, 1:].unflatten(1, (length, length))
        features = self.model.model.pixel_shuffle(square, scale_factor=self.config.downsample_ratio).flatten(0, 2)
        # each [views, heads, [CLS] and patches, head dim]
        query, key, first_query, first_key = (
            heard[name].unflatten(-1, (attend.num_heads, -1)).transpose(1, 2).float() for name in norms
        )
        keys = self.pooled(key[:, :, 1:].mean(1).mT).mT / self.merge**2
        signals = {
            Signal.FEATURES: features,
            Signal.PROJECTED: self.project(features),
            Signal.CLS_ATTENTION: self._per_head(cls_row(query, key, attend.scale), len(views)),
            Signal.EARLY_CLS_ATTENTION: self._per_head(cls_row(first_query, first_key, first.scale), len(views)),
            Signal.RECEIVED_ATTENTION: self.pooled(received_by(query, key, attend.scale)[:, 1:]).flatten(),
            Signal.KEYS: keys.flatten(0, 1),
        }
        return self._tokens(signals, views, image_size)

    def pooled(self, patches: Tensor) -> Tensor:
        """Sums over the patches of each token, [..., patches] of a tile to [..., tokens]."""
        blocks: Tensor = patches.unflatten(-1, (self.edge, self.merge, self.edge, self.merge))
        summed: Tensor = blocks.sum((-3, -1)).flatten(-2)
        return summed

    def _per_head(self, rows: Tensor, views: int) -> Tensor:
        """Rows over the patches of all views, [heads, patches], as rows over the tokens."""
        return self.pooled(rows.unflatten(1, (views, -1))).flatten(1)

    # ------------------------------------------------------------------ question
    def picture_text(self, grid: TokenGrid) -> str:
        """One placeholder for the picture between the start and the end token."""
        start = getattr(self.tokenizer, "start_image_token", "<img>")
        end = getattr(self.tokenizer, "end_image_token", "</img>")
        return f"{start}{self.image_word}{end}"

    def blocks(self, selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
        """One block: the outputs of all views, one view after the other."""
        return [np.concatenate(blocks_of(selection, grid))]

    def pack(self, features: Tensor, blocks: Sequence[NDArray[np.int64]]) -> Any:
        """The outputs as the library's tensor of one picture, [1, outputs, dim]."""
        return torch.cat(super().pack(features, blocks))[None]
