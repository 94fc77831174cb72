"""ViR, the visual resolution router: views with little structure are read at a quarter of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.errors import InvalidGrid
from compression.grid import View
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import scores_numpy
from compression.strategies.dualcomp.igsr import structure
from compression.tokens import Signal, VisualTokens
from compression.windows import laid_out, square_windows

COARSER = 2
"""A compressed view has windows of 2 x 2 visual tokens: 64 instead of 256 on a tile of 448 pixels."""


@dataclass(frozen=True)
class ViR(Strategy):
    """Read the views that hold little structure at a quarter of their visual tokens, and the others whole.

    Score: 1 - p of the token's view, where p is the probability that the view is compressed. Router: p = 1 -
    min(HF/HF95, 1); HF is the mean over the view of the squared distance of each feature from its 3 x 3 mean, HF95 its
    95th percentile over a calibration set. Without a budget a view is compressed where p is above the quantile
    `relative` of the p of all views and at least `absolute`; so an image of one view never is, nor is the view of
    lowest p. With a budget views are compressed by descending p until it holds; where all of them are and it does not,
    they go to windows of 4 x 4 and so on in the same order, and at one output each they are left out in that order.
    An output is the mean of its window, anchored at its central token, of four the lower right.
    Differs from the paper: its router, its second pixel shuffle and its second projector are trained; the rule above
    and plain means stand in for them. The image's own views are the calibration set unless `calibration` is given.
    Source: InternVL3.5, arXiv 2508.18265, section 2.3, with ViCO, arXiv 2510.12793, and the released model code.
    """

    relative: float = 0.1
    absolute: float = 0.5
    calibration: float | None = None
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="vir",
        title="ViR",
        paper="InternVL3.5, arXiv 2508.18265; ViCO, arXiv 2510.12793, 2025",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES}),
        reduces="merges",
        acts_on="encoder",
        adaptive=True,
        score="one minus the probability that the token's view is compressed",
        parameters=(
            Parameter(
                "relative",
                0.1,
                "A view is compressed only above this quantile of the probabilities of all views.",
                0.0,
                1.0,
                reconstructed=True,
            ),
            Parameter(
                "absolute", 0.5, "A view is compressed only from this probability on.", 0.0, 1.0, reconstructed=True
            ),
            Parameter(
                "calibration",
                None,
                "HF95, the squared local difference of busy views; left out, the 95th percentile over this image's.",
                0.0,
                reconstructed=True,
                kind=float,
            ),
            attention_parameter(),
            positions_entering(),
        ),
        labels=("reconstruction: untrained router, and means in place of the second projector",),
        deviations=(
            "The trained router is replaced by the squared local difference of the features.",
            "The second pixel shuffle and its projector are replaced by means of 2 x 2 tokens before the projector.",
            "Features are those of the feature layer; the released router reads the last one.",
            "The thresholds are those of a port's test; each released checkpoint has its own.",
            "A budget takes the place of both thresholds: the views least worth their tokens are compressed first.",
            "A budget below what compressing all views reaches goes on to larger windows, which the method has not.",
            "Views with an odd number of rows or columns have smaller windows at the border.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Views whole or as means of windows, row by row; at most `budget` outputs, or as the router decides.

        Raises:
            InvalidGrid: an earlier stage dropped tokens.
        """
        if len(tokens) != len(tokens.grid):
            raise InvalidGrid(
                f"vir routes views of {len(tokens.grid)} visual tokens, got {len(tokens)} survivors; make it the first "
                "step"
            )
        views = tokens.grid.views
        probability = self._probabilities(tokens)
        if budget is None:
            sides: list[int | None] = [COARSER if yes else 1 for yes in self._decide(probability)]
        else:
            sides = fitting_sides(views, np.argsort(-probability, kind="stable"), self.checked_budget(tokens, budget))
        windows = [
            square_windows(view.rows, view.cols, side) if side else None
            for view, side in zip(views, sides, strict=True)
        ]
        anchor, members = laid_out(tokens.grid, windows)
        return Selection.merge(
            len(tokens),
            anchor,
            [(member, np.full(len(member), 1 / len(member))) for member in members],
            scores=np.repeat(1 - probability, [len(view) for view in views]),
            diagnostics=self._diagnostics(probability, sides, budget),
        )

    def _probabilities(self, tokens: VisualTokens) -> NDArray[np.float32]:
        """The probability p that each view is compressed, float32 [views]."""
        local = scores_numpy(structure(tokens.features, tokens.grid))
        busy = np.array([local[part].mean(dtype=np.float64) for part in tokens.view_slices()])
        most = float(np.quantile(busy, 0.95)) if self.calibration is None else self.calibration
        share = np.minimum(np.divide(busy, most, out=(busy > 0).astype(np.float64), where=most > 0), 1.0)
        probability: NDArray[np.float32] = (1 - share).astype(np.float32)
        return probability

    def _decide(self, probability: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which views the router compresses: strictly above the quantile, and at least `absolute`, in float32."""
        edge = np.float32(np.quantile(probability, np.float32(self.relative)))
        chosen: NDArray[np.bool_] = (probability > edge) & (probability >= np.float32(self.absolute))
        return chosen

    def _diagnostics(
        self, probability: NDArray[np.float32], sides: Sequence[int | None], budget: int | None
    ) -> dict[str, Any]:
        """What was decided on each view, and what a reader should know about it."""
        notes = []
        if budget is None and len(sides) == 1:
            notes.append("an image of one view is never compressed by the router; ask for a budget")
        elif budget is None and COARSER not in sides:
            notes.append(
                f"the router compresses no view: the likeliest has p = {probability.max():.2f}, and a view needs "
                f"{self.absolute:g} and to stand out; a budget compresses views in the same order"
            )
        if dropped := sides.count(None):
            notes.append(f"{dropped} views have no output: the budget is below one for each view")
        elif any(side is not None and side > COARSER for side in sides):
            notes.append("the budget is below a quarter of the tokens: some windows are larger than the method's 2 x 2")
        return {
            "compress_probability": [float(value) for value in probability],
            "window_sides": [side or 0 for side in sides],
            "source": "rule" if budget is None else "asked",
            "notes": notes,
        }


def fitting_sides(views: Sequence[View], order: NDArray[np.int64], count: int) -> list[int | None]:
    """The side of each view's windows so that at most `count` are left; None for a view that is left out.

    Args:
        views: In grid order.
        order: int64 [views], the view to be compressed first comes first.
        count: At least 1.
    """
    sides: list[int | None] = [1] * len(views)
    left = [len(view) for view in views]
    side = 1
    while sum(left) > count and max(left) > 1:
        side *= COARSER
        for place in order:
            if sum(left) <= count:
                break
            view = views[place]
            if left[place] > 1:
                sides[place], left[place] = side, len(square_windows(view.rows, view.cols, side))
    for place in order[: max(0, sum(left) - count)]:
        sides[place] = None
    return sides
