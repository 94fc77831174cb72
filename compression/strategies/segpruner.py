"""SeGPruner: the most salient visual tokens, and those that differ from them in place and in content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.budget import split_evenly
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy, farthest_first, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens, unit_rows


@dataclass(frozen=True)
class SeGPruner(Strategy):
    """Keep the most salient visual tokens, then fill up with those farthest from each other in place and content.

    Score: attention that the token receives, mean over queries and heads. Of a view's budget T, floor(T*r) tokens are
    the most salient. The others are chosen from what remains by farthest points in the distance lam*|p - q|/d_max +
    (1 - lam)*(1 - cos(x, y)), from the most salient one on; p is the token's place, d_max the largest distance of a
    place from that first one (the term is 0 where all places are one), x the encoder's feature. Kept tokens are read in
    raster order.
    Differs from the paper: its places are points in space, found from depth and camera; on a flat image they are the
    centres of the tokens in pixels, so there is no height. Equal distances go to the more salient token, and equal
    saliency to the lower index.
    Source: SeGPruner, arXiv 2603.29437, and its released code.

    Costs K*N*D multiply-adds and no N x N matrix.
    """

    r: float = 0.0
    lam: float = 0.5
    per: str = "view"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="segpruner",
        title="SeGPruner",
        paper="SeGPruner, arXiv 2603.29437, 2026",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.RECEIVED_ATTENTION}),
        reduces="prunes",
        score="attention received, mean over queries and heads",
        parameters=(
            Parameter("r", 0.0, "Share of the kept tokens that are the most salient; released script: 0.", 0.0, 1.0),
            Parameter("lam", 0.5, "Weight of place against content in the distance; released script: 0.5.", 0.0, 1.0),
            Parameter(
                "per",
                "view",
                "Whether each view gets an equal share of the budget, as released, or places reach over all views.",
                choices=("view", "image"),
            ),
            positions_entering(),
        ),
        labels=("reconstruction: flat places in pixels instead of points in space",),
        deviations=(
            "Places are the centres of tokens in pixels of the image; the paper's are points in space from depth.",
            "Saliency is read in the feature layer; released: the encoder's last layer, of a tower without [CLS].",
            "Where all places are one, the distance in place is 0; the released code divides by zero.",
            "Chosen tokens are masked, so duplicates are not chosen twice.",
            "Equal distances go to the more salient token, equal saliency to the lower index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` tokens, ascending.

        Raises:
            MissingSignal: the attention received is missing.
        """
        count = self.checked_budget(tokens, budget)
        saliency = self.signal(tokens, Signal.RECEIVED_ATTENTION)
        places = torch.from_numpy(centres(tokens)).to(tokens.features.device)
        parts = tokens.view_slices() if self.per == "view" else [slice(0, len(tokens))]
        quotas = split_evenly(count, [part.stop - part.start for part in parts])
        kept = [
            np.sort(as_numpy(self._choose(saliency[part], tokens.features[part], places[part], quota))) + part.start
            for part, quota in zip(parts, quotas, strict=True)
        ]
        return Selection.prune(len(tokens), np.concatenate(kept), scores=scores_numpy(saliency))

    def _choose(self, saliency: Tensor, features: Tensor, places: Tensor, count: int) -> Tensor:
        """The tokens of one view to keep: the salient ones, then the diverse ones in the order of choice."""
        order = stable_topk(saliency, len(saliency))
        important = int(count * self.r)
        rest, diverse = order[important:], count - important
        if not diverse:
            return order[:important]
        place, unit = places[rest], unit_rows(features[rest].detach())
        reach = (place - place[0]).norm(dim=1).max().clamp_min(torch.finfo(place.dtype).tiny)

        def distance_to(pick: Tensor) -> Tensor:
            apart = (place - place[pick]).norm(dim=1) / reach
            fused: Tensor = self.lam * apart + (1 - self.lam) * (1 - unit @ unit[pick])
            return fused

        chosen, _ = farthest_first(distance_to, len(rest), diverse, torch.tensor(0, device=rest.device))
        return torch.cat([order[:important], rest[chosen]])


def centres(tokens: VisualTokens) -> NDArray[np.float64]:
    """The centre (x, y) of each token in pixels of the image, float64 [tokens, 2]."""
    boxes = tokens.grid.boxes()[tokens.index]
    middle: NDArray[np.float64] = (boxes[:, :2] + boxes[:, 2:]) / 2
    return middle
