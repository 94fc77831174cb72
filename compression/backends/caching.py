"""What the cache of a layer keeps of the prompt for decoding, where a strategy compresses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from compression.backends.base import SequenceLayout


def slots_of(layout: SequenceLayout, kept: Tensor) -> Tensor:
    """Positions that a layer's cache keeps for each key head: all words, and the visual tokens named.

    Args:
        layout: Of the sequence that the layer processed.
        kept: int64 [kv heads, kept] among its visual tokens.

    Returns:
        int64 [kv heads, words + kept] ascending.
    """
    visual = torch.from_numpy(layout.visual).to(kept.device)
    is_word = torch.ones(layout.length, dtype=torch.bool, device=kept.device)
    is_word[visual] = False
    words = is_word.nonzero()[:, 0].expand(len(kept), -1)
    return torch.cat([words, visual[kept]], dim=1).sort(dim=1).values


def cut_cache(cache: Any, slots: Mapping[int, Tensor]) -> None:
    """Keep some positions of the library's cache, by layer and key head."""
    for layer, places in slots.items():
        held = cache.layers[layer]
        for name in ("keys", "values"):
            states = getattr(held, name)
            setattr(held, name, torch.take_along_dim(states, places[None, :, :, None].to(states.device), dim=2))


def hiding(layout: SequenceLayout, kept: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    """A bias by which some rows do not see the visual tokens that a cache would not keep.

    Args:
        layout: Of the sequence that the layer processes.
        kept: int64 [kv heads, kept] among its visual tokens.
        rows: int64, positions that decoding steps would process.
        bias: What is added to all rows, float32 [length], or None.

    Returns:
        float32 [kv heads, length, length].
    """
    visual = torch.from_numpy(layout.visual).to(kept.device)
    hidden = torch.ones(len(kept), len(visual), dtype=torch.bool, device=kept.device).scatter(1, kept, False)
    columns = torch.zeros(len(kept), layout.length, device=kept.device)
    columns[:, visual] = torch.where(hidden, float("-inf"), 0.0)
    told = torch.zeros(len(kept), layout.length, layout.length, device=kept.device)
    told[:, rows] = columns[:, None]
    return told if bias is None else told + bias
