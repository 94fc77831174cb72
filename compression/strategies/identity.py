"""No compression: what every comparison is measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.compressor import Context, Stage, Strategy, StrategyInfo
from compression.errors import InvalidBudget
from compression.selection import Selection
from compression.tokens import VisualTokens


@dataclass(frozen=True)
class Identity(Strategy):
    """Keep every visual token.

    Score: none.
    Differs from the paper: there is none; this is the uncompressed model.
    Source: baseline.
    """

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="identity",
        title="No compression",
        paper="",
        stage=Stage.ENCODER,
        needs=frozenset(),
        reduces="nothing",
        ignores_image=True,
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep all tokens in their order; the budget is their number, or None.

        Raises:
            InvalidBudget: the budget is another number.
        """
        total = len(tokens)
        if budget is not None and budget != total:
            raise InvalidBudget(
                f"identity keeps all {total} visual tokens, got a budget of {budget}; "
                "write identity@1.0 or choose another strategy",
                lowest=total,
            )
        return Selection.prune(total, np.arange(total))
