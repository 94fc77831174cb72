"""VisionDrop inside the language model: visual tokens rate each other, the question has no say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy, scaled, stages_parameter
from compression.layer import Heads
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, scores_numpy, stable_topk
from compression.strategies.visionzip import contextual_weights, fold
from compression.tokens import Signal, VisualTokens

SHARES = (35 / 48, 26 / 48, 19 / 48)  # of the 48 that enter, for a mean of 32
QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class VisionDropStages(DecoderStrategy):
    """Before a few layers keep the visual tokens that the others look at, and fold the rest into contextual ones.

    These are VisionDrop's stages inside the language model, without its stage after the encoder. Of a stage's m
    outputs round(0.15*m) are contextual, as in the released 30 + 5, 22 + 4 and 16 + 3. The others are the tokens of
    highest score, in their order. Every max(1, floor(n/c))-th of the n tokens that remain is a target, every other
    one joins the target of highest cosine of keys (after rotary positions, mean over heads), and a contextual token is
    target + mean(joined). Stages leave 35, 26 and 19 of 48, scaled together to meet the mean over the layers.
    Score: mean over the visual tokens as queries, and over heads, of attention to the token in the layer that comes
    next, softmax over the whole sequence with the causal mask.
    Differs from the paper: any budget is split as the released example is; the layers scale with the depth of the
    model; mask=none lifts the causal bias that favours early tokens; merge=mean averages where the released code adds
    two means; ties break by token index.
    Source: VisionDrop, AAAI 2026, arXiv 2506.22283, and its released code.
    """

    mask: Literal["causal", "none"] = "causal"
    merge: Literal["sum", "mean"] = "sum"
    share: float = 0.15
    stages: str | None = None
    positions: Positions = "renumbered"
    attention: Attention = "plain"

    released_positions: ClassVar[Positions] = "renumbered"
    published: ClassVar[tuple[int, ...]] = (8, 16, 24)
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="visiondrop_stages",
        title="VisionDrop (language-model stages)",
        paper="VisionDrop, AAAI 2026, arXiv 2506.22283",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_STATE}),
        reduces="prunes and merges",
        own_order=True,
        score="attention from the visual tokens in the layer behind the cut, mean over queries and heads",
        parameters=(
            Parameter(
                "mask",
                "causal",
                "Whether a visual token sees what precedes it only, as released, or all other visual tokens as well.",
                choices=("causal", "none"),
            ),
            Parameter(
                "merge",
                "sum",
                "Contextual token: target + mean(joined) as released, about twice the norm, or their plain mean.",
                choices=("sum", "mean"),
            ),
            Parameter(
                "share", 0.15, "Share of a stage's outputs that are contextual; released: 5 of 35 and alike.", 0.0, 1.0
            ),
            stages_parameter(
                "The layers before which tokens are dropped, joined by '/'; left out, they are 8/16/24 of 32, scaled."
            ),
            positions_parameter("renumbered"),
            attention_parameter(),
        ),
        labels=("stages inside the language model only: no reduction after the encoder",),
        alone=("stages inside the language model only: no reduction after the encoder",),
        deviations=(
            "The stage after the encoder is another strategy.",
            "Stages leave tokens in the proportion of the released 48, 35, 26 and 19, scaled to meet the mean.",
            "The layers scale with the depth of the language model; at 32 layers they are the released ones.",
            "Where the image has several views, a contextual token lies in the view of its target.",
            "Ties break by token index.",
        ),
        version=2,
    )

    def keeps(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> Sequence[int]:
        """The released proportion scaled by a common factor."""
        return scaled(SHARES, total, share, len(cuts))

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Exactly `budget` outputs: the dominant tokens ascending, then the contextual ones.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no state of a layer with these tokens.
        """
        count, state = self.checked_budget(tokens, budget), self.state(tokens, context)
        scores = received_by(state.next, state.columns, causal=self.mask == "causal")
        contextual = math.floor(self.share * count + 0.5) if count < len(tokens) else 0
        dominant = np.sort(as_numpy(stable_topk(scores, count - contextual)))
        anchors = dominant.tolist()
        weights = [(np.array([token]), np.ones(1, dtype=np.float32)) for token in dominant]
        if contextual:
            rest = np.setdiff1d(np.arange(len(tokens)), dominant)
            keys = state.next.key[:, state.columns].float().mean(dim=0)
            targets, joined = fold(keys[torch.from_numpy(rest).to(keys.device)], contextual)
            for target, members in zip(targets, joined, strict=True):
                anchors.append(int(rest[target]))
                weights.append(
                    (rest[np.concatenate([[target], members])], contextual_weights(len(members), self.merge))
                )
        return Selection.merge(len(tokens), anchors, weights, scores=scores_numpy(scores))


def received_by(heads: Heads, columns: Tensor, *, causal: bool) -> Tensor:
    """Mean over the visual tokens as queries, and over heads, of attention to each of them, float32 [tokens].

    `QUERIES_AT_ONCE` rows of the attention exist at a time.
    """
    parts = [
        heads.rows(queries, sees=None if causal else columns)[:, :, columns].sum(dim=(0, 1))
        for queries in torch.split(columns, QUERIES_AT_ONCE)
    ]
    total: Tensor = torch.stack(parts).sum(dim=0)
    return total / (len(columns) * len(heads.query))
