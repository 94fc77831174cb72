"""BROJA of jointly Gaussian vectors, from their covariance alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pid.atoms import Atoms
from pid.errors import InvalidCovariance, SolverStalled
from pid.joint import Array

STEPS = 5000
TARGET = 1e-8
"""Width in bits at which the search ends."""
LIMIT = 1e-6
"""Widest enclosure in bits that is given; a wider one raises SolverStalled."""
INSIDE = 1e-9
"""Singular values of the noise correlation stay below 1 − INSIDE, where all inverses exist."""
ROUNDING = 1e-12
"""Bits by which a bound made of log-determinants alone is moved outwards, for its own rounding."""
HISTORY = 8
"""Values that the line search of the spectral projected gradient looks back on."""


def gaussian(covariance: ArrayLike, sizes: tuple[int, int, int]) -> Atoms:
    """BROJA restricted to Gaussian couplings of (X1, X2, Y), certified; `covariance` in the order x1, x2, y.

    With the noise of each channel whitened, Xi = Hi Y + Ni and Cov(Ni) = I, the union information is
    min over C, ‖C‖ ≤ 1, of ½ log2 det(I + Σ_Y Hᵀ [[I, C], [Cᵀ, I]]⁻¹ H) with H = [H1; H2]. It is convex in C, so that
    the gap of the linearised problem, ⟨G, C⟩ + ‖G‖_* at gradient G, bounds the error from below (Frank & Wolfe 1956).
    For a scalar Y it equals MMI (Barrett 2015). Search: spectral projected gradient (Birgin, Martínez, Raydan 2000).
    Source: Venkatesh et al., Gaussian partial information decomposition: bias correction and application to
    high-dimensional data, NeurIPS 2023, arXiv:2307.10515, sections 2 and 3.

    Args:
        covariance: symmetric, positive definite [x1 + x2 + y, x1 + x2 + y].
        sizes: numbers of dimensions of x1, x2 and y.

    Raises:
        InvalidCovariance: not square, not symmetric, not positive definite, or of another size than the sum of `sizes`.
        SolverStalled: the enclosure stayed wider than 1e-6 bits.
    """
    sigma = _read(covariance, sizes)
    one, two = sizes[0], sizes[0] + sizes[1]
    label = sigma[two:, two:]
    maps = [_whitened(sigma[part, part], sigma[part, two:], label) for part in (slice(0, one), slice(one, two))]
    signal = np.vstack(maps) @ label @ np.vstack(maps).T
    first = _half_log_det(np.eye(one) + signal[:one, :one])
    second = _half_log_det(np.eye(sizes[1]) + signal[one:, one:])
    given = sigma[:two, :two] - sigma[:two, two:] @ np.linalg.solve(label, sigma[two:, :two])
    both = _half_log_det(sigma[:two, :two]) - _half_log_det(given)
    lower, upper = _minimum(signal, one)
    lower = max(lower, max(first, second) - ROUNDING)
    upper = min(upper, min(both, first + second) + ROUNDING)
    if upper - lower > LIMIT:
        raise SolverStalled(
            f"the union information is only known to lie in [{lower:.9g}, {upper:.9g}] bits after {STEPS} steps; "
            f"enclosures are at most {LIMIT:g} wide: reduce the dimensions, or add a little noise to the sources"
        )
    return Atoms.from_union((first, second, both), (lower + upper) / 2, (lower, upper), "gaussian")


def _read(covariance: ArrayLike, sizes: tuple[int, int, int]) -> Array:
    sigma = np.array(covariance, dtype=np.float64)
    if min(sizes) < 1 or sigma.shape != (sum(sizes), sum(sizes)):
        raise InvalidCovariance(
            f"a covariance of shape {sigma.shape} does not fit the sizes {tuple(sizes)}; it must be square, with "
            "x1 + x2 + y rows, each size at least 1"
        )
    if not np.isfinite(sigma).all() or not np.allclose(sigma, sigma.T, rtol=1e-8, atol=1e-12):
        raise InvalidCovariance("the covariance is not finite and symmetric; pass (S + S.T) / 2 of finite samples")
    least = float(np.linalg.eigvalsh(sigma)[0])
    if least <= 1e-12 * np.trace(sigma):
        raise InvalidCovariance(
            f"the covariance has the eigenvalue {least:.3g}; all must be above 0, or a source would tell infinitely "
            "many bits: add the variance of the noise to its diagonal"
        )
    return (sigma + sigma.T) / 2


def _whitened(own: Array, cross: Array, label: Array) -> Array:
    """H of Xi = H Y + N with Cov(N) = I."""
    regression = np.linalg.solve(label, cross.T).T
    return np.linalg.solve(np.linalg.cholesky(own - regression @ cross.T), regression)


def _half_log_det(matrix: Array) -> float:
    """½ log2 det, in bits."""
    return float(np.linalg.slogdet(matrix)[1] / (2 * np.log(2)))


def _noise(c: Array) -> Array:
    return np.block([[np.eye(c.shape[0]), c], [c.T, np.eye(c.shape[1])]])


def _inside(c: Array) -> Array:
    """The nearest matrix whose singular values are at most 1 − INSIDE."""
    left, values, right = np.linalg.svd(c, full_matrices=False)
    return np.asarray((left * np.minimum(values, 1 - INSIDE)) @ right)


def _minimum(signal: Array, one: int) -> tuple[float, float]:
    """Enclosure in bits of min over C of ½ log2 det(noise(C) + signal) − ½ log2 det noise(C)."""

    def value(c: Array) -> float:
        return _half_log_det(_noise(c) + signal) - _half_log_det(_noise(c))

    def gradient(c: Array) -> Array:
        difference = np.linalg.inv(_noise(c) + signal) - np.linalg.inv(_noise(c))
        return np.asarray(difference[:one, one:] / np.log(2))

    c = np.zeros((one, len(signal) - one))
    product = here = value(c)
    lower, upper, slope, length, past = 0.0, here, gradient(c), 1.0, [here]
    for _ in range(STEPS):
        reach = (1 - INSIDE) * float(np.linalg.svd(slope, compute_uv=False).sum())
        bound = here - float((slope * c).sum()) - reach
        # What holds for singular values up to 1 − INSIDE, carried over to 1 by convexity along the ray from C = 0.
        lower = max(lower, (bound - INSIDE * product) / (1 - INSIDE))
        if upper - lower <= TARGET:
            break
        step = _inside(c - length * slope) - c
        scale, downhill = 1.0, float((slope * step).sum())
        while value(c + scale * step) > max(past) + 1e-4 * scale * downhill and scale > 1e-12:
            scale /= 2
        moved = c + scale * step
        after = gradient(moved)
        curvature = float(((moved - c) * (after - slope)).sum())
        length = min(1e6, float(((moved - c) ** 2).sum()) / curvature) if curvature > 0 else 1e6
        c, slope, here = moved, after, value(moved)
        past = [*past[1 - HISTORY :], here]
        upper = min(upper, here)
    return lower, upper
