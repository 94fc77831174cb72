"""Similarity of tokens and what is chosen by it: cosine, top-k, best match, farthest point, density peaks, DPP.

Everything is computed in float32 at least and answers ties by the lower index, so that a run can be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.grid import TokenGrid
from compression.tokens import unit_rows

ROWS_AT_ONCE = 1024  # rows of a similarity matrix held at a time: 256 MiB of float32 against 65,536 columns

SLACK = 1e-6  # cosines of equal tokens differ by less: a matrix product rounds its columns differently

RESIDUE = 1e-6  # share of a unit vector's square that float32 rounding leaves once it is in the span of others

Offset = tuple[int, int]
"""(row, column) step to a neighbour."""


def as_numpy(indices: Tensor) -> NDArray[np.int64]:
    """Indices as int64 NumPy on the CPU."""
    return indices.detach().cpu().numpy().astype(np.int64)


def scores_numpy(scores: Tensor) -> NDArray[np.float32]:
    """Scores as float32 NumPy on the CPU."""
    return scores.detach().float().cpu().numpy()


def stable_topk(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest scores, best first; equal scores keep the lower index first.

    `torch.topk` promises no order for equal values, so this is a stable sort.

    >>> stable_topk(torch.tensor([1.0, 3.0, 3.0, 2.0]), 3).tolist()
    [1, 2, 3]
    """
    wide = scores if scores.dtype == torch.float64 else scores.float()
    return torch.sort(wide, descending=True, stable=True).indices[:count]


def first_largest(values: Tensor, slack: float = SLACK) -> Tensor:
    """Index of the largest value along the last axis, int64; of those within `slack` of it, the first.

    Products of equal rows may differ in their last bits, so that a plain argmax would choose among them by chance.

    >>> int(first_largest(torch.tensor([0.2, 0.9999999, 1.0])))
    1
    """
    return (values >= values.amax(-1, keepdim=True) - slack).to(torch.uint8).argmax(-1)


def over_heads(rows: Tensor) -> Tensor:
    """The sum over heads, [heads, ..., N] to float32 [..., N]; equal columns have equal sums.

    In float64, because the order in which float32 is summed differs between columns.
    """
    return rows.detach().double().sum(dim=0).float()


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of every row of [a, dim] with every row of [b, dim], float32 [a, b]; 0 where a row is zero."""
    return unit_rows(left) @ unit_rows(right).T


def best_match(rows: Tensor, targets: Tensor) -> Tensor:
    """The target of highest cosine for each row, int64 [rows]; of targets within `SLACK` of it, the first.

    Args:
        rows: Float [rows, dim].
        targets: Float [targets, dim], at least one.
    """
    unit, unit_targets = unit_rows(rows), unit_rows(targets)
    found = [first_largest(part @ unit_targets.T) for part in torch.split(unit, ROWS_AT_ONCE)]
    return torch.cat(found) if found else torch.empty(0, dtype=torch.int64, device=rows.device)


def nearest_distance(features: Tensor) -> Tensor:
    """Distance 1 - cos of each token to the nearest other one, float32 [tokens]; 0 for a token alone.

    Costs N*N/2*D multiply-adds, each pair once; only `ROWS_AT_ONCE` rows of the N x N matrix exist at a time.
    """
    unit = unit_rows(features)
    if len(unit) == 1:
        return torch.zeros(1, device=unit.device)
    highest = torch.full((len(unit),), -torch.inf, dtype=unit.dtype, device=unit.device)
    for start in range(0, len(unit), ROWS_AT_ONCE):
        block, behind = slice(start, start + ROWS_AT_ONCE), slice(start, None)
        similar = unit[block] @ unit[behind].T
        similar.fill_diagonal_(-torch.inf)
        # A block's rows have met all tokens before them as columns of earlier blocks.
        highest[behind] = torch.maximum(highest[behind], similar.amax(dim=0))
        highest[block] = torch.maximum(highest[block], similar.amax(dim=1))
    return 1 - highest


def farthest_point(features: Tensor, count: int, first: int) -> tuple[Tensor, Tensor]:
    """Choose tokens one by one, each the farthest from those already chosen, in the distance 1 - cos.

    A chosen token is masked, so duplicates are never chosen twice. Costs count*N*D multiply-adds and no N x N matrix.

    Args:
        features: Float [tokens, dim].
        count: How many to choose, 1..tokens.
        first: The token to start from.

    Returns:
        The chosen tokens in order, int64 [count]; and float32 [tokens] the distance to the nearest chosen token, frozen
        at the moment of choice for the chosen ones (infinite for the first).
    """
    unit = unit_rows(features)
    return farthest_first(lambda pick: 1 - unit @ unit[pick], len(unit), count, torch.tensor(first, device=unit.device))


def farthest_first(
    distance_to: Callable[[Tensor], Tensor], tokens: int, count: int, first: Tensor, slack: float = SLACK
) -> tuple[Tensor, Tensor]:
    """Choose tokens one by one, each the farthest from those already chosen, in any distance.

    Args:
        distance_to: The distances of all tokens to one, float [tokens], given its index.
        tokens: How many there are.
        count: How many to choose, 1..tokens.
        first: The token to start from, int64 scalar on the device of the distances.
        slack: Distances so near to the largest count as equal to it, and the first of them is chosen.

    Returns:
        As `farthest_point`.
    """
    distance = torch.full((tokens,), torch.inf, device=first.device)
    open_ = torch.ones(tokens, dtype=torch.bool, device=first.device)
    chosen = torch.empty(count, dtype=torch.int64, device=first.device)
    pick = first
    for step in range(count):
        chosen[step] = pick
        open_[pick] = False
        nearer = torch.minimum(distance, distance_to(pick))
        distance = torch.where(open_, nearer, distance)
        pick = first_largest(torch.where(open_, distance, -torch.inf), slack)
    return chosen, distance


def min_max(values: Tensor) -> Tensor:
    """Values scaled to 0..1 in float32; zeros where all are equal."""
    wide = values.float()
    low, high = wide.min(), wide.max()
    return (wide - low) / (high - low) if high > low else torch.zeros_like(wide)


def neighbours(grid: TokenGrid, offsets: Sequence[Offset], *, clamp: bool = False) -> NDArray[np.int64]:
    """The tokens at the given steps from each token, inside its own view, int64 [tokens, offsets].

    Args:
        grid: Where the tokens lie.
        offsets: (row, column) steps.
        clamp: Whether a step over the border lands on the border (the published rule of some methods); else it gives
            -1.
    """
    views = grid.view_indices()
    row, col = grid.rows_cols()
    rows = np.array([view.rows for view in grid.views])[views]
    cols = np.array([view.cols for view in grid.views])[views]
    start = np.array(grid.starts)[views]
    found = np.empty((len(grid), len(offsets)), dtype=np.int64)
    for slot, (down, right) in enumerate(offsets):
        y, x = row + down, col + right
        y_in, x_in = np.clip(y, 0, rows - 1), np.clip(x, 0, cols - 1)
        place = start + y_in * cols + x_in
        found[:, slot] = place if clamp else np.where((y == y_in) & (x == x_in), place, -1)
    return found


def neighbour_cosine(features: Tensor, table: NDArray[np.int64]) -> Tensor:
    """Cosine of each token with its neighbours, float32 [tokens, offsets]; minus infinity where there is none.

    Args:
        features: Float [tokens, dim].
        table: int64 [tokens, offsets] of `neighbours`.
    """
    unit = unit_rows(features)
    places = torch.from_numpy(table).to(unit.device)
    columns = []
    for place in places.T:
        # Split over rows: gathering all tokens at once would copy the features once more for every offset.
        parts = zip(torch.split(unit, ROWS_AT_ONCE), torch.split(place, ROWS_AT_ONCE), strict=True)
        similar = torch.cat([torch.linalg.vecdot(part, unit[index.clamp_min(0)]) for part, index in parts])
        columns.append(torch.where(place >= 0, similar, -torch.inf))
    return torch.stack(columns, dim=1)


def density_peaks(features: Tensor, clusters: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cluster by density peaks: centres are dense and far from anything denser.

    d_ij = |x_i - x_j| / sqrt(C); density rho_i = exp(-mean of the squared distances to the `clusters` nearest, itself
    included); delta_i = the distance to the nearest denser token, or the largest distance where there is none; the
    centres have the largest rho * delta, and every token goes to the nearest centre. Of equally dense tokens the first
    counts as denser. Only `ROWS_AT_ONCE` rows of distances exist at a time.

    Args:
        features: Float [tokens, dim].
        clusters: How many, 1..tokens.

    Returns:
        The centres, best first, int64 [clusters]; and the cluster of each token, int64 [tokens].
    """
    wide = features.detach().float()
    index = torch.arange(len(wide), device=wide.device)
    blocks = torch.split(index, ROWS_AT_ONCE)

    def distance(rows: Tensor, columns: Tensor) -> Tensor:
        apart = torch.cdist(wide[rows], columns, compute_mode="donot_use_mm_for_euclid_dist")
        return apart / math.sqrt(wide.shape[1])

    density, farthest = torch.empty(len(wide), device=wide.device), wide.new_zeros(())
    for block in blocks:
        apart = distance(block, wide)
        density[block] = (-(apart.topk(clusters, dim=1, largest=False).values ** 2).mean(dim=1)).exp()
        farthest = torch.maximum(farthest, apart.max())
    delta = torch.empty_like(density)
    for block in blocks:
        own = density[block, None]
        denser = (density[None] > own) | ((density[None] == own) & (index[None] < block[:, None]))
        delta[block] = torch.where(denser, distance(block, wide), farthest).amin(dim=1)
    centres = stable_topk(density * delta, clusters)
    owner = torch.cat([distance(block, wide[centres]).argmin(dim=1) for block in blocks])
    owner[centres] = torch.arange(clusters, device=wide.device)
    return as_numpy(centres), as_numpy(owner)


def nearest_neighbours(features: Tensor, rows: Tensor, count: int) -> Tensor:
    """The `count` other tokens of highest cosine for some tokens, ascending int64 [rows, count]; ties: lower index.

    Only `ROWS_AT_ONCE` rows of similarities exist at a time.

    Args:
        features: Float [tokens, dim].
        rows: int64 [rows], the tokens whose neighbours are wanted.
        count: How many; all others where there are fewer.
    """
    unit = unit_rows(features)
    count = min(count, len(unit) - 1)
    if count == 0:
        return torch.empty(len(rows), 0, dtype=torch.int64, device=unit.device)
    found = []
    for part in torch.split(rows, ROWS_AT_ONCE):
        similar = unit[part] @ unit.T
        similar[torch.arange(len(part), device=unit.device), part] = -torch.inf
        # `torch.topk` promises no order for equal values: it gives the least value that is in, ties are counted here.
        least = similar.topk(count, dim=1).values[:, -1:]
        above, level = similar > least, similar == least
        room = count - above.sum(dim=1, keepdim=True)
        inside = above | (level & (level.cumsum(dim=1) <= room))
        found.append(inside.nonzero()[:, 1].reshape(len(part), count))
    return torch.cat(found) if found else torch.empty(0, count, dtype=torch.int64, device=unit.device)


def greedy_determinant(features: Tensor, quality: Tensor, count: int) -> Tensor:
    """Choose tokens one by one so that the determinant of their kernel grows most: greedy MAP of a DPP.

    The kernel is q_i cos(i, j) q_j. The Cholesky rows are kept for the cosines alone and a token's gain is q^2 times
    what of it lies outside the span of the chosen ones, which is the same in exact arithmetic and rounds far less.
    Costs about count^2 * N/2 multiply-adds besides count * N * D, and holds count rows of N; no N x N matrix.

    Args:
        features: Float [tokens, dim].
        quality: Float [tokens], positive.
        count: How many to choose.

    Returns:
        int64 in the order of choice; fewer than `count` when all other tokens lie in the span of the chosen ones.
    """
    unit = unit_rows(features)
    gain = quality.to(unit) ** 2
    outside = (unit != 0).any(dim=1).to(unit)  # exactly one, so that rounding does not choose among equals
    rows = torch.empty(min(count, *unit.shape), len(unit), dtype=unit.dtype, device=unit.device)
    chosen: list[int] = []
    for step in range(len(rows)):
        worth = torch.where(outside > RESIDUE, gain * outside, -torch.inf)
        pick = int(first_largest(worth, SLACK * float(worth.detach().amax().clamp_min(0))))
        if outside[pick] <= RESIDUE:
            break
        row = unit @ unit[pick] - rows[:step, pick] @ rows[:step]
        rows[step] = row / outside[pick].sqrt()
        outside = (outside - rows[step] ** 2).clamp_min(0)
        outside[pick] = 0
        chosen.append(pick)
    return torch.tensor(chosen, dtype=torch.int64, device=unit.device)
