"""VisPruner: keep what [CLS] looks at, and of the rest what is least alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compression.budget import split_over
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import ROWS_AT_ONCE, as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens, unit_rows

NEIGHBOURS = 32  # per token: that none of them is left at an odd place is rare, and is made good by a full row
FEW_ROUNDS = 8  # that many are cheaper one by one than a search for neighbours; a round costs a quarter of it


@dataclass(frozen=True)
class VisPruner(Strategy):
    """Keep the visual tokens most attended by [CLS], and fill up with those of the rest that are least alike.

    Score: attention[CLS, token] in the feature layer, mean over heads. Of a view's budget m, floor(important*m) tokens
    are the most attended. The others start as all remaining tokens by descending attention; until they are few enough,
    each round compares the tokens at even places of that list with those at odd places and drops the `step` even ones
    of highest cosine with any odd one (features before the projector); the surviving even ones, most alike first, go
    before the odd ones.
    Differs from the paper: a list of odd length works, where the released code fails; a round never drops more than
    there are even places; ties break by the place in the list, and at first by token index.
    Source: VisPruner, arXiv 2412.01818, and its released code.

    Costs about 4/3 * R^2 * D multiply-adds for R remaining tokens of a view, and no N x N matrix: the tokens most like
    each one are found once, and again when half of the list has left, instead of in each of R/step rounds.
    """

    important: float = 0.5
    step: int = 8
    per: str = "view"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="vispruner",
        title="VisPruner",
        paper="VisPruner, arXiv 2412.01818, 2024",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.CLS_ATTENTION}),
        instead={Signal.CLS_ATTENTION: Signal.RECEIVED_ATTENTION},
        reduces="prunes",
        position_free=True,
        score="attention from [CLS], mean over heads",
        parameters=(
            Parameter("important", 0.5, "Share of the budget for the most attended tokens; released: 0.5.", 0.0, 1.0),
            Parameter("step", 8, "Tokens dropped in a round; released: 8. More is faster and coarser.", 1),
            Parameter(
                "per",
                "view",
                "Whether each view gets an equal share of the budget, as released, or all views compete.",
                choices=("view", "image"),
            ),
            positions_entering(),
        ),
        deviations=(
            "Lists of odd length work; the released code fails on them.",
            "The released code gives each view the same count; here one budget is shared out evenly over the views.",
            "For a tower without [CLS], the attention that a patch receives stands in for that from [CLS].",
            "A round drops no more than the tokens at even places.",
            "Ties break by the place in the list, and at first by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            MissingSignal: there is neither [CLS] attention nor attention received.
        """
        count = self.checked_budget(tokens, budget)
        heads = self.seen(tokens)
        scores = over_heads(heads) / len(heads)
        kept = []
        for part, share in split_over(count, tokens.parts(self.per)):
            order = stable_topk(scores[part], part.stop - part.start)
            chosen = important_and_diverse(tokens.features[part], order, share, self.important, self.step)
            kept.append(as_numpy(chosen) + part.start)
        return Selection.prune(len(tokens), np.sort(np.concatenate(kept)), scores=scores_numpy(scores))


def important_and_diverse(features: Tensor, order: Tensor, count: int, important: float, step: int) -> Tensor:
    """The first tokens of a list, and the least alike of the rest; int64 [count], important ones first.

    Args:
        features: Float [tokens, dim].
        order: int64 [tokens], all of them, most important first.
        count: How many, 1..tokens.
        important: Share of them that is taken from the front of the list, rounded down.
        step: Tokens dropped in a round.
    """
    first = int(count * important)
    return torch.cat([order[:first], least_alike(features, order[first:], count - first, step)])


def least_alike(features: Tensor, order: Tensor, count: int, step: int) -> Tensor:
    """What is left of a list when, round by round, tokens at even places leave that are like those at odd places.

    Args:
        features: Float [tokens, dim].
        order: int64 [listed], the tokens in question, most important first.
        count: How many are to be left, 0..listed.
        step: Tokens that leave in a round.

    Returns:
        int64 [count], in the order of the last round's list.
    """
    unit = unit_rows(features[order].detach())
    left = torch.arange(len(order) if count else 0, device=order.device)
    near = _Nearest.none(unit)
    while (over := len(left) - count) > 0:
        if over > FEW_ROUNDS * step and 2 * len(left) <= near.known:
            near = _Nearest.among(unit, left)
        even, odd = left[::2], left[1::2]
        left = torch.cat([even[stable_topk(near.likeness(even, odd), len(even))[min(step, over) :]], odd])
    return order[left]


@dataclass(frozen=True)
class _Nearest:
    """The tokens most like each one, found once for many rounds: about half of them are at odd places in any round.

    Args:
        unit: Float [tokens, dim], rows of length one.
        known: Among how many tokens they were found; before that, twice as many as there are.
        index: int64 [tokens, NEIGHBOURS at most], of the tokens that were left then.
        cosine: Float, the same shape.
    """

    unit: Tensor
    known: int
    index: Tensor
    cosine: Tensor

    @classmethod
    def none(cls, unit: Tensor) -> _Nearest:
        """Nothing found yet."""
        index = torch.empty(len(unit), 0, dtype=torch.int64, device=unit.device)
        return cls(unit, 2 * len(unit), index, unit[:, :0])

    @classmethod
    def among(cls, unit: Tensor, left: Tensor) -> _Nearest:
        """Those most like each of the tokens that are left; `ROWS_AT_ONCE` rows of cosines exist at a time."""
        count = min(NEIGHBOURS, len(left) - 1)
        index = torch.empty(len(unit), count, dtype=torch.int64, device=unit.device)
        cosine = torch.empty(len(unit), count, dtype=unit.dtype, device=unit.device)
        others = unit[left].T
        for rows in torch.split(torch.arange(len(left), device=unit.device), ROWS_AT_ONCE):
            alike = unit[left[rows]] @ others
            alike[torch.arange(len(rows), device=unit.device), rows] = -torch.inf
            best = alike.topk(count, dim=1)
            index[left[rows]], cosine[left[rows]] = left[best.indices], best.values
        return cls(unit, len(left), index, cosine)

    def likeness(self, even: Tensor, odd: Tensor) -> Tensor:
        """The highest cosine of each token of the one list with any of the other, float [even]."""
        is_odd = torch.zeros(len(self.unit), dtype=torch.bool, device=odd.device)
        is_odd[odd] = True
        found = torch.full((len(even),), -torch.inf, dtype=self.unit.dtype, device=even.device)
        if self.index.shape[1]:
            found = torch.where(is_odd[self.index[even]], self.cosine[even], -torch.inf).amax(dim=1)
        missed = found.isneginf().nonzero()[:, 0]
        for part in torch.split(missed, ROWS_AT_ONCE):
            found[part] = (self.unit[even[part]] @ self.unit[odd].T).amax(dim=1)
        return found
