"""What a layer of a language model holds: its queries and keys, and the hidden states between two layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def attention_rows(
    query: Tensor,
    key: Tensor,
    positions: Tensor,
    scaling: float,
    mask: Tensor | None,
    *,
    bias: Tensor | None = None,
    sees: Tensor | None = None,
) -> Tensor:
    """Softmax rows of causal attention for chosen queries, recomputed in float32.

    Args:
        query: [1, heads, length, head dim], rotary positions applied.
        key: [1, kv heads, keys, head dim], rotary positions applied; keys >= length where a cache precedes.
        positions: int64 [rows] into the queries.
        scaling: Factor on the dot products.
        mask: Additive or boolean [1, 1, length, keys], or None for plain causal attention.
        bias: Float32 [keys], added to all logits of each key, or None.
        sees: int64 [columns], keys that every query sees under plain causal attention, also those behind it.

    Returns:
        float32 [heads, rows, keys].
    """
    heads, length, keys = query.shape[1], query.shape[2], key.shape[2]
    # Query heads that share a key head are stacked as rows: repeating the keys would copy them all.
    stacked = query[0, :, positions].reshape(key.shape[1], -1, query.shape[-1])
    # In float32 before the product: in half precision it overflows where the keys have a large bias.
    scores = (stacked.float() @ key[0].float().transpose(-1, -2)).view(1, heads, -1, keys) * scaling
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        wanted = mask[:, :, positions if mask.shape[2] > 1 else slice(None), :keys]
        scores = scores.masked_fill(~wanted, float("-inf")) if wanted.dtype == torch.bool else scores + wanted.float()
    elif length > 1:
        last = positions + keys - length
        hidden = torch.arange(keys, device=key.device)[None] > last[:, None]
        if sees is not None:
            hidden[:, sees.to(key.device)] = False
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(-1)[0]


def behind_picture(visual: NDArray[np.int64], separators: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Positions of a sequence behind the picture, its separators included, int64 [words].

    >>> behind_picture(np.array([1, 2, 4]), np.array([3, 5]), 8)
    array([6, 7])
    """
    return np.arange(int(max(visual.max(), separators.max(initial=-1))) + 1, length)


@dataclass(frozen=True)
class Heads:
    """Queries and keys of one attention layer, rotary positions applied.

    Args:
        query: Float [heads, length, head dim].
        key: Float [kv heads, length, head dim].
        scaling: Factor on the dot products.
        mask: Additive or boolean [1, 1, length, length], or None for plain causal attention.
        bias: Float32 [length], added to all logits of each key, or None; see `compression.calibration`.
    """

    query: Tensor
    key: Tensor
    scaling: float
    mask: Tensor | None = None
    bias: Tensor | None = None

    def rows(self, positions: Tensor, *, sees: Tensor | None = None) -> Tensor:
        """Attention of chosen queries, float32 [heads, rows, length], each row summing to one.

        Args:
            positions: int64 [rows] into the sequence.
            sees: int64 [columns], positions that every query sees beside those that precede it; None as in the model.
        """
        mask = self.mask if sees is None else None
        at = positions.to(self.key.device)
        return attention_rows(self.query[None], self.key[None], at, self.scaling, mask, bias=self.bias, sees=sees)


@dataclass(frozen=True)
class LayerState:
    """The language model between layer `layer - 1` and `layer`, during prefill.

    Args:
        hidden: Float [length, dim], the states that enter `layer`.
        visual: int64 [tokens], positions of the visual tokens.
        question: int64 [words], positions of the question's words.
        previous: Queries and keys of layer `layer - 1`.
        upcoming: Computes the queries and keys that `layer` itself would have, if nothing changed.
        norm: The model's final norm.
        entered: Float [length at layer 0, dim], the states that entered layer 0, all visual tokens included.
        entered_visual: int64, positions of the visual tokens then.
        rotary: Cosine and sine of the present positions, each float [length, head dim].
        separators: int64, positions of the tokens without area that belong to the picture; see `SequenceLayout`.
    """

    hidden: Tensor
    visual: NDArray[np.int64]
    question: NDArray[np.int64]
    previous: Heads
    upcoming: Callable[[], Heads]
    norm: Callable[[Tensor], Tensor]
    entered: Tensor
    entered_visual: NDArray[np.int64]
    rotary: tuple[Tensor, Tensor]
    separators: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @cached_property
    def next(self) -> Heads:
        """Queries and keys of `layer` on the present sequence."""
        return self.upcoming()

    @property
    def length(self) -> int:
        """Positions in the sequence."""
        return len(self.hidden)

    @property
    def columns(self) -> Tensor:
        """Positions of the visual tokens, int64 [tokens]."""
        return torch.from_numpy(self.visual).to(self.hidden.device)

    @property
    def last(self) -> Tensor:
        """Position whose next token is the answer, int64 [1]."""
        return torch.tensor([self.length - 1], device=self.hidden.device)

    @property
    def behind(self) -> Tensor:
        """Positions behind the picture, its separators included: what question and template say, int64 [words]."""
        return torch.from_numpy(behind_picture(self.visual, self.separators, self.length)).to(self.hidden.device)

    @property
    def text(self) -> Tensor:
        """Positions that are no visual token, ascending int64."""
        return torch.from_numpy(np.setdiff1d(np.arange(self.length), self.visual)).to(self.hidden.device)
