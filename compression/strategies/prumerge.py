"""PruMerge: keep the tokens that [CLS] looks at far more than at others, and add their neighbours to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from compression.budget import split_over
from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy, nearest_neighbours, scores_numpy
from compression.tokens import Signal, VisualTokens

Source = tuple[NDArray[np.int64], NDArray[np.float32]]
"""The tokens of one output, and their weights."""


@dataclass(frozen=True)
class PruMerge(Strategy):
    """Keep the outliers of the [CLS] attention, add their nearest neighbours to them, and sum up the rest in one token.

    Score: a = softmax(q_cls . k / sqrt(D)) over [CLS] and patches in the last vision layer, as a single head over the
    whole width. Without a budget a view keeps as many tokens as lie above Q3 + 1.5 (Q3 - Q1) of its scores, at least
    one. A kept token becomes x_i + sum of a_j x_j over the 32 other tokens of highest key cosine, as released, without
    renormalising; merge=mean divides by the sum of the weights. One more output, without a place, is the sum of a_j x_j
    over all dropped tokens. Outputs come by descending attention, as released.
    With a budget m a view keeps m - 1 tokens and the sum of the rest; 1 keeps the best token alone, and a budget of
    all tokens leaves nothing to sum up.
    Differs from the paper: at least one token is kept where the released code divides by zero; any number of views and
    tokens, each view with its own outliers; fewer than 33 tokens give fewer neighbours; ties break by token index.
    Source: LLaVA-PruMerge, arXiv 2403.15388, and its released code.
    """

    neighbours: int = 32
    merge: str = "sum"
    order: str = "attention"
    per: str = "view"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="prumerge",
        title="PruMerge",
        paper="LLaVA-PruMerge, arXiv 2403.15388, 2024",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.LAST_CLS_ATTENTION, Signal.LAST_KEYS}),
        reduces="prunes and merges",
        acts_on="encoder",
        adaptive=True,
        identity_at_full=False,
        own_order=True,
        score="attention from [CLS] in the last layer, a single head over the whole width",
        parameters=(
            Parameter("neighbours", 32, "Tokens that are added to a kept one; released: 32.", 0),
            Parameter(
                "merge",
                "sum",
                "Whether weights stay as they are, as released, or are divided by their sum, which keeps the norm.",
                choices=("sum", "mean"),
            ),
            Parameter(
                "order",
                "attention",
                "Order of the kept tokens: by descending attention, as released, or as they lie in the image.",
                choices=("attention", "raster"),
            ),
            Parameter(
                "per",
                "view",
                "Whether each view has its own outliers and an equal share of a budget, or all views compete.",
                choices=("view", "image"),
            ),
            attention_parameter(),
            positions_entering(),
        ),
        deviations=(
            "Weights are not renormalised, as released (merge=mean does).",
            "Without any outlier one token is kept; the released code keeps none, or divides by zero.",
            "Each view has its own outliers; the released code takes one image at a time.",
            "A token has fewer neighbours where there are fewer tokens; the released code fails.",
            "A budget of m is m - 1 tokens and the sum of the rest; released: int(N*ratio) tokens and that sum.",
            "A tower without [CLS] is refused: outliers are those of its row, a single head of the last layer.",
            "Ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Per view the kept tokens with their neighbours, and the sum of the rest; exactly `budget` where it is given.

        Raises:
            MissingSignal: attention or keys of the last layer are missing.
        """
        scores = scores_numpy(self.signal(tokens, Signal.LAST_CLS_ATTENTION))
        keys = self.signal(tokens, Signal.LAST_KEYS)
        anchors: list[NDArray[np.int64]] = []
        sources: list[Source] = []
        found = 0
        for part, share in shares_of(self, tokens, budget, self.per):
            attention = scores[part]
            found += outliers(attention)
            kept = self._kept(attention, share)
            if self.order == "raster":
                kept = np.sort(kept)
            at = torch.from_numpy(kept).to(keys.device)
            near = as_numpy(nearest_neighbours(keys[part], at, self.neighbours))
            for token, others in zip(kept, near, strict=True):
                weights = np.concatenate([np.ones(1, np.float32), attention[others]])
                sources.append((np.concatenate([[token], others]) + part.start, self._scaled(weights)))
            anchors.append(kept + part.start)
            rest = np.setdiff1d(np.arange(len(attention)), kept)
            if len(rest) and share != 1:
                sources.append((rest + part.start, self._scaled(attention[rest])))
                anchors.append(np.array([-1]))
        return Selection.merge(
            len(tokens), np.concatenate(anchors), sources, scores=scores, diagnostics={"outliers": found}
        )

    def _kept(self, attention: NDArray[np.float32], share: int | None) -> NDArray[np.int64]:
        """The tokens of a view that are kept, best first."""
        count = max(1, outliers(attention)) if share is None else without_rest(share, len(attention))
        return np.argsort(-attention, kind="stable")[:count]

    def _scaled(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Weights as they go into the output."""
        if self.merge == "sum":
            return weights
        total = weights.sum()
        return weights / total if total > 0 else np.full_like(weights, 1 / len(weights))


def shares_of(strategy: Strategy, tokens: VisualTokens, budget: int | None, per: str) -> list[tuple[slice, int | None]]:
    """The parts of the tokens that have outputs, each with its share of the budget; None without a budget.

    Raises:
        InvalidBudget: the budget is outside 1..len(tokens).
    """
    if budget is None:
        return [(part, None) for part in tokens.parts(per) if part.stop > part.start]
    return list(split_over(strategy.checked_budget(tokens, budget), tokens.parts(per)))


def outliers(scores: NDArray[np.float32]) -> int:
    """How many scores lie above Q3 + 1.5 (Q3 - Q1), quartiles interpolated linearly.

    >>> outliers(np.array([1, 2, 3, 4, 100], np.float32))
    1
    """
    lower, upper = np.percentile(scores, [25, 75])
    return int((scores > upper + 1.5 * (upper - lower)).sum())


def without_rest(outputs: int, tokens: int) -> int:
    """How many tokens are kept when one of the outputs stands for the dropped ones, if there are any, and two outputs.

    >>> [without_rest(outputs, 4) for outputs in (1, 2, 3, 4)]
    [1, 1, 2, 4]
    """
    return outputs if outputs in (1, tokens) else outputs - 1
