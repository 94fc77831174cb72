"""Merging tokens between the blocks of a vision transformer: bipartite matching (ToMe).

Bolya et al., Token Merging: Your ViT But Faster, ICLR 2023, arXiv:2210.09461; as in the released `tome/merge.py` for a
tower with a class token. Between attention and MLP of a block the tokens are dealt alternately into two sets; each
token of the first set is linked to the most similar one of the second by the cosine of their keys, averaged over heads;
the strongest links are merged by the mean weighted with sizes. Ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.errors import InvalidBudget
from compression.selection import Selection
from compression.tokens import unit_rows


@dataclass(frozen=True)
class Merging:
    """How many tokens are merged away.

    Args:
        reductions: For each view, how many in each block; at most half of those that enter it.
        proportional: Whether a merged token is attended to like the tokens that it is made of: the logarithm of its
            size is added to every logit of its key.
    """

    reductions: tuple[tuple[int, ...], ...]
    proportional: bool = True


class Block(Protocol):
    """One block of a vision transformer, in two halves."""

    def attend(self, hidden: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Attention with its residual.

        Args:
            hidden: Float [views, length, dim].
            bias: Float [views, 1, 1, length], added to the logits of every key; None for none.

        Returns:
            Hidden states [views, length, dim], and the keys' mean over heads [views, length, head dim].
        """

    def feed(self, hidden: Tensor) -> Tensor:
        """The MLP with its residual, [views, length, dim]."""


@dataclass(frozen=True)
class Groups:
    """Tokens of several views, some of them merged.

    Args:
        hidden: Float [views, groups, dim].
        size: Float32 [views, groups], tokens that each is made of.
        owner: int64 [views, tokens], the group that each token is part of.
        anchor: int64 [views, groups], the token that lends each group its place: the one that took the others.
    """

    hidden: Tensor
    size: Tensor
    owner: Tensor
    anchor: Tensor

    @classmethod
    def single(cls, hidden: Tensor) -> Groups:
        """Every token for itself."""
        views, tokens, _ = hidden.shape
        every = torch.arange(tokens, device=hidden.device).expand(views, -1)
        return cls(hidden, torch.ones(views, tokens, device=hidden.device), every, every)

    def merged(self, keys: Tensor, count: int) -> Groups:
        """The groups after merging the `count` strongest links of each view.

        A class token in front makes the first group an odd one: groups 1, 3, 5, … are linked to groups 0, 2, 4, …
        What is left of the former comes first, in order, then the latter.

        Args:
            keys: Float [views, groups, head dim].
            count: 0 to half of the groups.

        Raises:
            InvalidBudget: more than half.
        """
        views, groups, _ = keys.shape
        if not 0 <= count <= groups // 2:
            raise InvalidBudget(f"a block merges at most half of its {groups} tokens, got {count}; merge fewer")
        if count == 0:
            return self
        similarity = unit_rows(keys[:, 1::2]) @ unit_rows(keys[:, ::2]).mT
        best = similarity.argmax(-1)  # on ties the first
        strength = similarity.gather(-1, best[..., None])[..., 0]
        order = strength.sort(dim=-1, descending=True, stable=True).indices
        source, left = order[:, :count], order[:, count:].sort().values
        target = best.gather(1, source)

        def split(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """What stays of the first set, what leaves it, and the second set."""
            first, second = values[:, 1::2], values[:, ::2]
            rows = torch.arange(views, device=values.device)[:, None]
            return first[rows, left], first[rows, source], second

        stays, leaves, takes = split(self.hidden)
        stays_size, leaves_size, takes_size = split(self.size)
        stays_anchor, _, takes_anchor = split(self.anchor)
        size = takes_size.scatter_add(1, target, leaves_size)
        wide = torch.promote_types(takes.dtype, torch.float32)
        total = takes.to(wide) * takes_size[..., None]
        where = target[..., None].expand(-1, -1, takes.shape[-1])
        total = total.scatter_add(1, where, leaves.to(wide) * leaves_size[..., None])
        taken = torch.where((size > takes_size)[..., None], (total / size[..., None]).to(takes.dtype), takes)
        place = torch.empty(views, groups, dtype=torch.int64, device=keys.device)
        kept = left.shape[1]
        place[:, ::2] = kept + torch.arange(takes.shape[1], device=keys.device)
        place.scatter_(1, 1 + 2 * left, torch.arange(kept, device=keys.device).expand(views, -1))
        place.scatter_(1, 1 + 2 * source, kept + target)
        return Groups(
            hidden=torch.cat([stays, taken], 1),
            size=torch.cat([stays_size, size], 1),
            owner=place.gather(1, self.owner),
            anchor=torch.cat([stays_anchor, takes_anchor], 1),
        )


def merge_within(
    blocks: Sequence[Block], hidden: Tensor, tokens: int, reductions: Sequence[int], *, proportional: bool = True
) -> tuple[Tensor, Groups]:
    """Run views through blocks and merge between attention and MLP of each.

    Args:
        blocks: The blocks to run.
        hidden: Float [views, 1 + tokens + others, dim]: the class token, the tokens, and others such as padding. Only
            the tokens are merged.
        tokens: How many they are.
        reductions: How many each block merges away.
        proportional: See `Merging`.

    Returns:
        The class tokens [views, 1, dim], and what became of the tokens.

    Raises:
        InvalidBudget: a block would merge more than half of its tokens.
    """
    front, middle, behind = hidden[:, :1], hidden[:, 1 : 1 + tokens], hidden[:, 1 + tokens :]
    groups = Groups.single(middle)
    for block, count in zip(blocks, reductions, strict=True):
        bias = None
        if proportional and groups.hidden.shape[1] < tokens:
            alone = [torch.ones(len(hidden), part.shape[1], device=hidden.device) for part in (front, behind)]
            sizes = torch.cat([alone[0], groups.size, alone[1]], 1)
            bias = sizes.log().to(hidden.dtype)[:, None, None]
        whole, keys = block.attend(torch.cat([front, groups.hidden, behind], 1), bias)
        until = 1 + groups.hidden.shape[1]
        attended = Groups(whole[:, 1:until], groups.size, groups.owner, groups.anchor)
        groups = attended.merged(keys[:, 1:until], count)
        fed = block.feed(torch.cat([whole[:, :1], groups.hidden, whole[:, until:]], 1))
        until = 1 + groups.hidden.shape[1]
        front, behind = fed[:, :1], fed[:, until:]
        groups = Groups(fed[:, 1:until], groups.size, groups.owner, groups.anchor)
    return front, groups


def grouped(target: NDArray[np.int64]) -> Selection:
    """The selection in which every token went to the token that took it, each group one output, anchors ascending.

    Weights are equal shares: who belongs to whom, and how many they are. What a token contributed to the output also
    depends on the blocks that it passed before it was merged.

    >>> grouped(np.array([0, 0, 2])).fate.tolist()
    [0, 1, 0]

    Args:
        target: int64 [tokens], the anchor of each token's group; an anchor's own is itself.
    """
    anchor, output, size = np.unique(target, return_inverse=True, return_counts=True)
    if len(anchor) == len(target):
        return Selection.prune(len(target), anchor)
    order = np.argsort(output, kind="stable")
    return Selection(
        tokens=len(target),
        anchor=anchor,
        weight_output=output[order],
        weight_token=order,
        weight_value=(1 / size[output[order]]).astype(np.float32),
    )
