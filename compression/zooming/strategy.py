"""What the strategies have in common that look closer at parts of an image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compression.compressor import Parameter
from compression.grid import Box
from compression.selection import Selection
from compression.sight import Looked, LookingStrategy, Prospect, Size, Turn
from compression.tokens import VisualTokens
from compression.zooming.lens import Lens, Reply

MOST_CROPS = 6
NO_LIMIT = 2**31 - 1
"""Room in visual tokens where no budget was given."""
SIDES = ("256", "512")

BOXES = Parameter(
    "boxes",
    "auto",
    "Boxes that the model writes, or from its attention; auto: written where it can write any.",
    choices=("auto", "written", "attention"),
)
OVERVIEW = Parameter("overview", "256", "Longest side of the overview in pixels.", choices=SIDES)
SHARE = Parameter(
    "share",
    0.3,
    "Share of the attention that the strongest tokens hold, around which boxes are drawn.",
    0.01,
    1.0,
    reconstructed=True,
)
LABEL = "reconstruction: boxes from attention, not written by the model, where it cannot write them"


class ZoomStrategy(LookingStrategy):
    """Overview first, then parts of the image at full resolution."""

    overview: str

    def lowest(self, prospect: Prospect) -> int:
        """The tokens of the overview, with which the answer has to do where nothing else fits."""
        return prospect.count(overview_size(prospect, self.side(prospect)))

    def side(self, prospect: Prospect) -> int:
        """Longest side in pixels of the overview that stands beside the crops."""
        return min(int(self.overview), prospect.beside or int(self.overview))

    def check(self, prospect: Prospect, budget: int | None) -> int:
        """As `LookingStrategy.check`; without a budget there is room for everything."""
        if budget is None:
            return NO_LIMIT
        return super().check(prospect, budget)

    def unreachable(self, prospect: Prospect, budget: int, lowest: int) -> str:
        """Why a budget cannot be reached, in a sentence."""
        return (
            f"{self.info.name} cannot reach {budget} visual tokens: its overview alone has {lowest} on this image; "
            f"use at least {lowest}"
        )


def overview_size(prospect: Prospect, side: int) -> Size:
    """(height, width) of an overview whose longest side has at most so many pixels; nothing is enlarged."""
    height, width = prospect.image_size
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def overview_turn(prospect: Prospect, tokens: int, reply: Reply | None) -> Turn:
    """The first turn of every zoom: the whole image, and what the model said of it where it was asked."""
    height, width = prospect.image_size
    return Turn(
        1,
        (0.0, 0.0, float(width), float(height)),
        tokens=tokens,
        after=reply.answer if reply else "",
        reason="overview",
    )


def names(pictures: Sequence[VisualTokens]) -> str:
    """The names of the views of some pictures, as people call them."""
    return " ".join(view.name for one in pictures for view in one.grid.views)


def looked(
    lens: Lens, tokens: VisualTokens, turns: Sequence[Turn], notices: Sequence[str], crops: Sequence[Box]
) -> Looked:
    """What the model is shown in the end: all of the tokens.

    Args:
        crops: What is shown at full resolution.
    """
    if crops and lens.framing:
        notices = [*notices, lens.framing]
    everything = Selection.prune(
        len(tokens), np.arange(len(tokens)), diagnostics={"notes": list(dict.fromkeys(notices))}
    )
    return Looked(tokens, everything, tuple(turns), tuple(crops))
