"""Measures against slow references written from their definitions."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from pid import decompose, gaussian
from pid.errors import InvalidCovariance, SolverStalled
from pid.measures.iccs import maximum_entropy
from tests.pid.tables import Array, random_table


def slow_imin(p: Array) -> float:
    """Σ_y p(y) min_i Σ_x p(x_i|y) log2 [p(y|x_i) / p(y)], with loops."""
    total = 0.0
    for y in range(p.shape[2]):
        label = p[:, :, y].sum()
        specific = []
        for pairs in (p.sum(1), p.sum(0)):
            value = 0.0
            for x in range(len(pairs)):
                if pairs[x, y] > 0:
                    value += pairs[x, y] / label * np.log2(pairs[x, y] / pairs[x].sum() / label)
            specific.append(value)
        total += label * min(specific) if label > 0 else 0.0
    return total


def slow_iccs(p: Array) -> float:
    """Iterative scaling to the three pair marginals, then the sum over outcomes whose four terms agree in sign."""
    q = np.full(p.shape, 1 / p.size)
    for _ in range(20_000):
        for axis in range(3):
            q = q * (p.sum(axis, keepdims=True) / q.sum(axis, keepdims=True))
    total = 0.0
    for x1, x2, y in np.ndindex(p.shape):
        label = q[:, :, y].sum()
        i_1 = np.log2(q[x1, :, y].sum() / (q[x1].sum() * label))
        i_2 = np.log2(q[:, x2, y].sum() / (q[:, x2].sum() * label))
        i_12 = np.log2(q[x1, x2, y] / (q[x1, x2].sum() * label))
        c = i_1 + i_2 - i_12
        if len({np.sign(term) for term in (i_1, i_2, i_12, c)}) == 1:
            total += q[x1, x2, y] * c
    return total


def test_imin_follows_its_definition() -> None:
    rng = np.random.default_rng(1)
    for kind in ("spread", "zeros", "sparse"):
        for _ in range(10):
            p = random_table(rng, (3, 4, 3), kind)
            assert decompose(p, "imin").redundancy == pytest.approx(slow_imin(p), abs=1e-12)


def test_iccs_follows_its_definition() -> None:
    rng = np.random.default_rng(2)
    for _ in range(3):
        p = random_table(rng, (2, 3, 2))
        assert decompose(p, "iccs").redundancy == pytest.approx(slow_iccs(p), abs=1e-8)


def test_the_distribution_of_maximum_entropy_keeps_the_pair_marginals() -> None:
    rng = np.random.default_rng(3)
    for kind in ("spread", "zeros", "deterministic"):
        p = random_table(rng, (3, 3, 3), kind)
        q = maximum_entropy(p)
        for axis in range(3):
            np.testing.assert_allclose(q.sum(axis), p.sum(axis), atol=1e-9)
        positive = q > 0
        assert -(q[positive] * np.log2(q[positive])).sum() >= -(p[p > 0] * np.log2(p[p > 0])).sum() - 1e-7


def test_a_fit_that_is_not_done_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("pid.measures.iccs"), "STEPS", 1)
    with pytest.raises(SolverStalled, match="misses a pair marginal by .* choose the measure broja"):
        decompose(random_table(np.random.default_rng(4), (3, 3, 3)), "iccs")


def random_covariance(rng: np.random.Generator, size: int) -> Array:
    root = rng.normal(size=(size, size + 2))
    return np.asarray(root @ root.T)


def test_two_noisy_readings_of_a_number_have_the_published_atoms() -> None:
    """Y of variance 1, X1 = Y + noise of variance 1, X2 = Y + noise of variance 4."""
    atoms = gaussian([[2, 1, 1], [1, 5, 1], [1, 1, 1]], (1, 1, 1))
    np.testing.assert_allclose(atoms.values, [0.160964, 0.339036, 0, 0.084963], atol=1e-6)
    assert atoms.total == pytest.approx(0.584963, abs=1e-6)


def test_for_a_single_number_the_gaussian_decomposition_is_mmi() -> None:
    rng = np.random.default_rng(5)
    for sizes in ((1, 1, 1), (2, 3, 1), (4, 4, 1)):
        atoms = gaussian(random_covariance(rng, sum(sizes)), sizes)
        assert min(atoms.unique_1, atoms.unique_2) == pytest.approx(0, abs=1e-7)


def test_independent_gaussians_add_and_swap() -> None:
    rng = np.random.default_rng(6)
    left, right = random_covariance(rng, 3), random_covariance(rng, 3)
    both = np.zeros((6, 6))
    both[::2, ::2], both[1::2, 1::2] = left, right
    added = np.add(gaussian(left, (1, 1, 1)).values, gaussian(right, (1, 1, 1)).values)
    atoms = gaussian(both, (2, 2, 2))
    np.testing.assert_allclose(atoms.values, added, atol=1e-6)
    order = [2, 3, 0, 1, 4, 5]
    np.testing.assert_allclose(
        gaussian(both[np.ix_(order, order)], (2, 2, 2)).values, np.array(atoms.values)[[0, 2, 1, 3]], atol=1e-6
    )


def test_no_noise_correlation_beats_the_lower_bound() -> None:
    """Union information at random feasible noise correlations, with the definition's determinant."""
    rng = np.random.default_rng(7)
    sigma = random_covariance(rng, 6)
    atoms = gaussian(sigma, (2, 2, 2))
    label, noises, maps = sigma[4:, 4:], [], []
    for part in (slice(0, 2), slice(2, 4)):
        slope = sigma[part, 4:] @ np.linalg.inv(label)
        root = np.linalg.inv(np.linalg.cholesky(sigma[part, part] - slope @ sigma[4:, part]))
        maps.append(root @ slope)
        noises.append(root)
    stacked = np.vstack(maps)
    for _ in range(200):
        left, values, right = np.linalg.svd(rng.normal(size=(2, 2)))
        c = left @ np.diag(rng.random(2) * (values > 0)) @ right
        noise = np.block([[np.eye(2), c], [c.T, np.eye(2)]])
        inner = np.eye(2) + label @ stacked.T @ np.linalg.inv(noise) @ stacked
        assert 0.5 * np.log2(np.linalg.det(inner)) >= atoms.lower - 1e-9
    assert atoms.width <= 1e-6


@pytest.mark.parametrize(
    ("covariance", "sizes", "message"),
    [
        (np.eye(3), (1, 1, 2), r"shape \(3, 3\) does not fit the sizes \(1, 1, 2\)"),
        (np.eye(3), (1, 2, 0), "each size at least 1"),
        (np.array([[1, 0.5, 0], [0, 1, 0], [0, 0, 1]]), (1, 1, 1), "not finite and symmetric"),
        (np.full((3, 3), np.nan), (1, 1, 1), "not finite and symmetric"),
        (np.ones((3, 3)), (1, 1, 1), "must be above 0, or a source would tell infinitely many bits"),
    ],
)
def test_what_is_no_covariance_is_refused(covariance: Array, sizes: tuple[int, int, int], message: str) -> None:
    with pytest.raises(InvalidCovariance, match=message):
        gaussian(covariance, sizes)
