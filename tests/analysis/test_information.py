"""From beliefs to bits: known sources of information are found again, and nothing is clipped or hidden on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.beliefs import Beliefs, Sample
from analysis.errors import InvalidInformation
from analysis.information import Settings, arrays_of, beliefs_from, inform, posteriors_of
from analysis.spectrum import ATOMS, Spectrum
from compression.backends.base import Prompt
from compression.backends.llava import LlavaBackend
from compression.strategies import CATALOGUE
from pid import estimate
from tests.compression.backends.conftest import save_tiny_llava

OPTIONS = 4
CHOICES = ("north", "south", "east", "west")
TEXTS = ("where is the red ship", "where is a ship", "what is the ship", "is the ship red")


def certain(labels: NDArray[np.int64], noise: float = 0.02) -> NDArray[np.float64]:
    """Posteriors of someone who knows the label, but for a little noise."""
    return (1 - noise) * np.eye(OPTIONS)[labels] + noise / OPTIONS


def beliefs_of(vision: NDArray[np.float64], language: NDArray[np.float64], full: NDArray[np.float64]) -> Beliefs:
    """Beliefs of one pass per sample with these posteriors."""
    everyone = np.arange(len(full))
    logs = [np.log(part)[None].astype(np.float32) for part in (full, vision, language)]
    return Beliefs(
        "quarter", CHOICES, "mean", "frozen", logs[0], logs[1], logs[2], everyone, everyone, logs[0], logs[2],
        everyone, full.argmax(-1), 1.0, 0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("vision", "language", "where"),
    [
        (False, True, "unique_language"),
        (True, False, "unique_vision"),
        (True, True, "redundancy"),
        (False, False, "synergy"),
    ],
    ids=["question alone", "picture alone", "either", "both"],
)
def test_known_sources_of_information_are_found_within_two_hundredths_of_a_bit(vision, language, where):
    labels = np.random.default_rng(5).permutation(np.arange(1024) % OPTIONS)
    known, unknown = certain(labels), np.full((1024, OPTIONS), 1 / OPTIONS)
    row = certain(np.array([0]))[0]
    told = np.log2(OPTIONS) + float((row * np.log2(row)).sum())
    rows, _ = posteriors_of(beliefs_of(known if vision else unknown, known if language else unknown, known), -1, 0.3)
    atoms = estimate(rows, gate=0.0).atoms
    found = dict(zip(ATOMS, (atoms.redundancy, atoms.unique_1, atoms.unique_2, atoms.synergy), strict=True))
    for name, value in found.items():
        assert value == pytest.approx(told if name == where else 0.0, abs=0.02), name


def test_a_question_that_is_nothing_without_its_picture_is_synergy_in_the_product():
    pictures, questions = np.meshgrid(np.arange(16), np.arange(16), indexing="ij")
    labels = ((pictures + questions) % OPTIONS).ravel()
    full = np.log(certain(labels))[None].astype(np.float32)
    own = full[:, ::17]
    said = Beliefs(
        "quarter", CHOICES, "shuffled", "frozen", full, None, None, pictures.ravel(), questions.ravel(), own, own,
        np.arange(16), own[0].argmax(-1), 1.0, 0,
    )  # fmt: skip
    rows, _ = posteriors_of(said, -1, 0.3)
    atoms = estimate(rows, gate=0.0).atoms
    assert atoms.synergy == pytest.approx(atoms.total, abs=1e-6)
    assert atoms.total > 1.8


def test_what_only_the_question_tells_leaves_nothing_for_the_picture_in_the_product():
    pictures, questions = np.meshgrid(np.arange(22), np.arange(22), indexing="ij")
    full = np.log(certain(questions.ravel() % OPTIONS))[None].astype(np.float32)
    own = full[:, ::23]
    said = Beliefs(
        "knowledge", CHOICES, "shuffled", "frozen", full, None, None, pictures.ravel(), questions.ravel(), own, own,
        np.arange(22), own[0].argmax(-1), 1.0, 0,
    )  # fmt: skip
    atoms = estimate(posteriors_of(said, -1, 0.3)[0], gate=0.0).atoms
    assert atoms.redundancy == pytest.approx(0, abs=1e-6)
    assert atoms.unique_2 == pytest.approx(atoms.total, abs=1e-6)


def test_beliefs_below_the_gate_are_uniform_and_counted():
    labels = np.arange(64) % OPTIONS
    said = beliefs_of(certain(labels), certain(labels), certain(labels))
    faint = replace(said, vision=said.vision + np.log(np.where(np.arange(64) < 16, 0.2, 1.0))[None, :, None])
    rows, shares = posteriors_of(faint, -1, 0.3)
    assert shares == {"full": 0.0, "vision": 0.25, "language": 0.0}
    np.testing.assert_allclose(rows.rows[0, :16], 1 / OPTIONS)
    np.testing.assert_allclose(rows.rows[0, 16:], certain(labels)[16:], rtol=1e-5)
    assert posteriors_of(faint, -1, 0.0)[1]["vision"] == 0.0


def test_beliefs_too_faint_for_a_probability_are_still_renormalised():
    labels = np.arange(8) % OPTIONS
    said = beliefs_of(certain(labels), certain(labels), certain(labels))
    rows, _ = posteriors_of(replace(said, full=said.full - 900), -1, 0.0)
    np.testing.assert_allclose(rows.rows[2], certain(labels), rtol=1e-4)


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> LlavaBackend:
    return LlavaBackend(save_tiny_llava(tmp_path_factory.mktemp("tiny")), name="tiny", device="cpu")


@pytest.fixture(scope="module")
def samples(vlm: LlavaBackend) -> list[Sample]:
    draw = np.random.default_rng(3)
    tokens = [vlm.encode(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8), (32, 32)) for _ in range(9)]
    return [
        Sample(
            f"picture {at % 9}",
            lambda at=at: tokens[at % 9],
            Prompt(TEXTS[at % 4], CHOICES, f"USER: <image> {TEXTS[at % 4]} ASSISTANT:", "scene-geometric", "quarter"),
            CHOICES[at % 4],
        )
        for at in range(18)
    ]


@pytest.mark.parametrize("intervention", ["shuffled", "mean"])
def test_a_strategy_that_keeps_everything_differs_in_nothing(vlm, samples, intervention):
    settings = Settings(intervention=intervention, replicates=100)
    reference = inform(vlm, samples, CATALOGUE.plan("identity@1.0"), settings)
    (same,) = inform(vlm, samples, CATALOGUE.plan("uniform_grid@1.0"), settings, reference=reference)
    (answer,) = same.spectra
    assert answer.reference == reference[0].spectra[0].id
    for name in ATOMS:
        change = answer.differences[name]
        assert max(abs(change.value), abs(change.low), abs(change.high)) < 1e-3, name


def test_atoms_add_up_and_lie_in_their_intervals_and_the_certificate_holds(vlm, samples):
    (found,) = inform(vlm, samples, CATALOGUE.plan("fastv:layer=2@12"), Settings(replicates=100, layers=True))
    answer, *layers = found.spectra
    assert [one.layer for one in layers] == [0, 1, 2, 3]
    assert answer.layer is None
    assert layers[-1].atoms["synergy"].value == pytest.approx(answer.atoms["synergy"].value, abs=1e-5)
    assert answer.retention == pytest.approx(12 / 16)
    for one in found.spectra:
        assert sum(one.atoms[name].value for name in ATOMS) == pytest.approx(one.total.value, abs=1e-9)
        assert 0 <= one.upper - one.lower <= 1e-6 + sum(one.coherence.values())
        for name in ATOMS:
            assert one.atoms[name].low <= one.atoms[name].value <= one.atoms[name].high
    assert answer.n == int(np.sqrt(18 * 8)) ** 2
    assert answer.samples == 18


def test_a_spectrum_and_its_beliefs_survive_storage(vlm, samples):
    (found,) = inform(vlm, samples, CATALOGUE.plan("uniform_grid@5"), Settings("mean", replicates=100))
    answer = found.spectra[0]
    assert Spectrum.from_json(answer.to_json()) == answer
    again = beliefs_from(answer, arrays_of(found.beliefs))
    for name, array in arrays_of(found.beliefs).items():
        np.testing.assert_array_equal(getattr(again, name), array)


def test_the_request_tells_samples_strategy_and_settings_apart(vlm, samples):
    settings = Settings(replicates=100)
    requests = [
        inform(vlm, asked, CATALOGUE.plan(plan), chosen)[0].spectra[0].request
        for asked, plan, chosen in (
            (samples[:4], "uniform_grid@5", settings),
            (samples[:4], "uniform_grid@5", settings),
            (samples[1:5], "uniform_grid@5", settings),
            (samples[:4], "uniform_grid@6", settings),
            (samples[:4], "uniform_grid@5", replace(settings, gate=0.2)),
        )
    ]
    assert requests[0] == requests[1]
    assert len(set(requests)) == 4


def test_one_question_is_too_few(vlm, samples):
    with pytest.raises(InvalidInformation, match="has one sample"):
        inform(vlm, samples[:1], CATALOGUE.plan("identity@1.0"), Settings())
