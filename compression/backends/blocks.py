"""The blocks of a CLIP tower in two halves, so that tokens can be merged between attention and MLP.

The tower's own modules are called one after the other; nothing in it is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compression.backends.hooks import tapped
from compression.errors import InvalidBudget
from compression.merging import Merging, grouped, merge_within
from compression.selection import Selection


@dataclass(frozen=True)
class ClipBlock:
    """A layer of the library's CLIP encoder; see `compression.merging.Block`."""

    layer: Any

    def attend(self, hidden: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attention with its residual, and the keys' mean over heads."""
        attention = self.layer.self_attn
        with tapped({"key": attention.k_proj}) as heard:
            made, _ = attention(hidden_states=self.layer.layer_norm1(hidden), attention_mask=bias)
        keys = heard["key"].unflatten(-1, (attention.num_heads, -1)).float().mean(-2)
        return hidden + made, keys

    def feed(self, hidden: Tensor) -> Tensor:
        """The MLP with its residual."""
        fed: Tensor = hidden + self.layer.mlp(self.layer.layer_norm2(hidden))
        return fed


def merge_views(
    layers: Sequence[Any], hidden: Tensor, on_image: Tensor, merging: Merging
) -> tuple[Tensor, Tensor, Selection]:
    """Run views through layers of a CLIP encoder and merge what lies on the image.

    Views of which as many tokens lie on the image and are merged run together.

    Args:
        layers: The library's layers.
        hidden: Float [views, 1 + patches, dim], what enters the first.
        on_image: int64 [tokens], which patches of all views lie on the image, ascending; padding is never merged.
        merging: How many tokens each layer merges away in each view.

    Returns:
        Features [tokens, dim], those of a merged token repeated for each token that it is made of; features of the
        class tokens [views, dim]; and which tokens were merged, anchors ascending.

    Raises:
        InvalidBudget: reductions for another number of views, or more than half of a view's tokens in one block.
    """
    blocks = [ClipBlock(layer) for layer in layers]
    patches = hidden.shape[1] - 1
    view_of, patch_of = on_image // patches, on_image % patches
    parts = [patch_of[view_of == view] for view in range(len(hidden))]
    if len(merging.reductions) != len(parts):
        raise InvalidBudget(f"merging needs reductions for each of {len(parts)} views, got {len(merging.reductions)}")
    starts = np.cumsum([0, *map(len, parts)])
    features = hidden.new_empty(len(on_image), hidden.shape[-1])
    cls_feature = hidden.new_empty(len(hidden), hidden.shape[-1])
    target = np.empty(len(on_image), dtype=np.int64)
    together: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for view, part in enumerate(parts):
        together.setdefault((len(part), merging.reductions[view]), []).append(view)
    for (tokens, reductions), views in together.items():
        order = torch.stack([_order(parts[view], patches) for view in views])
        entering = hidden[torch.tensor(views, device=hidden.device)[:, None], order]
        front, groups = merge_within(blocks, entering, tokens, reductions, proportional=merging.proportional)
        for row, view in enumerate(views):
            here, owner = slice(starts[view], starts[view + 1]), groups.owner[row]
            features[here] = groups.hidden[row, owner]
            cls_feature[view] = front[row, 0]
            target[here] = starts[view] + groups.anchor[row, owner].cpu().numpy()
    return features, cls_feature, grouped(target)


def _order(part: Tensor, patches: int) -> Tensor:
    """The class token, the patches on the image, and the others, int64 [1 + patches]."""
    others = torch.ones(patches, dtype=torch.bool, device=part.device)
    others[part] = False
    return torch.cat([part.new_zeros(1), 1 + part, 1 + others.nonzero()[:, 0]])
