"""The posterior-cloud estimator: what it recovers, what it reports, and what it makes of awkward input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pid import GATES, Gate, Posteriors, clouds, decompose, estimate
from tests.pid.samples import answers, expected_answers, loose_answers
from tests.pid.tables import mixed_with_noise, random_table


@pytest.mark.parametrize("gate", GATES, ids=lambda gate: gate.name)
def test_posteriors_of_a_whole_distribution_give_its_atoms(gate: Gate) -> None:
    p1, p2, p12, weights = expected_answers(gate.table)
    found = clouds(p1, p2, p12, weights=weights)
    np.testing.assert_allclose(found.atoms.values, gate.values, atol=1.1e-6)
    assert not found.coherence_1.is_flagged
    assert found.coherence_1.bias == 0
    assert found.quantisation_loss <= 1e-12


def test_random_distributions_are_recovered_whatever_their_zeros() -> None:
    rng = np.random.default_rng(1)
    for kind in ("spread", "zeros", "floored", "nearly deterministic"):
        p = random_table(rng, (4, 5, 3), kind)
        p1, p2, p12, weights = expected_answers(p)
        found = clouds(p1, p2, p12, weights=weights)
        np.testing.assert_allclose(found.atoms.values, decompose(p).values, atol=1e-7)


@pytest.mark.parametrize("name", ["RDN", "UNQ1", "XOR", "AND", "SUM"])
def test_two_thousand_samples_of_a_noisy_gate_recover_its_atoms(name: str) -> None:
    gate = next(one for one in GATES if one.name == name)
    p = mixed_with_noise(gate.table, 0.02)
    found = clouds(*answers(p, 2048))
    np.testing.assert_allclose(found.atoms.values, decompose(p).values, atol=0.02)


def test_the_enclosure_after_quantisation_holds_the_value_of_all_points() -> None:
    for points in (4, 12, 32):
        p1, p2, p12 = loose_answers(80, 3, seed=points)
        whole = clouds(p1, p2, p12, max_points=80)
        coarse = clouds(p1, p2, p12, max_points=points)
        assert whole.quantisation_loss <= 1e-12
        assert coarse.points <= (points, points)
        assert coarse.atoms.lower - 1e-9 <= whole.atoms.lower
        assert whole.atoms.upper <= coarse.atoms.upper + 1e-9
        assert coarse.atoms.lower <= coarse.atoms.union <= coarse.atoms.upper
        assert coarse.atoms.upper - coarse.atoms.lower <= coarse.quantisation_loss + 1e-6
        assert coarse.information_1 == pytest.approx(whole.information_1)


def test_atoms_add_up_and_the_passes_may_disagree() -> None:
    p1, p2, p12 = loose_answers(300)
    found = clouds(p1, p2, p12)
    atoms = found.atoms
    assert sum(atoms.values) == pytest.approx(atoms.total, abs=1e-12)
    assert atoms.redundancy + atoms.unique_1 == pytest.approx(found.information_1, abs=1e-12)
    assert found.coherence_2.moved > found.coherence_1.moved > 0
    mean = p12.mean(0)
    assert atoms.total == pytest.approx((p12 * np.log2(p12 / mean)).sum(1).mean())


def test_synergy_below_zero_is_reported_and_not_clipped() -> None:
    """The passes of single sources say more than the full one: no joint has such marginals."""
    p1, p2, p12 = loose_answers(200)
    found = clouds(p1, p2, 0.2 * p12 + 0.2)
    assert found.atoms.synergy < 0
    assert found.incoherence_bits == pytest.approx(-found.atoms.synergy)
    assert clouds(p1, p2, p12).incoherence_bits == 0


def test_a_gated_vision_pass_tells_nothing_instead_of_something_spurious() -> None:
    _, p2, p12 = loose_answers(200)
    confidences = np.ones((3, 200))
    confidences[0] = 0.01
    found = clouds(p2, p2, p12, confidences=confidences)
    assert found.information_1 == pytest.approx(0, abs=1e-9)
    assert found.gated_fraction.p1 == pytest.approx(1)
    assert found.gated_fraction.p12 == 0
    assert any("100% of the rows of p1 were gated" in note for note in found.notes)


@pytest.mark.parametrize("case", ["one sample", "one class", "all gated", "identical rows"])
def test_where_nothing_can_be_told_all_atoms_are_zero(case: str) -> None:
    p1, p2, p12 = loose_answers(40)
    confidences = np.ones((3, 40))
    if case == "one sample":
        p1, p2, p12, confidences = p1[:1], p2[:1], p12[:1], confidences[:, :1]
    elif case == "one class":
        p12 = np.eye(4)[np.zeros(40, dtype=int)]
    elif case == "all gated":
        confidences[:] = 0.0
    else:
        p1, p2, p12 = (np.repeat(one[:1], 40, axis=0) for one in (p1, p2, p12))
    found = clouds(p1, p2, p12, confidences=confidences)
    np.testing.assert_allclose(found.atoms.values, 0, atol=1e-9)
    assert found.atoms.width <= 1e-6


def test_samples_with_fewer_options_are_analysed_apart_and_pooled_by_weight() -> None:
    four, two = loose_answers(60, 4, 1), loose_answers(40, 2, 2)
    padded = [np.vstack([a, np.hstack([b, np.full((40, 2), np.nan)])]) for a, b in zip(four, two, strict=True)]
    found = clouds(*padded)
    first, second = clouds(*four), clouds(*two)
    np.testing.assert_allclose(
        found.atoms.values, 0.6 * np.array(first.atoms.values) + 0.4 * np.array(second.atoms.values), atol=1e-9
    )
    assert [(part.options, part.n) for part in found.parts] == [(2, 40), (4, 60)]
    assert [part.weight for part in found.parts] == pytest.approx([0.4, 0.6])
    np.testing.assert_allclose(found.parts[0].atoms.values, second.atoms.values, atol=1e-9)
    assert found.atoms.lower <= found.atoms.union <= found.atoms.upper


def test_zeros_that_look_like_padding_are_pointed_out() -> None:
    rows = [
        np.vstack([a, np.hstack([b, np.zeros((40, 2))])])
        for a, b in zip(loose_answers(40), loose_answers(40, 2), strict=True)
    ]
    assert any("pad with NaN, or pass options" in note for note in clouds(*rows).notes)
    assert not any("pad" in note for note in clouds(*rows, options=[4] * 40 + [2] * 40).notes)


def test_a_weight_is_so_many_equal_samples() -> None:
    p1, p2, p12 = loose_answers(30)
    times = np.random.default_rng(3).integers(0, 4, 30)
    repeated = clouds(*(np.repeat(one, times, axis=0) for one in (p1, p2, p12)))
    weighted = clouds(p1, p2, p12, weights=times)
    np.testing.assert_allclose(weighted.atoms.values, repeated.atoms.values, atol=1e-7)


def test_shuffled_partners_are_coherent_and_need_no_calibration() -> None:
    """Every picture is asked with 8 questions; p1 and p2 are averages of p12 over the same pairs."""
    rng = np.random.default_rng(4)
    pictures, questions = rng.normal(0, 2, (50, 3)), rng.normal(0, 2, (50, 3))
    first = np.repeat(np.arange(50), 8)
    second = (first + np.tile(np.arange(8), 50)) % 50
    logits = pictures[first] * questions[second] + questions[second]
    rows = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = estimate(Posteriors.of_pairs(rows, first, second), replicates=100)
    assert found.coherence_1.bias == found.coherence_2.bias == 0
    assert found.atoms.synergy > 0
    assert found.incoherence_bits == 0
    assert found.n == 400
    assert found.groups == 50
    assert all(one.low <= one.value <= one.high for one in found.intervals if one.one_sided)


def test_the_result_is_plain_numbers_that_a_store_can_write() -> None:
    found = dataclasses.asdict(clouds(*loose_answers(50), replicates=50))

    def leaves(value: object) -> list[object]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else None
        return [value] if inner is None else [leaf for one in inner for leaf in leaves(one)]

    assert {type(leaf) for leaf in leaves(found)} <= {float, int, str, bool}
    assert found["estimator"] == "clouds"
    assert [one["quantity"] for one in found["intervals"]] == ["redundancy", "unique_1", "unique_2", "synergy", "total"]


def test_the_same_samples_give_the_same_numbers() -> None:
    rows = loose_answers(300)
    assert clouds(*rows, replicates=50, seed=1) == clouds(*rows, replicates=50, seed=1)
