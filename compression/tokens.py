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
    """What a strategy may need and a model may provide. N is the number of visual tokens, V the number of views."""

    FEATURES = "features"  # encoder output before the projector, [N, encoder dim]
    PROJECTED = "projected"  # what the language model reads, [N, dim]
    CLS_ATTENTION = "cls_attention"  # [CLS] row of the feature layer, softmax over [CLS] and patches, [heads, N]
    EARLY_CLS_ATTENTION = "early_cls_attention"  # [CLS] row of the encoder's first layer, otherwise as cls_attention
    RECEIVED_ATTENTION = "received_attention"  # on each patch in the feature layer, mean over queries and heads, [N]
    KEYS = "keys"  # keys of the feature layer, mean over heads, [N, head dim]
    CLS_FEATURE = "cls_feature"  # encoder output of each view's [CLS], [V, encoder dim]
    CLS_QUERY = "cls_query"  # query projection of [CLS] in the feature layer, whole width, no norm, [V, encoder dim]
    VALUES = "values"  # value projection of each patch in the feature layer, whole width, no norm, [N, encoder dim]
    LAST_CLS_ATTENTION = "last_cls_attention"  # [CLS] row of the last layer, as a single head of the whole width, [N]
    LAST_KEYS = "last_keys"  # keys of the last layer, whole width, [N, encoder dim]
    TEXT = "text"  # embeddings of the question's words in the language model, [words, dim]
    TEXT_SIMILARITY = "text_similarity"  # cosine of each patch with the question in a joint space, [N]
    LAYER_ATTENTION = "layer_attention"  # rows of a language-model layer over the visual tokens, given in the Context
    TEACHER_ATTENTION = (
        "teacher_attention"  # received in a deeper layer of a full first pass, [N], given in the Context
    )
    LAYER_STATE = "layer_state"  # queries, keys and states of a language-model layer over all positions, in the Context


@dataclass(frozen=True)
class VisualTokens:
    """The visual tokens of one image, or the survivors of an earlier stage. No batch axis: grids differ per image.

    Args:
        features: Float [tokens, dim], finite: the encoder's output before the projector.
        grid: Where the tokens of the whole image lie.
        index: int64 [tokens] into the grid: all of it at first, the survivors at later stages.
        signals: What else the encoder can tell, by `Signal`; shapes as stated there.
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
    return torch.where(norm > 0, wide / norm.clamp_min(torch.finfo(wide.dtype).tiny), torch.zeros_like(wide))
