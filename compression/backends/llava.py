"""LLaVA checkpoints: a CLIP tower, a two-layer projector and a Llama-like language model.

What this backend adds to `NativeBackend`:

* the vision tower, the projector and the language model are called one after the other, so that a compressor can act
  between them; the reduced tokens enter through the library's own `mm_encoder_outputs`;
* the queries and keys of the first, the feature and the last layer are tapped for attention; the tower keeps its fused
  kernel. A tower without [CLS] (`has_cls`) gives what needs none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import CLIPImageProcessorPil, LlavaForConditionalGeneration

from compression.backends.blocks import merge_views
from compression.backends.hooks import tapped
from compression.backends.native import INSIDE, NativeBackend
from compression.errors import ModelUnavailable
from compression.grid import Box, TokenGrid, View
from compression.merging import Merging
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens
from compression.zooming.written import Coordinates

WITHOUT_CLS = INSIDE | {
    Signal.FEATURES,
    Signal.PROJECTED,
    Signal.RECEIVED_ATTENTION,
    Signal.KEYS,
    Signal.VALUES,
    Signal.LAST_KEYS,
}
"""What a tower of separate query, key and value projections gives."""
PROVIDES = WITHOUT_CLS | {
    Signal.CLS_ATTENTION,
    Signal.EARLY_CLS_ATTENTION,
    Signal.CLS_FEATURE,
    Signal.CLS_QUERY,
    Signal.LAST_CLS_ATTENTION,
    Signal.ENCODER_BLOCKS,
}

MOST_WEIGHTS = 2**26
"""Attention weights that are held at once while they are summed, all heads together."""


class LlavaBackend(NativeBackend):
    """A LLaVA checkpoint: one square of each image, read by a tower with a class token."""

    family = "llava"
    provides = PROVIDES | {Signal.CROPS}
    framing = "A crop is the square around its box, because the model reads squares."
    coordinates: Coordinates | None = Coordinates.UNIT  # as its training data write them
    model_class: ClassVar[Any] = LlavaForConditionalGeneration
    # By name: where torchvision exists, the automatic choice would resize with other rounding.
    processor_class: ClassVar[Any] = CLIPImageProcessorPil
    has_cls = True

    # ------------------------------------------------------------------ image
    @property
    def side(self) -> int:
        """Edge of the square that the vision tower reads, in pixels."""
        return int(self.config.vision_config.image_size)

    @property
    def edge(self) -> int:
        """Tokens along one edge of that square."""
        return self.side // int(self.config.vision_config.patch_size)

    def seen_box(self, image_size: tuple[int, int]) -> Box:
        """The part of an image of (height, width) that the model sees, in original pixels."""
        height, width = image_size
        if not self.processor.do_center_crop:
            return 0.0, 0.0, float(width), float(height)
        edge = min(height, width) * self.side / (self.processor.size.get("shortest_edge") or self.side)
        left, top = max(0.0, (width - edge) / 2), max(0.0, (height - edge) / 2)
        return left, top, min(float(width), left + edge), min(float(height), top + edge)

    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Twice the tower's edge at most: enough for an exact reduction without reading an 8,192-pixel image whole."""
        height, width = image_size
        shrink = min(1.0, 2 * self.side / min(height, width))
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """What the model does not see of such an image."""
        height, width = image_size
        left, top, right, bottom = self.seen_box(image_size)
        said = []
        if (left, top, right, bottom) != (0, 0, width, height):
            said.append(
                f"The model sees the central {right - left:.0f} × {bottom - top:.0f} pixels of {width:,} × "
                f"{height:,} only."
            )
        scale = (right - left) / self.side, (bottom - top) / self.side
        if max(scale) > 1.5:
            said.append(
                f"The model reads {self.side} × {self.side} pixels: {max(scale):.1f} pixels of the image become "
                "one, and smaller things vanish."
            )
        if max(scale) / min(scale) > 1.05:
            said.append("The image is not square: the model sees it squeezed to a square.")
        return tuple(said)

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The patches of the one square that the tower reads."""
        return self.edge**2

    def frames(self, box: Box, image_size: tuple[int, int]) -> tuple[Box, ...]:
        """The square around a box, as far as the image has one: the tower reads squares."""
        height, width = image_size
        edge = float(min(max(box[2] - box[0], box[3] - box[1]), height, width))
        left = min(max((box[0] + box[2] - edge) / 2, 0.0), width - edge)
        top = min(max((box[1] + box[3] - edge) / 2, 0.0), height - edge)
        return ((left, top, left + edge, top + edge),)

    def patches_per_view(self, grid: TokenGrid) -> tuple[int, ...]:
        """Those of a whole square for each view."""
        return (self.edge**2,) * len(grid.views)

    def cut(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> tuple[Tensor, tuple[View, ...]]:
        """What the tower reads of an image: pixels float [views, 3, side, side], and the views.

        A view has the tokens that lie on the image: the first rows and columns of what the tower makes of its pixels.
        """
        return self.pixels([image]), (View(self.edge, self.edge, self.seen_box(image_size)),)

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """Images uint8 [height, width, 3] as the tower reads them, float [images, 3, side, side]."""
        made = self.processor(images=list(images), input_data_format="channels_last", return_tensors="pt")
        values: Tensor = made["pixel_values"].to(self.device, self.model.dtype)
        return values

    def encode(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> VisualTokens:
        """Visual tokens of one image, with all signals that `provides` names but the text's."""
        return self._encoded(*self.cut(image, image_size), image_size)

    @property
    def feature_layer(self) -> int:
        """The tower's layer whose hidden states are the features, as the checkpoint counts.

        Raises:
            ModelUnavailable: the checkpoint takes more than one, or other tokens of it.
        """
        layer, strategy = self.config.vision_feature_layer, "default" if self.has_cls else "full"
        if self.config.vision_feature_select_strategy != strategy or not isinstance(layer, int):
            raise ModelUnavailable(
                f"only checkpoints whose vision_feature_select_strategy is {strategy!r} and whose vision_feature_layer "
                "is one layer are supported; choose another checkpoint"
            )
        return layer

    @property
    def merging_blocks(self) -> int:
        """The blocks up to the feature layer, where the tower can be run block by block."""
        if Signal.ENCODER_BLOCKS not in self.provides:
            return 0
        layer = self.feature_layer
        return layer if layer >= 0 else self.architecture.encoder_layers + 1 + layer

    @torch.no_grad()
    def encode_merged(
        self, image: NDArray[np.uint8], image_size: tuple[int, int], merging: Merging
    ) -> tuple[VisualTokens, Selection]:
        """Visual tokens of one image, merged inside the tower; see `VLM.encode_merged`."""
        if Signal.ENCODER_BLOCKS not in self.provides:
            return super().encode_merged(image, image_size, merging)
        pixels, views = self.cut(image, image_size)
        tower = self.model.model.vision_tower
        blocks = tower.encoder.layers[: self.merging_blocks]
        hidden = tower.pre_layrnorm(tower.embeddings(pixels))
        on_image = self._on_image(views, image_size).to(hidden.device)
        features, cls_feature, selection = merge_views(blocks, hidden, on_image, merging)
        signals = {
            Signal.FEATURES: features,
            Signal.PROJECTED: self.project(features),
            Signal.CLS_FEATURE: cls_feature,
        }
        return self._tokens(signals, views, image_size), selection

    @torch.no_grad()
    def _encoded(self, pixels: Tensor, views: tuple[View, ...], image_size: tuple[int, int]) -> VisualTokens:
        """What the tower makes of what `cut` made."""
        layer = self.feature_layer
        tower = self.model.model.vision_tower
        attend = tower.encoder.layers[layer if layer < 0 else layer - 1].self_attn
        first, last = tower.encoder.layers[0].self_attn, tower.encoder.layers[-1].self_attn
        projections = {"query": attend.q_proj, "key": attend.k_proj, "q0": first.q_proj, "k0": first.k_proj}
        with tapped({**projections, "last query": last.q_proj, "last key": last.k_proj}) as heard:
            states = tower(pixels, output_hidden_states=True).hidden_states[layer]
        on_image = self._on_image(views, image_size).to(states.device)
        start = int(self.has_cls)
        features = states[:, start:].flatten(0, 1)[on_image]
        # each [views, heads, [CLS] and patches, head dim]
        query, key, first_query, first_key = (
            heard[name].unflatten(-1, (attend.num_heads, -1)).transpose(1, 2).float() for name in projections
        )
        wide_query, wide_key = heard["last query"].float(), heard["last key"].float()
        signals = {
            Signal.FEATURES: features,
            Signal.PROJECTED: self.project(features),
            Signal.RECEIVED_ATTENTION: received_by(query, key, attend.scale)[:, start:].flatten()[on_image],
            Signal.KEYS: key[:, :, start:].mean(1).flatten(0, 1)[on_image],
            Signal.VALUES: attend.v_proj(features),
            Signal.LAST_KEYS: wide_key[:, start:].flatten(0, 1)[on_image],
        }
        if self.has_cls:
            one_head = (wide_query[:, :1] @ wide_key.mT * wide_key.shape[-1] ** -0.5).softmax(-1)[:, 0, 1:]
            signals |= {
                Signal.CLS_ATTENTION: cls_row(query, key, attend.scale)[:, on_image],
                Signal.EARLY_CLS_ATTENTION: cls_row(first_query, first_key, first.scale)[:, on_image],
                Signal.CLS_FEATURE: states[:, 0],
                Signal.CLS_QUERY: attend.q_proj(states[:, 0]),
                Signal.LAST_CLS_ATTENTION: one_head.flatten()[on_image],
            }
        return self._tokens(signals, views, image_size)

    def _tokens(
        self, signals: Mapping[Signal, Tensor], views: tuple[View, ...], image_size: tuple[int, int]
    ) -> VisualTokens:
        """The visual tokens that the language model reads, of one signal for each patch on the image."""
        return VisualTokens.whole(signals[Signal.FEATURES], TokenGrid(views, image_size), signals)

    def _on_image(self, views: Sequence[View], image_size: tuple[int, int]) -> Tensor:
        """Which of the tower's tokens lie on the image, ascending flat indices int64 [tokens]."""
        edge = self.edge
        index = np.arange(len(views) * edge**2).reshape(len(views), edge, edge)
        parts = [index[number, : view.rows, : view.cols].ravel() for number, view in enumerate(views)]
        return torch.from_numpy(np.concatenate(parts))

    def project(self, features: Tensor) -> Tensor:
        """Encoder features [tokens, encoder dim] as the language model reads them, [tokens, dim]."""
        projected: Tensor = self.model.model.multi_modal_projector(features[None])[0]
        return projected


def cls_row(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """The [CLS] row over the patches of all views, [heads, patches], of [views, heads, 1 + patches, head dim]."""
    rows = (query[:, :, :1] @ key.transpose(-1, -2) * scale).softmax(-1)[:, :, 0, 1:]
    return rows.transpose(0, 1).flatten(1)


def received_by(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """Attention on each token, mean over heads and all queries of its view, [views, tokens].

    A view at a time, and of a large one some queries at a time: 65,536 patches have no square.
    """
    views, (heads, length) = [], query.shape[1:3]
    for one, other in zip(query, key, strict=True):
        parts = one.split(max(1, MOST_WEIGHTS // (heads * length)), dim=1)
        means = [(part @ other.mT * scale).softmax(-1).mean((0, 1)) * (part.shape[1] / length) for part in parts]
        views.append(torch.stack(means).sum(0))
    return torch.stack(views)
