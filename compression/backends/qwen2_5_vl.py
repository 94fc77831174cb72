"""Qwen2.5-VL checkpoints: a tower with windows and a 2 x 2 patch merger, and a Qwen2 language model with mRoPE.

What this backend changes of `TiledBackend`:

* the image is one view at nearly its own resolution, stretched to the nearest multiples of a token's edge (28 pixels)
  within the checkpoint's least and most pixels (`smart_resize` of the library);
* the merger makes one visual token of two by two patches: a token's box is that of its patches. `FEATURES` is what the
  merger reads, the patches' features side by side;
* the tower orders its patches by windows; everything is put back in reading order. `RECEIVED_ATTENTION` is that of the
  last block in which a patch attends to the whole image, summed over a token's patches so that it is still a share;
  the other blocks attend within windows (112 pixels in the released checkpoints). `KEYS` are of that block, before
  rotary positions, the mean of the patches'. There is no [CLS];
* a prompt may hold several pictures, and boxes are written in pixels of what the tower reads (Qwen2.5-VL, arXiv
  2502.13923, section 2.1);
* position ids have three axes (`Axes`): they are those of the whole grid, of which the kept tokens keep theirs unless
  the strategy is asked to renumber; the selection's diagnostics say which (`positions`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil
from transformers.image_processing_backends import PilBackend
from transformers.image_utils import SizeDict
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from compression.backends.axes import Axes, places_on
from compression.backends.base import Architecture
from compression.backends.hooks import tapped, with_word_ids
from compression.backends.hub import Checkpoint
from compression.backends.llava import received_by
from compression.backends.native import INSIDE
from compression.backends.prefill import Pass
from compression.backends.tiled import TiledBackend
from compression.errors import InvalidGrid, ModelUnavailable
from compression.grid import TokenGrid
from compression.positions import Positions
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens
from compression.zooming.written import Coordinates

PROVIDES = INSIDE | {Signal.FEATURES, Signal.PROJECTED, Signal.RECEIVED_ATTENTION, Signal.KEYS, Signal.CROPS}
LONGEST = 200
"""Longer edge of an image over its shorter one at most; the library's constant."""


class Qwen25VLBackend(TiledBackend):
    """A Qwen2.5-VL checkpoint: one view of any shape, each token made of two by two patches."""

    family = "qwen2_5_vl"
    provides = PROVIDES
    model_class: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    processor_class: ClassVar[Any] = Qwen2VLImageProcessorPil
    has_cls = False
    entering_positions: Positions = "original"
    coordinates = Coordinates.PIXELS

    def __init__(
        self, source: str | Path | Checkpoint, *, name: str | None = None, device: str = "auto", dtype: str = "auto"
    ) -> None:
        super().__init__(source, name=name, device=device, dtype=dtype)
        self.architecture = self.with_blocks(self.architecture)

    def with_blocks(self, architecture: Architecture) -> Architecture:
        """What the tower's blocks do, for the estimated cost."""
        vision = self.config.vision_config
        return replace(
            architecture,
            encoder_is_gated=True,
            encoder_windowed_layers=vision.depth - len(vision.fullatt_block_indexes),
            encoder_window=(vision.window_size // self.side * self.merge) ** 2,
        )

    # ------------------------------------------------------------------ image
    @property
    def merge(self) -> int:
        """Patches along one edge of a token."""
        return int(self.config.vision_config.spatial_merge_size)

    @property
    def side(self) -> int:
        """Edge of a token in pixels."""
        return int(self.config.vision_config.patch_size) * self.merge

    def resized(self, image_size: tuple[int, int], least: int | None = None) -> tuple[int, int]:
        """The (height, width) at which the tower reads an image of (height, width).

        Args:
            image_size: Of the image.
            least: Fewest pixels, to which a smaller image is enlarged; None for the checkpoint's.

        Raises:
            InvalidGrid: it is longer than `LONGEST` times its shorter edge.
        """
        if max(image_size) > LONGEST * min(image_size):
            raise InvalidGrid(
                f"the image has {image_size[1]:,} × {image_size[0]:,} pixels; this model reads images whose longer "
                f"edge is at most {LONGEST} times the shorter one; choose a part of it"
            )
        size = self.processor.size
        height, width = smart_resize(*image_size, self.side, least or size["shortest_edge"], size["longest_edge"])
        return int(height), int(width)

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """That the image is reduced much, or stretched."""
        height, width = self.resized(image_size)
        scale = image_size[0] / height, image_size[1] / width
        if max(scale) / min(scale) <= 1.05:
            return super().notices(image_size)
        stretched = f"The image is stretched to whole tokens: the model sees it as {width:,} × {height:,} pixels."
        return (*super().notices(image_size), stretched)

    def grid(self, image_size: tuple[int, int], least: int | None = None) -> TokenGrid:
        """One view of the merged tokens over the whole image; `least` as in `resized`."""
        height, width = self.resized(image_size, least)
        return TokenGrid.single(height // self.side, width // self.side, image_size)

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The merged tokens."""
        return len(self.grid(image_size))

    def count_reduced(self, size: tuple[int, int]) -> int:
        """The merged tokens of an image that is not enlarged, but to whole tokens."""
        return len(self.grid(size, least=1))

    def encode_reduced(self, image: NDArray[np.uint8]) -> VisualTokens:
        """Visual tokens of an image that is not enlarged, but to whole tokens."""
        return self._looked(image, self.grid((image.shape[0], image.shape[1]), least=1))

    def encode_overview(self, image: NDArray[np.uint8]) -> VisualTokens:
        """As any smaller copy; boxes on it are in pixels of what the tower reads."""
        tokens = super().encode_overview(image)
        view = tokens.grid.views[0]
        return replace(tokens, grid=replace(tokens.grid, read_size=(view.rows * self.side, view.cols * self.side)))

    def patches_per_view(self, grid: TokenGrid) -> tuple[int, ...]:
        """Those of the image before the merger."""
        return tuple(len(view) * self.merge**2 for view in grid.views)

    def patches(self, image: NDArray[np.uint8], grid: TokenGrid) -> Tensor:
        """What the tower reads of an image: its patches float [patches, values], those of a token one after another."""
        # By the grid: the size of a decimated copy could be rounded to another number of tokens.
        sheet = self._resize(image, (grid.views[0].rows * self.side, grid.views[0].cols * self.side))
        made = self.processor(images=[sheet], do_resize=False, input_data_format="channels_last", return_tensors="pt")
        values: Tensor = made["pixel_values"].to(self.device, self.model.dtype)
        return values

    def _resize(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        wanted = SizeDict(height=size[0], width=size[1])
        # The family's own `resize` would choose the size itself.
        resized = PilBackend.resize(self.processor, image.transpose(2, 0, 1), wanted, resample=self.processor.resample)
        return np.asarray(resized, dtype=np.uint8).transpose(1, 2, 0)

    def patch_grid(self, grid: TokenGrid) -> Tensor:
        """Frames, rows and columns of each view's patches as the library takes them, int64 [views, 3]."""
        sizes = [[1, view.rows * self.merge, view.cols * self.merge] for view in grid.views]
        return torch.tensor(sizes, device=self.device)

    @property
    def looking(self) -> int:
        """The last of the tower's blocks in which a patch attends to the whole image."""
        blocks = list(self.config.vision_config.fullatt_block_indexes)
        if not blocks:
            raise ModelUnavailable(
                "only checkpoints with a vision block that attends to the whole image are supported, got none in "
                "fullatt_block_indexes; choose another checkpoint"
            )
        return int(max(blocks))

    def reading_order(self, grid: TokenGrid) -> Tensor:
        """Where the tower has each token, int64 [tokens]."""
        vision = self.config.vision_config
        order, _ = get_vision_window_index(
            self.patch_grid(grid), vision.spatial_merge_size, vision.window_size, vision.patch_size
        )
        places: Tensor = order.argsort().to(self.device)
        return places

    def encode(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> VisualTokens:
        """Visual tokens of one image; see `LlavaBackend.encode`."""
        return self._looked(image, self.grid(image_size))

    @torch.no_grad()
    def _looked(self, image: NDArray[np.uint8], grid: TokenGrid) -> VisualTokens:
        """Visual tokens of one image on a grid of one view."""
        shape, order = self.patch_grid(grid), self.reading_order(grid)
        tower = self.model.model.visual
        attend = tower.blocks[self.looking].attn
        with tapped({"qkv": attend.qkv}) as heard:
            made = tower(self.patches(image, grid), grid_thw=shape, return_dict=True)

        def read(patches: Tensor) -> Tensor:
            """In reading order, those of a token side by side: [tokens, merge², ...]."""
            tokens: Tensor = patches.unflatten(0, (-1, self.merge**2))
            return tokens[order]

        # each [patches, heads, head dim]
        query, key, _ = read(heard["qkv"]).flatten(0, 1).unflatten(1, (3, attend.num_heads, -1)).unbind(1)
        angles = tower.rotary_pos_emb(query, get_vision_position_ids(shape, self.merge))
        turned_query, turned_key = (
            part.transpose(0, 1)[None].float() for part in apply_rotary_pos_emb_vision(query, key, *angles)
        )
        received = received_by(turned_query, turned_key, attend.scaling)[0]
        features = read(made.last_hidden_state).flatten(1)
        signals = {
            Signal.FEATURES: features,
            Signal.PROJECTED: made.pooler_output,
            Signal.RECEIVED_ATTENTION: received.unflatten(0, (-1, self.merge**2)).sum(1),
            Signal.KEYS: key.float().mean(1).unflatten(0, (-1, self.merge**2)).mean(1),
            **self.further(made),
        }
        return VisualTokens.whole(features, grid, signals)

    def further(self, made: Any) -> dict[Signal, Tensor]:
        """Signals of a tower's output that only some families have."""
        return {}

    def project(self, features: Tensor) -> Tensor:
        """Encoder features [tokens, encoder dim] as the language model reads them, [tokens, dim]."""
        projected: Tensor = self.model.model.visual.merger(features.reshape(-1, self.architecture.encoder_dim))
        return projected

    # ------------------------------------------------------------------ question
    @property
    def picture_word(self) -> str:
        """The picture between its start and its end, as the chat template writes it."""
        start, end = self.config.vision_start_token_id, self.config.vision_end_token_id
        return f"{self.word_of(start)}{self.image_word}{self.word_of(end)}"

    def picture_text(self, grid: TokenGrid) -> str:
        """For each view a picture of its own, between its start and its end."""
        return self.picture_word * len(grid.views)

    def place(self, ids: Tensor, entering: Selection, grid: TokenGrid) -> Axes:
        """The ids of the whole grid, of which the outputs get those of their anchors (`places_on`).

        They are closed up (`Axes.closed_up`) where the strategy was asked to renumber.
        """
        pictures = (ids[0] == self.config.vision_start_token_id).nonzero()[:, 0] + 1
        places = places_on(grid, entering)
        whole, kept, length, read = [], [], 0, 0
        for picture, start, view, block in zip(
            pictures.tolist(), grid.starts, grid.views, self.blocks(entering, grid), strict=False
        ):
            words = ids[:, read:picture]
            whole += [words, ids.new_full((1, len(view)), self.image_id)]
            kept += [np.arange(length, length + words.shape[1]), length + words.shape[1] + places[block] - start]
            length, read = length + words.shape[1] + len(view), picture + len(block)
        whole.append(ids[:, read:])
        kept.append(np.arange(length, length + whole[-1].shape[1]))
        every = torch.cat(whole, dim=1)
        made, beyond = self.model.model.get_rope_index(
            every, mm_token_type_ids=(every == self.image_id).int(), image_grid_thw=self.patch_grid(grid)
        )
        taken = torch.from_numpy(np.concatenate(kept)).to(ids.device)
        axes = Axes(made[:, 0, taken], int(beyond) + every.shape[1])
        if entering.diagnostics.get("positions") != "renumbered":
            return axes
        return axes.closed_up((ids[0] == self.image_id).nonzero()[:, 0].cpu().numpy())

    @contextmanager
    def continuing(self, last: Pass) -> Iterator[None]:
        """What holds while the library decodes behind a prefill: it counts on from the cache and the difference."""
        model, axes = self.model.model, last.axes
        if axes is not None:
            model.rope_deltas = torch.tensor([[axes.following - axes.ids.shape[1]]], device=self.device)
        try:
            with with_word_ids(self.language), super().continuing(last):
                yield
        finally:
            model.rope_deltas = None
