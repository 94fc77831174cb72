"""The published estimator: its equations, and its defects in sight."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pid import clouds
from pid.batch import SINKHORN_SWEEPS, Alignment, BatchEstimate, batch, sinkhorn
from pid.errors import InvalidPosteriors, InvalidSetting
from tests.pid.samples import Array, loose_answers


def noisy(labels: Array, noise: float = 0.02) -> Array:
    return np.asarray(np.eye(2)[labels] * (1 - noise) + noise / 2)


def redundant(n: int = 128) -> BatchEstimate:
    rng = np.random.default_rng(1)
    bits = rng.permutation(np.arange(n) % 2)
    features = np.eye(2)[bits] + rng.normal(0, 0.1, (n, 2))
    return batch(features, features, noisy(bits), noisy(bits), noisy(bits), epochs=2, batch_size=64)


def test_it_gives_negative_synergy_to_a_copied_bit_and_clips_it() -> None:
    """The values that its authors' code gives: redundancy .859, unique .060, synergy −.060 of a truth of .919, 0, 0."""
    found = redundant()
    np.testing.assert_allclose(found.raw, [0.859, 0.060, 0.060, -0.060], atol=0.01)
    assert sum(found.raw) == pytest.approx(found.total, abs=1e-6)
    assert found.clipped[3] == 0
    assert found.clipping_loss == pytest.approx(-found.raw[3])
    assert found.converged == 1.0


def test_passes_that_disagree_never_converge_and_show_spurious_information() -> None:
    _, p2, p12 = loose_answers(64)
    uniform = np.full((64, 4), 0.25)
    features = np.random.default_rng(2).normal(size=(64, 3))
    found = batch(features, features, uniform, p2, p12, epochs=1, batch_size=64)
    mean = p12.mean(0)
    assert found.information_1 == pytest.approx((0.25 * np.log2(0.25 / mean)).sum())
    assert found.spurious_1 == pytest.approx(found.information_1)
    assert clouds(uniform, p2, p12).information_1 == pytest.approx(0, abs=1e-9)
    _, p2, p12 = loose_answers(64, 2)
    far = np.tile([0.95, 0.05], (64, 1))
    found = batch(features, features, far, p2, p12, epochs=1, batch_size=64)
    assert found.converged == 0.0
    assert found.sweeps == SINKHORN_SWEEPS


def test_sinkhorn_scales_to_both_marginals_where_they_agree() -> None:
    rng = np.random.default_rng(3)
    rows = torch.from_numpy(rng.random((2, 5)))
    columns = torch.from_numpy(rng.random((2, 5)))
    columns = columns * (rows.sum(1) / columns.sum(1))[:, None]
    scaled, converged, sweeps = sinkhorn(torch.from_numpy(rng.random((2, 5, 5))), rows, columns)
    torch.testing.assert_close(scaled.sum(2), rows)
    assert float((scaled.sum(1) - columns).abs().max()) <= 0.01
    assert converged == 1.0
    assert 1 <= sweeps < SINKHORN_SWEEPS


def test_scores_are_the_exponential_of_standardised_products() -> None:
    torch.manual_seed(0)
    network = Alignment((3, 2), 4)
    x1, x2 = torch.randn(5, 3), torch.randn(6, 2)
    scores = network(x1, x2)
    assert scores.shape == (4, 5, 6)
    one, two = network.first(x1)[2].reshape(4, 10)[1], network.second(x2)[3].reshape(4, 10)[1]
    one, two = ((v - v.mean()) / v.std(unbiased=False) for v in (one, two))
    torch.testing.assert_close(scores[1, 2, 3], torch.exp(one @ two / 10**0.5), rtol=1e-4, atol=1e-5)


def test_it_leaves_the_global_generator_alone_and_repeats_itself() -> None:
    before = torch.random.get_rng_state()
    assert redundant(64) == redundant(64)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("features", "options", "error", "message"),
    [
        (np.ones((3, 2)), {}, InvalidPosteriors, r"features have the shape \(3, 2\); they must be finite, \[8, dim\]"),
        (np.ones((8, 2)), {"epochs": 0}, InvalidSetting, "0 epochs with batches of 256 of 8 samples are too few"),
    ],
)
def test_what_it_cannot_train_on_is_refused(
    features: Array, options: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        batch(features, features, *loose_answers(8), **options)


def test_options_that_differ_are_refused() -> None:
    rows = np.array([[0.5, 0.5, np.nan], [0.2, 0.3, 0.5]])
    with pytest.raises(InvalidPosteriors, match="pass the samples of one number at a time"):
        batch(np.ones((2, 1)), np.ones((2, 1)), rows, rows, rows)
