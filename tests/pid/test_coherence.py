"""Calibration of a cloud to a label marginal, against iterative proportional fitting step by step."""

from __future__ import annotations

import numpy as np
import pytest

import pid.coherence
from pid.coherence import FLAG_BITS, calibrate, fit
from pid.errors import SolverStalled
from tests.pid.samples import Array, softmax


def slow_fitting(rows: Array, weights: Array, labels: Array) -> Array:
    """a_iy = w_i u_i c_y p(y|x_i), rows to w_i and columns to p(y) in turn."""
    a = weights[:, None] * rows
    for _ in range(5000):
        for y in range(len(labels)):
            a[:, y] *= labels[y] / a[:, y].sum()
        for i in range(len(weights)):
            a[i] *= weights[i] / a[i].sum()
    return a / weights[:, None]


def test_the_result_is_that_of_iterative_proportional_fitting() -> None:
    rng = np.random.default_rng(1)
    rows, weights = softmax(rng.normal(0, 2, (12, 3))), rng.dirichlet(np.ones(12))
    labels = np.array([0.2, 0.5, 0.3])
    moved, _ = calibrate(rows, weights, labels)
    np.testing.assert_allclose(moved, slow_fitting(rows, weights, labels), atol=1e-9)


def test_each_label_gets_one_bias_of_the_logits() -> None:
    rng = np.random.default_rng(2)
    rows, weights = softmax(rng.normal(0, 2, (20, 4))), np.full(20, 1 / 20)
    moved, report = calibrate(rows, weights, np.array([0.1, 0.2, 0.3, 0.4]))
    ratio = np.log(moved / rows)
    bias = ratio - ratio[:, :1]
    np.testing.assert_allclose(bias, np.broadcast_to(bias[0], bias.shape), atol=1e-9)
    assert report.bias == pytest.approx(np.ptp(bias[0]))
    np.testing.assert_allclose(weights @ moved, [0.1, 0.2, 0.3, 0.4], atol=1e-10)


def test_uniform_rows_become_the_label_marginal_and_tell_nothing() -> None:
    """The published estimator reports KL(uniform ‖ p(y)) = 0.12 bits here, though the source tells nothing."""
    labels = np.array([0.38, 0.29, 0.21, 0.12])
    moved, report = calibrate(np.full((9, 4), 0.25), np.full(9, 1 / 9), labels)
    np.testing.assert_allclose(moved, np.broadcast_to(labels, (9, 4)), atol=1e-10)
    assert report.kl_bits == pytest.approx((0.25 * np.log2(0.25 / labels)).sum())
    assert report.is_flagged
    assert FLAG_BITS < 0.12
    assert report.moved == pytest.approx(np.abs(labels - 0.25).sum() / 2)


def test_rows_that_are_coherent_are_not_touched_not_even_their_zeros() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    moved, report = calibrate(rows, np.array([0.5, 0.5]), np.array([0.5, 0.5]))
    assert moved is rows
    assert (report.kl_bits, report.bias, report.moved, report.is_flagged) == (0, 0, 0, False)


def test_rows_of_zeros_and_ones_can_be_moved_too() -> None:
    rows, weights = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.3, 0.7])
    moved, _ = calibrate(rows, weights, np.array([0.5, 0.5]))
    np.testing.assert_allclose(weights @ moved, [0.5, 0.5], atol=1e-10)
    np.testing.assert_allclose(moved[0], [1, 0], atol=1e-9)


def test_a_label_that_never_occurs_loses_its_column() -> None:
    moved, report = calibrate(np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([0.5, 0.5]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(moved, [[1, 0], [1, 0]], atol=1e-12)
    assert np.isfinite(report.kl_bits)
    assert report.is_flagged


def test_a_batch_is_fitted_as_each_alone() -> None:
    rng = np.random.default_rng(3)
    rows, weights = softmax(rng.normal(0, 3, (6, 10, 3))), rng.dirichlet(np.ones(10), 6)
    labels = rng.dirichlet(np.ones(3) * 3, 6)
    together = fit(rows, weights, labels)[0]
    for place in range(6):
        np.testing.assert_allclose(
            together[place], fit(rows[[place]], weights[[place]], labels[[place]])[0][0], atol=1e-9
        )


def test_a_fit_that_is_not_done_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pid.coherence, "STEPS", 1)
    with pytest.raises(SolverStalled, match=r"away from p\(y\); at most 1e-11 is allowed"):
        calibrate(np.array([[0.99, 0.01], [0.01, 0.99]]), np.array([0.5, 0.5]), np.array([0.9, 0.1]))
