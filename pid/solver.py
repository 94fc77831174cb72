"""Union information of pair marginals by a batched primal–dual interior point, with its enclosure.

Primal: min Σ q_ijy ln(q_ijy / q_ij·) over q ≥ 0 with Σ_j q = a = p(x1,y) and Σ_i q = b = p(x2,y); the union
information is H(Y) plus the optimum. Dual: max Σ a_iy λ_iy + Σ b_jy μ_jy subject to
g_ij = ln Σ_y exp(λ_iy + μ_jy) ≤ 0, the sum over the labels that both a_i and b_j allow. With a multiplier w_ij ≥ 0 of
each constraint, q_ijy = w_ij r_ijy, where r = softmax_y(λ_i + μ_j), and w_ij g_ij = 0 at the optimum. So there are
(n1 + n2)·m unknowns, not n1·n2·m. The dual optimum may lie at −∞ (deterministic tables); a path towards it tolerates
that. Whatever the path did, pid.certificate turns its iterates into proven bounds, and the best of each kind is kept.

Newton steps follow Mehrotra's predictor–corrector (SIAM J. Optim. 2 (1992) 575). All arrays lead with the axis
`problems`, so that a thousand bootstrap replicates are solved together; those that are finished leave the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from pid.certificate import feasible, lower_bound, upper_bound
from pid.errors import SolverStalled
from pid.joint import Array, Indices, Mask, entropy
from pid.newton import Newton

LIMIT = 1e-6
"""Widest enclosure in bits that is ever given; a wider one raises SolverStalled."""
TARGET = 1e-9
"""Width in bits at which a problem is finished, unless the caller asks for less."""
NEGLIGIBLE = 1e-14
"""Cells below this take no part in the path; the bounds are computed with them, and prove that it costs nothing."""
FAR = -45.0
"""Multiplier of such a cell: e^−45 adds nothing to g, and 45 times its mass nothing to the bound."""
STEPS = 80
STAGNATION = 8
"""Steps without a narrower enclosure after which a problem is left."""
REACH = 4.0
"""Largest change of a multiplier in one step. The tangent of g says nothing of a label of negligible share in all its
pairs: unchecked, its multiplier overshoots by the ratio of what the share should be to what it is."""
BATCH_BYTES = 2**26
"""Size of the largest array of one batch; more problems are solved in several."""
LN2 = float(np.log(2))


@dataclass(frozen=True)
class Union:
    """Enclosures of the union information in bits, and the couplings that attain the upper bounds."""

    lower: Array
    """[problems]"""
    upper: Array
    """[problems]"""
    coupling: Array
    """Q(x1, x2, y) with the pair marginals given [problems, first, second, labels]."""
    steps: Indices
    """Newton steps that each problem took [problems]."""


def solve(a: Array, b: Array, target: float = TARGET) -> Union:
    """Enclose the union information of pair marginals a [problems, first, labels] and b [problems, second, labels].

    Both must sum to the same p(y). `target` is the width in bits that is aimed at.

    Raises:
        SolverStalled: an enclosure stayed wider than 1e-6 bits.
    """
    if b.shape[1] > a.shape[1]:  # the larger alphabet is eliminated, which leaves the smaller system
        union = solve(b, a, target)
        return Union(union.lower, union.upper, union.coupling.swapaxes(1, 2), union.steps)
    count, cells = len(a), a.shape[1] * b.shape[1] * a.shape[2] ** 2
    parts = np.array_split(np.arange(count), max(1, -(-count * cells * 8 // BATCH_BYTES)))
    solved = [_solve_batch(a[part], b[part], target) for part in parts]
    return Union(*(np.concatenate([getattr(one, field.name) for one in solved]) for field in fields(Union)))


def _solve_batch(a: Array, b: Array, target: float) -> Union:
    """One batch; problems whose enclosure stays too wide are tried again with shorter, more centred steps."""
    offset = entropy(a.sum(1)) * LN2
    lower, upper, coupling, steps = _follow(a, b, target * LN2, caution=0)
    for caution in (1, 2):
        wide = np.flatnonzero(upper - lower > LIMIT * LN2)
        if not len(wide):
            break
        again = _follow(a[wide], b[wide], target * LN2, caution)
        better = again[1] < upper[wide]
        coupling[wide[better]] = again[2][better]
        lower[wide], upper[wide] = np.maximum(lower[wide], again[0]), np.minimum(upper[wide], again[1])
        steps[wide] += again[3]
    width = (upper - lower) / LN2
    if width.max() > LIMIT:
        worst = int(width.argmax())
        raise SolverStalled(
            f"the union information is only known to lie in [{(lower + offset)[worst] / LN2:.9g}, "
            f"{(upper + offset)[worst] / LN2:.9g}] bits after {steps[worst]} steps; enclosures are at most {LIMIT:g} "
            "wide: merge symbols with nearly equal posteriors, or leave out cells of negligible mass"
        )
    return Union((lower + offset) / LN2, (upper + offset) / LN2, coupling, steps)


@dataclass
class _Path:
    """Where each unfinished problem stands; every field leads with the axis problems."""

    place: Indices
    a: Array
    b: Array
    lam: Array
    mu: Array
    slack: Array
    weight: Array
    g: Array
    r: Array
    allowed: Mask

    @classmethod
    def start(cls, a: Array, b: Array) -> Self:
        """λ = ln a − ½ ln p(y) and μ = ln b − ½ ln p(y), shifted so that g ≤ −0.3; then q is the product a·b/p(y)."""
        half = 0.5 * np.log(np.where((total := a.sum(1)) > 0, total, 1.0))[:, None]
        lam = np.where(a > 0, np.log(np.where(a > 0, a, 1.0)) - half, 0.0)
        mu = np.where(b > 0, np.log(np.where(b > 0, b, 1.0)) - half, 0.0)
        allowed = (a > 0)[:, :, None, :] & (b > 0)[:, None, :, :]
        g, r = _log_sum(lam, mu, allowed)
        weight = np.exp(g)
        top = g.max(2)
        shift = np.where(np.isfinite(top), top, 0.0) + 0.3
        lam = lam - shift[..., None] * (a > 0)
        g = g - shift[..., None]
        slack = np.where(np.isfinite(g), -g, 1.0)
        return cls(np.arange(len(a)), a, b, lam, mu, slack, weight, g, r, allowed)

    def only(self, keep: Mask) -> Self:
        """The problems that are kept."""
        return self if keep.all() else type(self)(*(getattr(self, field.name)[keep] for field in fields(self)))


def _log_sum(lam: Array, mu: Array, allowed: Mask) -> tuple[Array, Array]:
    """(g, r): ln Σ_y exp(λ+μ) over the allowed labels, −inf where there are none, and softmax_y, 0 where forbidden."""
    z = lam[:, :, None, :] + mu[:, None, :, :]
    if not allowed.all():
        z = np.where(allowed, z, -np.inf)
    top = z.max(-1, keepdims=True)
    finite = np.where(np.isfinite(top), top, 0.0)
    e = np.exp(z - finite)
    total = e.sum(-1, keepdims=True)
    empty = total == 0
    g = np.where(empty, -np.inf, finite + np.log(np.where(empty, 1.0, total)))[..., 0]
    return g, e / np.where(empty, 1.0, total)


def _follow(a: Array, b: Array, target: float, caution: int) -> tuple[Array, Array, Array, Indices]:
    """Best bounds in nats without H(Y), the coupling of the upper one, and the steps taken, for each problem.

    `caution` 0 goes 0.99 of the way to the boundary along Mehrotra's direction; 1 and 2 keep nearer to the path.
    """
    count = len(a)
    lower, upper = np.full(count, -np.inf), np.full(count, np.inf)
    coupling = np.zeros((count, a.shape[1], b.shape[1], a.shape[2]))
    steps, stalled = np.zeros(count, dtype=np.intp), np.zeros(count, dtype=np.intp)
    path = _Path.start(np.where(a < NEGLIGIBLE, 0.0, a), np.where(b < NEGLIGIBLE, 0.0, b))
    trimmed = bool(((a > 0) & (a < NEGLIGIBLE)).any() or ((b > 0) & (b < NEGLIGIBLE)).any())
    for step in range(STEPS * (1 + caution) + 1):
        pairs = np.isfinite(path.g)
        gap = np.where(pairs, path.weight * path.slack, 0.0).sum((1, 2))
        near = gap < 1e3 * target + 1e-6
        if near.any():
            here = path.only(near)
            place = here.place
            whole_a, whole_b, lam, mu, g = a[place], b[place], here.lam, here.mu, here.g
            if trimmed:
                lam, mu = np.where(here.a > 0, lam, FAR), np.where(here.b > 0, mu, FAR)
                g, _ = _log_sum(lam, mu, (whole_a > 0)[:, :, None, :] & (whole_b > 0)[:, None, :, :])
            below = lower_bound(whole_a, whole_b, lam, mu, g)
            q = feasible(whole_a, whole_b, here.weight[..., None] * here.r)
            above = upper_bound(q)
            before = upper[place] - lower[place]
            better = above < upper[place]
            coupling[place[better]] = q[better]
            lower[place], upper[place] = np.maximum(lower[place], below), np.minimum(upper[place], above)
            width = upper[place] - lower[place]
            stalled[place] = np.where(width < 0.9 * before, 0, stalled[place] + 1)
        steps[path.place] = step
        done = (upper - lower <= target) | (
            stalled >= np.where(upper - lower <= 20 * target, STAGNATION, 5 * STAGNATION)
        )
        path = path.only(~done[path.place] & np.isfinite(gap))
        if not len(path.place):
            break
        with np.errstate(over="ignore", invalid="ignore"):  # a path that overflows is left, as one that stalls
            _advance(path, caution)
    return lower, upper, coupling, steps


def _advance(path: _Path, caution: int) -> None:
    """One predictor–corrector step of every problem of the path, in place."""
    pairs = np.isfinite(path.g)
    count = pairs.sum((1, 2))
    w, s = path.weight, path.slack
    residual = np.where(pairs, path.g + s, 0.0)
    newton = Newton.of(path.a, path.b, path.r, w, s, residual, pairs)
    mean = ((w * s * pairs).sum((1, 2)) / count)[:, None, None]
    zero = np.zeros_like(mean)

    _, _, ds, dw = newton.direction(zero, np.zeros_like(w))
    primal, dual = _length(w, dw, 1.0), _length(s, ds, 1.0)
    ahead = (((w + primal * dw) * (s + dual * ds) * pairs).sum((1, 2)) / count)[:, None, None]
    centring = np.clip((ahead / mean) ** 3, (1e-6, 0.05, 0.3)[caution], 1.0)
    second_order = np.clip(dw * ds, -10 * mean, 10 * mean) if caution < 2 else np.zeros_like(w)
    dlam, dmu, ds, dw = newton.direction(
        centring * mean, second_order, refine=bool((mean * count[:, None, None] < 1e-4).any())
    )
    reach = (0.99, 0.9, 0.7)[caution]
    primal, dual = _length(w, dw, reach), _length(s, ds, reach)

    path.lam = path.lam + np.clip(dual * dlam, -REACH, REACH)
    path.mu = path.mu + np.clip(dual * dmu, -REACH, REACH)
    path.weight = w + primal * dw
    path.g, path.r = _log_sum(path.lam, path.mu, path.allowed)
    # A constraint that turned out slacker than planned needs no smaller slack than it has.
    path.slack = np.where(pairs, np.maximum(s + dual * ds, -path.g), 1.0)


def _length(x: Array, dx: Array, reach: float) -> Array:
    """Step length per problem, at most 1, that goes `reach` of the way to where x + step·dx leaves the positive."""
    ratio = np.divide(-x, dx, out=np.full_like(x, np.inf), where=dx < 0)
    return np.asarray(np.minimum(1.0, reach * ratio.min((1, 2)))[:, None, None])
