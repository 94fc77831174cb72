"""Clouds made coherent: the least change after which the average posterior of a source is p(y).

The passes of a model are run apart, so the averages of p(y|x1), p(y|x2) and p(y|x1,x2) differ, and no joint has them as
marginals. Iterative proportional fitting of a_iy = w_i u_i c_y p(y|x1_i), rows to w_i and columns to p(y), converges to
the I-projection of the cloud: one additive bias β = ln c of the logits for each label (Csiszár, I-divergence geometry,
Ann. Probab. 3 (1975) 146). Here the same β is the minimum of the convex function Σ_i w_i ln Σ_y p(y|x1_i) e^β_y − Σ_y
p(y) β_y, found by damped Newton steps, which do not slow down where rows are nearly deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pid.errors import SolverStalled
from pid.joint import Array

FLOOR = 1e-12
"""Smallest probability in a row that has to be moved: a bias cannot move a zero."""
ALIKE = 1e-12
"""Total variation below which averages count as equal, and nothing is moved or floored."""
FLAG_BITS = 0.01
"""KL(average ‖ p(y)) above which the report is flagged: it is what an estimator that ignores it adds to I(X;Y)."""
STEPS = 200
MISS = 1e-11
"""How far a label's average may stay from p(y)."""
REACH = 4.0
"""Largest change of a logit bias in one step."""


@dataclass(frozen=True)
class Coherence:
    """What it took to give a source the label marginal of the full pass."""

    kl_bits: float
    """KL(average posterior ‖ p(y)) beforehand: spurious information of an estimator that leaves it in."""
    bias: float
    """Largest difference between the logit biases of two labels, in nats."""
    moved: float
    """Total variation between the cloud before and after, 0..1."""

    @property
    def is_flagged(self) -> bool:
        """Whether the passes disagree so much that atoms depend on the calibration."""
        return self.kl_bits > FLAG_BITS


def calibrate(rows: Array, weights: Array, labels: Array) -> tuple[Array, Coherence]:
    """Rows [samples, options] whose weighted average is `labels` [options], and what it took.

    Rows that have the average already come back unchanged; of a label of probability 0 the column becomes 0.

    Raises:
        SolverStalled: the average stayed off by more than 1e-11.
    """
    before = weights @ rows
    used = before > 0
    kl = float((before[used] * np.log2(before[used] / np.maximum(labels[used], FLOOR))).sum())
    if np.abs(before - labels).sum() / 2 <= ALIKE:
        return rows, Coherence(max(0.0, kl), 0.0, 0.0)
    moved, bias = fit(rows[None], weights[None], labels[None])
    variation = float((weights * np.abs(moved[0] - rows).sum(1)).sum() / 2)
    return moved[0], Coherence(max(0.0, kl), float(np.ptp(bias)), variation)


def fit(rows: Array, weights: Array, labels: Array) -> tuple[Array, Array]:
    """`calibrate` of a batch: rows [batch, samples, options], weights [batch, samples], labels [batch, options].

    Labels of probability 0 lose their column. Returns the moved rows and the biases [batch, options].

    Raises:
        SolverStalled: an average stayed off by more than 1e-11.
    """
    size = rows.shape[2]
    present = labels > 0
    logits = np.where(present[:, None], np.log(np.maximum(rows, FLOOR)), -np.inf)
    bias = np.zeros_like(labels)
    q, value = _shifted(logits, weights, labels, bias)
    for _ in range(STEPS):
        miss = np.where(present, labels - (weights[..., None] * q).sum(1), 0.0)
        open_ = np.abs(miss).max(1) > MISS
        if not open_.any():
            return q, bias
        part = q[open_]
        heavy = weights[open_][..., None] * part
        curvature = -heavy.swapaxes(1, 2) @ part
        place = np.arange(size)
        curvature[:, place, place] += heavy.sum(1) + np.where(present[open_], 1e-14, 1.0)
        # A bias that all labels share changes nothing; without curvature in that direction the system is singular.
        step = np.linalg.solve(curvature + 1 / size, miss[open_][..., None])[..., 0]
        step *= np.minimum(1.0, REACH / np.maximum(np.abs(step).max(1), 1e-300))[:, None]
        old_bias, old_value = bias[open_], value[open_]
        downhill = -(miss[open_] * step).sum(1)
        length = np.ones(len(step))
        for _ in range(40):
            new_bias = old_bias + length[:, None] * step
            new_q, new_value = _shifted(logits[open_], weights[open_], labels[open_], new_bias)
            worse = new_value > old_value + 1e-4 * length * downhill + 1e-14 * (1 + np.abs(old_value))
            if not worse.any():
                break
            length = np.where(worse, length / 2, length)
        bias[open_], q[open_], value[open_] = new_bias, new_q, new_value
    raise SolverStalled(
        f"a label's average stayed {np.abs(miss).max():.3g} away from p(y); at most {MISS:g} is allowed: "
        "the rows of one pass are nearly all deterministic; ask that pass in another way"
    )


def _shifted(logits: Array, weights: Array, labels: Array, bias: Array) -> tuple[Array, Array]:
    """softmax(logits + bias) and the convex function of the module's docstring."""
    z = logits + bias[:, None]
    top = z.max(2, keepdims=True)
    e = np.exp(z - top)
    total = e.sum(2, keepdims=True)
    value = (weights * (top + np.log(total))[..., 0]).sum(1) - (labels * bias).sum(1)
    return e / total, value
