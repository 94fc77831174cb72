"""SparseVLM: question words rate the visual tokens in three layers; of what is dropped, the best is recycled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import Act, DecoderStrategy, mean_over_layers, stages_parameter
from compression.layer import LayerState
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, density_peaks, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

TOKENS = 576
LISTS: dict[str, dict[int, tuple[int, int, int]]] = {
    "v1.5": {192: (300, 200, 110), 128: (303, 110, 36), 96: (238, 48, 26), 64: (66, 30, 17)},
    "plus": {192: (300, 200, 118), 128: (238, 108, 60), 96: (246, 54, 28), 64: (66, 34, 20)},
}
"""Released tokens to keep at each stage, recycled ones not counted, by the mean that the tables name."""
RECYCLED = 0.3  # of the dropped tokens
PER_CLUSTER = 10
PLUS_HEADS = 14 / 32
LEAST_WEIGHT = 0.01  # of the rotary weight at distance nought

Part = tuple[list[int], list[tuple[NDArray[np.int64], NDArray[np.float32]]]]
"""Anchors, and for each its sources with their weights."""


@dataclass(frozen=True)
class SparseVLM(DecoderStrategy):
    """Let the words of the question that matter to the image rate the visual tokens, and recycle some of the dropped.

    Raters are chosen once from what enters the language model: P = softmax over words of V T^t without scale or norm,
    m_j = mean over visual tokens of P_ij, and words with m_j above the mean rate. Before a stage's layer the best k
    tokens stay. Of the p that do not, the best int(0.3*p) + 1 are grouped into int(that / 10) + 1 clusters by density
    peaks, and each cluster's mean follows the tokens that stayed. "plus" divides attention by what rotary positions
    alone would give, keeps the 14 of 32 heads that look at the image most, and recycles nothing.
    Score: mean over raters of the head mean of attention to the token in the layer before the cut.
    Differs from the paper: stage sizes follow the released lists for 192, 128, 96 and 64, interpolated, so that the
    tokens that the layers process meet the budget. The released means count what leaves each layer, budgets here what
    enters it: of 576 tokens and 32 layers the lists "192", "128", "96" and "64" are @207, @146, @115 and @83 (plus:
    @207, @145, @114 and @82); "192" leaves 309, 204 and 113 tokens, a mean of 192.03, and 206.5 enter. Ties break by
    index.
    Source: SparseVLM, arXiv 2410.04417, and its released code.
    """

    release: Literal["v1.5", "plus"] = "v1.5"
    stages: str | None = None
    positions: Positions | None = None
    attention: Attention = "plain"

    published: ClassVar[tuple[int, ...]] = (3, 7, 16)  # of 32 layers: pruning follows layers 2, 6 and 15
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="sparsevlm",
        title="SparseVLM",
        paper="SparseVLM, arXiv 2410.04417, 2024",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_STATE}),
        reduces="prunes and merges",
        own_order=True,
        score="attention from the rating words in the layer before the cut, mean over heads",
        parameters=(
            Parameter(
                "release",
                "v1.5",
                "The released method: with recycling (v1.5), or SparseVLM+ with attention freed of distance (plus).",
                choices=("v1.5", "plus"),
            ),
            stages_parameter(
                "The layers before which tokens are dropped, joined by '/'; left out, they are 3/7/16 of 32, scaled."
            ),
            positions_parameter(None),
            attention_parameter(),
        ),
        deviations=(
            "The paper's adaptive ratio by rank is not used: the released tables come from fixed lists.",
            "Between the released lists sizes are interpolated, so that what the layers process meets the budget.",
            "Layers scale with the depth of the language model, the lists with the number of visual tokens.",
            "Where no word stands out, all words behind the image rate.",
            "Density peaks take no random noise: of equally dense tokens the first counts as denser.",
            "Where the image has several views, a recycled token lies in the view of its cluster's centre.",
            "A budget too small for a recycled token keeps the best tokens only.",
            "plus: a rotary weight counts as a hundredth of that at distance nought at least, before dividing by it.",
            "Ties break by token index.",
        ),
        version=2,
    )

    @property
    def convention(self) -> Positions:
        """Renumbered in v1.5, original in plus, unless asked otherwise."""
        return self.positions or ("original" if self.release == "plus" else "renumbered")

    def keeps(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> Sequence[int]:
        """Sizes of the stages, recycled tokens included; the share is that of the named mean in 576 tokens."""
        named = sorted(LISTS[self.release])
        sizes, present = [], total
        for stage in range(len(cuts)):
            row = [0, *(LISTS[self.release][mean][min(stage, 2)] for mean in named), TOKENS]
            asked = float(np.interp(share * TOKENS, [0, *named, TOKENS], row)) * total / TOKENS
            kept = max(1, math.floor(asked + 0.5))
            if kept < present:
                present = min(present, kept + self._recycled(present - kept))
            sizes.append(present)
        return sizes

    def schedule(self, total: int, average: int, layers: int, others: Sequence[Act] = ()) -> tuple[Act, ...]:
        """A released list where its mean is the one asked for, else the solved sizes; see `DecoderStrategy`."""
        solved = super().schedule(total, average, layers, others)
        for mean in LISTS[self.release]:
            acts = self._acts(total, mean / TOKENS, self.cut_layers(layers), layers)
            if average - 1 < mean_over_layers([*others, *acts], total, layers) <= average:
                return acts
        return solved

    def _recycled(self, dropped: int) -> int:
        """Clusters that come back of so many dropped tokens."""
        return 0 if self.release == "plus" else int((int(RECYCLED * dropped) + 1) / PER_CLUSTER) + 1

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Exactly `budget` outputs: the kept tokens ascending, then the recycled ones, the clearest cluster first.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no state of a layer with these tokens.
        """
        count, state = self.checked_budget(tokens, budget), self.state(tokens, context)
        raters = rating_words(state)
        scores = self._rate(state, raters)
        told = {"raters": len(raters), "recycled": 0}
        kept = next((k for k in range(count, 0, -1) if k + self._recycled(len(tokens) - k) <= count), 0)
        if count == len(tokens) or self.release == "plus" or not kept:
            best = np.sort(as_numpy(stable_topk(scores, count)))
            return Selection.prune(len(tokens), best, scores=scores_numpy(scores), diagnostics=told)
        ranked = as_numpy(stable_topk(scores, len(tokens)))
        candidates = np.sort(ranked[kept : kept + int(RECYCLED * (len(tokens) - kept)) + 1])
        anchors, weights = self._recycle(tokens.features, candidates, count - kept)
        stay = np.sort(ranked[:kept])
        one = np.ones(1, dtype=np.float32)
        return Selection.merge(
            len(tokens),
            [*stay.tolist(), *anchors],
            [*((np.array([token]), one) for token in stay), *weights],
            scores=scores_numpy(scores),
            diagnostics={**told, "recycled": len(anchors)},
        )

    def _rate(self, state: LayerState, raters: Tensor) -> Tensor:
        """Scores of the visual tokens, float32 [tokens]."""
        rows = state.previous.rows(raters)[:, :, state.columns]
        if self.release == "v1.5":
            return over_heads(over_heads(rows)) / rows[:, :, 0].numel()
        freed = rows / rotary_weight(state.rotary, raters, state.columns)
        heads = stable_topk(freed.sum(dim=(1, 2)), max(1, round(PLUS_HEADS * len(freed))))
        return over_heads(over_heads(freed[heads])) / freed[heads][:, :, 0].numel()

    def _recycle(self, features: Tensor, candidates: NDArray[np.int64], clusters: int) -> Part:
        """One mean for each cluster of candidates, at the place of its centre."""
        centres, owner = density_peaks(features[torch.from_numpy(candidates).to(features.device)], clusters)
        anchors, weights = [], []
        for number, centre in enumerate(centres):
            members = candidates[owner == number]
            anchors.append(int(candidates[centre]))
            weights.append((members, np.full(len(members), 1 / len(members), dtype=np.float32)))
        return anchors, weights


def rating_words(state: LayerState) -> Tensor:
    """Positions in the present sequence of the words that rate, int64 [raters], at least one where there is a word."""
    # No word leaves, so that those behind the picture are the end of what entered too.
    words = state.entered[len(state.entered) - len(state.behind) :].float()
    visual = state.entered[torch.from_numpy(state.entered_visual).to(words.device)].float()
    relevance = (visual @ words.T).softmax(dim=1).mean(dim=0)
    above = relevance > relevance.mean()
    return state.behind[above] if bool(above.any()) else state.behind


def rotary_weight(rotary: tuple[Tensor, Tensor], queries: Tensor, keys: Tensor) -> Tensor:
    """What rotary positions alone give a query and a key of ones, R(1) R(1)^T / sqrt(d), float32 [queries, keys]."""
    cos, sin = (part.float() for part in rotary)
    half = cos.shape[-1] // 2
    # rotate_half of ones is minus one in the first half and one in the second.
    ones = cos + torch.cat([-sin[:, :half], sin[:, half:]], dim=1)
    weight = ones[queries] @ ones[keys].T / math.sqrt(cos.shape[-1])
    return weight.clamp_min(LEAST_WEIGHT * math.sqrt(cos.shape[-1]))
