"""How weights are drawn, and how intervals are made of the replicates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pid import GATES, Posteriors, clouds, decompose, paired_differences, table_intervals
from pid.bootstrap import Resampling, intervals
from pid.errors import InvalidSetting, InvalidTable, TooFewSamples
from pid.replicates import CloudReplicator, TableReplicator
from tests.pid.samples import Array, loose_answers, softmax
from tests.pid.tables import mixed_with_noise, random_table

METHODS = ("basic", "bca", "subsampling")


def counts(n: int = 800, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.multinomial(n, random_table(rng, (3, 3, 2)).ravel()).reshape(3, 3, 2))


def mean_of(values: Array) -> Any:
    """A statistic with a known standard error: the weighted mean, five times."""
    return lambda weights: np.repeat((weights @ values / weights.sum(1))[:, None], 5, axis=1)


@pytest.mark.parametrize("method", METHODS)
def test_the_interval_of_a_mean_is_that_of_its_standard_error(method: Any) -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    resampling = Resampling.of_groups(np.arange(400)[:, None], np.full(400, 1 / 400))
    found = intervals((values.mean(),) * 5, resampling, mean_of(values), method=method, replicates=4000)[0]
    error = values.std() / 20
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.12 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.12 * error)
    assert not found.one_sided
    assert (found.method, found.level, found.replicates) == (method, 0.95, 4000)


def test_bca_leans_to_the_side_of_the_longer_tail() -> None:
    """Of a skewed sample, BCa's interval of the mean is shifted to the right of the symmetric one (Efron 1987)."""
    values = np.random.default_rng(2).exponential(1, 60)
    resampling = Resampling.of_groups(np.arange(60)[:, None], np.full(60, 1 / 60))
    basic, bca = (
        intervals((values.mean(),) * 5, resampling, mean_of(values), method=method, replicates=4000)[0]
        for method in ("basic", "bca")
    )
    assert bca.low > basic.low
    assert bca.high > basic.high


def test_an_image_is_drawn_with_all_its_questions() -> None:
    groups = np.repeat(np.arange(10), 3)[:, None]
    resampling = Resampling.of_groups(groups, np.full(30, 1 / 30))
    rng = np.random.default_rng(3)
    for drawn in (resampling.bootstrap(rng, 50), resampling.subsamples(rng, 50), resampling.jackknife()[0]):
        by_image = drawn.reshape(len(drawn), 10, 3)
        np.testing.assert_array_equal(by_image, np.repeat(by_image[:, :, :1], 3, axis=2))
    np.testing.assert_allclose(resampling.bootstrap(rng, 50).sum(1), 1)


def test_crossed_groups_multiply_how_often_they_are_drawn() -> None:
    groups = np.stack([np.repeat(np.arange(6), 6), np.tile(np.arange(6), 6)], axis=1)
    drawn = Resampling.of_groups(groups, np.full(36, 1 / 36)).bootstrap(np.random.default_rng(4), 40) * 36
    for one in drawn.reshape(40, 6, 6):
        assert np.linalg.matrix_rank(one) == 1


def test_clustered_questions_widen_the_interval() -> None:
    p1, p2, p12 = (np.repeat(one, 4, axis=0) for one in loose_answers(60))
    alone = clouds(p1, p2, p12, replicates=200).intervals[-1]
    clustered = clouds(p1, p2, p12, groups=np.repeat(np.arange(60), 4), replicates=200).intervals[-1]
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)


def test_subsamples_of_a_table_leave_no_cell_with_more_than_it_has() -> None:
    table = counts()
    drawn = Resampling.of_counts(table.ravel().astype(float)).subsamples(np.random.default_rng(5), 100)
    assert (drawn <= table.ravel()).all()
    np.testing.assert_array_equal(drawn.sum(1), 200)


def test_replicates_at_the_weights_as_they_are_are_the_estimate() -> None:
    table = counts()
    np.testing.assert_allclose(
        TableReplicator((3, 3, 2))(table.reshape(1, -1).astype(float))[0][:4],
        decompose(table / table.sum()).values,
        atol=1e-6,
    )
    p1, p2, p12 = (one[:12] for one in loose_answers(40, 3))
    said = Posteriors.read(p1, p2, p12)
    np.testing.assert_allclose(
        CloudReplicator(said)(said.weights[None])[0][:4], clouds(p1, p2, p12).atoms.values, atol=1e-6
    )


def test_replicates_of_a_cloud_are_the_estimates_of_repeated_samples() -> None:
    """Twelve distinct samples are twelve points: reweighing them and estimating anew is the same."""
    p1, p2, p12 = (one[:12] for one in loose_answers(40, 3))
    times = np.random.default_rng(6).multinomial(12, np.full(12, 1 / 12), 5)
    replicates = CloudReplicator(Posteriors.read(p1, p2, p12))(times / 12)
    for drawn, atoms in zip(times, replicates, strict=True):
        again = clouds(p1, p2, p12, weights=drawn).atoms
        np.testing.assert_allclose(atoms, [*again.values, again.total], atol=2e-6)


def test_an_atom_near_zero_has_a_one_sided_interval_from_zero() -> None:
    gate = next(one for one in GATES if one.name == "AND")
    drawn = np.random.default_rng(7).multinomial(2000, mixed_with_noise(gate.table, 0.1).ravel()).reshape(2, 2, 2)
    found = {one.quantity: one for one in table_intervals(drawn, replicates=300)}
    for name in ("unique_1", "unique_2"):
        assert found[name].one_sided
        assert found[name].low == 0
        assert found[name].high >= found[name].value
    assert not found["synergy"].one_sided
    assert found["synergy"].low < found["synergy"].value < found["synergy"].high


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_interval(method: Any) -> None:
    assert table_intervals(counts(), method=method, replicates=60) == table_intervals(
        counts(), method=method, replicates=60
    )


def test_the_difference_to_itself_is_zero_and_pairing_narrows_it() -> None:
    p1, p2, p12 = loose_answers(200)
    said = Posteriors.read(p1, p2, p12)
    for one in paired_differences(said, said, replicates=100):
        assert (one.value, one.low, one.high) == pytest.approx((0, 0, 0), abs=1e-12)
    weaker = Posteriors.read(p1, p2, softmax(0.8 * np.log(p12)))
    total = paired_differences(said, weaker, replicates=200)[-1]
    alone = clouds(p1, p2, p12, replicates=200).intervals[-1]
    assert total.high < 0
    assert not total.one_sided
    assert total.high - total.low < 0.5 * (alone.high - alone.low)


def test_other_samples_cannot_be_paired() -> None:
    first, second = (Posteriors.read(*loose_answers(n)) for n in (30, 31))
    with pytest.raises(InvalidSetting, match="30 and 31 samples with different groups or weights cannot be paired"):
        paired_differences(first, second)


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        (np.full((2, 2, 2), 0.125), InvalidTable, "no table of counts; pass whole numbers"),
        (np.ones((2, 2)), InvalidTable, r"of shape \(2, 2\) is no table of counts"),
        (np.zeros((2, 2, 2)), TooFewSamples, "counts 0 observations; intervals and tests need at least 2"),
        (-np.ones((2, 2, 2)), InvalidTable, "the table of counts holds -1"),
    ],
)
def test_what_counts_nothing_has_no_intervals(table: Array, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        table_intervals(table)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="no interval is named 'percentile'; known: basic, bca, subsampling"):
        table_intervals(counts(), method="percentile")  # type: ignore[arg-type]


def test_an_estimate_at_the_ceiling_stays_inside_its_interval() -> None:
    certain = np.eye(4)[np.arange(64) % 4]
    told = clouds(np.full((64, 4), 0.25), certain, certain, replicates=200)
    for one in told.intervals:
        assert one.low <= one.value <= one.high <= 2 + 1e-9
    assert {one.quantity: round(one.high, 6) for one in told.intervals}["total"] == 2
