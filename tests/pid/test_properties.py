"""What every decomposition of a table must obey, over random tables of every awkward kind."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from pid import CATALOGUE, Joint, decompose, decompose_many
from pid.joint import mutual_information
from tests.pid.tables import KINDS, SHAPES, Array, random_table

TOL = 1e-8
NEVER_NEGATIVE = ("broja", "imin", "mmi")


def tables(seed: int, count: int = 1) -> Iterator[Array]:
    """`count` tables of each shape and kind."""
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        for shape in SHAPES:
            for _ in range(count):
                yield random_table(rng, shape, kind)


def small_tables(seed: int) -> Iterator[Array]:
    return (p for p in tables(seed) if p.size <= 64)


def values(p: Array, measure: str = "broja") -> Array:
    return np.array(decompose(p, measure).values)


@pytest.mark.parametrize("measure", CATALOGUE)
def test_atoms_add_up_to_the_informations(measure: str) -> None:
    for p in small_tables(1):
        atoms, joint = decompose(p, measure), Joint.read(p)
        assert atoms.redundancy + atoms.unique_1 == pytest.approx(joint.information_1, abs=1e-9)
        assert atoms.redundancy + atoms.unique_2 == pytest.approx(joint.information_2, abs=1e-9)
        assert sum(atoms.values) == pytest.approx(joint.information_12, abs=1e-9)
        difference = joint.information_1 + joint.information_2 - joint.information_12
        assert atoms.redundancy - atoms.synergy == pytest.approx(difference, abs=1e-9)
        assert atoms.residual <= 1e-12
        assert atoms.measure == measure


@pytest.mark.parametrize("measure", NEVER_NEGATIVE)
def test_no_atom_is_negative(measure: str) -> None:
    assert min(values(p, measure).min() for p in tables(2)) >= -TOL


def test_the_union_information_lies_between_its_bounds() -> None:
    for p in tables(3):
        atoms, joint = decompose(p), Joint.read(p)
        assert atoms.lower - 1e-12 <= atoms.union <= atoms.upper + 1e-12
        assert atoms.width <= 1e-6
        assert max(joint.information_1, joint.information_2) <= atoms.union + TOL
        assert atoms.union <= min(joint.information_12, joint.information_1 + joint.information_2) + TOL


@pytest.mark.parametrize("measure", CATALOGUE)
def test_swapping_the_sources_swaps_the_unique_atoms(measure: str) -> None:
    for p in small_tables(4):
        swapped = values(p.swapaxes(0, 1), measure)
        np.testing.assert_allclose(values(p, measure)[[0, 2, 1, 3]], swapped, atol=1e-6)


@pytest.mark.parametrize("measure", CATALOGUE)
def test_names_of_symbols_and_unused_symbols_change_nothing(measure: str) -> None:
    rng = np.random.default_rng(5)
    for p in small_tables(5):
        renamed = p
        for axis in range(3):
            renamed = np.take(renamed, rng.permutation(p.shape[axis]), axis)
        renamed = np.pad(renamed, ((0, 1), (1, 0), (0, 1)))
        np.testing.assert_allclose(values(renamed, measure), values(p, measure), atol=1e-6)


def test_splitting_a_symbol_into_two_with_the_same_posterior_changes_nothing() -> None:
    for p in small_tables(6):
        split = np.concatenate([p[:-1], 0.3 * p[-1:], 0.7 * p[-1:]])
        np.testing.assert_allclose(values(split), values(p), atol=1e-7)


def test_redundancy_and_unique_atoms_depend_on_the_pair_marginals_only() -> None:
    for p in tables(7):
        labels = p.sum((0, 1))
        product = p.sum(1)[:, None] * p.sum(0)[None]
        other = np.divide(product, labels, out=np.zeros_like(product), where=labels > 0)
        np.testing.assert_allclose(values(other)[:3], values(p)[:3], atol=1e-7)


def test_broja_never_gives_more_redundancy_than_imin_and_mmi() -> None:
    for p in tables(8):
        least = min(decompose(p, "imin").redundancy, decompose(p, "mmi").redundancy)
        assert decompose(p).redundancy <= least + TOL


def test_a_source_that_only_garbles_the_other_adds_nothing() -> None:
    """Markov X1 – X2 – Y; and any channel from Y that is a garbling of the other source's (Blackwell)."""
    rng = np.random.default_rng(9)
    for p in tables(9):
        pair = p.sum(0)
        garbling = rng.dirichlet(np.ones(3), len(pair)).T
        markov = garbling[:, :, None] * pair[None]
        atoms = decompose(markov)
        assert atoms.unique_1 == pytest.approx(0, abs=1e-7)
        assert atoms.synergy == pytest.approx(0, abs=1e-7)
        labels = pair.sum(0)
        product = (garbling @ pair)[:, None] * pair[None]
        conditional = np.divide(product, labels, out=np.zeros_like(product), where=labels > 0)
        assert decompose(conditional).unique_1 == pytest.approx(0, abs=1e-7)


def independent_product(p: Array, q: Array) -> Array:
    """The table of ((X1, X1'), (X2, X2'), (Y, Y')) for independent p and q."""
    return np.asarray(np.einsum("abc,xyz->axbycz", p, q).reshape(np.multiply(p.shape, q.shape)))


def test_atoms_of_independent_tables_add() -> None:
    rng = np.random.default_rng(10)
    for kind in KINDS:
        p, q = random_table(rng, (2, 3, 2), kind), random_table(rng, (3, 2, 2), "spread")
        np.testing.assert_allclose(values(independent_product(p, q)), values(p) + values(q), atol=1e-7)


def test_imin_and_mmi_do_not_add() -> None:
    left = np.zeros((2, 1, 2))
    left[0, 0, 0] = left[1, 0, 1] = 0.5
    right = left.swapaxes(0, 1)
    both = independent_product(left, right)
    for measure in ("imin", "mmi"):
        assert decompose(both, measure).redundancy == pytest.approx(1)
        assert decompose(left, measure).redundancy + decompose(right, measure).redundancy == pytest.approx(0)


def test_a_label_that_copies_both_sources_has_their_mutual_information_as_redundancy() -> None:
    rng = np.random.default_rng(11)
    for kind in ("spread", "sparse", "peaked"):
        pairs = random_table(rng, (4, 3, 1), kind)[:, :, 0]
        table = np.zeros((4, 3, 12))
        table[np.arange(12) // 3, np.arange(12) % 3, np.arange(12)] = pairs.ravel()
        atoms = decompose(table)
        assert atoms.redundancy == pytest.approx(float(mutual_information(pairs)), abs=1e-7)
        assert atoms.synergy == pytest.approx(0, abs=1e-7)


def test_coarsening_a_source_raises_neither_union_information_nor_redundancy() -> None:
    """And the union information falls by no more than the information that the source lost."""
    for p in tables(12):
        if len(p) < 2:
            continue
        coarse = np.concatenate([p[:1] + p[1:2], p[2:]])
        fine, less = decompose(p), decompose(coarse)
        loss = Joint.read(p).information_1 - Joint.read(coarse).information_1
        assert less.redundancy <= fine.redundancy + 1e-7
        assert -1e-7 <= fine.union - less.union <= loss + 1e-7


def test_a_small_change_of_the_table_is_a_small_change_of_the_atoms() -> None:
    rng = np.random.default_rng(13)
    for p in tables(13):
        near = (1 - 1e-9) * p + 1e-9 * random_table(rng, p.shape, "spread")
        np.testing.assert_allclose(values(near), values(p), atol=1e-6)


@pytest.mark.parametrize("measure", CATALOGUE)
def test_float32_tables_give_the_same_answer_after_renormalisation(measure: str) -> None:
    rng = np.random.default_rng(14)
    for _ in range(5):
        p = random_table(rng, (3, 3, 3))
        np.testing.assert_allclose(values(p.astype(np.float32), measure), values(p, measure), atol=1e-5)


@pytest.mark.parametrize("measure", CATALOGUE)
def test_without_labels_or_symbols_to_tell_apart_nothing_is_told(measure: str) -> None:
    rng = np.random.default_rng(15)
    np.testing.assert_allclose(values(random_table(rng, (3, 4, 1)), measure), 0, atol=1e-12)
    one = values(random_table(rng, (1, 4, 3)), measure)
    np.testing.assert_allclose(one[[0, 1, 3]], 0, atol=1e-7)


def test_many_tables_of_several_shapes_keep_their_order() -> None:
    some = list(small_tables(16))
    for p, atoms in zip(some, decompose_many(some), strict=True):
        np.testing.assert_allclose(atoms.values, values(p), atol=1e-8)
    assert decompose_many(some[:3], "mmi") == tuple(decompose(p, "mmi") for p in some[:3])
    assert decompose_many([]) == ()
