"""Idefics3 and SmolVLM checkpoints: a SigLIP tower, a pixel shuffle and a Llama-like language model.

The library has two classes that are the same but for their names; SmolVLM2's checkpoints are of the second, those of
the first SmolVLM are of Idefics3's. What this backend changes of `ShuffledBackend`:

* the image is brought to a fixed longest edge, keeping its shape, then stretched to whole tiles; the view of the whole
  is made of what was stretched. A checkpoint whose processor does not split (`do_image_splitting`) has one square view;
* `scale_factor` is the number of patches along one edge of a token: 2 for Idefics3 and 3 or 4 for SmolVLM;
* each view has a placeholder of its own behind the words `<fake_token_around_image><row_1_col_1>`, the view of the
  whole behind `<global-img>`, as the library's processors write them. These words have no area, and they stay when
  nothing is left of their view;
* the tower reads whole tiles without padding, so that no patch is masked. It has no [CLS].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import get_resize_output_image_size
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from compression.backends.hooks import tapped
from compression.backends.llava import received_by
from compression.backends.native import INSIDE
from compression.backends.shuffled import ShuffledBackend
from compression.grid import TokenGrid
from compression.tokens import Signal, VisualTokens

PROVIDES = INSIDE | {Signal.FEATURES, Signal.PROJECTED, Signal.RECEIVED_ATTENTION, Signal.KEYS}


class Idefics3Backend(ShuffledBackend):
    """An Idefics3 checkpoint: split images, the words of a row and a column before each tile."""

    family = "idefics3"
    provides = PROVIDES
    model_class: ClassVar[Any] = Idefics3ForConditionalGeneration
    processor_class: ClassVar[Any] = Idefics3ImageProcessorPil
    has_cls = False

    # ------------------------------------------------------------------ image
    @property
    def side(self) -> int:
        """Edge of a tile in pixels."""
        return int(self.processor.max_image_size["longest_edge"])

    @property
    def patch(self) -> int:
        """Edge of a patch in pixels."""
        return int(self.config.vision_config.patch_size)

    @property
    def merge(self) -> int:
        """Patches along one edge of a token."""
        return int(self.config.scale_factor)

    def scaled(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at the checkpoint's longest edge, before the image is stretched to tiles."""
        if not self.processor.do_resize:
            return image_size
        # The library's function asks for the shape only: this array has no pixels of its own.
        shaped = np.broadcast_to(np.uint8(0), (3, *image_size))
        height, width = get_resize_output_image_size(shaped, self.processor.size["longest_edge"])
        return int(height), int(width)

    def canvas(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of tiles for an image of (height, width)."""
        if not self.processor.do_image_splitting:
            return 1, 1
        height, width = self.scaled(image_size)
        side, shape = self.side, width / height
        # The longer edge grows to whole tiles first, and the shorter one with it, as in the library.
        if width >= height:
            cols = -(-width // side)
            return -(-int(cols * side / shape) // side), cols
        rows = -(-height // side)
        return rows, -(-int(rows * side * shape) // side)

    def sheet(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> NDArray[np.uint8]:
        """The image on all tiles, resized twice as in the library; see `ShuffledBackend.sheet`."""
        return self._resize(self._resize(image, self.scaled(image_size)), self.resized(image_size))

    def whole(self, image: NDArray[np.uint8], sheet: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The view of the whole, made of the sheet."""
        return super().whole(sheet, sheet)

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Tiles uint8 [side, side, 3] as the tower reads them, float [tiles, 3, side, side]."""
        made = self.processor(
            images=list(images),
            input_data_format="channels_last",
            return_tensors="pt",
            do_resize=False,
            do_image_splitting=False,
        )
        # The library lists the images of one text in a row of their own.
        values: Tensor = made["pixel_values"][0].to(self.device, self.model.dtype)
        return values

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> VisualTokens:
        """Visual tokens of one image; see `LlavaBackend.encode`."""
        pixels, views = self.cut(image, image_size)
        inner = self.model.model
        attend = inner.vision_model.encoder.layers[-1].self_attn
        with tapped({"query": attend.q_proj, "key": attend.k_proj}) as heard:
            states = inner.vision_model(pixels).last_hidden_state
        features = inner.connector.pixel_shuffle(states, self.merge).flatten(0, 1)
        # each [views, heads, patches, head dim]
        query, key = (
            heard[name].unflatten(-1, (attend.num_heads, -1)).transpose(1, 2).float() for name in ("query", "key")
        )
        signals = {
            Signal.FEATURES: features,
            Signal.PROJECTED: self.project(features),
            Signal.RECEIVED_ATTENTION: self.pooled(received_by(query, key, attend.scale)).flatten(),
            Signal.KEYS: self.pooled_keys(key),
        }
        return self._tokens(signals, views, image_size)

    def project(self, features: Tensor) -> Tensor:
        """Shuffled patches [tokens, encoder dim · merge²] as the language model reads them, [tokens, dim]."""
        projected: Tensor = self.model.model.connector.modality_projection(features)
        return projected

    # ------------------------------------------------------------------ question
    def picture_text(self, grid: TokenGrid) -> str:
        """The library's words for the tiles and the whole, with one placeholder for each view."""
        # From the tiles themselves: the image may have been read at another size than its own.
        tiles = grid.views[:-1]
        rows, cols = len({tile.box[1] for tile in tiles}), len({tile.box[0] for tile in tiles})
        text: str = get_image_prompt_string(
            rows,
            cols,
            1,
            fake_token_around_image=getattr(self.tokenizer, "fake_image_token", "<fake_token_around_image>"),
            image_token=self.image_word,
            global_image_token=getattr(self.tokenizer, "global_image_token", "<global-img>"),
        )
        return text

    # ------------------------------------------------------------------ surgery
    @property
    def language(self) -> Any:
        """The language model without its head."""
        return self.model.model.text_model


class SmolVLMBackend(Idefics3Backend):
    """A SmolVLM2 checkpoint, asked about one image."""

    family = "smolvlm"
    model_class: ClassVar[Any] = SmolVLMForConditionalGeneration
    processor_class: ClassVar[Any] = SmolVLMImageProcessorPil
