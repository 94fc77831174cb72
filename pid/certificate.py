"""Proofs of the optimum: bounds on the union information that hold whatever a solver did.

Notation of pid.solver: `a` = p(x1,y) [problems, first, labels], `b` = p(x2,y) [problems, second, labels], nats.
"""

from __future__ import annotations

import numpy as np

from pid.joint import Array

EPS = float(np.finfo(np.float64).eps)
ROUNDING = 64 * EPS
"""Relative error allowed for a sum in float64: pairwise summation stays below it for any array that fits in memory."""


def lower_bound(a: Array, b: Array, lam: Array, mu: Array, g: Array) -> Array:
    """Best value of the dual at these multipliers, made feasible: max Σaλ + Σbμ subject to g ≤ 0; [problems], nats.

    `g [problems, first, second]` is ln Σ_y exp(λ+μ) over the allowed labels, −inf where there is none. Every row λ_i
    is lowered by max(0, max_j g_ij), and by the error with which g was rounded. The entropy H(Y) is not in it.
    """
    size = np.abs(lam).max((1, 2)) + np.abs(mu).max((1, 2)) + 8
    excess = np.maximum(g.max(2) + 8 * EPS * size[:, None], 0.0)
    terms = np.concatenate([(a * (lam - excess[..., None])).reshape(len(a), -1), (b * mu).reshape(len(a), -1)], axis=1)
    # Both pair tables share the label marginal only up to rounding, which weighs as much as the largest multiplier.
    return np.asarray(terms.sum(1) - ROUNDING * (1 + np.abs(terms).sum(1)) - 4 * EPS * size * a.shape[2])


def feasible(a: Array, b: Array, q: Array) -> Array:
    """The couplings q [problems, first, second, labels] moved into the feasible set of both pair marginals.

    q is scaled down until no pair marginal is exceeded; what is missing is added per label as a product.
    """
    sums = q.sum(2)
    q = q * np.minimum(1.0, np.divide(a, sums, out=np.ones_like(a), where=sums > 0))[:, :, None, :]
    sums = q.sum(1)
    q = q * np.minimum(1.0, np.divide(b, sums, out=np.ones_like(b), where=sums > 0))[:, None, :, :]
    left_a, left_b = np.maximum(a - q.sum(2), 0.0), np.maximum(b - q.sum(1), 0.0)
    total = np.maximum(left_a.sum(1), left_b.sum(1))
    share = np.divide(left_b, total[:, None], out=np.zeros_like(b), where=total[:, None] > 0)
    return np.asarray(q + left_a[:, :, None, :] * share[:, None, :, :])


def upper_bound(q: Array) -> Array:
    """The objective Σ q ln (q / Σ_y q) of feasible couplings, rounded up; [problems], nats, H(Y) not in it."""
    pairs = q.sum(-1, keepdims=True)
    # Of a cell so small that its pair underflows, q ln(1) = 0 is the limit.
    ratio = np.divide(q, pairs, out=np.ones_like(q), where=(q > 0) & (pairs > 0))
    terms = (q * np.log(np.where(ratio > 0, ratio, 1.0))).reshape(len(q), -1)
    return np.asarray(terms.sum(1) + ROUNDING * (1 + np.abs(terms).sum(1)))
