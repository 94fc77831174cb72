"""Plans of several steps against a full-length model in which nothing is cut, only masked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from analysis.recorder import Recorder
from compression.backends.planning import acts_of, lowest_of
from compression.decoder import DecoderStrategy, tokens_per_layer
from compression.errors import InvalidBudget, InvalidParameter, InvalidStrategyText, MissingSignal
from compression.selection import Fate
from compression.strategies import CATALOGUE
from tests.compression.backends.test_inside import masked, prompt, stock

__all__ = ["stock"]

PLANS = (
    "visiondrop@12+visiondrop_stages@8",  # the method as published, both conventions renumber
    "visionzip@0.5+fastv:positions=original@0.375",
    "dualcomp+fastv:layer=1,positions=renumbered@3",  # the first step chooses how many tokens enter
    "identity@1.0+fastkv:cache=whole@12",
    "divprune@12+fastv:layer=1@9+fastkv:layer=3,cache=whole@8",
    "fastv:layer=2@12+pyramiddrop:stages=1/3@7",  # the second step acts on both sides of the first
    "fastv:layer=1@12+apet_stage:layer=2@10",  # gaps of the first are closed by the second
    "apet_stage:layer=1,positions=original@13+visiondrop_stages:stages=2/3@11",  # another order, then closed
    "apet_stage:layer=1@12+dart:layer=2,positions=original@10+pyramiddrop:stages=3@9",
)
CHOICES = ("north east ship", "west", "the red b")


@pytest.mark.parametrize("strategy", PLANS)
def test_prefill_and_decoding_equal_a_model_in_which_what_left_is_masked(
    tiny_vlm, stock: LlavaForConditionalGeneration, photo_tokens, strategy
):
    plan = CATALOGUE.plan(strategy)
    ours = tiny_vlm.generate(photo_tokens, prompt(*CHOICES), plan)
    given = tiny_vlm.give(photo_tokens, prompt(*CHOICES), plan)
    ids, layout = tiny_vlm.lay_out(prompt(), tiny_vlm.blocks(given.entering, given.grid), photo_tokens.grid)
    planned = acts_of(plan, 16, len(given.entering), 4)
    renumbered = frozenset(layer for layer, one in planned.items() if one.strategy.convention == "renumbered")
    for choice, told in zip(CHOICES, ours.log_probabilities, strict=True):
        words = tiny_vlm.tokenizer.convert_tokens_to_ids(choice.split())
        whole = torch.cat([ids, torch.tensor([words])], dim=1)
        logits = masked(
            stock, whole, layout.visual.tolist(), given.features, dict(given.acts), renumbered=renumbered
        ).log_softmax(-1)
        said = sum(float(logits[layout.answer + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)


@pytest.mark.parametrize("strategy", PLANS)
def test_a_replay_and_the_recording_are_those_of_the_pass(tiny_vlm, photo_tokens, strategy):
    plan, asked = CATALOGUE.plan(strategy), prompt("north", "south east", "red")
    recorder = Recorder()
    alone = tiny_vlm.generate(photo_tokens, asked, plan, probe=recorder)
    given = tiny_vlm.give(photo_tokens, asked, plan)
    replayed = tiny_vlm.ask(given, [asked, prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], alone.log_probabilities, atol=3e-5)
    assert given.retention(4) == pytest.approx(np.mean(alone.tokens_per_layer) / 16)
    recording = recorder.finish(alone.entering)
    if not alone.entering.extra:
        np.testing.assert_allclose(np.nansum(recording.answer, axis=1), recording.answer_mass, atol=2e-3)
    present = ~np.isnan(recording.answer[-1].astype(float))
    assert (present == (alone.selection.fate != Fate.DROPPED)).all()


@pytest.mark.parametrize("strategy", PLANS)
def test_the_mean_over_the_layers_is_that_of_the_last_step(tiny_vlm, photo_tokens, strategy):
    plan = CATALOGUE.plan(strategy)
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), plan)
    asked = plan.budget.tokens(16)
    assert asked - 1 < np.mean(ours.tokens_per_layer) <= asked
    assert ours.tokens_per_layer[0] == len(ours.entering)
    assert len(ours.selection) == ours.tokens_per_layer[-1]
    acts = [one.act for one in acts_of(plan, 16, len(ours.entering), 4).values()]
    assert ours.tokens_per_layer == tokens_per_layer(acts, len(ours.entering), 4)


def test_the_counts_of_a_plan_by_hand():
    # 288 of 576 enter. fastv: 2*288 + 30*k <= 32*200 gives k = 194; then 2*288 + 14*194 + 16*m <= 32*144 gives m = 82.
    plan = CATALOGUE.plan("visionzip@0.5+fastv:layer=2@200+fastkv:layer=16@0.25")
    acts = {layer: one.act.keep for layer, one in acts_of(plan, 576, 288, 32).items()}
    assert acts == {2: 194, 16: 82}


@pytest.mark.parametrize(
    ("strategy", "entering", "left"),
    [
        ("visiondrop@48+visiondrop_stages@32", 48, {8: 35, 16: 26, 24: 19}),
        ("apet@96+apet_stage@64", 96, {16: 32}),
    ],
)
def test_published_methods_of_two_stages_leave_what_their_code_leaves(strategy, entering, left):
    acts = acts_of(CATALOGUE.plan(strategy), 576, entering, 32)
    assert {layer: one.act.keep for layer, one in acts.items()} == left


@pytest.mark.parametrize("first", ["visionzip@0.5", "fastv:layer=1@0.5"])
@pytest.mark.parametrize("second", ["pyramiddrop:stages=9/17/25", "visiondrop_stages", "fastkv", "sparsevlm"])
@pytest.mark.parametrize("layers", [28, 32])
def test_every_reachable_mean_of_a_second_step_is_met_within_one_token(first, second, layers):
    lowest = lowest_of(CATALOGUE.plan(f"{first}+{second}@288"), 576, layers)
    for average in (lowest, lowest + 1, (lowest + 288) // 2, 287, 288):
        plan = CATALOGUE.plan(f"{first}+{second}@{average}")
        entering = 288 if first.startswith("visionzip") else 576
        acts = [one.act for one in acts_of(plan, 576, entering, layers).values()]
        assert average - 1 < sum(tokens_per_layer(acts, entering, layers)) / layers <= average
    with pytest.raises(InvalidBudget) as refused:
        acts_of(CATALOGUE.plan(f"{first}+{second}@{lowest - 1}"), 576, entering, layers)
    assert refused.value.lowest == lowest


@pytest.mark.parametrize(
    ("strategy", "positions"),
    [
        ("visionzip@8", "renumbered"),
        ("fastkv@12", "original"),
        ("visionzip@8+fastkv@6", "renumbered+original"),
        ("identity@1.0+fastkv@12", "original"),
        ("fastv:layer=1@12+apet_stage:layer=2@10", "original+renumbered"),
    ],
)
def test_a_run_tells_the_conventions_of_all_steps(tiny_vlm, photo_tokens, strategy, positions):
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan(strategy))
    assert ours.selection.diagnostics["positions"] == positions


def test_a_mean_above_what_earlier_steps_leave_is_refused(tiny_vlm):
    with pytest.raises(InvalidBudget, match=r"budget must be 1\.\.8 visual tokens.*got 12"):
        tiny_vlm.check(CATALOGUE.plan("visionzip@8+fastkv@12"), 16)
    with pytest.raises(
        InvalidBudget, match=r"1\.\.8 visual tokens, the mean that the steps in front of it leave, got 9"
    ):
        tiny_vlm.check(CATALOGUE.plan("fastv:layer=1@8+fastkv@9"), 16)


def test_what_an_adaptive_first_step_leaves_is_known_only_when_it_ran(tiny_vlm, photo_tokens):
    plan = CATALOGUE.plan("prumerge+fastv:layer=1@12")
    tiny_vlm.check(plan, 16)
    with pytest.raises(InvalidBudget, match=r"budget must be 1\.\.\d visual tokens"):
        tiny_vlm.generate(photo_tokens, prompt("a", "b"), plan)
    with pytest.raises(InvalidParameter, match="got layer 9"):
        tiny_vlm.check(CATALOGUE.plan("prumerge+fastv:layer=9@3"), 16)


def test_two_steps_before_one_layer_are_refused(tiny_vlm):
    with pytest.raises(InvalidStrategyText, match="two steps act before layer 2; give each a layer of its own"):
        tiny_vlm.check(CATALOGUE.plan("visionzip@14+fastv:layer=2@12+fastkv@11"), 16)


def test_a_missing_signal_names_the_step_that_needs_it(tiny_vlm, monkeypatch):
    plan = CATALOGUE.plan("visionzip@8+fastkv@6")
    monkeypatch.setattr(tiny_vlm, "provides", plan.steps[1].compressor.info.needs)
    with pytest.raises(MissingSignal, match="^visionzip needs .*cls_attention"):
        tiny_vlm.check(plan, 16)


def test_the_lowest_budget_of_a_plan_is_that_of_its_last_step():
    def lowest(text: str) -> int:
        return lowest_of(CATALOGUE.plan(text), 16, 4)

    assert lowest("visionzip@4") == 1
    assert lowest("fastkv@12") == 9  # (2 * 16 + 2 * 1) / 4 = 8.5
    assert lowest("visionzip@8+fastkv@6") == 5  # (2 * 8 + 2 * 1) / 4 = 4.5
    assert lowest("fastv:layer=1@7+fastkv@6") == 6  # 16, 4, then 1 and 1: 22 / 4 = 5.5
    assert isinstance(CATALOGUE.build("fastkv"), DecoderStrategy)
