"""FasterVLM: keep what [CLS] looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.budget import split_over
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class FasterVLM(Strategy):
    """Keep the visual tokens most attended by [CLS], and drop the rest.

    Score: attention[CLS, token] in the feature layer, mean over heads.
    Differs from the paper: ties break by token index; a budget for the whole image is shared out evenly over its views,
    where the released code gives each view the same number.
    Source: FasterVLM, arXiv 2412.01818, and its released code.
    """

    per: str = "view"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="fastervlm",
        title="FasterVLM",
        paper="FasterVLM, arXiv 2412.01818, 2024",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.CLS_ATTENTION}),
        instead={Signal.CLS_ATTENTION: Signal.RECEIVED_ATTENTION},
        reduces="prunes",
        position_free=True,
        score="attention from [CLS], mean over heads",
        parameters=(
            Parameter(
                "per",
                "view",
                "Whether each view gets an equal share of the budget, as released, or all views compete.",
                choices=("view", "image"),
            ),
            positions_entering(),
        ),
        deviations=(
            "The released code gives each view the same count; here one budget is shared out evenly over the views.",
            "For a tower without [CLS], the attention that a patch receives stands in for that from [CLS].",
            "Ties break by token index.",
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
        kept = [
            as_numpy(stable_topk(scores[part], share)) + part.start
            for part, share in split_over(count, tokens.parts(self.per))
        ]
        return Selection.prune(len(tokens), np.sort(np.concatenate(kept)), scores=scores_numpy(scores))
