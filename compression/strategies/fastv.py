"""FastV: after a few layers of the language model, drop the visual tokens that the answer does not look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy, Positions, positions_parameter
from compression.errors import MissingSignal
from compression.selection import Selection
from compression.similarity import as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class FastV(DecoderStrategy):
    """Keep the visual tokens that the answer position attends to most in an early layer of the language model.

    Score: mean over heads of attention[answer position, token] in layer K-1, the last row of the prompt; the best
    stay from layer K on, in their order and with their original position ids. Layers 0..K-1 process all tokens, so
    the budget is a mean over the layers: T = (K*N + (L - K)*k) / L.
    Differs from the paper: the cut scales with the depth of the model, K = max(1, round(2*L/32)), where the paper has
    K = 2 of 32; attention is that of the last row, as in the released code, where the paper describes a mean over all
    rows; the choice is made once, at prefill; ties break by token index.
    Source: FastV, arXiv 2403.06764.
    """

    layer: int | None = None
    positions: Positions = "original"

    published: ClassVar[tuple[int, ...]] = (2,)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="fastv",
        title="FastV",
        paper="FastV, arXiv 2403.06764, 2024",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_ATTENTION}),
        reduces="prunes",
        position_free=True,
        score="attention from the answer position in the layer before the cut, mean over heads",
        parameters=(
            Parameter(
                "layer",
                None,
                "K, the layer before which tokens are dropped; left out, it is max(1, round(2*L/32)) (paper: 2 of 32).",
                minimum=1,
                kind=int,
            ),
            positions_parameter("original"),
        ),
        deviations=(
            "The cut layer scales with the depth of the language model; at 32 layers it is the paper's K = 2.",
            "Scores come from the last row of the prompt, as released; the paper describes a mean over all rows.",
            "Tokens are chosen once, at prefill; the uncached original chooses again at every generated token.",
            "The budget is the mean over all layers; the released ratio counts the tokens dropped at the cut.",
            "Ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Args:
            tokens: The visual tokens before the cut.
            budget: How many are left after the cut (not the mean over the layers).
            context: `attention` holds [heads, query, tokens] of layer K-1, the answer position as query 0.

        Raises:
            MissingSignal: the context holds no attention for these tokens.
        """
        count = self.checked_budget(tokens, budget)
        if context.attention is None or context.attention.shape[-1] != len(tokens):
            raise MissingSignal(
                f"fastv needs the signal 'layer_attention', rows of a layer over {len(tokens)} visual tokens, got "
                f"{'none' if context.attention is None else tuple(context.attention.shape)}; choose another model"
            )
        scores = over_heads(context.attention[:, 0]) / len(context.attention)
        kept = np.sort(as_numpy(stable_topk(scores, count)))
        return Selection.prune(len(tokens), kept, scores=scores_numpy(scores), diagnostics={"layer": context.layer})
