"""VisionZip: keep what [CLS] looks at, and fold the rest into a few contextual tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.budget import split_evenly
from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy, best_match, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

Part = tuple[list[int], list[tuple[NDArray[np.int64], NDArray[np.float32]]]]
"""Anchors of some outputs, and for each its sources and weights."""


@dataclass(frozen=True)
class VisionZip(Strategy):
    """Keep the visual tokens most attended by [CLS], then fold the rest into evenly spaced contextual ones.

    Score: attention[CLS, token] in the feature layer, summed over heads. Of a view's budget m, c = round(share*m)
    outputs are contextual; the others are dominant: [CLS] itself, which counts, and the best patches in raster order.
    Of the n remaining patches in raster order, every max(1, floor(n/c))-th is a target; every other one joins the
    target of highest key cosine, and the contextual token is target + mean(joined), as released; merge=mean averages
    instead, as the paper describes.
    Small budgets: 1 keeps [CLS] alone, 2 add the best patch, 3 the two best; the first contextual token comes with 4.
    Differs from the paper: any budget is split by one share (10 of 64 as released); ties break by token index; see
    merge.
    Source: VisionZip, arXiv 2412.04467, and its released code.
    """

    share: float = 10 / 64
    merge: str = "sum"
    cls: bool = True
    per: str = "view"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="visionzip",
        title="VisionZip",
        paper="VisionZip, arXiv 2412.04467, 2024",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.CLS_ATTENTION, Signal.KEYS, Signal.CLS_FEATURE}),
        instead={Signal.CLS_ATTENTION: Signal.RECEIVED_ATTENTION, Signal.CLS_FEATURE: None},
        reduces="prunes and merges",
        acts_on="encoder",
        identity_at_full=False,
        own_order=True,
        score="attention from [CLS], summed over heads",
        parameters=(
            Parameter("share", 10 / 64, "Share of the outputs that are contextual; released: 10 of 64.", 0.0, 1.0),
            Parameter(
                "merge",
                "sum",
                "Contextual token: target + mean(joined) as released, about twice the norm, or their plain mean.",
                choices=("sum", "mean"),
            ),
            Parameter("cls", True, "Whether [CLS] is kept as a dominant token, as released; it counts in the budget."),
            Parameter(
                "per",
                "view",
                "Whether each view gets an equal share of the budget, as in the paper, or all views compete.",
                choices=("view", "image"),
            ),
            attention_parameter(),
            positions_entering(),
        ),
        deviations=(
            "The contextual share of any budget is that of the released 54 + 10 tokens.",
            "Contextual tokens are target + mean(joined) as released; the paper describes averaging (merge=mean).",
            "With per=image the [CLS] of every view is kept first, as far as the dominant tokens reach.",
            "For a tower without [CLS], the attention received stands in, and a patch takes the place of [CLS].",
            "Ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Exactly `budget` outputs: per view [CLS] (without area), dominant patches in raster order, contextual tokens.

        Raises:
            MissingSignal: attention or keys are missing.
        """
        count = self.checked_budget(tokens, budget)
        scores = over_heads(self.seen(tokens))
        classes = self.cls and Signal.CLS_FEATURE in tokens.signals
        keys = self.signal(tokens, Signal.KEYS)
        views = tokens.view_slices()
        if self.per == "image":
            parts = [self._compress(scores, keys, 0, list(range(len(views))) if classes else [], len(tokens), count)]
        else:
            quotas = split_evenly(count, [part.stop - part.start for part in views])
            parts = [
                self._compress(scores[part], keys[part], part.start, [view] if classes else [], len(tokens), quota)
                for view, (part, quota) in enumerate(zip(views, quotas, strict=True))
                if quota
            ]
        return Selection.merge(
            len(tokens),
            [anchor for anchors, _ in parts for anchor in anchors],
            [weight for _, weights in parts for weight in weights],
            scores=scores_numpy(scores),
            extra=len(views) if classes else 0,
        )

    def _compress(self, scores: Tensor, keys: Tensor, start: int, views: list[int], tokens: int, count: int) -> Part:
        """The outputs of the tokens that begin at `start`, with the [CLS] of `views`."""
        contextual = min(math.floor(self.share * count + 0.5), count)
        classes = views[: count - contextual]
        dominant = np.sort(as_numpy(stable_topk(scores, count - contextual - len(classes))))
        one = np.ones(1, dtype=np.float32)
        anchors = [-1] * len(classes) + [int(token) + start for token in dominant]
        weights = [(np.array([tokens + view]), one) for view in classes]
        weights += [(np.array([token + start]), one) for token in dominant]
        rest = np.setdiff1d(np.arange(len(scores)), dominant)
        if contextual:
            targets, joined = fold(keys[torch.from_numpy(rest).to(keys.device)], contextual)
            for target, members in zip(targets, joined, strict=True):
                anchors.append(int(rest[target]) + start)
                weights.append(
                    (rest[np.concatenate([[target], members])] + start, contextual_weights(len(members), self.merge))
                )
        return anchors, weights


def contextual_weights(members: int, merge: str) -> NDArray[np.float32]:
    """Weights of a target and the `members` that joined it: target + mean(joined) for "sum", their plain mean else."""
    if merge == "mean":
        return np.full(members + 1, 1 / (members + 1), dtype=np.float32)
    return np.array([1.0] + [1 / max(1, members)] * members, dtype=np.float32)


def fold(keys: Tensor, count: int) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """Choose evenly spaced targets and let every other token join the target of highest key cosine.

    Args:
        keys: Float [rest, dim] in raster order.
        count: Number of targets, 1..rest.

    Returns:
        The targets, ascending int64 [count], and for each the tokens that joined it, ascending.
    """
    targets = np.arange(count) * max(1, len(keys) // count)
    others = np.setdiff1d(np.arange(len(keys)), targets)
    device = keys.device
    owner = as_numpy(best_match(keys[torch.from_numpy(others).to(device)], keys[torch.from_numpy(targets).to(device)]))
    by_owner = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[by_owner], np.arange(1, count))
    return targets, np.split(others[by_owner], edges)
