"""GeoLLaVA-8K: merge the background into clusters, then keep the clusters that matter to [CLS]."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from compression.budget import split_evenly
from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.errors import InvalidGrid
from compression.grid import TokenGrid
from compression.pointers import count_cycles, jump
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import neighbour_cosine, neighbours, scores_numpy
from compression.tokens import Signal, VisualTokens

OFFSETS = tuple((down, right) for down in (-1, 0, 1) for right in (-1, 0, 1))
"""The 3 x 3 steps row by row; the fifth is the token itself."""


@dataclass(frozen=True)
class GeoLLaVA8K(Strategy):
    """Merge the background with its neighbours into clusters, then keep the clusters that matter most to [CLS].

    Score: of a token's cluster, (Wq z_cls + bq) . (Wv m + bv) / sqrt(D), with m the mean of the cluster's features
    and the query and value projections of the feature layer, whole width, without softmax. Clusters: every token
    points at the in-image neighbour of largest affinity (steps over the border land on it and add up), and pointers
    are followed for max_iters rounds of doubling. Outputs are the means of the best clusters, in raster order of
    their roots.
    Differs from the paper: the released affinity head receives no gradient and its weights are not at hand, so the
    affinity is reconstructed: a softmax over the 9 neighbours of cosine/temperature with tau in the token's own place
    (affinity=random draws a head at random instead). With fewer clusters than the budget there are fewer outputs;
    fill=zeros adds zero vectors, as released. Beside other views a thumbnail is dropped, as released. Ties break by
    token index.
    Source: GeoLLaVA-8K, NeurIPS 2025, arXiv 2505.21375, and its released code.
    """

    affinity: str = "cosine"
    temperature: float = 0.1
    tau: float = 0.9
    max_iters: int = 12
    clusters: int | None = None
    fill: str = "none"
    thumbnail: str = "dropped"
    per: str = "view"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="geollava8k",
        title="GeoLLaVA-8K",
        paper="GeoLLaVA-8K, NeurIPS 2025, arXiv 2505.21375",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.FEATURES, Signal.CLS_QUERY, Signal.VALUES}),
        reduces="prunes and merges",
        acts_on="encoder",
        identity_at_full=False,
        score="projection score of the token's cluster against [CLS]",
        parameters=(
            Parameter(
                "affinity",
                "cosine",
                "Local affinity: a softmax over cosines, or the published head with weights drawn from the seed.",
                choices=("cosine", "random"),
                reconstructed=True,
            ),
            Parameter("temperature", 0.1, "Temperature of the softmax over cosines.", 0.001, 10.0, reconstructed=True),
            Parameter("tau", 0.9, "Cosine that stands in the token's own place.", -1.0, 1.0, reconstructed=True),
            Parameter("max_iters", 12, "Rounds of pointer jumping; released: 12.", 0, 64),
            Parameter(
                "clusters", None, "How many of the largest clusters of a view compete; left out, all do.", 1, kind=int
            ),
            Parameter(
                "fill",
                "none",
                "What stands in for clusters that are missing to the budget: nothing, or zero vectors as released.",
                choices=("none", "zeros"),
            ),
            Parameter(
                "thumbnail",
                "dropped",
                "What becomes of the view of the whole image beside others: released: dropped.",
                choices=("dropped", "kept"),
            ),
            Parameter(
                "per",
                "view",
                "Whether each view keeps an equal share of the budget, as published, or all clusters compete.",
                choices=("view", "image"),
            ),
            attention_parameter(),
            positions_entering(),
        ),
        labels=("reconstruction: training-free affinity in place of the released checkpoint's head",),
        deviations=(
            "The affinity head's weights are not at hand: affinity=cosine replaces it, affinity=random draws it.",
            "Fewer clusters than the budget give fewer outputs; fill=zeros adds zero vectors, as released.",
            "tau stands at every step that ends on the token itself, so a border does not make a token its own root.",
            "A budget that does not divide by the views gives one token more to evenly spaced views.",
            "A tower without [CLS] is refused: the score compares the tokens with its query.",
            "Ties break by token index.",
        ),
        version=2,
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """At most `budget` cluster means, anchored at their roots, ascending; fewer where there are fewer clusters.

        Raises:
            MissingSignal: the [CLS] query or the values are missing.
            InvalidGrid: an earlier stage dropped tokens.
        """
        count = self.checked_budget(tokens, budget)
        if len(tokens) != len(tokens.grid):
            raise InvalidGrid(
                f"geollava8k clusters neighbours over all {len(tokens.grid)} visual tokens, "
                f"got {len(tokens)} survivors; make it the first step"
            )
        token_scores = self._token_scores(tokens)
        parent = self._parents(tokens, context)
        root = jump(parent, self.max_iters)
        roots, cluster, sizes = np.unique(root, return_inverse=True, return_counts=True)
        # The value projection is affine, so the score of a cluster's mean is the mean of its members' scores.
        score = np.bincount(cluster, weights=token_scores) / sizes
        kept, shortfall = self._choose(tokens.grid, roots, sizes, score, count)
        by_cluster = np.argsort(cluster, kind="stable")
        members = np.split(by_cluster, np.cumsum(sizes)[:-1])
        notes = [_short(shortfall, self.fill)] if shortfall else []
        if len(roots) == len(tokens):
            notes.append(
                "nothing was merged: no token is closer to a neighbour than to itself; a lower tau merges more"
            )
        filled = shortfall if self.fill == "zeros" else 0
        return Selection.merge(
            len(tokens),
            np.concatenate([roots[kept], np.full(filled, -1)]),
            [(members[one], np.full(sizes[one], 1 / sizes[one])) for one in kept] + [([], [])] * filled,
            scores=score[cluster],
            diagnostics={
                "clusters": len(roots),
                "cycles": count_cycles(parent),
                "settled": bool((root[root] == root).all()),
                "shortfall": shortfall,
                "notes": notes,
            },
        )

    def _token_scores(self, tokens: VisualTokens) -> NDArray[np.float64]:
        """(Wq z_cls + bq) . (Wv x + bv) / sqrt(D) of each token, float64 [tokens]."""
        queries, values = self.signal(tokens, Signal.CLS_QUERY), self.signal(tokens, Signal.VALUES)
        parts = [
            values[part].double() @ query.double() for part, query in zip(tokens.view_slices(), queries, strict=True)
        ]
        scores: NDArray[np.float64] = torch.cat(parts).detach().cpu().numpy()
        return scores / math.sqrt(values.shape[1])

    def _parents(self, tokens: VisualTokens, context: Context) -> NDArray[np.int64]:
        """The neighbour of largest affinity of each token, int64 [tokens]."""
        table = neighbours(tokens.grid, OFFSETS, clamp=True)
        if self.affinity == "random":
            weights = random_affinity(tokens.features, tokens.grid, context.generator())
        else:
            logits = neighbour_cosine(tokens.features, table)
            own = torch.from_numpy(table == np.arange(len(table))[:, None]).to(logits.device)
            weights = torch.softmax(torch.where(own, self.tau, logits) / self.temperature, dim=1)
        return strongest_neighbour(scores_numpy(weights), table)

    def _choose(
        self,
        grid: TokenGrid,
        roots: NDArray[np.int64],
        sizes: NDArray[np.int64],
        score: NDArray[np.float64],
        count: int,
    ) -> tuple[NDArray[np.int64], int]:
        """The clusters to keep, ascending, and how many outputs are missing to the budget."""
        edges = np.searchsorted(roots, grid.starts)
        parts = [np.arange(first, last) for first, last in itertools.pairwise(edges.tolist())]
        if self.clusters is not None:
            parts = [np.sort(part[np.argsort(-sizes[part], kind="stable")[: self.clusters]]) for part in parts]
        room = [len(view) for view in grid.views]
        if self.thumbnail == "dropped" and grid.thumbnail is not None:
            del parts[grid.thumbnail], room[grid.thumbnail]
        if self.per == "image":
            parts, room = [np.concatenate(parts)], [sum(room)]
        quotas = split_evenly(min(count, sum(room)), room)
        # In float32 equal tokens have equal scores: a product in float64 may round them apart.
        best = [
            np.sort(part[np.argsort(-score[part].astype(np.float32), kind="stable")[:quota]])
            for part, quota in zip(parts, quotas, strict=True)
        ]
        kept = np.concatenate(best)
        return kept, count - len(kept)


def _short(missing: int, fill: str) -> str:
    """What a run says where there are not enough clusters."""
    if fill == "zeros":
        return f"{missing} outputs are zero vectors: there are not enough clusters"
    return f"{missing} fewer outputs than the budget: there are not enough clusters"


def strongest_neighbour(weights: NDArray[np.float32], table: NDArray[np.int64]) -> NDArray[np.int64]:
    """The neighbour that collects most weight, int64 [tokens]; on ties the lowest.

    Args:
        weights: float32 [tokens, offsets].
        table: int64 [tokens, offsets], the neighbour at each offset; offsets that name the same one add up.
    """
    same = table[:, :, None] == table[:, None, :]
    collected = (same * weights[:, None, :]).sum(axis=2)
    best = collected.max(axis=1, keepdims=True)
    strongest: NDArray[np.int64] = np.where(collected == best, table, len(table)).min(axis=1)
    return strongest


def random_affinity(features: Tensor, grid: TokenGrid, generator: torch.Generator) -> Tensor:
    """The published affinity head with weights drawn as its framework initialises them, float32 [tokens, 9].

    A depthwise 3 x 3 convolution without bias on zero-padded features, a pointwise one to 9 channels with zero bias,
    softmax. Weights are uniform within 1/sqrt(fan-in): 1/3 and 1/sqrt(dim).
    """
    dim = features.shape[1]
    depthwise = (torch.rand(dim, 1, 3, 3, generator=generator) * 2 - 1) / 3
    pointwise = (torch.rand(9, dim, 1, 1, generator=generator) * 2 - 1) / math.sqrt(dim)
    depthwise, pointwise = depthwise.to(features.device), pointwise.to(features.device)
    parts = []
    for view, start in zip(grid.views, grid.starts, strict=False):
        picture = features[start : start + len(view)].float().T.reshape(1, dim, view.rows, view.cols)
        local = functional.conv2d(picture, depthwise, padding=1, groups=dim)
        parts.append(torch.softmax(functional.conv2d(local, pointwise), dim=1).reshape(9, -1).T)
    return torch.cat(parts)
