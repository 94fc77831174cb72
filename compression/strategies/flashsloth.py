"""FlashSloth: pool each small window of visual tokens by weights that favour what stands out in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.budget import split_by_resolution, split_evenly
from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.errors import InvalidGrid
from compression.grid import View
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens
from compression.windows import Windows, even_windows, laid_out, pooled_size, square_side, square_windows


@dataclass(frozen=True)
class FlashSloth(Strategy):
    """Pool each window of visual tokens to one, weighted by how much each token stands out in it.

    Score: the weight alpha of a token in its window, a softmax over the window of d / (temperature * mean d), where d
    is the squared distance of a token from the mean of its window and mean d is taken over the view; 0 in a view
    without outputs. Windows are square and those at the right and lower border are smaller, as released: the smallest
    of which the budget holds all (3 x 3 for 81 of 27 x 27). windows=fitted cuts the view into h x w nearly equal
    windows instead, which comes nearer to the budget. An output is anchored at the central token of its window.
    Differs from the paper: its spatial attention pooling learns alpha with a two-layer network, whose weights fit its
    own encoder only; the deviation from the window's mean stands in for it. The nine embedded query tokens are trained
    parts of its language model and are left out. Few budgets are a number of windows: else there are fewer outputs.
    Source: FlashSloth, CVPR 2025, arXiv 2412.04317, and its released code.
    """

    windows: str = "square"
    temperature: float = 1.0
    per: str = "image"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="flashsloth",
        title="FlashSloth",
        paper="FlashSloth, CVPR 2025, arXiv 2412.04317",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES}),
        reduces="merges",
        acts_on="encoder",
        score="weight of the token in its window",
        parameters=(
            Parameter(
                "windows",
                "square",
                "Square windows with ragged borders, as released, or nearly equal ones as many as the budget allows.",
                choices=("square", "fitted"),
            ),
            Parameter(
                "temperature",
                1.0,
                "Of the softmax, in units of the view's mean squared deviation; large ones give plain means.",
                0.01,
                100.0,
                reconstructed=True,
            ),
            Parameter(
                "per",
                "image",
                "Whether views share the budget by their sizes, or each gets an equal share; published for one view.",
                choices=("image", "view"),
            ),
            attention_parameter(),
            positions_entering(),
        ),
        labels=("reconstruction: untrained window weights in place of the learnt attention pooling",),
        deviations=(
            "The learnt window weights are replaced by the deviation from the window's mean.",
            "The nine embedded query tokens are left out: they are trained parts of the method's language model.",
            "The released windows are always 3 x 3; here the budget chooses their size.",
            "A budget that is no number of windows leaves a rest.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """At most `budget` weighted means of windows, view by view and row by row.

        Raises:
            InvalidGrid: an earlier stage dropped tokens.
        """
        count = self.checked_budget(tokens, budget)
        if len(tokens) != len(tokens.grid):
            raise InvalidGrid(
                f"flashsloth pools windows of all {len(tokens.grid)} visual tokens, "
                f"got {len(tokens)} survivors; make it the first step"
            )
        views = tokens.grid.views
        quotas = (split_by_resolution if self.per == "image" else split_evenly)(count, [len(view) for view in views])
        windows = [self._cut(view, quota) if quota else None for view, quota in zip(views, quotas, strict=True)]
        scores = np.zeros(len(tokens))
        for part, one in zip(tokens.view_slices(), windows, strict=True):
            if one is not None:
                scores[part] = window_weights(tokens.features[part], one.members(), self.temperature)
        anchor, members = laid_out(tokens.grid, windows)
        short = count - len(anchor)
        return Selection.merge(
            len(tokens),
            anchor,
            [(member, scores[member]) for member in members],
            scores=scores,
            diagnostics={
                "sizes": [one.size if one else [0, 0] for one in windows],
                "shortfall": short,
                "notes": [f"{short} fewer outputs than the budget: no such windows are as many"] if short else [],
            },
        )

    def _cut(self, view: View, quota: int) -> Windows:
        """The windows of a view, at most `quota`."""
        if self.windows == "square":
            return square_windows(view.rows, view.cols, square_side(view.rows, view.cols, quota))
        return even_windows(view.rows, view.cols, *pooled_size(view.rows, view.cols, quota))


def window_weights(features: Tensor, members: list[NDArray[np.int64]], temperature: float) -> NDArray[np.float64]:
    """The weight alpha of each token, summing to one over its window, float64 [tokens].

    Args:
        features: Float [tokens, dim].
        members: The tokens of each window; every token is in one.
        temperature: In units of the mean squared deviation; where that is 0, all weights of a window are equal.
    """
    wide = torch.promote_types(features.dtype, torch.float32)
    sizes = np.array([len(window) for window in members])
    order, starts = np.concatenate(members), np.cumsum(sizes) - sizes
    owner = np.empty(len(order), dtype=np.int64)
    owner[order] = np.repeat(np.arange(len(sizes)), sizes)
    home = torch.from_numpy(owner).to(features.device)
    sums = torch.zeros(len(sizes), features.shape[1], dtype=wide, device=features.device)
    means = sums.index_add_(0, home, features.detach().to(wide)) / torch.from_numpy(sizes).to(sums)[:, None]
    deviation = (features.detach().to(wide) - means[home]).square().sum(dim=1).double().cpu().numpy()
    mean = deviation.mean()
    logits = deviation[order] / (temperature * mean) if mean > 0 else np.zeros(len(order))
    powers = np.exp(logits - np.repeat(np.maximum.reduceat(logits, starts), sizes))
    weights = np.empty(len(order))
    weights[order] = powers / np.repeat(np.add.reduceat(powers, starts), sizes)
    return weights
