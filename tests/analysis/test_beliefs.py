"""Beliefs with one source left out: pairs that are fair, interventions that are exact, selections that stay frozen."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from analysis.beliefs import INTERVENTIONS, Sample, believe, by_template, count_passes, product_of
from analysis.errors import InvalidInformation
from compression.backends.base import Intervention, Prompt
from compression.backends.llava import LlavaBackend
from compression.errors import Cancelled
from compression.strategies import CATALOGUE
from tests.compression.backends.conftest import save_tiny_llava

TEXTS = ("where is the red ship", "where is a ship", "what is the ship", "is the ship red")
CHOICES = ("north", "south", "east")


@pytest.fixture(scope="module")
def vlm(tmp_path_factory: pytest.TempPathFactory) -> LlavaBackend:
    return LlavaBackend(save_tiny_llava(tmp_path_factory.mktemp("tiny")), name="tiny", device="cpu")


def asked(text: str, choices: tuple[str, ...] = CHOICES, task: str = "place") -> Prompt:
    return Prompt(text, choices, f"USER: <image> {text} ASSISTANT:", task=task)


@pytest.fixture
def samples(vlm: LlavaBackend) -> list[Sample]:
    """Eleven questions about six pictures."""
    draw = np.random.default_rng(3)
    pictures = [draw.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(6)]
    tokens = [vlm.encode(picture, (32, 32)) for picture in pictures]
    return [
        Sample(f"picture {at % 6}", lambda at=at: tokens[at % 6], asked(TEXTS[at % 4]), CHOICES[at % 3])
        for at in range(11)
    ]


@pytest.mark.parametrize(("samples", "partners", "chosen"), [(2, 8, 2), (8, 8, 8), (9, 8, 8), (512, 8, 64), (5, 1, 2)])
def test_the_product_takes_as_many_passes_as_partners_for_all_would(samples, partners, chosen):
    found = product_of(samples, partners, np.random.default_rng(0))
    assert len(set(found.tolist())) == len(found) == chosen
    assert found.tolist() == sorted(found.tolist())
    assert set(found.tolist()) <= set(range(samples))


def test_every_chosen_picture_meets_every_chosen_question(vlm, samples):
    (found,) = believe(vlm, samples, CATALOGUE.plan("uniform_grid@5"), partners=3)
    assert Counter(found.picture.tolist()) == Counter(found.question.tolist())
    assert len({*zip(found.picture.tolist(), found.question.tolist(), strict=True)}) == 25 == len(found.full[0])


@pytest.mark.parametrize("strategy", ["identity@1.0", "visionzip@6", "dualcomp@0.5", "fastv:layer=2@12"])
def test_shuffled_beliefs_are_those_of_asking_the_question_about_the_frozen_picture(vlm, samples, strategy):
    plan = CATALOGUE.plan(strategy)
    (found,) = believe(vlm, samples, plan, partners=3)
    assert found.full.shape == (1, 25, 3)
    for row in (0, 7, 20):
        one, other = samples[found.picture[row]], samples[found.question[row]]
        given = vlm.give(one.look(), one.prompt, plan)
        np.testing.assert_allclose(found.full[0, row], vlm.ask(given, [other.prompt])[0][0], atol=1e-5)


def test_a_strategy_that_runs_again_decides_with_the_partners_question(vlm, samples):
    plan = CATALOGUE.plan("fastv:layer=2@12")
    (found,) = believe(vlm, samples, plan, partners=3, selection="rerun")
    for row in (1, 12, 24):
        one, other = samples[found.picture[row]], samples[found.question[row]]
        alone = vlm.generate(one.look(), other.prompt, plan)
        np.testing.assert_allclose(found.full[0, row], alone.log_probabilities, atol=1e-5)


def test_own_beliefs_are_what_the_model_answers(vlm, samples):
    plan = CATALOGUE.plan("fastv:layer=2@12")
    for intervention in INTERVENTIONS:
        (found,) = believe(vlm, samples, plan, intervention, partners=3)
        for at in (0, 5, 10):
            alone = vlm.generate(samples[at].look(), samples[at].prompt, plan)
            np.testing.assert_allclose(found.own[0, at], alone.log_probabilities, atol=1e-5)


def test_the_blind_beliefs_of_shuffled_samples_are_means_over_pictures(vlm, samples):
    (found,) = believe(vlm, samples, CATALOGUE.plan("identity@1.0"), partners=3)
    for question in (found.question[0], found.question[-1]):
        rows = found.question == question
        assert rows.sum() == 5
        np.testing.assert_allclose(
            np.exp(found.blind[0, question]), np.exp(found.full[0, rows]).mean(0), rtol=1e-4, atol=1e-12
        )


def test_the_mean_replaces_a_source_by_its_mean_over_all_samples(vlm, samples):
    plan = CATALOGUE.plan("uniform_grid@5")
    (found,) = believe(vlm, samples, plan, "mean")
    givens = [vlm.give(sample.look(), sample.prompt, plan) for sample in samples]
    visual = torch.cat([given.features for given in givens]).mean(0, keepdim=True)
    words = torch.cat([vlm.embed_question(sample.prompt) for sample in samples]).mean(0, keepdim=True)
    for at in (0, 4):
        prompt = [samples[at].prompt]
        language = vlm.ask(givens[at], prompt, intervention=Intervention(visual=visual))[0]
        vision = vlm.ask(givens[at], prompt, intervention=Intervention(words=words))[0]
        np.testing.assert_allclose(found.language[:, at], language, atol=1e-5)
        np.testing.assert_allclose(found.vision[:, at], vision, atol=1e-5)


@pytest.mark.parametrize("intervention", ["mean", "dropped", "options_kept"])
def test_without_the_question_equal_pictures_are_believed_equally(vlm, samples, intervention):
    (found,) = believe(vlm, samples, CATALOGUE.plan("identity@1.0"), intervention)
    one, other = 1, 7  # the same picture, and questions of four words each
    assert samples[one].picture == samples[other].picture
    assert np.abs(found.own[0, one] - found.own[0, other]).max() > 1e-4
    np.testing.assert_allclose(found.vision[0, one], found.vision[0, other], atol=1e-5)


def test_noise_is_averaged_over_draws_and_repeats_with_its_seed(vlm, samples):
    plan = CATALOGUE.plan("uniform_grid@5")
    (first,), (again,), (other,) = (believe(vlm, samples, plan, "noise", draws=2, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.vision, again.vision)
    assert not np.array_equal(first.vision, other.vision)
    np.testing.assert_array_equal(first.full, other.full)
    assert first.passes == 11 * 5


def test_every_layer_is_believed_when_asked_for(vlm, samples):
    plan = CATALOGUE.plan("fastv:layer=2@12")
    for intervention in ("shuffled", "mean"):
        (deep,), (plain,) = (
            believe(vlm, samples, plan, intervention, partners=3, layers=layers) for layers in (True, False)
        )
        assert deep.full.shape[0] == 4
        np.testing.assert_allclose(deep.at_depth(-1).full, plain.full, atol=1e-5)
        np.testing.assert_allclose(deep.at_depth(-1).blind, plain.blind, atol=1e-5, equal_nan=True)


def test_templates_are_kept_apart(vlm, samples):
    other = [
        Sample(one.picture, one.look, asked(TEXTS[at % 4], ("south", "north"), "other")) for at, one in
        enumerate(samples[:4])
    ]  # fmt: skip
    found = believe(vlm, [*samples, *other], CATALOGUE.plan("uniform_grid@5"))
    assert [(one.task, one.choices, one.samples) for one in found] == [
        ("place", CHOICES, 11),
        ("other", ("south", "north"), 4),
    ]
    assert list(by_template([*samples, *other])) == [("place", CHOICES), ("other", ("south", "north"))]
    assert (found[1].right == -1).all()
    assert found[0].right.tolist() == [at % 3 for at in range(11)]
    assert found[0].cluster.tolist() == [at % 6 for at in range(11)]


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_the_questions_asked_are_those_that_were_announced(vlm, samples, intervention):
    told = []
    found = believe(
        vlm, samples, CATALOGUE.plan("uniform_grid@5"), intervention, progress=lambda _said, share: told.append(share)
    )
    assert sum(one.passes for one in found) == count_passes(samples, intervention)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


def test_mistakes_are_named(vlm, samples):
    plan = CATALOGUE.plan("uniform_grid@5")
    for arguments, said in (
        ({"intervention": "blur"}, "no intervention is named 'blur'; choose among shuffled"),
        ({"selection": "melted"}, "no selection is named 'melted'"),
        ({"intervention": "mean", "selection": "rerun"}, "'rerun' is defined with intervention 'shuffled' only"),
    ):
        with pytest.raises(InvalidInformation, match=said):
            believe(vlm, samples, plan, **arguments)
    with pytest.raises(InvalidInformation, match="there are no samples"):
        believe(vlm, [], plan)
    with pytest.raises(InvalidInformation, match="the task 'place' has one sample"):
        believe(vlm, samples[:1], plan)
    with pytest.raises(Cancelled):
        believe(vlm, samples, plan, cancel=lambda: True)
