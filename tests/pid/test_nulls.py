"""Tests of atoms against nothing."""

from __future__ import annotations

import numpy as np
import pytest

from pid import GATES, decompose, null_test
from pid.errors import InvalidSetting
from pid.nulls import NULLS
from tests.pid.tables import mixed_with_noise, random_table

N = 600
LACKING = {
    "redundancy": ("UNQ", "XOR"),
    "unique_1": ("AND", "RDN"),
    "unique_2": ("AND", "UNQ1"),
    "synergy": ("UNQ1", "RND"),
    "total": ("RND",),
    "information_1": ("XOR",),
    "information_2": ("UNQ1",),
}
HAVING = {
    "redundancy": "RDN",
    "unique_1": "UNQ",
    "unique_2": "UNQ",
    "synergy": "XOR",
    "total": "XOR",
    "information_1": "UNQ1",
    "information_2": "RDN",
}


def drawn(name: str, seed: int = 0) -> np.ndarray:
    table = mixed_with_noise(next(gate for gate in GATES if gate.name == name).table, 0.1)
    return np.random.default_rng(seed).multinomial(N, table.ravel()).reshape(table.shape)


def value(p: np.ndarray, quantity: str) -> float:
    atoms = decompose(p)
    informations = {
        "information_1": atoms.redundancy + atoms.unique_1,
        "information_2": atoms.redundancy + atoms.unique_2,
        "total": atoms.total,
    }
    return informations[quantity] if quantity in informations else float(getattr(atoms, quantity))


@pytest.mark.parametrize("quantity", NULLS)
def test_the_null_has_none_of_the_quantity(quantity: str) -> None:
    rng = np.random.default_rng(1)
    for kind in ("spread", "zeros", "sparse"):
        for null in NULLS[quantity](random_table(rng, (3, 4, 3), kind)):
            assert null.sum() == pytest.approx(1)
            assert value(null / null.sum(), quantity) == pytest.approx(0, abs=1e-5)


def test_the_nulls_of_synergy_and_unique_atoms_keep_what_they_should() -> None:
    p = random_table(np.random.default_rng(2), (3, 4, 3))
    (synergy,) = NULLS["synergy"](p)
    np.testing.assert_allclose(synergy.sum(1), p.sum(1), atol=1e-12)
    np.testing.assert_allclose(synergy.sum(0), p.sum(0), atol=1e-12)
    (unique_1,), (unique_2,) = NULLS["unique_1"](p), NULLS["unique_2"](p)
    np.testing.assert_allclose(unique_1.sum(0), p.sum(0), atol=1e-12)
    np.testing.assert_allclose(unique_2.sum(1), p.sum(1), atol=1e-12)


def test_the_null_of_a_unique_atom_that_is_zero_already_is_the_data() -> None:
    """x1 is x2 seen through noise, so that the likeliest garbling is x1 itself."""
    rng = np.random.default_rng(3)
    pair = random_table(rng, (3, 3, 1))[:, :, 0]
    markov = rng.dirichlet(np.ones(3), 3).T[:, :, None] * pair[None]
    (null,) = NULLS["unique_1"](markov)
    np.testing.assert_allclose(null, markov, atol=2e-3)


@pytest.mark.parametrize("quantity", NULLS)
def test_what_is_there_is_found(quantity: str) -> None:
    found = null_test(drawn(HAVING[quantity]), quantity, replicates=99)
    assert found.p_value == pytest.approx(0.01)
    assert found.observed > found.null_95 > found.null_mean >= 0


@pytest.mark.parametrize(("quantity", "name"), [(one, name) for one, names in LACKING.items() for name in names])
def test_what_is_not_there_is_found_no_more_often_than_chance(quantity: str, name: str) -> None:
    values = [null_test(drawn(name, seed), quantity, replicates=39, seed=seed).p_value for seed in range(20)]
    assert sum(one <= 0.05 for one in values) <= 4


def test_a_quantity_or_a_number_of_replicates_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="no null is known for 'bias'; known: redundancy"):
        null_test(drawn("AND"), "bias")
    with pytest.raises(InvalidSetting, match="5 replicates cannot show p = 0.05; at least 19"):
        null_test(drawn("AND"), "synergy", replicates=5)
