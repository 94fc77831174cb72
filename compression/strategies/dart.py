"""DART: of the visual tokens keep those that repeat a few pivots least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, cosine, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class DART(DecoderStrategy):
    """Choose pivots by the size of their keys, and for each keep the visual tokens that are least like it.

    Before layer K: pivots are the 4 visual tokens and the 4 words with the largest keys in layer K-1. Each in turn
    takes, of the visual tokens not yet taken, the m with the lowest cosine to it, measured on the states that enter
    layer K behind the model's final norm. Visual pivots and taken tokens stay, in their order and with their original
    position ids. The budget is a mean over the layers, as for `fastv`.
    Score: L1 norm of the token's keys in layer K-1, all key heads, rotary positions applied; it chooses the pivots.
    Differs from the paper: what a budget k leaves of (k - 4) / 8 goes one each to the first pivots, so that exactly k
    stay; the turn of the pivots is fixed, visual ones by norm, then words by norm, where the released code takes a
    set's order; K scales with the depth of the model; ties break by token index.
    Source: DART, arXiv 2502.11494, and its released code.
    """

    layer: int | None = None
    image_pivots: int = 4
    text_pivots: int = 4
    positions: Positions = "original"

    published: ClassVar[tuple[int, ...]] = (2,)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="dart",
        title="DART",
        paper="DART, arXiv 2502.11494, 2025",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_STATE}),
        reduces="prunes",
        position_free=True,
        score="L1 norm of the token's keys in the layer before the cut, which chooses the pivots",
        parameters=(
            Parameter(
                "layer",
                None,
                "K, the layer before which tokens are dropped; left out, it is max(1, round(2*L/32)) (released: 2).",
                minimum=1,
                kind=int,
            ),
            Parameter("image_pivots", 4, "Visual tokens that are pivots (released: 4).", minimum=1),
            Parameter("text_pivots", 4, "Words behind the image that are pivots (released: 4).", minimum=0),
            positions_parameter("original"),
        ),
        deviations=(
            "A budget is met exactly: what does not divide by the pivots goes one each to the first of them.",
            "Pivots take their turn by the norm of their keys, visual ones first; the released order is a set's.",
            "Words are those behind the image: the question and what the template says after it.",
            "The cut layer scales with the depth of the language model; at 32 layers it is the released K = 2.",
            "The budget is the mean over all layers.",
            "Ties break by token index.",
        ),
        version=2,
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no state of a layer with these tokens.
        """
        count, state = self.checked_budget(tokens, budget), self.state(tokens, context)
        size = state.previous.key.float().abs().sum(dim=(0, 2))
        scores = size[state.columns]
        images = stable_topk(scores, min(self.image_pivots, count))
        words = state.behind[stable_topk(size[state.behind], self.text_pivots)]
        states = state.norm(state.hidden)
        visual = states[state.columns]
        alike = cosine(torch.cat([visual[images], states[words]]), visual)
        kept = np.sort(as_numpy(torch.cat([images, least_alike(alike, images, count - len(images))])))
        return Selection.prune(
            len(tokens),
            kept,
            scores=scores_numpy(scores),
            diagnostics={"layer": context.layer, "image pivots": as_numpy(images).tolist(), "text pivots": len(words)},
        )


def least_alike(alike: Tensor, taken: Tensor, count: int) -> Tensor:
    """Tokens that pivots take in turn, each the least similar of those that are left, int64 [count].

    Args:
        alike: Float [pivots, tokens], similarity of each pivot with each token.
        taken: int64, tokens that cannot be taken.
        count: How many to take over all pivots; shared out evenly, what is left to the first pivots.
    """
    left = alike.clone()
    left[:, taken] = torch.inf
    each, rest = divmod(count, len(alike))
    found = []
    for pivot in range(len(alike)):
        picked = torch.sort(left[pivot], stable=True).indices[: each + (pivot < rest)]
        left[:, picked] = torch.inf
        found.append(picked)
    return torch.cat(found)
