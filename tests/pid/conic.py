"""BROJA as a program over exponential cones, for a general conic solver: an oracle that shares nothing with ours.

max Σ t over (t_ijy, q_ijy, q_ij·) in the exponential cone and the pair marginals (Makkeh, Theis, Vicente 2017).
"""

from __future__ import annotations

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse


def union_information(p: NDArray[np.float64]) -> float:
    """I(X1,X2;Y) in bits at the solver's optimum of the pair marginals of p(x1, x2, y)."""
    return solved(p)[0]


def solved(p: NDArray[np.float64]) -> tuple[float, float]:
    """`union_information`, and the seconds that the solver itself took, without the building of its program."""
    a, b = p.sum(1), p.sum(0)
    i, j, y = (part.ravel() for part in np.indices(p.shape))
    kept = (a[i, y] > 0) & (b[j, y] > 0)
    i, j, y = i[kept], j[kept], y[kept]
    count, first, second, labels = len(i), *p.shape
    # Unknowns: q, then t. First block: marginals of q; second: the cones (t, q, Σ_y q).
    one = np.arange(count)
    rows = np.concatenate([i * labels + y, first * labels + j * labels + y])
    marginals = sparse.csr_matrix((np.ones(2 * count), (rows, np.tile(one, 2))), ((first + second) * labels, 2 * count))
    goal = np.concatenate([a.ravel(), b.ravel()])
    used = np.unique(rows)
    pair = i * second + j
    members = sparse.csr_matrix((np.ones(count), (pair, one)), (first * second, count))
    sums = members[pair].tocoo()
    cone = sparse.csr_matrix(
        (
            -np.ones(2 * count + sums.nnz),
            (np.concatenate([3 * one, 3 * one + 1, 3 * sums.row + 2]), np.concatenate([count + one, one, sums.col])),
        ),
        (3 * count, 2 * count),
    )
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-9
    solution = clarabel.DefaultSolver(
        sparse.csc_matrix((2 * count, 2 * count)),
        np.concatenate([np.zeros(count), -np.ones(count)]),
        sparse.vstack([marginals[used], cone]).tocsc(),
        np.concatenate([goal[used], np.zeros(3 * count)]),
        [clarabel.ZeroConeT(len(used)), *[clarabel.ExponentialConeT()] * count],
        settings,
    ).solve()
    q = np.maximum(np.array(solution.x[:count]), 0.0)
    pairs = np.bincount(pair, q, first * second)[pair]
    some = q > 0
    entropy = -sum(value * np.log2(value) for value in p.sum((0, 1)) if value > 0)
    return float(entropy + (q[some] * np.log2(q[some] / pairs[some])).sum()), float(solution.solve_time)
