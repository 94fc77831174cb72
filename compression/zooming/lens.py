"""What a zoom may use of an image and a model beyond a sight: parts beside each other, and questions about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from compression.grid import Box, TokenGrid
from compression.tokens import SIGNALS, VisualTokens
from compression.zooming.written import Coordinates


@dataclass(frozen=True, eq=False)
class Reply:
    """What a model says of some visual tokens, and where its question looked.

    Args:
        answer: The answer to the user's question.
        confidence: Its probability among the choices, or that of its first token; in [0, 1].
        looked: Float64 [tokens], attention of the question's words on the visual tokens, mean over heads, words and
            the second half of the layers.
    """

    answer: str
    confidence: float
    looked: NDArray[np.float64]


class Lens(Protocol):
    """One image, one model and one question. All boxes are in original pixels."""

    @property
    def coordinates(self) -> Coordinates | None:
        """How the model writes boxes; None where it cannot write any."""

    @property
    def framing(self) -> str:
        """How boxes become frames, in a sentence; "" where a frame is its box."""

    def overview(self, side: int, tiles: int = 1) -> list[VisualTokens]:
        """The whole image at low resolution, as pictures that the model can be shown.

        Args:
            side: Longest side of a picture in pixels; a smaller image is not enlarged.
            tiles: Pictures along each side of the image, each of them that large.
        """

    def frames(self, box: Box) -> tuple[Box, ...]:
        """What the model is to be shown so that it sees a box at full resolution; the part that matters most first.

        Nothing where it would not see more than on the overview.
        """

    def count(self, frame: Box) -> int:
        """Visual tokens of a frame."""

    def crop(self, frame: Box) -> VisualTokens:
        """A frame at full resolution."""

    def ask(self, tokens: VisualTokens) -> Reply:
        """The model's answer to the user's question on what it is shown."""

    def write(self, tokens: VisualTokens, request: str, *, count: int, temperature: float, seed: int) -> list[str]:
        """Texts that the model writes on what it is shown.

        Args:
            request: What it is told, in place of the user's question.
            count: How many texts; what is shown is read once for all of them.
            temperature: Of the sampling; 0 takes the likeliest token.
            seed: Of the sampling.
        """


def joined(pictures: Sequence[VisualTokens]) -> VisualTokens:
    """Pictures beside each other, as one set of visual tokens in their order, with the signals that all of them have.

    Args:
        pictures: At least one, of one image, each with all its tokens.
    """
    if len(pictures) == 1:
        return pictures[0]
    shared = set.intersection(*(set(one.signals) for one in pictures))
    signals = {
        signal: torch.cat(
            [one.signals[signal] for one in pictures], dim=int(SIGNALS[signal].shape.startswith("[heads"))
        )
        for signal in pictures[0].signals
        if signal in shared
    }
    grid = TokenGrid(tuple(view for one in pictures for view in one.grid.views), pictures[0].grid.image_size)
    return VisualTokens.whole(torch.cat([one.features for one in pictures]), grid, signals)
