"""A random subset of the visual tokens: the baseline that every selection has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from compression.compressor import Context, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy
from compression.tokens import VisualTokens


@dataclass(frozen=True)
class RandomSubset(Strategy):
    """Keep a random subset of the visual tokens, every subset equally likely, in raster order.

    Score: none; the seed of the run decides. Compare at least three seeds.
    Differs from the paper: there is none. Unlike some toolkits, the kept tokens are sorted, so that chance decides
    which tokens stay and not in which order they are read.
    Source: baseline.
    """

    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="random_subset",
        title="Random subset",
        paper="",
        stage=Stage.ENCODER,
        needs=frozenset(),
        reduces="prunes",
        ignores_image=True,
        parameters=(positions_entering(),),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Draw exactly `budget` tokens with the generator of the context's seed."""
        count = self.checked_budget(tokens, budget)
        drawn = torch.randperm(len(tokens), generator=context.generator())[:count]
        return Selection.prune(len(tokens), np.sort(as_numpy(drawn)))
