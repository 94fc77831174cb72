"""The image at a lower resolution, encoded anew: the baseline that many compressors do not beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.compressor import Context, Stage, StrategyInfo
from compression.selection import Selection
from compression.sight import Looked, LookingStrategy, Prospect, Sight, Size

STEPS = 512
"""Sizes that are tried at first, evenly spaced along the longer edge; those between two of them come after."""


@dataclass(frozen=True)
class Downsample(LookingStrategy):
    """Bring the image to a lower resolution and encode it as if it had been no larger.

    Score: none. The largest size in the image's proportions is taken whose visual tokens number at most the budget, as
    the model itself counts them. Models that cut an image into tiles of one size can make certain numbers of tokens
    only; there may then be fewer than asked for, and the run says how many. The longer edge is searched in 512 steps
    and then pixel by pixel up to the next step. The image is reduced by averaging the pixels under each new one. A
    budget of all tokens is the image as the model reads it.
    Differs from the paper: there is none.
    Source: baseline. VTC-Bench (ACL 2026) finds that it beats many compressors on common benchmarks.
    """

    reads_question: ClassVar[bool] = False
    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="downsample",
        title="Downsampling",
        paper="",
        stage=Stage.ENCODING,
        needs=frozenset(),
        reduces="encodes fewer",
        ignores_image=True,
    )

    def lowest(self, prospect: Prospect) -> int:
        """The fewest tokens that any size of the image becomes."""
        return min(prospect.total, *(count for _, count in _counted(prospect)))

    def unreachable(self, prospect: Prospect, budget: int, lowest: int) -> str:
        """Why a budget cannot be reached, in a sentence."""
        if lowest == prospect.total:
            return (
                f"downsample cannot reach {budget} visual tokens: this model makes {lowest} of an image of any size; "
                f"use {lowest}, or another strategy"
            )
        return (
            f"downsample cannot reach {budget} visual tokens: the fewest that this model makes of this image at any "
            f"size are {lowest}; use at least {lowest}"
        )

    def look(self, sight: Sight, budget: int | None, context: Context) -> Looked:
        """Encode the largest copy whose tokens fit the budget; all of them are kept."""
        prospect = sight.prospect
        count = self.check(prospect, budget)
        if count == prospect.total:
            tokens, notes = sight.encode(), []
        else:
            size, whole = largest_size(prospect, count), prospect.image_size
            tokens = sight.encode(size=size)
            said = f"encoded at {size[1]:,} × {size[0]:,} pixels instead of {whole[1]:,} × {whole[0]:,}"
            views = len(tokens.grid.views), len(prospect.views)
            if min(views) > 1 and views[0] != views[1]:
                said += f", in {views[0]} views instead of {views[1]}: a view's name means another part of the image"
            notes = [f"The image was {said}."]
        kept = np.arange(len(tokens))
        return Looked(tokens, Selection.prune(len(tokens), kept, diagnostics={"notes": notes}))


def largest_size(prospect: Prospect, budget: int) -> Size:
    """The largest (height, width) in the image's proportions that becomes at most `budget` tokens.

    Args:
        budget: At least the fewest tokens that any size becomes.
    """
    counted = _counted(prospect)
    found = max((edge for edge, count in counted if count <= budget), default=1)
    later = min((edge for edge, _ in counted if edge > found), default=found + 1)
    between = (edge for edge in range(later - 1, found, -1) if prospect.count(_size(prospect, edge)) <= budget)
    return _size(prospect, next(between, found))


def _counted(prospect: Prospect) -> tuple[tuple[int, int], ...]:
    """Lengths of the longer edge, and the visual tokens of an image that long; the length 1 is one of them."""
    longest = max(prospect.largest)
    edges = {1 + position * (longest - 1) // STEPS for position in range(STEPS + 1)}
    return tuple((edge, prospect.count(_size(prospect, edge))) for edge in sorted(edges))


def _size(prospect: Prospect, edge: int) -> Size:
    """(height, width) in the image's proportions whose longer edge has so many pixels."""
    height, width = prospect.image_size
    scale = edge / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))
