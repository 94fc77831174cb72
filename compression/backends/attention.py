"""Fused attention that can also hand out a few rows.

Fused kernels return no weights, and asking the library for all of them switches the whole model to a slower path and
keeps gigabytes. This attention function runs the library's fused kernel unchanged and, only while someone listens,
hands over the queries and keys, from which the few rows that are wanted can be computed (`Heads.rows`).
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

from compression.layer import Heads

NAME = "keepmap_sdpa"

Hear = Callable[[int, Heads], None]
"""Told the layer index and its queries and keys, from which rows can be computed."""

_listener: ContextVar[Hear | None] = ContextVar("keepmap_attention_listener", default=None)


@contextmanager
def listening(hear: Hear) -> Iterator[None]:
    """Hand out the heads of this thread's forward passes inside the block; nothing listens after it."""
    token = _listener.set(hear)
    try:
        yield
    finally:
        _listener.reset(token)


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
    hear = _listener.get()
    if hear is not None:
        factor = scaling if scaling is not None else query.shape[-1] ** -0.5
        with torch.no_grad():
            hear(int(module.layer_idx), Heads(query[0], key[0], factor, attention_mask))  # type: ignore[arg-type]
    return output, None


AttentionInterface.register(NAME, _sdpa_with_rows)
# Without a mask function of the same name the library passes no mask at all and padding would be attended.
AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
