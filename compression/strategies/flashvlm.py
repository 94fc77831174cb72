"""FlashVLM: keep what both [CLS] and the question point at, and of the rest what is least alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from compression.budget import split_over
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy, cosine, over_heads, scores_numpy, stable_topk
from compression.strategies.vispruner import important_and_diverse
from compression.tokens import Signal, VisualTokens

FLOOR = 1e-6  # released: least range that values are scaled by, and least value of either map before the logarithm


@dataclass(frozen=True)
class FlashVLM(Strategy):
    """Keep the visual tokens that [CLS] and the question point at together, and fill up with the least alike others.

    Score: A^(1 - eta) * S^eta, scaled to 0..1 in its view. A is the attention from [CLS], mean over heads, scaled to
    0..1. S starts from the cosines of a projected token with the question's words in the language model's embeddings,
    averaged with the weights softmax(cosine/word_temperature); then a softmax over the tokens at `temperature`, the
    power gamma, scaling to 0..1, values below the quantile times `damping`, and scaling again. Both are at least 1e-6,
    and a range that something is divided by is 1e-6 larger, as released. Of a view's budget m, floor(important*m)
    tokens have the highest scores; the others are chosen from the rest by VisPruner's rounds.
    Differs from the paper: the released code and its constants are followed where they differ from the paper's
    description. Its gate by the length of the words is left out: it comes after normalising and scales all alike. The
    words are those of the question, where the released code reads the whole prompt. Equal scores are ranked by
    attention and then by token index; else ties as in VisPruner.
    Source: FlashVLM, arXiv 2512.20561, and its released code.
    """

    eta: float = 0.5
    word_temperature: float = 0.05
    temperature: float = 0.01
    gamma: float = 2.5
    quantile: float = 0.995
    damping: float = 0.1
    important: float = 0.5
    step: int = 8
    per: str = "view"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="flashvlm",
        title="FlashVLM",
        paper="FlashVLM, arXiv 2512.20561, 2025",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.PROJECTED, Signal.CLS_ATTENTION, Signal.TEXT}),
        instead={Signal.CLS_ATTENTION: Signal.RECEIVED_ATTENTION},
        reduces="prunes",
        position_free=True,
        score="attention from [CLS] and similarity to the question, their weighted geometric mean",
        parameters=(
            Parameter("eta", 0.5, "Weight of the question against [CLS] attention; released: 0.5.", 0.0, 1.0),
            Parameter("word_temperature", 0.05, "Temperature of the softmax over words; released: 0.05.", 0.001, 10.0),
            Parameter("temperature", 0.01, "Temperature of the softmax over tokens; released: 0.01.", 0.001, 10.0),
            Parameter("gamma", 2.5, "Power of that softmax; released: 2.5.", 0.0, 10.0),
            Parameter("quantile", 0.995, "Quantile below which values are damped; released: 0.995.", 0.0, 1.0),
            Parameter("damping", 0.1, "Factor on the damped values; released: 0.1.", 0.0, 1.0),
            Parameter("important", 0.5, "Share of the budget for the highest scores; released: 0.5.", 0.0, 1.0),
            Parameter("step", 8, "Tokens dropped in a round; released: 8. More is faster and coarser.", 1),
            Parameter(
                "per",
                "view",
                "Whether each view is scored by itself and gets an equal share of the budget, as released, or all "
                "views compete.",
                choices=("view", "image"),
            ),
            positions_entering(),
        ),
        deviations=(
            "The released code is followed where its constants differ from the paper's description.",
            "The gate by the length of the words is left out: it scales all alike, as words are normalised before it.",
            "The words are those of the question; the released code reads the whole prompt, system text included.",
            "The released code gives each view the same count; here one budget is shared out evenly over the views.",
            "For a tower without [CLS], the attention that a patch receives stands in for that from [CLS].",
            "Lists of odd length work; equal scores are ranked by attention and then by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            MissingSignal: attention, the projected features or the question's words are missing.
        """
        count = self.checked_budget(tokens, budget)
        heads = self.seen(tokens)
        attention = over_heads(heads) / len(heads)
        projected, words = self.signal(tokens, Signal.PROJECTED), self.words(tokens, context)
        scores = torch.zeros_like(attention)
        for part in tokens.parts(self.per):
            if part.stop > part.start:
                scores[part] = self._fused(attention[part], self._question_map(cosine(projected[part], words)))
        kept = []
        for part, share in split_over(count, tokens.parts(self.per)):
            seen = stable_topk(attention[part], part.stop - part.start)
            order = seen[stable_topk(scores[part][seen], len(seen))]
            chosen = important_and_diverse(tokens.features[part], order, share, self.important, self.step)
            kept.append(as_numpy(chosen) + part.start)
        return Selection.prune(len(tokens), np.sort(np.concatenate(kept)), scores=scores_numpy(scores))

    def _question_map(self, cosines: Tensor) -> Tensor:
        """How much each token has to do with the question, float [tokens] in 0..1; zeros for no words.

        Args:
            cosines: Float [tokens, words].
        """
        if not cosines.shape[1]:
            return torch.zeros_like(cosines[:, :0].sum(dim=1))
        alike = (cosines * torch.softmax(cosines / self.word_temperature, dim=1)).sum(dim=1)
        sharp = scaled(torch.softmax(alike / self.temperature, dim=0) ** self.gamma)
        bright = sharp >= torch.quantile(sharp, self.quantile)
        return scaled(torch.where(bright, sharp, sharp * self.damping))

    def _fused(self, attention: Tensor, question: Tensor) -> Tensor:
        """The weighted geometric mean of both maps, scaled; float [tokens]."""
        seen = scaled(attention).clamp_min(FLOOR).log()
        asked = question.to(attention).clamp_min(FLOOR).log()
        return scaled(torch.exp((1 - self.eta) * seen + self.eta * asked))


def scaled(values: Tensor) -> Tensor:
    """(values - min)/(max - min + 1e-6)."""
    return (values - values.min()) / (values.max() - values.min() + FLOOR)
