"""I_CCS: pointwise co-information where all its terms have one sign."""

from __future__ import annotations

import numpy as np

from pid.atoms import Atoms
from pid.errors import SolverStalled
from pid.joint import Array, Joint, Mask

SIGN_TOLERANCE = 1e-7
"""Bits below which a local term counts as 0: well above the error of the fit, well below what a table shows."""
FIT_TOLERANCE = 1e-10
STEPS = 200


def iccs(joint: Joint) -> Atoms:
    """Redundancy as the common change in surprisal, under the distribution that knows the three pair marginals only.

    P̂ = the distribution of maximum entropy with P's marginals (x1,y), (x2,y) and (x1,x2); with local mutual
    information i under P̂ and c = i(x1;y) + i(x2;y) − i(x1,x2;y), redundancy = Σ P̂ c over the outcomes at which c,
    i(x1;y), i(x2;y) and i(x1,x2;y) have the same sign. Atoms can be negative.
    Source: Ince, Measuring multivariate redundant information with pointwise common change in surprisal, Entropy 19
    (2017) 318, eq. 28–31.
    """
    p = maximum_entropy(joint.table)
    positive = p > 0
    y, first, second, pair = p.sum((0, 1)), p.sum(1)[:, None, :], p.sum(0)[None], p.sum(2, keepdims=True)

    def local(cells: Array, symbols: Array) -> Array:
        bottom = np.broadcast_to(symbols * y, p.shape)
        top = np.broadcast_to(cells, p.shape)
        return np.log2(np.where(positive, top, 1.0) / np.where(positive, bottom, 1.0))

    i_1 = local(first, first.sum(2, keepdims=True))
    i_2 = local(second, second.sum(2, keepdims=True))
    i_12 = local(p, pair)
    terms = np.stack([i_1 + i_2 - i_12, i_1, i_2, i_12])
    signs = np.where(np.abs(terms) < SIGN_TOLERANCE, 0.0, np.sign(terms))
    agree = (signs == signs[0]).all(0)
    redundancy = float((p * terms[0] * agree).sum())
    informations = (joint.information_1, joint.information_2, joint.information_12)
    return Atoms.from_union(informations, informations[0] + informations[1] - redundancy, measure="iccs")


def maximum_entropy(p: Array) -> Array:
    """The table of maximum entropy with p's three pair marginals [first, second, labels].

    Newton's method on the dual of the log-linear model without a three-way term (Darroch & Ratcliff 1972), over the
    cells that can be positive at all: on the others iterative scaling would converge as slowly as 1/steps.

    Raises:
        SolverStalled: a pair marginal stayed off by more than 1e-10.
    """
    cells = np.flatnonzero(_possible(p))
    design = _marginals(p.shape)[:, cells]
    goal = _marginals(p.shape) @ p.ravel()
    used = goal > 0
    design, goal = design[used], goal[used]
    theta = np.zeros(len(goal))
    q = np.full(len(cells), 1 / len(cells))
    value = _dual(design, goal, theta)
    for _ in range(STEPS):
        q = np.exp(np.clip(theta @ design, -700, 700))
        miss = goal - design @ q
        if np.abs(miss).max() <= FIT_TOLERANCE:
            break
        step = np.linalg.lstsq((design * q) @ design.T, miss, rcond=1e-14)[0]
        length = 1.0
        while (after := _dual(design, goal, theta + length * step)) < value and length > 1e-6:
            length /= 2
        theta, value = theta + length * step, after
    else:
        raise SolverStalled(
            f"the distribution of maximum entropy misses a pair marginal by {np.abs(miss).max():.3g}; at most "
            f"{FIT_TOLERANCE:g} is allowed: leave out cells of negligible mass, or choose the measure broja"
        )
    fitted = np.zeros(p.size)
    fitted[cells] = q
    return fitted.reshape(p.shape)


def _dual(design: Array, goal: Array, theta: Array) -> float:
    return float(theta @ goal - np.exp(np.clip(theta @ design, -700, 700)).sum())


def _marginals(shape: tuple[int, ...]) -> Array:
    """The matrix [pairs, cells] that takes a flat table to its three pair marginals, one below the other."""
    cells = np.arange(int(np.prod(shape))).reshape(shape)
    rows = []
    for axis in range(3):
        for place in np.moveaxis(cells, axis, 2).reshape(-1, shape[axis]):
            row = np.zeros(cells.size)
            row[place] = 1.0
            rows.append(row)
    return np.array(rows)


def _possible(p: Array) -> Mask:
    """Cells that are positive in some table with p's pair marginals, by one linear program.

    Such tables, scaled by any factor, form a cone; max Σ t with t ≤ 1 and t ≤ q over q in the cone has t = 1 at every
    possible cell and 0 at the others.
    """
    from scipy.optimize import linprog

    free = (p.sum(0) > 0)[None] & (p.sum(1) > 0)[:, None] & (p.sum(2) > 0)[:, :, None]
    if (free == (p > 0)).all():
        return np.asarray(p > 0)
    cells = np.flatnonzero(free)
    design = _marginals(p.shape)
    goal = design @ p.ravel()
    design, goal = design[goal > 0][:, cells], goal[goal > 0]
    # Unknowns: what q exceeds t by, t, and the factor; p itself, scaled, is in the cone.
    matrix = np.hstack([design, design, -goal[:, None]])
    cost = np.concatenate([np.zeros(len(cells)), -np.ones(len(cells)), [0.0]])
    bounds = [(0, None)] * len(cells) + [(0, 1)] * len(cells) + [(0, None)]
    found = linprog(cost, A_eq=matrix, b_eq=np.zeros(len(goal)), bounds=bounds, method="highs")
    mask = np.asarray(p > 0).copy()
    if found.status == 0:
        mask.ravel()[cells] |= found.x[len(cells) : 2 * len(cells)] > 0.5
    return mask
