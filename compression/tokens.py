"""Visual tokens: features on a grid, and the signals that came with them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.errors import InvalidGrid
from compression.grid import TokenGrid


class Signal(StrEnum):
    """What a strategy may need and a model may provide; `SIGNALS` says what each is and its shape."""

    FEATURES = "features"
    PROJECTED = "projected"
    CLS_ATTENTION = "cls_attention"
    EARLY_CLS_ATTENTION = "early_cls_attention"
    RECEIVED_ATTENTION = "received_attention"
    KEYS = "keys"
    CLS_FEATURE = "cls_feature"
    CLS_QUERY = "cls_query"
    VALUES = "values"
    LAST_CLS_ATTENTION = "last_cls_attention"
    LAST_KEYS = "last_keys"
    DEEPSTACK = "deepstack"
    TEXT = "text"
    TEXT_SIMILARITY = "text_similarity"
    LAYER_ATTENTION = "layer_attention"
    TEACHER_ATTENTION = "teacher_attention"
    LAYER_STATE = "layer_state"
    ENCODER_BLOCKS = "encoder_blocks"
    CROPS = "crops"


@dataclass(frozen=True)
class SignalInfo:
    """What a signal is, for those who provide it and those who read about it.

    Args:
        title: The words for people, "[CLS] attention".
        shape: Its axes, "[heads, N]": N visual tokens in the order of the grid, V views. Empty for what is no array.
        meaning: What it holds, with the conventions that its numbers follow.
        given: Where a strategy finds it: "features" of the tokens, their "signals", the field of the `Context`, or the
            "sight" that a `LookingStrategy` is given.
    """

    title: str
    shape: str
    meaning: str
    given: str = "signals"


SIGNALS: Mapping[Signal, SignalInfo] = {
    Signal.FEATURES: SignalInfo(
        "visual features", "[N, encoder dim]", "encoder output before the projector, [CLS] left out", given="features"
    ),
    Signal.PROJECTED: SignalInfo("projected features", "[N, dim]", "what the language model reads"),
    Signal.CLS_ATTENTION: SignalInfo(
        "[CLS] attention",
        "[heads, N]",
        "the [CLS] row of the feature layer: softmax over [CLS] and the patches of a view, its own column left out",
    ),
    Signal.EARLY_CLS_ATTENTION: SignalInfo(
        "[CLS] attention of the first layer",
        "[heads, N]",
        "the [CLS] row of the encoder's first layer, otherwise as `cls_attention`",
    ),
    Signal.RECEIVED_ATTENTION: SignalInfo(
        "attention received", "[N]", "attention on each patch in the feature layer, mean over queries and heads"
    ),
    Signal.KEYS: SignalInfo("attention keys", "[N, head dim]", "keys of the feature layer, mean over heads"),
    Signal.CLS_FEATURE: SignalInfo("the [CLS] feature", "[V, encoder dim]", "encoder output of each view's [CLS]"),
    Signal.CLS_QUERY: SignalInfo(
        "the [CLS] query",
        "[V, encoder dim]",
        "query projection of each view's [CLS] in the feature layer, whole width, no norm",
    ),
    Signal.VALUES: SignalInfo(
        "attention values",
        "[N, encoder dim]",
        "value projection of each patch in the feature layer, whole width, no norm",
    ),
    Signal.LAST_CLS_ATTENTION: SignalInfo(
        "[CLS] attention of the last layer",
        "[N]",
        "the [CLS] row of the encoder's last layer, as a single head of the whole width, otherwise as `cls_attention`",
    ),
    Signal.LAST_KEYS: SignalInfo(
        "keys of the last layer", "[N, encoder dim]", "keys of the encoder's last layer, whole width"
    ),
    Signal.DEEPSTACK: SignalInfo(
        "deep-stack planes",
        "[N, planes dim]",
        "what each of the language model's first layers adds to the visual tokens behind it, layer by layer side by "
        "side",
    ),
    Signal.TEXT: SignalInfo(
        "the question's embeddings",
        "[words, dim]",
        "embeddings of the question's words in the language model; a model gives them in the context's `text` instead",
    ),
    Signal.TEXT_SIMILARITY: SignalInfo(
        "similarity to the question",
        "[N]",
        "cosine of each patch with the question in a joint space; methods released for CLIP prefer it to `text`",
    ),
    Signal.LAYER_ATTENTION: SignalInfo(
        "attention inside the language model",
        "[heads, queries, N]",
        "rows of the layer before the strategy's own over the visual tokens: the answer position, then the question",
        given="attention",
    ),
    Signal.TEACHER_ATTENTION: SignalInfo(
        "attention of a full first pass",
        "[N]",
        "attention received in a deeper layer of a full first pass, the layer being the strategy's `teacher_layer`",
        given="teacher",
    ),
    Signal.LAYER_STATE: SignalInfo(
        "state of the language model",
        "",
        "a `LayerState`: queries, keys and hidden states of a language-model layer over all positions",
        given="state",
    ),
    Signal.ENCODER_BLOCKS: SignalInfo(
        "the blocks of the vision tower",
        "",
        "tokens can be merged between attention and MLP of every block, before the tower's output",
        given="sight",
    ),
    Signal.CROPS: SignalInfo(
        "several pictures in one prompt",
        "",
        "an overview and parts of the image can be read side by side, each as a picture of its own",
        given="sight",
    ),
}
"""Every signal. Arrays are floats and finite; tokens lie view by view, row by row, as the grid numbers them."""


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens of one image, or the survivors of an earlier stage. No batch axis: grids differ per image.

    Args:
        features: Float [tokens, dim], finite: the encoder's output before the projector.
        grid: Where the tokens of the whole image lie.
        index: int64 [tokens] into the grid: all of it at first, the survivors at later stages; inside the language
            model in the order in which it counts them, -1 for an output without a place.
        signals: What else the encoder can tell; shapes as `SIGNALS` states them.
    """

    features: Tensor
    grid: TokenGrid
    index: NDArray[np.int64]
    signals: Mapping[Signal, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or len(self.features) != len(self.index):
            raise InvalidGrid(
                f"features must be [tokens, dim] with one row for each of {len(self.index)} indices, got "
                f"{tuple(self.features.shape)}"
            )

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def whole(cls, features: Tensor, grid: TokenGrid, signals: Mapping[Signal, Tensor] | None = None) -> VisualTokens:
        """All tokens of an image.

        Raises:
            InvalidGrid: the number of features is not the number of tokens.
        """
        if len(features) != len(grid):
            raise InvalidGrid(f"features must have one row for each of {len(grid)} tokens, got {len(features)}")
        return cls(features, grid, np.arange(len(grid)), dict(signals or {}))

    def view_slices(self) -> list[slice]:
        """The slice of each view among the tokens; empty slices for views without survivors."""
        views = self.grid.view_indices()[self.index]
        edges = np.searchsorted(views, np.arange(len(self.grid.views) + 1))
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]

    def parts(self, per: str) -> list[slice]:
        """The tokens that share one budget: those of each view, or of the whole image.

        Args:
            per: "view" or "image", as the parameter of many strategies.
        """
        return self.view_slices() if per == "view" else [slice(0, len(self))]


def unit_rows(features: Tensor) -> Tensor:
    """Rows scaled to length one in float32 at least; a zero row stays zero."""
    wide = features if features.dtype == torch.float64 else features.float()
    norm = wide.norm(dim=-1, keepdim=True)
    # Infinity in place of zero: one large array is made, where a choice between two would make three.
    return wide / torch.where(norm > 0, norm, torch.inf)
