"""DivPrune: keep the visual tokens that differ most from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.compressor import Context, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy, farthest_point, first_largest, nearest_distance, scores_numpy
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class DivPrune(Strategy):
    """Keep the most diverse visual tokens: each next one is the farthest from all that are already kept.

    Score: 1 - cosine to the nearest kept token among the projected features, at the moment a token was chosen, or at
    the end for the dropped ones. The first token is the one farthest from its nearest neighbour, and that distance is
    its score.
    Differs from the paper: a chosen token is masked, so duplicates are not chosen twice; rows of the distance matrix
    are computed when needed, so that memory does not grow with the square of the tokens; ties break by token index.
    Source: DivPrune, CVPR 2025.

    Costs (N/2 + K)*N*D multiply-adds: at N = 65,536, K = 6,553, D = 1,024 about 3 * 10^12, minutes on a CPU.
    """

    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="divprune",
        title="DivPrune",
        paper="DivPrune, CVPR 2025",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.PROJECTED}),
        reduces="prunes",
        position_free=True,
        score="distance (1 - cosine) to the nearest kept token",
        parameters=(positions_entering(),),
        deviations=(
            "Chosen tokens are masked; the released code can choose a duplicate twice once all distances are zero.",
            "Distances are computed row by row; the released code holds the whole matrix.",
            "Ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            MissingSignal: the tokens carry no projected features.
        """
        count = self.checked_budget(tokens, budget)
        projected = self.signal(tokens, Signal.PROJECTED)
        alone = nearest_distance(projected)
        first = int(first_largest(alone))
        chosen, distance = farthest_point(projected, count, first)
        distance[first] = alone[first]
        order = as_numpy(chosen)
        return Selection.prune(len(tokens), np.sort(order), scores=scores_numpy(distance), diagnostics={"first": first})
