"""How alike each visual token is to the question, in the best space that a model offers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compression.compressor import Context, Parameter, Strategy
from compression.similarity import ROWS_AT_ONCE
from compression.tokens import Signal, VisualTokens, unit_rows

FALLBACK = "similarity in the language model's embedding space, positive sign, where the model has no text tower"
"""The label of the methods that were released for CLIP."""

SIGN = Parameter(
    "sign",
    "auto",
    "Sign of the similarity. Released: negative, because patches before CLIP's last layer are least similar to what "
    "they show; auto turns it positive in the language model's space.",
    choices=("auto", "negative", "positive"),
)
"""The parameter of the methods that were released for CLIP."""


@dataclass(frozen=True)
class Relevance:
    """The signed similarity of the visual tokens with the question.

    Args:
        values: Float32 [tokens] at least, larger is more relevant.
        space: "joint" for a joint space of images and text, "language" for the language model's embeddings.
        sign: "negative" or "positive", what the cosine was multiplied with.
    """

    values: Tensor
    space: str
    sign: str

    def diagnostics(self) -> dict[str, str | list[str]]:
        """The space and the sign, and for people what that means."""
        note = (
            f"the similarity to the question is taken in the language model's embedding space, with {self.sign} sign: "
            "the model has no text tower"
        )
        return {"similarity": self.space, "sign": self.sign, "notes": [note] if self.space == "language" else []}


def relevance(strategy: Strategy, tokens: VisualTokens, context: Context, sign: str) -> Relevance:
    """The cosine of each token with the question, signed.

    Where the tokens carry a similarity in a joint space of images and text it is taken; else the mean cosine of the
    projected token with the question's words in the language model's embeddings, 0 for a question without words.

    Args:
        strategy: Who asks; named in errors.
        tokens: The visual tokens.
        context: May hold the question's words.
        sign: "negative", "positive", or "auto": negative in a joint space, positive in the language model's.

    Raises:
        MissingSignal: there is no joint similarity, and the projected tokens or the question's words are missing.
    """
    if Signal.TEXT_SIMILARITY in tokens.signals:
        space, cosines = "joint", tokens.signals[Signal.TEXT_SIMILARITY]
        cosines = cosines if cosines.dtype == torch.float64 else cosines.float()
    else:
        unit = unit_rows(strategy.signal(tokens, Signal.PROJECTED))
        words = unit_rows(strategy.words(tokens, context)).to(unit)
        # In float64, so that equal tokens are equally relevant: a float32 product rounds them apart.
        total = words.double().sum(dim=0)
        dots = torch.cat([part.double() @ total for part in torch.split(unit, ROWS_AT_ONCE)])
        space, cosines = "language", (dots / max(1, len(words))).to(unit.dtype)
    if sign == "auto":
        sign = "negative" if space == "joint" else "positive"
    return Relevance(-cosines if sign == "negative" else cosines, space, sign)
