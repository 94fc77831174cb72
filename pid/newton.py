"""The Newton system of pid.solver: pair blocks, elimination of the first source, and directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from pid.errors import SolverStalled
from pid.joint import Array, Mask

LARGE = 40
"""Rows from which a triangle is inverted as one; below, the overhead of one call per matrix counts more."""
RIDGES = (1e-14, 1e-12, 1e-10, 1e-8, 1e-6)
"""Relative ridges tried in turn where a factor fails: first rounding, at last enough for any matrix in float64."""


@dataclass(frozen=True)
class Newton:
    """Factors of one Newton step for every problem.

    Each pair of symbols (i, j) adds the block C_ij = w diag(r) + (w/s − w) r rᵀ [labels, labels] to the system of
    (λ_i, μ_j). The λ are eliminated block by block; what is left for μ is D2 − Σ_i C_iᵀ D1_i⁻¹ C_i.
    """

    r: Array
    w: Array
    s: Array
    residual: Array
    pairs: Mask
    ratio: Array
    inverse_1: Array
    """L⁻¹ with D1 = L Lᵀ [problems, first, labels, labels]."""
    reduced: Array
    """L⁻¹ C [problems, first·labels, second·labels]."""
    inverse_2: Array
    """L⁻¹ of the system of μ [problems, second·labels, second·labels]."""
    a: Array
    b: Array

    @classmethod
    def of(cls, a: Array, b: Array, r: Array, w: Array, s: Array, residual: Array, pairs: Mask) -> Self:
        """Build and factor the system at multipliers w and slacks s [problems, first, second]."""
        count, first, labels = a.shape
        second = b.shape[1]
        size, label = second * labels, np.arange(labels)
        ratio = w / s
        c = ((ratio - w)[..., None] * r)[..., :, None] * r[..., None, :]
        c[..., label, label] += w[..., None] * r
        block_1, block_2 = c.sum(2), c.sum(1)

        scale_1 = _root_of_diagonal(block_1)
        inverse_1 = _inverse_factor(block_1 / (scale_1[..., :, None] * scale_1[..., None, :]), a > 0)
        inverse_1 = inverse_1 / scale_1[..., None, :]
        rows = c.transpose(0, 1, 3, 2, 4).reshape(count, first, labels, size)
        reduced = (inverse_1 @ rows).reshape(count, first * labels, size)

        # Scaled by its own diagonal before elimination, so that cells of 1e-9 weigh as much as others.
        scale_2 = _root_of_diagonal(block_2)
        reduced_2 = reduced / scale_2.reshape(count, 1, size)
        system = -(reduced_2.swapaxes(1, 2) @ reduced_2)
        grid = system.reshape(count, second, labels, second, labels)
        place = np.arange(second)
        scaled = block_2 / (scale_2[..., :, None] * scale_2[..., None, :])
        grid[:, place, :, place, :] += scaled.swapaxes(0, 1)
        # λ + c and μ − c for one label give the same pairs: that direction of no consequence gets the eigenvalue 1.
        gauge = np.where(b > 0, scale_2, 0.0)
        length = np.sqrt((gauge**2).sum(1, keepdims=True))
        gauge = gauge / np.where(length > 0, length, 1.0)
        for one in range(labels):
            grid[:, :, one, :, one] += gauge[:, :, None, one] * gauge[:, None, :, one]
        inverse_2 = _inverse_factor(system, (b > 0).reshape(count, size)) / scale_2.reshape(count, 1, size)
        return cls(r, w, s, residual, pairs, ratio, inverse_1, reduced, inverse_2, a, b)

    def direction(self, centre: Array, second_order: Array, refine: bool = False) -> tuple[Array, Array, Array, Array]:
        """(dλ, dμ, ds, dw) towards w·s = centre, corrected by the second-order term dw·ds of the predictor.

        `refine` solves once more for the marginals that the step would miss. Without it a pair with s near 0 loses the
        digits of w/s in dw, and the primal residual stays near 1e-8.
        """
        aim = centre - second_order
        t = np.where(self.pairs, aim / self.s + self.ratio * self.residual, 0.0)
        dlam, dmu, dz = self._solve(t[..., None] * self.r)
        ds = np.where(self.pairs, -self.residual - dz, 0.0)
        dw = np.where(self.pairs, (aim - self.w * self.s - self.w * ds) / self.s, 0.0)
        if refine:
            curved = dlam[:, :, None, :] + dmu[:, None, :, :] - dz[..., None]
            more_lam, more_mu, dz = self._solve(((self.w + dw)[..., None] + self.w[..., None] * curved) * self.r)
            dlam, dmu, ds, dw = dlam + more_lam, dmu + more_mu, ds - dz, dw + self.ratio * dz
        return dlam, dmu, ds, dw

    def _solve(self, spread: Array) -> tuple[Array, Array, Array]:
        """Solve for the marginals that couplings `spread` [problems, first, second, labels] leave open."""
        count, first, labels = self.a.shape
        second = self.b.shape[1]
        left = np.where(self.a > 0, self.a - spread.sum(2), 0.0)
        right = np.where(self.b > 0, self.b - spread.sum(1), 0.0)
        v = (self.inverse_1 @ left[..., None]).reshape(count, first * labels, 1)
        rest = right.reshape(count, second * labels, 1) - self.reduced.swapaxes(1, 2) @ v
        dmu = self.inverse_2.swapaxes(1, 2) @ (self.inverse_2 @ rest)
        back = (v - self.reduced @ dmu).reshape(count, first, labels, 1)
        dlam = (self.inverse_1.swapaxes(2, 3) @ back)[..., 0]
        dmu = dmu.reshape(count, second, labels)
        dz = (self.r @ dlam[..., None])[..., 0] + (self.r.swapaxes(1, 2) @ dmu[..., None])[..., 0].swapaxes(1, 2)
        return dlam, dmu, dz


def _root_of_diagonal(blocks: Array) -> Array:
    """Square roots of the diagonals of [..., labels, labels]; 1 where a cell takes no part."""
    diagonal = np.diagonal(blocks, axis1=-2, axis2=-1)
    return np.sqrt(np.where(diagonal > 0, diagonal, 1.0))


def _inverse_factor(matrices: Array, active: Mask) -> Array:
    """L⁻¹ with L Lᵀ the matrices of unit diagonal; what is not active becomes a part of the identity."""
    place = np.arange(matrices.shape[-1])
    matrices[..., place, place] += np.where(active, 0.0, 1.0)
    for ridge in RIDGES:
        matrices[..., place, place] += ridge
        try:
            return _inverse_triangle(np.asarray(np.linalg.cholesky(matrices), dtype=np.float64))
        except np.linalg.LinAlgError:
            continue
    raise SolverStalled("a Newton system could not be factored; merge symbols with nearly equal posteriors")


def _inverse_triangle(lower: Array) -> Array:
    """Inverses of lower triangles [..., n, n]."""
    size = lower.shape[-1]
    if size < LARGE:
        return np.asarray(np.linalg.inv(lower))
    from scipy.linalg.lapack import dtrtri  # a sixth of the work of a general inverse

    return np.stack([dtrtri(one, lower=1)[0] for one in lower.reshape(-1, size, size)]).reshape(lower.shape)
