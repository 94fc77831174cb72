"""The object-semantic stream: contiguous clusters of similar tokens, ranked by the attention they get from [CLS]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compression.grid import TokenGrid
from compression.pointers import jump
from compression.similarity import neighbour_cosine, neighbours

PREDECESSORS = {
    "8": ((-1, -1), (-1, 0), (-1, 1), (0, -1)),  # NW, N, NE, W: the raster predecessors of the 8-neighbourhood
    "4": ((-1, 0), (0, -1)),
}


@dataclass(frozen=True)
class Clusters:
    """Contiguous clusters of tokens, none reaching over views.

    Args:
        ids: int64 [tokens], the cluster of each token, numbered in order of first appearance.
        attention: float64 [tokens], from [CLS], summing to one in each view.
        importance: float64 [clusters], the attention that falls on each.
        sizes: int64 [clusters].
        first: int64 [clusters], the first token of each, ascending.
        most: int64 [clusters], the most attended token of each, the first on ties.
    """

    ids: NDArray[np.int64]
    attention: NDArray[np.float64]
    importance: NDArray[np.float64]
    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    most: NDArray[np.int64]

    def members(self, chosen: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The tokens of each chosen cluster, ascending."""
        by_cluster = np.argsort(self.ids, kind="stable")
        ends = np.cumsum(self.sizes)
        return [by_cluster[ends[one] - self.sizes[one] : ends[one]] for one in chosen]

    def ranked(self, first: int, last: int) -> NDArray[np.int64]:
        """Clusters first..last-1 by descending importance; equal ones in order of appearance."""
        return first + np.argsort(-self.importance[first:last], kind="stable")


def parents(features: Tensor, grid: TokenGrid, threshold: float, connectivity: str) -> NDArray[np.int64]:
    """The most similar raster predecessor of each token where its cosine is above the threshold, else the token itself.

    Args:
        features: Float [tokens, dim] on the whole grid.
        threshold: tau(lambda); strictly above it tokens join.
        connectivity: "8" or "4".
    """
    table = neighbours(grid, PREDECESSORS[connectivity])
    similar = neighbour_cosine(features, table)
    best = similar.argmax(dim=1)  # the first on ties
    joins = (similar.amax(dim=1) > threshold).cpu().numpy()
    tokens = np.arange(len(table))
    chosen: NDArray[np.int64] = np.where(joins, table[tokens, best.cpu().numpy()], tokens)
    return chosen


def cluster(
    features: Tensor, attention: NDArray[np.float64], grid: TokenGrid, threshold: float, connectivity: str
) -> Clusters:
    """Clusters of tokens that hang together by their parents.

    Args:
        features: Float [tokens, dim] on the whole grid.
        attention: float64 [tokens], from [CLS], summing to one in each view.
        threshold: tau(lambda).
        connectivity: "8" or "4".
    """
    parent = parents(features, grid, threshold, connectivity)
    root = jump(parent, len(parent).bit_length())  # every parent lies before its token, so there is no cycle
    first, ids, sizes = np.unique(root, return_inverse=True, return_counts=True)
    importance: NDArray[np.float64] = np.bincount(ids, weights=attention).astype(np.float64)
    order = np.lexsort((-attention, ids))  # stable, so equal attention keeps the lower token first
    starts = np.cumsum(sizes) - sizes
    return Clusters(ids, attention, importance, sizes, first, order[starts])
