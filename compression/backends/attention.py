"""Fused attention that can also hand out a few rows.

Fused kernels return no weights, and asking the library for all of them switches the whole model to a slower path and
keeps
gigabytes. This attention function runs the library's fused kernel unchanged and, only while someone listens, recomputes
the few rows that were asked for from the same queries and keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

NAME = "keepmap_sdpa"

Rows = Callable[[int], Tensor | None]
"""Layer index -> int64 positions of the queries whose rows are wanted, or None."""
Hear = Callable[[int, Tensor], None]
"""Told the layer index and its rows, float32 [heads, query, key], each summing to one."""

_listener: ContextVar[tuple[Rows, Hear] | None] = ContextVar("keepmap_attention_listener", default=None)


@contextmanager
def listening(rows: Rows, hear: Hear) -> Iterator[None]:
    """Hand out attention rows of this thread's forward passes inside the block; nothing listens after it."""
    token = _listener.set((rows, hear))
    try:
        yield
    finally:
        _listener.reset(token)


def attention_rows(query: Tensor, key: Tensor, positions: Tensor, scaling: float, mask: Tensor | None) -> Tensor:
    """Softmax rows of causal attention for chosen queries, recomputed in float32.

    Args:
        query: [1, heads, length, head dim], rotary positions applied.
        key: [1, kv heads, keys, head dim], rotary positions applied; keys >= length where a cache precedes.
        positions: int64 [rows] into the queries.
        scaling: Factor on the dot products.
        mask: Additive or boolean [1, 1, length, keys], or None for plain causal attention.

    Returns:
        float32 [heads, rows, keys].
    """
    heads, length, keys = query.shape[1], query.shape[2], key.shape[2]
    # Query heads that share a key head are stacked as rows: repeating the keys would copy them all.
    stacked = query[0, :, positions].reshape(key.shape[1], -1, query.shape[-1])
    scores = (stacked @ key[0].transpose(-1, -2)).view(1, heads, -1, keys).float() * scaling
    if mask is not None:
        wanted = mask[:, :, positions if mask.shape[2] > 1 else slice(None), :keys]
        scores = scores.masked_fill(~wanted, float("-inf")) if wanted.dtype == torch.bool else scores + wanted.float()
    elif length > 1:
        last = positions + keys - length
        scores = scores.masked_fill(torch.arange(keys, device=key.device)[None] > last[:, None], float("-inf"))
    return scores.softmax(-1)[0]


def _sdpa_with_rows(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    output, _ = sdpa_attention_forward(
        module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, is_causal=is_causal, **kwargs
    )
    listener = _listener.get()
    if listener is not None:
        rows, hear = listener
        layer = int(module.layer_idx)  # type: ignore[arg-type]
        positions = rows(layer)
        if positions is not None:
            factor = scaling if scaling is not None else query.shape[-1] ** -0.5
            with torch.no_grad():
                hear(layer, attention_rows(query, key, positions.to(query.device), factor, attention_mask))
    return output, None


AttentionInterface.register(NAME, _sdpa_with_rows)
# Without a mask function of the same name the library passes no mask at all and padding would be attended.
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
