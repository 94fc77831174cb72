"""Questions about a frozen picture: the same beliefs as asking alone, and interventions that do what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers import normalizers

from compression.backends.base import Given, Intervention, Prompt
from compression.backends.llava import LlavaBackend
from compression.errors import Cancelled, InvalidQuestion
from compression.strategies import CATALOGUE
from compression.tokens import VisualTokens

STRATEGIES = (
    "identity@1.0",
    "uniform_grid@5",
    "visionzip@6",
    "dualcomp@0.5",
    "fastv:layer=2@12",
    "fastv:layer=1@8",
    "pyramiddrop:stages=1/2/3@8",
    "sparsevlm:stages=1/2/3@9",
)
TEXTS = ("where is the red ship", "what is north", "where is a ship")


def prompt(text: str, choices: tuple[str, ...] = ("north", "south", "east"), listed: str = "") -> Prompt:
    """A question in the tiny model's words, with its options listed behind it where there are any."""
    before = f"USER: <image> {text}"
    options = (len(before) + 1, len(before) + 1 + len(listed)) if listed else None
    words = f"{before} {listed} ASSISTANT:" if listed else f"{before} ASSISTANT:"
    return Prompt(text, choices, words, span=(len("USER: <image> "), len(before)), options=options)


def given(vlm: LlavaBackend, tokens: VisualTokens, strategy: str = "identity@1.0") -> Given:
    return vlm.give(tokens, prompt(TEXTS[0]), CATALOGUE.plan(strategy))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_asking_about_a_frozen_picture_believes_what_generate_reports(tiny_vlm, photo_tokens, strategy):
    alone = tiny_vlm.generate(photo_tokens, prompt(TEXTS[0]), CATALOGUE.plan(strategy))
    together = tiny_vlm.ask(given(tiny_vlm, photo_tokens, strategy), [prompt(text) for text in TEXTS])
    np.testing.assert_allclose(together[0][0], alone.log_probabilities, atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_questions_asked_together_do_not_see_each_other(tiny_vlm, photo_tokens, strategy):
    frozen = given(tiny_vlm, photo_tokens, strategy)
    together = tiny_vlm.ask(frozen, [prompt(text) for text in TEXTS])
    for text, said in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(said, tiny_vlm.ask(frozen, [prompt(text)])[0], atol=1e-5)


@pytest.mark.parametrize("strategy", ["dualcomp@0.5", "fastv:layer=2@12"])
def test_another_question_finds_the_picture_as_the_first_one_left_it(tiny_vlm, photo_tokens, strategy):
    frozen = given(tiny_vlm, photo_tokens, strategy)
    with_other = tiny_vlm.give(photo_tokens, prompt(TEXTS[1]), CATALOGUE.plan(strategy))
    replayed = tiny_vlm.ask(frozen, [prompt(TEXTS[1])])[0]
    anew = tiny_vlm.ask(with_other, [prompt(TEXTS[1])])[0]
    same = (
        all(np.array_equal(frozen.acts[layer].anchor, with_other.acts[layer].anchor) for layer in frozen.acts)
        and frozen.entering == with_other.entering
    )
    assert same == np.allclose(replayed, anew, atol=1e-6)


def test_a_choice_of_several_words_is_believed_whole(tiny_vlm, photo_tokens):
    asked = prompt(TEXTS[0], ("north", "the red ship", "south east"))
    said = tiny_vlm.ask(given(tiny_vlm, photo_tokens), [asked, prompt(TEXTS[1])])
    alone = tiny_vlm.generate(photo_tokens, asked, CATALOGUE.plan("identity@1.0"))
    np.testing.assert_allclose(said[0][0], alone.log_probabilities, atol=1e-5)


@pytest.mark.parametrize("strategy", ["identity@1.0", "fastv:layer=2@12"])
def test_the_last_depth_of_the_logit_lens_is_the_answer(tiny_vlm, photo_tokens, strategy):
    frozen = given(tiny_vlm, photo_tokens, strategy)
    asked = [prompt(text) for text in TEXTS]
    deep, plain = tiny_vlm.ask(frozen, asked, layers=True), tiny_vlm.ask(frozen, asked)
    for by_layer, last in zip(deep, plain, strict=True):
        assert by_layer.shape == (4, 3)
        np.testing.assert_allclose(by_layer[-1:], last, atol=1e-6)
        assert np.abs(by_layer[0] - by_layer[-1]).max() > 1e-3


def test_the_logit_lens_is_norm_and_head_on_the_librarys_hidden_states(tiny_vlm, photo_tokens):
    frozen = given(tiny_vlm, photo_tokens)
    ids, layout = tiny_vlm.lay_out(prompt(TEXTS[0]), [np.arange(16)], photo_tokens.grid)
    with torch.no_grad():
        output = tiny_vlm.forward(ids, frozen.features, [np.arange(16)], output_hidden_states=True)
        hidden = output.hidden_states[2][0, layout.answer]
        norm = tiny_vlm.model.model.language_model.norm
        ids = [tiny_vlm.tokenizer.convert_tokens_to_ids(word) for word in ("north", "south", "east")]
        for is_normed, state in ((True, norm(hidden)), (False, hidden)):
            wanted = tiny_vlm.model.lm_head(state).log_softmax(-1)[ids].numpy()
            said = tiny_vlm.ask(frozen, [prompt(TEXTS[0])], layers=True, lens_norm=is_normed)[0]
            np.testing.assert_allclose(said[1], wanted, atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_replaced_visual_tokens_are_all_that_the_language_model_sees_of_the_picture(tiny_vlm, photo_tokens, strategy):
    frozen = given(tiny_vlm, photo_tokens, strategy)
    elsewhere = replace(frozen, features=torch.randn_like(frozen.features))
    blank = Intervention(visual=torch.full((1, frozen.features.shape[1]), 0.1))
    asked = [prompt(text) for text in TEXTS]
    for here, there in zip(
        tiny_vlm.ask(frozen, asked, intervention=blank), tiny_vlm.ask(elsewhere, asked, intervention=blank), strict=True
    ):
        np.testing.assert_allclose(here, there, atol=1e-6)


@pytest.mark.parametrize(
    "intervention",
    [Intervention(words=torch.full((1, 24), 0.1)), Intervention(hides_words=True)],
    ids=["replaced", "hidden"],
)
@pytest.mark.parametrize("strategy", ["identity@1.0", "fastv:layer=2@12"])
def test_without_its_words_one_question_is_as_good_as_another(tiny_vlm, photo_tokens, strategy, intervention):
    asked = [prompt("where is the red ship"), prompt("what is a north ship")]
    first, second = tiny_vlm.ask(given(tiny_vlm, photo_tokens, strategy), asked, intervention=intervention)
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("words", [{"words": torch.full((1, 24), 0.1)}, {"hides_words": True}], ids=["replaced", "hid"])
def test_options_stay_only_when_they_are_kept(tiny_vlm, photo_tokens, words):
    frozen = given(tiny_vlm, photo_tokens)
    asked = [prompt("where is the", ("a", "b"), "a red b north"), prompt("where is the", ("a", "b"), "a ship b east")]
    erased = tiny_vlm.ask(frozen, asked, intervention=Intervention(**words))
    kept = tiny_vlm.ask(frozen, asked, intervention=Intervention(**words, keeps_options=True))
    np.testing.assert_allclose(erased[0], erased[1], atol=1e-6)
    assert np.abs(kept[0] - kept[1]).max() > 1e-4


def test_hidden_visual_tokens_are_attended_by_nobody(tiny_vlm, photo, photo_tokens):
    other = tiny_vlm.encode(photo[::-1].copy(), (320, 320))
    hidden = Intervention(hides_visual=True)
    here = tiny_vlm.ask(given(tiny_vlm, photo_tokens), [prompt(TEXTS[0])], intervention=hidden)[0]
    there = tiny_vlm.ask(given(tiny_vlm, other), [prompt(TEXTS[0])], intervention=hidden)[0]
    np.testing.assert_allclose(here, there, atol=1e-6)


def test_rows_of_a_replacement_are_used_in_order_and_over_again(tiny_vlm, photo_tokens):
    frozen = given(tiny_vlm, photo_tokens)
    rows = torch.randn(5, frozen.features.shape[1], generator=torch.Generator().manual_seed(3))
    whole = rows.repeat(4, 1)[: len(frozen.features)]
    one = tiny_vlm.ask(frozen, [prompt(TEXTS[0])], intervention=Intervention(visual=rows))[0]
    other = tiny_vlm.ask(frozen, [prompt(TEXTS[0])], intervention=Intervention(visual=whole))[0]
    np.testing.assert_array_equal(one, other)


def test_nothing_stays_hooked_after_an_intervention_or_a_failure(tiny_vlm, photo_tokens):
    parts = list(tiny_vlm.model.modules())

    def hooks() -> int:
        return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts)

    before = hooks()
    frozen = given(tiny_vlm, photo_tokens)
    tiny_vlm.ask(frozen, [prompt(TEXTS[0])], intervention=Intervention(words=torch.zeros(1, 24)), layers=True)
    assert hooks() == before
    wrong = replace(frozen, features=frozen.features[:, :3])
    with pytest.raises((RuntimeError, ValueError)):
        tiny_vlm.ask(wrong, [prompt(TEXTS[0])], intervention=Intervention(words=torch.zeros(1, 24)), layers=True)
    assert hooks() == before


def test_a_question_without_choices_and_a_cancelled_one_are_refused(tiny_vlm, photo_tokens):
    frozen = given(tiny_vlm, photo_tokens)
    with pytest.raises(InvalidQuestion, match="has 1 choices; name at least two"):
        tiny_vlm.ask(frozen, [prompt(TEXTS[0], ("north",))])
    with pytest.raises(Cancelled):
        tiny_vlm.ask(frozen, [prompt(TEXTS[0])], cancel=lambda: True)


def test_a_letter_of_several_tokens_is_refused(tiny_folder, photo):
    vlm = LlavaBackend(tiny_folder, name="tiny", device="cpu")
    vlm.tokenizer.backend_tokenizer.normalizer = normalizers.Replace("A", "a b")
    asked = Prompt(TEXTS[0], ("A", "B"), f"USER: <image> {TEXTS[0]} :")
    frozen = vlm.give(vlm.encode(photo, (320, 320)), asked, CATALOGUE.plan("identity@1.0"))
    with pytest.raises(InvalidQuestion, match="the letter 'A' is 2 tokens for this model; offer the answers as words"):
        vlm.ask(frozen, [asked])
