"""Bias, against the mean error of many draws."""

from __future__ import annotations

import numpy as np
import pytest

from pid import Joint, Posteriors, cloud_bias, decompose, table_bias
from pid.bias import miller_madow
from tests.pid.samples import Array, answers
from tests.pid.tables import random_table


def draws(p: Array, n: int, count: int) -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.multinomial(n, p.ravel()).reshape(p.shape) for _ in range(count)]


def test_miller_madow_counts_occupied_cells() -> None:
    """4 cells, 2 symbols and 2 labels of 100 observations: (4 − 2 − 2 + 1) / (200 ln 2)."""
    assert miller_madow([[40, 10], [10, 40]]) == pytest.approx(1 / (200 * np.log(2)))
    assert miller_madow([[40, 10, 0], [10, 40, 0], [0, 0, 0]]) == pytest.approx(1 / (200 * np.log(2)))


def test_the_formula_is_the_mean_error_of_the_information() -> None:
    p = random_table(np.random.default_rng(2), (3, 3, 3))
    truth = Joint.read(p).information_12
    found = [{one.quantity: one for one in table_bias(table)}["total"] for table in draws(p, 400, 60)]
    error = np.mean([one.raw for one in found]) - truth
    assert np.mean([one.bias for one in found]) == pytest.approx(error, abs=0.006)
    assert {one.method for one in found} == {"miller-madow"}


def test_extrapolation_removes_most_of_the_bias_of_synergy() -> None:
    p = random_table(np.random.default_rng(3), (3, 3, 2))
    truth = decompose(p).synergy
    found = [{one.quantity: one for one in table_bias(table)}["synergy"] for table in draws(p, 300, 40)]
    raw = abs(np.mean([one.raw for one in found]) - truth)
    corrected = abs(np.mean([one.corrected for one in found]) - truth)
    assert corrected < 0.6 * raw


def test_the_bias_of_the_average_posterior_is_its_mean_error() -> None:
    p = random_table(np.random.default_rng(4), (5, 5, 3), "sparse")
    truth = Joint.read(p).information_12
    found = [cloud_bias(Posteriors.read(*answers(p, 40, seed)))[-1] for seed in range(60)]
    assert {one.method for one in found} == {"posterior-average"}
    assert max(one.bias for one in found) < 0
    error = np.mean([one.raw for one in found]) - truth
    assert np.mean([one.bias for one in found]) == pytest.approx(error, abs=0.03)


def test_every_atom_and_information_is_reported_with_its_raw_value() -> None:
    table = draws(random_table(np.random.default_rng(5), (3, 3, 2)), 300, 1)[0]
    found = {one.quantity: one for one in table_bias(table)}
    atoms, joint = decompose(table / table.sum()), Joint.read(table / table.sum())
    assert list(found) == ["redundancy", "unique_1", "unique_2", "synergy", "total", "information_1", "information_2"]
    assert found["synergy"].raw == pytest.approx(atoms.synergy, abs=1e-6)
    assert found["information_1"].raw == pytest.approx(joint.information_1, abs=1e-6)
    assert found["synergy"].corrected == found["synergy"].raw - found["synergy"].bias
