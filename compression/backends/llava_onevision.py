"""LLaVA-OneVision checkpoints, for one image: a SigLIP tower and a Qwen2 language model.

What this backend changes of `LlavaNextBackend`:

* the tower has no [CLS]: signals that need one are not provided;
* of a sheet much larger than `vision_aspect_ratio` allows ("anyres_max_9": nine tiles), the library makes a smaller one
  by bilinear interpolation. Such a sheet is one view, because its tokens lie across tiles; its signals are interpolated
  in the same way, so that each is the mean of the patches around it. `PROJECTED` is projected first, as in the stock
  model; what a strategy merges of `FEATURES` is projected after;
* patches that do not fill a tile's edge leave a margin without tokens (384 pixels hold 27 patches of 14). Boxes leave
  it out, except on an interpolated sheet, whose tokens share its extent evenly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration, SiglipImageProcessorPil

from compression.backends.anyres import Tiling
from compression.backends.llava import WITHOUT_CLS
from compression.backends.llava_next import LlavaNextBackend
from compression.grid import TokenGrid, View
from compression.tokens import Signal, VisualTokens

SLACK = 1.1
"""How much longer than allowed the sheet's edge may be before it is interpolated; the library's constant."""


class LlavaOnevisionBackend(LlavaNextBackend):
    """A LLaVA-OneVision checkpoint: any-resolution tiles read by a tower without a class token."""

    family = "llava_onevision"
    provides = WITHOUT_CLS
    model_class: ClassVar[Any] = LlavaOnevisionForConditionalGeneration
    processor_class: ClassVar[Any] = SiglipImageProcessorPil
    has_cls = False

    def reduced(self, tiling: Tiling) -> tuple[int, int] | None:
        """Token rows and columns to which the sheet is interpolated; None where it stays."""
        most = int(str(self.config.vision_aspect_ratio).removeprefix("anyres_max_"))
        rows, cols = tiling.shape
        ratio = math.sqrt(rows * cols / (most * tiling.edge**2))
        return (int(rows // ratio), int(cols // ratio)) if ratio > SLACK else None

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The patches of the whole view and the tokens of the sheet; newlines do not count."""
        tiling = self.tiling(image_size)
        smaller = self.reduced(tiling)
        return tiling.edge**2 + math.prod(smaller) if smaller else super().count_tokens(image_size)

    def view_lengths(self, image_size: tuple[int, int]) -> tuple[int, ...]:
        """All in one: an interpolated sheet has no tiles."""
        return (self.count_tokens(image_size),)

    def patches_per_view(self, grid: TokenGrid) -> tuple[int, ...]:
        """Those of a whole tile for the whole view and each tile, before any interpolation."""
        tiling = self.tiling(grid.shown_size)
        return (tiling.edge**2,) * (1 + len(tiling.tiles()))

    def places(self, grid: TokenGrid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column on the sheet of each token behind the whole view, two int64 [tokens]."""
        smaller = self.reduced(self.tiling(grid.shown_size))
        if smaller is None:
            return super().places(grid)
        rows, cols = np.indices(smaller)
        return rows.ravel(), cols.ravel()

    def _tokens(
        self, signals: Mapping[Signal, Tensor], views: tuple[View, ...], image_size: tuple[int, int]
    ) -> VisualTokens:
        tiling = self.tiling(image_size)
        smaller = self.reduced(tiling)
        if smaller is None:
            return super()._tokens(signals, views, image_size)
        rows, cols = tiling.places()
        raster = torch.from_numpy(np.lexsort((cols, rows)))
        extent = (*views[1].box[:2], *views[-1].box[2:])
        sheet = View(*smaller, extent, "tiles")

        def shrink(values: Tensor) -> Tensor:
            whole, tiles = values[: len(views[0])], values[len(views[0]) :]
            ordered = tiles[raster.to(tiles.device)].reshape(*tiling.shape, -1).permute(2, 0, 1)[None]
            made = nn.functional.interpolate(ordered, list(smaller), mode="bilinear")[0]
            return torch.cat([whole, made.flatten(1).T.reshape(-1, *values.shape[1:])])

        return super()._tokens(
            {name: shrink(values) for name, values in signals.items()}, (views[0], sheet), image_size
        )
