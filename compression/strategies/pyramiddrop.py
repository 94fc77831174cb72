"""PyramidDrop: drop visual tokens in stages, a fixed share each, by the last instruction token's attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.compressor import Context, Stage, StrategyInfo
from compression.decoder import DecoderStrategy, stages_parameter
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class PyramidDrop(DecoderStrategy):
    """Drop visual tokens before a few layers, each time to the same share of what was there, as a pyramid.

    Score: mean over heads of the attention that the last token of the prompt pays to each visual token in the layer
    that comes next, softmax over the whole sequence; computed beside the model from that layer's input norm, query
    and key projections and rotary positions. Before the s-th of its layers int(N*lambda^s) tokens stay, in their
    order; lambda = 0.5 in the paper (a mean of 270 of 576), here the largest that keeps the mean over the layers
    within the budget.
    Differs from the paper: lambda follows from the budget; the layers 8, 16 and 24 of 32 scale with the depth of the
    model; ties break by token index.
    Source: PyramidDrop, arXiv 2410.17247, and its released code.
    """

    stages: str | None = None
    positions: Positions = "renumbered"

    released_positions: ClassVar[Positions] = "renumbered"
    published: ClassVar[tuple[int, ...]] = (8, 16, 24)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="pyramiddrop",
        title="PyramidDrop",
        paper="PyramidDrop, CVPR 2025, arXiv 2410.17247",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_STATE}),
        reduces="prunes",
        position_free=True,
        score="attention from the last token of the prompt in the layer behind the cut, mean over heads",
        parameters=(
            stages_parameter(
                "The layers before which tokens are dropped, joined by '/'; left out, they are 8/16/24 of 32, scaled."
            ),
            positions_parameter("renumbered"),
        ),
        deviations=(
            "lambda is solved so that the mean over the layers meets the budget; the paper's is 0.5.",
            "The layers scale with the depth of the language model; at 32 layers they are the paper's 8, 16 and 24.",
            "At least one visual token stays.",
            "Ties break by token index.",
        ),
    )

    def keeps(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> Sequence[int]:
        """int(N*lambda^s) of the tokens that entered, `share` being lambda."""
        return [max(1, math.floor(total * share ** (stage + 1))) for stage in range(len(cuts))]

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no state of a layer with these tokens.
        """
        count, state = self.checked_budget(tokens, budget), self.state(tokens, context)
        rows = state.next.rows(state.last)[:, 0, state.columns]
        scores = over_heads(rows) / len(rows)
        kept = np.sort(as_numpy(stable_topk(scores, count)))
        return Selection.prune(len(tokens), kept, scores=scores_numpy(scores))
