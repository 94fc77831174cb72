"""Fused attention that can also hand out a few rows.

Fused kernels return no weights, and asking the library for all of them switches the whole model to a slower path and
keeps gigabytes. This attention function runs the library's fused kernel unchanged and, only while someone listens,
hands over the queries and keys, from which the few rows that are wanted can be computed (`Heads.rows`). While sizes of
merged tokens count (`calibrated`), their logarithms are added to the logits through the kernel's mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

from compression.layer import Heads

NAME = "keepmap_sdpa"

Hear = Callable[[int, Heads], None]
"""Told the layer index and its queries and keys, from which rows can be computed."""

BiasOf = Callable[[int], Tensor | None]
"""What is added to the logits of a layer, float32 over the keys of the prompt, or None for nothing: [keys], [kv heads,
keys] or [kv heads, length, keys]."""

_calibration: ContextVar[BiasOf | None] = ContextVar("keepmap_attention_calibration", default=None)
_listener: ContextVar[Hear | None] = ContextVar("keepmap_attention_listener", default=None)


@contextmanager
def listening(hear: Hear) -> Iterator[None]:
    """Hand out the heads of this thread's forward passes inside the block; nothing listens after it."""
    token = _listener.set(hear)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def calibrated(bias_of: BiasOf) -> Iterator[None]:
    """Add a bias to the logits of this thread's forward passes inside the block, decoding steps included."""
    token = _calibration.set(bias_of)
    try:
        yield
    finally:
        _calibration.reset(token)


def _with_bias(mask: Tensor | None, bias: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """An additive mask [1, 1 or heads, length, keys] that adds the bias where a key may be attended.

    Keys behind the prompt, which decoding steps add to the cache, have none.
    """
    length, keys = query.shape[2], key.shape[2]
    added = pad(bias, (0, keys - bias.shape[-1]))
    if bias.ndim > 1:
        added = added.repeat_interleave(query.shape[1] // len(bias), dim=0)
        added = (added if bias.ndim == 3 else added[:, None])[None]
    if mask is not None and mask.dtype != torch.bool:
        return (mask[..., :keys] + added).to(query.dtype)
    allowed = torch.ones(1, 1, length, keys, dtype=torch.bool, device=key.device).tril(keys - length)
    if mask is not None:
        allowed = mask[..., :keys]
    return torch.where(allowed, added, float("-inf")).to(query.dtype)


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
    bias_of = _calibration.get()
    bias = bias_of(int(module.layer_idx)) if bias_of is not None else None  # type: ignore[arg-type]
    mask = attention_mask if bias is None else _with_bias(attention_mask, bias, query, key)
    output, _ = sdpa_attention_forward(
        module, query, key, value, mask, scaling=scaling, dropout=dropout, is_causal=is_causal, **kwargs
    )
    hear = _listener.get()
    if hear is not None:
        factor = scaling if scaling is not None else query.shape[-1] ** -0.5
        with torch.no_grad():
            hear(int(module.layer_idx), Heads(query[0], key[0], factor, attention_mask, bias))  # type: ignore[arg-type]
    return output, None


AttentionInterface.register(NAME, _sdpa_with_rows)
# Without a mask function of the same name the library passes no mask at all and padding would be attended.
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
