"""CDPruner: keep tokens that are relevant to the question and unlike each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from compression.budget import split_over
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.relevance import FALLBACK, SIGN, relevance
from compression.selection import Selection
from compression.similarity import as_numpy, greedy_determinant, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

FLOOR = 1e-6  # released: added to the numerator of the scaling, so that the least relevant token can be chosen too


@dataclass(frozen=True)
class CDPruner(Strategy):
    """Keep the visual tokens that are relevant to the question and diverse, by a determinantal point process.

    Score: relevance r, the signed similarity with the question scaled over all views to (r - min + 1e-6)/(max - min);
    1 for all where it is constant, which leaves pure diversity. With L = r_i cos(x_i, x_j) r_j over projected features,
    each next token is the one that raises det L of the kept ones most (greedy MAP). The similarity is that with the
    question in CLIP's joint space, with negative sign, as released: there the patches before the last layer are least
    similar to what they show. A model without a text tower gives the mean cosine of the projected token with the
    question's words in the language model's embeddings, with positive sign.
    Differs from the paper: once all tokens lie in the span of the kept ones, as duplicates do, the rest is filled up by
    relevance, where the released code takes roots of negative rounding errors; so are tokens of length zero; ties break
    by relevance and then by token index.
    Source: CDPruner, arXiv 2506.10967, and its released code.

    Costs K^2*N/2 + K*N*D multiply-adds and min(K, D) rows of N for N tokens of a view and K kept ones.
    """

    sign: str = "auto"
    theta: float | None = None
    per: str = "view"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="cdpruner",
        title="CDPruner",
        paper="CDPruner, arXiv 2506.10967, 2025",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.PROJECTED, Signal.TEXT}),
        reduces="prunes",
        position_free=True,
        score="relevance to the question, scaled over the image to 0..1",
        parameters=(
            SIGN,
            Parameter(
                "theta",
                None,
                "Weight of relevance against diversity: r becomes exp(theta/(2(1 - theta)) r), 0 is diversity alone. "
                "Left out, r stays as it is, as released.",
                0.0,
                0.9,
                kind=float,
            ),
            Parameter(
                "per",
                "view",
                "Whether each view gets an equal share of the budget, as released, or all views compete.",
                choices=("view", "image"),
            ),
            positions_entering(),
        ),
        labels=(FALLBACK,),
        deviations=(
            "Without a text tower the similarity is the mean cosine with the question's words in the language model.",
            "What is kept beyond the rank of the kernel is chosen by relevance; the released code gives NaN.",
            "Where all are equally relevant the choice is by diversity alone; the released code divides by zero.",
            "The released code gives each view the same count; here one budget is shared out evenly over the views.",
            "Tokens of length zero are alike to none and chosen last, by relevance; the released code divides by zero.",
            "Ties break by relevance and then by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            MissingSignal: projected features are missing, or the question's words and any similarity with them.
        """
        count = self.checked_budget(tokens, budget)
        projected = self.signal(tokens, Signal.PROJECTED)
        likeness = relevance(self, tokens, context, self.sign)
        scores = scaled(likeness.values)
        quality = scores
        if self.theta is not None:
            # Less the largest exponent: a factor on all of L changes no choice, and nothing overflows.
            quality = torch.exp(self.theta / (2 * (1 - self.theta)) * (scores - scores.max()))
        diagnostics: dict[str, Any] = likeness.diagnostics()
        kept, by_rank = [], 0
        for part, share in split_over(count, tokens.parts(self.per)):
            order = stable_topk(scores[part], part.stop - part.start)
            diverse = greedy_determinant(projected[part][order], quality[part][order], share)
            by_rank += len(diverse)
            kept.append(as_numpy(order[filled_up(diverse, len(order), share)]) + part.start)
        if by_rank < count:
            diagnostics["notes"].append(
                f"beyond {by_rank} tokens the choice is by relevance alone: all others are combinations of those"
            )
        return Selection.prune(
            len(tokens),
            np.sort(np.concatenate(kept)),
            scores=scores_numpy(scores),
            diagnostics={**diagnostics, "by diversity": by_rank},
        )


def scaled(values: Tensor) -> Tensor:
    """(r - min + 1e-6)/(max - min), or ones where all are equal."""
    low, high = values.min(), values.max()
    return (values - low + FLOOR) / (high - low) if high > low else torch.ones_like(values)


def filled_up(chosen: Tensor, tokens: int, count: int) -> Tensor:
    """The chosen ones of some tokens, and then the first of the others, int64 [count]."""
    others = torch.ones(tokens, dtype=torch.bool, device=chosen.device)
    others[chosen] = False
    return torch.cat([chosen, others.nonzero()[: count - len(chosen), 0]])
