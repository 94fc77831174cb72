"""VisPruner: keep what [CLS] looks at, and of the rest what is least alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compression.budget import split_over
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.selection import Selection
from compression.similarity import ROWS_AT_ONCE, as_numpy, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens, unit_rows


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

    Costs about R^3/(12*step) * D multiply-adds in all for R remaining tokens of a view, and no N x N matrix.
    """

    important: float = 0.5
    step: int = 8
    per: str = "view"

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="vispruner",
        title="VisPruner",
        paper="VisPruner, arXiv 2412.01818",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.CLS_ATTENTION}),
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
        ),
        deviations=(
            "Lists of odd length work; the released code fails on them.",
            "A round drops no more than the tokens at even places.",
            "Ties break by the place in the list, and at first by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            MissingSignal: the [CLS] attention is missing.
        """
        count = self.checked_budget(tokens, budget)
        scores = self.signal(tokens, Signal.CLS_ATTENTION).float().mean(dim=0)
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
    unit = unit_rows(features)
    left = order if count else order[:0]
    while (over := len(left) - count) > 0:
        even, odd = left[::2], left[1::2]
        alike = torch.cat([(part @ unit[odd].T).amax(dim=1) for part in torch.split(unit[even], ROWS_AT_ONCE)])
        left = torch.cat([even[stable_topk(alike, len(even))[min(step, over) :]], odd])
    return left
