"""How often intervals hold the truth: 200 tables of counts drawn from a known distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pid import ATOMS, GATES, clouds, decompose, table_intervals
from pid.bootstrap import DEFAULT
from tests.pid.samples import answers
from tests.pid.tables import Array, mixed_with_noise, random_table

REPETITIONS, REPLICATES, OBSERVATIONS = 200, 200, 1000
METHODS = ("basic", "bca", "subsampling")
NEAR_ZERO = 0.01
"""Bits below which an atom lies at the boundary."""


def interior_table(shape: tuple[int, int, int], seed: int) -> Array:
    """The first table of the seed with all its atoms well above 0."""
    rng = np.random.default_rng(seed)
    while True:
        p = random_table(rng, shape)
        if min(decompose(p).values) > 0.05:
            return p


def coverage(p: Array, method: Any) -> tuple[Array, Array]:
    """Shares of repetitions whose intervals of the atoms hold the truth, and are one-sided [atoms]."""
    atoms = decompose(p)
    rng = np.random.default_rng(11)
    held, one_sided = np.zeros(4), np.zeros(4)
    for seed in range(REPETITIONS):
        drawn = rng.multinomial(OBSERVATIONS, p.ravel()).reshape(p.shape)
        found = table_intervals(drawn, method=method, replicates=REPLICATES, seed=seed)[:4]
        held += [one.low - 1e-7 <= truth <= one.high + 1e-7 for one, truth in zip(found, atoms.values, strict=True)]
        one_sided += [one.one_sided for one in found]
    return held / REPETITIONS, one_sided / REPETITIONS


def shown(name: str, method: str, held: Array, one_sided: Array) -> str:
    cells = (
        f"{atom} {share:.3f} ({one:.0%} one-sided)" for atom, share, one in zip(ATOMS, held, one_sided, strict=True)
    )
    return f"{name:10} {method:12} " + ", ".join(cells)


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "seed"), [((2, 2, 2), 1), ((3, 3, 2), 2)], ids=str)
def test_intervals_of_interior_tables_hold_the_truth_nearly_as_often_as_they_say(
    shape: tuple[int, int, int], seed: int
) -> None:
    held, one_sided = coverage(interior_table(shape, seed), DEFAULT)
    print(shown("x".join(map(str, shape)), DEFAULT, held, one_sided))  # noqa: T201
    assert held.min() >= 0.90


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AND", "RDN"])
def test_at_the_boundary_the_default_is_the_best_method_and_marks_its_intervals(name: str) -> None:
    p = mixed_with_noise(next(gate for gate in GATES if gate.name == name).table, 0.1)
    near = np.array(decompose(p).values) < NEAR_ZERO
    measured = {method: coverage(p, method) for method in METHODS}
    for method, (held, one_sided) in measured.items():
        print(shown(name, method, held, one_sided))  # noqa: T201
    # Two methods within the error of 200 repetitions count as equal.
    assert measured[DEFAULT][0][near].min() >= max(held[near].min() for held, _ in measured.values()) - 0.03
    assert measured[DEFAULT][0][near].min() >= 0.90
    assert measured[DEFAULT][1][near].min() >= 0.90


@pytest.mark.slow
def test_intervals_of_a_cloud_hold_the_truth_too() -> None:
    """Samples of a model that knows an interior distribution: only the draw of the samples is uncertain."""
    p = interior_table((3, 3, 2), 2)
    truth = decompose(p).values
    held = np.zeros(4)
    for seed in range(60):
        found = clouds(*answers(p, 400, seed), replicates=REPLICATES, seed=seed).intervals[:4]
        held += [one.low <= value <= one.high for one, value in zip(found, truth, strict=True)]
    assert (held / 60).min() >= 0.85
