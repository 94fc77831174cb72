"""PruMerge+: PruMerge with evenly spaced tokens beside the outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compression.compressor import Parameter, StrategyInfo
from compression.strategies.prumerge import PruMerge, outliers, without_rest


@dataclass(frozen=True)
class PruMergePlus(PruMerge):
    """Keep the outliers of the [CLS] attention and evenly spaced tokens, add their neighbours, and sum up the rest.

    Score: as in PruMerge. Without a budget a view keeps its n outliers and of its N tokens the positions 0, s, 2s, ...
    below N - 1 that are not among them, s = floor(floor(N/n)/3), at least 1: about 4n in all. With a budget half of the
    kept tokens are the most attended ones, and the others are evenly spaced from half a step on, as in the released
    code's branch of a fixed ratio. Merging and the sum of the rest are PruMerge's. Outputs: the outliers by descending
    attention, then the spaced tokens in raster order, then the sum.
    Differs from the paper: with a budget the spaced tokens are counted among those that are not kept yet, so that none
    is kept twice, as it can be in the released code; and as PruMerge.
    Source: LLaVA-PruMerge, arXiv 2403.15388, and its released code.
    """

    share: float = 0.5

    info: ClassVar[StrategyInfo] = replace(
        PruMerge.info,
        name="prumerge_plus",
        title="PruMerge+",
        parameters=(
            *PruMerge.info.parameters,
            Parameter(
                "share",
                0.5,
                "Share of the kept tokens that are the most attended, with a budget; released: half.",
                0.0,
                1.0,
            ),
        ),
        deviations=(
            *PruMerge.info.deviations,
            "With a budget the spaced tokens are counted among those not kept yet; the released code can repeat one.",
        ),
    )

    def _kept(self, attention: NDArray[np.float32], share: int | None) -> NDArray[np.int64]:
        tokens = len(attention)
        best = np.argsort(-attention, kind="stable")
        if share is None:
            count = max(1, outliers(attention))
            spaced = np.arange(0, tokens - 1, max(1, tokens // count // 3))
            return np.concatenate([best[:count], np.setdiff1d(spaced, best[:count])])
        kept = without_rest(share, tokens)
        count = math.ceil(self.share * kept)
        others, wanted = np.sort(best[count:]), kept - count
        spaced = (2 * np.arange(wanted) + 1) * len(others) // (2 * max(1, wanted))
        return np.concatenate([best[:count], others[spaced]])
