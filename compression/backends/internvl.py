"""InternVL3 checkpoints: an InternViT tower, a pixel shuffle and a Qwen2 language model.

What this backend changes of `ShuffledBackend`:

* the image is stretched onto the arrangement of tiles that is nearest to it in shape (`get_optimal_tiled_canvas` of the
  library); the whole image, as one more tile, comes last where there are several;
* a pixel shuffle makes one visual token of a square of patches, two by two at a `downsample_ratio` of 0.5: a token's
  box is that of its patches. `FEATURES` is what the projector reads, the patches' features side by side. [CLS] has no
  way through the shuffle, so its feature and what is compared with it are not provided;
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

from compression.backends.hooks import tapped
from compression.backends.llava import cls_row, received_by
from compression.backends.native import INSIDE
from compression.backends.sequence import blocks_of
from compression.backends.shuffled import ShuffledBackend
from compression.errors import ModelUnavailable
from compression.grid import TokenGrid
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


class InternVLBackend(ShuffledBackend):
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
    def patch(self) -> int:
        """Edge of a patch in pixels."""
        return int(self.config.vision_config.patch_size[0])

    def canvas(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles for an image of (height, width)."""
        least, most = self.processor.min_patches, self.processor.max_patches
        cols, rows = get_optimal_tiled_canvas(image_size, (self.side, self.side), least, most)
        return rows, cols

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
        signals = {
            Signal.FEATURES: features,
            Signal.PROJECTED: self.project(features),
            Signal.CLS_ATTENTION: self._per_head(cls_row(query, key, attend.scale), len(views)),
            Signal.EARLY_CLS_ATTENTION: self._per_head(cls_row(first_query, first_key, first.scale), len(views)),
            Signal.RECEIVED_ATTENTION: self.pooled(received_by(query, key, attend.scale)[:, 1:]).flatten(),
            Signal.KEYS: self.pooled_keys(key[:, :, 1:]),
        }
        return self._tokens(signals, views, image_size)

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
