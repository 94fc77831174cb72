"""TRIM: keep what is relevant to the question, and the mean of the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.relevance import FALLBACK, SIGN, relevance
from compression.selection import Selection
from compression.similarity import as_numpy, scores_numpy, stable_topk
from compression.strategies.prumerge import outliers, shares_of, without_rest
from compression.tokens import Signal, VisualTokens


@dataclass(frozen=True)
class TRIM(Strategy):
    """Keep the visual tokens most relevant to the question, and add one token that is the mean of all others.

    Score: the signed similarity s with the question: in CLIP's joint space with negative sign, as released, because
    there the patches before the last layer are least similar to what they show; for a model without a text tower the
    mean cosine of the projected token with the question's words in the language model's embeddings, with positive
    sign. Without a budget a view keeps as many tokens as lie above Q3 + 1.5 (Q3 - Q1) of softmax(scale * s) over its
    tokens, at least one; with a budget m it keeps m - 1. They come in raster order, then the mean of the dropped ones,
    without a place. A budget of 1 keeps the best token alone, and one of all tokens changes nothing.
    Differs from the paper: the released softmax is over dot products of embeddings that are not normalised, here over
    the cosine times `scale`; that changes how many are outliers, not their order. Where there are no outliers one token
    is kept; each view has its own; ties break by token index.
    Source: TRIM, arXiv 2409.10994, and its released code.
    """

    sign: str = "auto"
    rest: bool = True
    scale: float = 100.0
    per: str = "view"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="trim",
        title="TRIM",
        paper="TRIM, arXiv 2409.10994, 2024",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.PROJECTED, Signal.TEXT}),
        reduces="prunes and merges",
        acts_on="encoder",
        adaptive=True,
        own_order=True,
        score="cosine with the question, with the sign that was chosen",
        parameters=(
            SIGN,
            Parameter("rest", True, "Whether the mean of all dropped tokens is one more output, as released."),
            Parameter(
                "scale",
                100.0,
                "Factor on the cosine before the softmax whose outliers are counted; 100 is CLIP's own, in place of "
                "the lengths of its embeddings.",
                0.1,
                1000.0,
                reconstructed=True,
            ),
            Parameter(
                "per",
                "view",
                "Whether each view has its own outliers and an equal share of a budget, or all views compete.",
                choices=("view", "image"),
            ),
            attention_parameter(),
            positions_entering(),
        ),
        labels=(FALLBACK, "reconstruction: scale of the similarity whose outliers are counted without a budget"),
        deviations=(
            "Without a text tower the similarity is the mean cosine with the question's words in the language model.",
            "The outliers are those of softmax(scale * cosine); the released code takes unnormalised dot products.",
            "Without any outlier one token is kept; the released code keeps the mean of all tokens alone.",
            "A budget of m is m - 1 tokens and the mean of the rest; released: int(N*ratio) tokens and that mean.",
            "Each view has its own outliers; the released code counts them over a batch of images.",
            "Ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Per view the kept tokens in raster order, and the mean of the others; exactly `budget` where it is given.

        Raises:
            MissingSignal: the question's words and any similarity with them are missing, or the projected features.
        """
        likeness = relevance(self, tokens, context, self.sign)
        anchors: list[int] = []
        sources: list[tuple[Any, Any]] = []
        found = 0
        for part, share in shares_of(self, tokens, budget, self.per):
            scores = likeness.values[part]
            outside = outliers(scores_numpy(torch.softmax(self.scale * scores, dim=0)))
            found += outside
            count = max(1, outside) if share is None else share
            if self.rest and share is not None:
                count = without_rest(share, len(scores))
            kept = np.sort(as_numpy(stable_topk(scores, count)))
            anchors += (kept + part.start).tolist()
            sources += [([token + part.start], [1.0]) for token in kept]
            dropped = np.setdiff1d(np.arange(len(scores)), kept)
            if self.rest and len(dropped) and share != 1:
                anchors.append(-1)
                sources.append((dropped + part.start, np.full(len(dropped), 1 / len(dropped))))
        return Selection.merge(
            len(tokens),
            anchors,
            sources,
            scores=scores_numpy(likeness.values),
            diagnostics={**likeness.diagnostics(), "outliers": found},
        )
