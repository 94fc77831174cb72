"""Merging posteriors, and the exact loss."""

from __future__ import annotations

import numpy as np
import pytest

from pid.joint import mutual_information
from pid.quantise import quantise
from tests.pid.samples import softmax


def test_the_loss_is_the_divergence_from_each_posterior_to_its_point() -> None:
    rng = np.random.default_rng(1)
    rows, weights = softmax(rng.normal(0, 2, (200, 3))), rng.dirichlet(np.ones(200))
    cloud = quantise(rows, weights, 8)
    assert len(cloud.pairs) <= 8
    loss = 0.0
    for row, weight, place in zip(rows, weights, cloud.place, strict=True):
        point = cloud.pairs[place] / cloud.pairs[place].sum()
        loss += weight * (row * np.log2(row / point)).sum()
    assert cloud.loss == pytest.approx(loss, abs=1e-12)
    assert cloud.information == pytest.approx(float(mutual_information(rows * weights[:, None])))


def test_points_are_the_averages_of_their_members() -> None:
    rng = np.random.default_rng(2)
    rows, weights = softmax(rng.normal(0, 2, (50, 3))), np.full(50, 1 / 50)
    cloud = quantise(rows, weights, 5)
    for point, pair in enumerate(cloud.pairs):
        np.testing.assert_allclose(pair, (rows[cloud.place == point] / 50).sum(0), atol=1e-15)
    np.testing.assert_allclose(cloud.pairs.sum(0), weights @ rows, atol=1e-15)


def test_equal_posteriors_merge_without_loss() -> None:
    rows = np.repeat(np.array([[0.1, 0.9], [0.6, 0.4], [1.0, 0.0]]), 40, axis=0)
    cloud = quantise(rows, np.full(120, 1 / 120), 3)
    assert len(cloud.pairs) == 3
    assert cloud.loss <= 1e-14


def test_more_points_lose_less() -> None:
    rng = np.random.default_rng(3)
    rows, weights = softmax(rng.normal(0, 2, (300, 4))), np.full(300, 1 / 300)
    losses = [quantise(rows, weights, points).loss for points in (1, 4, 16, 64, 300)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(quantise(rows, weights, 300).information)
    assert losses[-1] == pytest.approx(0, abs=1e-12)


def test_samples_without_weight_have_no_say() -> None:
    rows = np.vstack([softmax(np.random.default_rng(4).normal(0, 2, (30, 3))), [[1.0, 0.0, 0.0]]])
    weights = np.append(np.full(30, 1 / 30), 0.0)
    cloud, without = quantise(rows, weights, 6), quantise(rows[:30], weights[:30], 6)
    assert cloud.information == pytest.approx(without.information)
    assert cloud.pairs.sum() == pytest.approx(1)
