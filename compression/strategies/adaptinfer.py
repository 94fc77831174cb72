"""AdaptInfer: words that other words look at decide which visual tokens matter, anew at every stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.compressor import Context, Parameter, Stage, StrategyInfo
from compression.decoder import DecoderStrategy, scaled, stages_parameter
from compression.positions import Positions, positions_parameter
from compression.selection import Selection
from compression.similarity import as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

SHARES = (0.5, 0.25, 0.11)


@dataclass(frozen=True)
class AdaptInfer(DecoderStrategy):
    """Weight each word's attention to the image by how much the other words attend to that word, in the same layer.

    With A the head mean of attention in the layer before the cut and words those behind the image: u_j is the
    importance of word j among words, w = softmax(u), s_i = sum over words of w_j A[j, i]; the best tokens stay, in
    their order and with their original position ids. Stages keep 0.5, 0.25 and 0.11 of the tokens, scaled together so
    that the mean over the layers meets the budget.
    Score: s_i, the weighted attention of the words to the token in the layer before the cut.
    Differs from the paper: its layers and the split of its budget are not published here; these come from an
    unofficial port (layers) and from this project (split); ties break by token index.
    Source: AdaptInfer, arXiv 2508.06084.
    """

    reduction: Literal["received", "kept"] = "received"
    weights: Literal["softmax", "share"] = "softmax"
    stages: str | None = None
    positions: Positions = "original"

    published: ClassVar[tuple[int, ...]] = (2, 11, 21)  # of 32 layers: pruning follows layers 1, 10 and 20
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="adaptinfer",
        title="AdaptInfer",
        paper="AdaptInfer, arXiv 2508.06084, 2025",
        stage=Stage.DECODER,
        needs=frozenset({Signal.LAYER_STATE}),
        reduces="prunes",
        position_free=True,
        score="attention from the words behind the image in the layer before the cut, weighted by their importance",
        parameters=(
            Parameter(
                "reduction",
                "received",
                "A word's importance: the mean attention that it receives from itself and the words behind it, or the "
                "share of its own attention that stays on words (kept).",
                choices=("received", "kept"),
                reconstructed=True,
            ),
            Parameter(
                "weights",
                "softmax",
                "Weights of the words: softmax of their importance, or their share of its sum.",
                choices=("softmax", "share"),
                reconstructed=True,
            ),
            stages_parameter(
                "The layers before which tokens are dropped, joined by '/'; left out, they are 2/11/21 of 32, scaled."
            ),
            positions_parameter("original"),
        ),
        labels=("reconstruction: stages, split of the budget and reduction of the text attention",),
        deviations=(
            "Stages follow layers 1, 10 and 20 of 32, from an unofficial port, and scale with the depth of the model.",
            "Stages keep 0.5, 0.25 and 0.11 of the tokens, scaled together to meet the mean over the layers.",
            "A word's received attention is averaged over the words that can see it, as causal columns are unequal.",
            "Words are those behind the image: the question and what the template says after it.",
            "Ties break by token index.",
        ),
        version=2,
    )

    def keeps(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> Sequence[int]:
        """The split scaled by a common factor, from nothing at share 0 to all tokens at every stage at share 1."""
        return scaled(SHARES, total, share, len(cuts))

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            InvalidBudget: the budget is missing or outside 1..tokens.
            MissingSignal: the context holds no state of a layer with these tokens.
        """
        count, state = self.checked_budget(tokens, budget), self.state(tokens, context)
        rows = over_heads(heads := state.previous.rows(state.behind)) / len(heads)
        weights = self._weigh(rows[:, state.behind])
        scores = weights @ rows[:, state.columns]
        kept = np.sort(as_numpy(stable_topk(scores, count)))
        return Selection.prune(len(tokens), kept, scores=scores_numpy(scores))

    def _weigh(self, among: Tensor) -> Tensor:
        """Weights of the words, float32 [words], from the attention [words, words] among them."""
        if self.reduction == "kept":
            importance = among.sum(dim=1)
        else:
            importance = among.sum(dim=0) / torch.arange(len(among), 0, -1, device=among.device)
        return importance.softmax(dim=0) if self.weights == "softmax" else importance / importance.sum()


def inflection_layers(rows: NDArray[np.float64], count: int) -> tuple[int, ...]:
    """Layers before which a model's attention to the image has just turned: where stages are worth their cost.

    The shift of layer l is 1 - cos(rows_l, rows_(l-1)); stages come just behind its largest local maxima.

    >>> turned = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    >>> inflection_layers(turned, 1)
    (3,)

    Args:
        rows: Float [layers, tokens], attention of the words to each visual token, mean over words, heads and samples.
        count: How many at most.

    Returns:
        Layers in 1..layers-1, ascending.
    """
    size = np.linalg.norm(rows, axis=1)
    shift = np.concatenate([[0.0], 1 - (rows[1:] * rows[:-1]).sum(axis=1) / np.maximum(size[1:] * size[:-1], 1e-12)])
    inner = range(1, len(shift) - 1)
    peaks = [layer for layer in inner if shift[layer] > shift[layer - 1] and shift[layer] >= shift[layer + 1]]
    largest = sorted(peaks, key=lambda layer: (-shift[layer], layer))[:count]
    return tuple(sorted(layer + 1 for layer in largest))
