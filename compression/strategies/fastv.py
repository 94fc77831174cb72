"""FastV: after a few layers of the language model, drop the visual tokens that the answer does not look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy
from compression.errors import MissingSignal
from compression.layer import LayerState
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

QUERIES_AT_ONCE = 128  # 32 heads over 8,192 positions are 128 MiB of float32


@dataclass(frozen=True)
class FastV(DecoderStrategy):
    """Keep the visual tokens that the answer position attends to most in an early layer of the language model.

    Score: mean over heads of attention[answer position, token] in layer K-1, the last row of the prompt; the best
    stay from layer K on, in their order and with their original position ids. Layers 0..K-1 process all tokens, so
    the budget is a mean over the layers: T = (K*N + (L - K)*k) / L. With rows=mean the score is the mean over all
    positions of the prompt, as the paper describes it, the token's own and those in front of it included: these cannot
    attend to the token, so that early tokens gain.
    Differs from the paper: the cut scales with the depth of the model, K = max(1, round(2*L/32)), where the paper has
    K = 2 of 32; attention is that of the last row, as in the released code, unless rows=mean; the choice is made once,
    at prefill; ties break by token index.
    Source: FastV, arXiv 2403.06764, and its released code.

    With rows=mean the attention of all positions is computed anew, a part of them at a time.
    """

    layer: int | None = None
    rows: Literal["last", "mean"] = "last"
    positions: Positions = "original"

    published: ClassVar[tuple[int, ...]] = (2,)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="fastv",
        title="FastV",
        paper="FastV, arXiv 2403.06764, 2024",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_ATTENTION, Signal.LAYER_STATE}),
        instead={Signal.LAYER_STATE: None},
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
            Parameter(
                "rows",
                "last",
                "Whose attention scores the tokens: that of the last position (released), or the mean of all (paper); "
                "the mean needs the state of the layer.",
                choices=("last", "mean"),
            ),
            positions_parameter("original"),
        ),
        deviations=(
            "The cut layer scales with the depth of the language model; at 32 layers it is the paper's K = 2.",
            "Scores come from the last row of the prompt, as released; the paper describes a mean of all (rows=mean).",
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
            MissingSignal: the context holds no attention for these tokens, or with rows=mean no state of the layer.
        """
        count = self.checked_budget(tokens, budget)
        if context.attention is None or context.attention.shape[-1] != len(tokens):
            raise MissingSignal(
                f"fastv needs the signal 'layer_attention', rows of a layer over {len(tokens)} visual tokens, got "
                f"{'none' if context.attention is None else tuple(context.attention.shape)}; choose another model"
            )
        if self.rows == "mean":
            scores = mean_of_all_rows(self.state(tokens, context))
        else:
            scores = over_heads(context.attention[:, 0]) / len(context.attention)
        kept = np.sort(as_numpy(stable_topk(scores, count)))
        return Selection.prune(len(tokens), kept, scores=scores_numpy(scores), diagnostics={"layer": context.layer})


def mean_of_all_rows(state: LayerState) -> Tensor:
    """Attention to each visual token in the layer before, mean over heads and over all positions, float32 [tokens]."""
    found = torch.zeros(len(state.visual), device=state.hidden.device)
    for part in torch.split(torch.arange(state.length, device=state.hidden.device), QUERIES_AT_ONCE):
        rows = state.previous.rows(part)
        found = found + over_heads(rows.mean(dim=0)[:, state.columns])
    return found / state.length
