"""Distributions whose atoms are published."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pid import GATES, Gate, decompose, decompose_many
from pid.gates import binary_entropy
from tests.pid.tables import mixed_with_noise

LISTED = 1.01e-6
"""Values without a closed form are published to six decimals."""


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_broja_finds_the_published_atoms(gate: Gate) -> None:
    atoms = decompose(gate.table)
    np.testing.assert_allclose(atoms.values, gate.values, atol=LISTED)
    assert atoms.width <= 1e-8


@pytest.mark.parametrize("measure", ["imin", "mmi", "iccs"])
@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_the_other_measures_find_the_published_redundancy(gate: Gate, measure: str) -> None:
    assert decompose(gate.table, measure).redundancy == pytest.approx(getattr(gate, measure), abs=LISTED)


def test_gates_solved_together_have_the_same_atoms() -> None:
    for gate, atoms in zip(GATES, decompose_many([gate.table for gate in GATES]), strict=True):
        np.testing.assert_allclose(atoms.values, gate.values, atol=LISTED)


def test_closed_forms_hold_to_the_width_of_the_enclosure() -> None:
    gate = {one.name: one.table for one in GATES}
    assert decompose(gate["AND"]).redundancy == pytest.approx(binary_entropy(0.25) - 0.5, abs=1e-8)
    assert decompose(gate["NOISYXOR"]).synergy == pytest.approx(1 - binary_entropy(0.1), abs=1e-8)
    assert decompose(gate["COPYCORR"]).redundancy == pytest.approx(binary_entropy(1 / 3) * 2 - np.log2(3), abs=1e-8)


def test_or_is_and_with_its_labels_exchanged() -> None:
    table = np.zeros((2, 2, 2))
    for a, b in itertools.product((0, 1), repeat=2):
        table[a, b, a | b] = 0.25
    np.testing.assert_allclose(decompose(table).values, [0.311278, 0, 0, 0.5], atol=LISTED)


@pytest.mark.parametrize(("share", "redundancy", "synergy"), [(1e-2, 0.29251, 0.47729), (1e-4, 0.31092, 0.49961)])
def test_and_with_noise_approaches_and(share: float, redundancy: float, synergy: float) -> None:
    gate = {one.name: one.table for one in GATES}
    atoms = decompose(mixed_with_noise(gate["AND"], share))
    assert atoms.redundancy == pytest.approx(redundancy, abs=1e-5)
    assert atoms.synergy == pytest.approx(synergy, abs=1e-5)


def test_every_gate_is_a_distribution() -> None:
    assert [gate.table.sum() for gate in GATES] == pytest.approx([1.0] * len(GATES))
