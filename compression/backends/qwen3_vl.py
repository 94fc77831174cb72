"""Qwen3-VL checkpoints: a tower without windows, deep-stack planes, and a Qwen3 language model with interleaved mRoPE.

What this backend changes of `Qwen25VLBackend`:

* a patch attends to the whole image in every block: the signals are those of the last one. Tokens are 32 pixels wide;
* boxes are written in thousandths of the picture's edges (Qwen3-VL, arXiv 2511.21631);
* mergers behind further blocks of the tower make the deep-stack planes, which the first layers of the language model
  add to the visual tokens behind them (`DEEPSTACK`). They are cut and merged with the tokens by the same selection: a
  merged token's plane is the weighted sum of those of its sources. The planes travel beside the projected features (the
  language model is given [outputs, (1 + planes) · dim]) and are added here instead of by the library, whose own
  addition holds a mask of the whole sequence and cannot follow a cut between the layers;
* `score` is differentiable by the projected features; the planes stay what the tower made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from compression.backends.base import Architecture
from compression.backends.hooks import added_behind
from compression.backends.inside import Inside
from compression.backends.qwen2_5_vl import PROVIDES, Qwen25VLBackend
from compression.grid import TokenGrid
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens
from compression.zooming.written import Coordinates


class Qwen3VLBackend(Qwen25VLBackend):
    """A Qwen3-VL checkpoint: as Qwen2.5-VL, and further layers read the picture too."""

    family = "qwen3_vl"
    provides = PROVIDES | {Signal.DEEPSTACK}
    coordinates = Coordinates.THOUSAND
    model_class: ClassVar[Any] = Qwen3VLForConditionalGeneration

    def with_blocks(self, architecture: Architecture) -> Architecture:
        """All blocks are of the usual kind."""
        return architecture

    @property
    def looking(self) -> int:
        """The tower's last block; in all of them a patch attends to the whole image."""
        return self.architecture.encoder_layers - 1

    def reading_order(self, grid: TokenGrid) -> Tensor:
        """The tower has the tokens in reading order."""
        return torch.arange(len(grid), device=self.device)

    def further(self, made: Any) -> dict[Signal, Tensor]:
        """The deep-stack planes side by side, [tokens, planes · dim]."""
        return {Signal.DEEPSTACK: torch.cat(list(made.deepstack_features), dim=1)}

    def given(self, features: Tensor, entering: Selection, tokens: VisualTokens) -> Tensor:
        """The projected features and, beside them, the planes of the same outputs."""
        return torch.cat([features, entering.apply(tokens.signals[Signal.DEEPSTACK])], dim=1)

    def forward(
        self,
        ids: Tensor,
        features: Tensor,
        blocks: Sequence[NDArray[np.int64]],
        *,
        inside: Inside | None = None,
        **kwargs: Any,
    ) -> Any:
        """One pass of the stock model with our visual tokens and planes in place of its own."""
        first, *planes = features.unflatten(1, (-1, self.architecture.dim)).unbind(1)
        visual = (ids[0] == self.image_id).nonzero()[:, 0]

        def addend(layer: int) -> tuple[Tensor, Tensor]:
            if inside is None:
                return visual, planes[layer]
            return torch.from_numpy(inside.layout.visual).to(ids.device), inside.left.apply(planes[layer])

        given = BaseModelOutputWithDeepstackFeatures(pooler_output=self.pack(first, blocks), deepstack_features=[])
        with added_behind(self.decoder_layers[: len(planes)], addend):
            return self.model(input_ids=ids, mm_encoder_outputs={"image": given}, **kwargs)
