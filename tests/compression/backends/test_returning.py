"""Tokens that return inside the language model, against a full-length model in which the skipped ones are frozen."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from analysis.recorder import Recorder
from compression.backends.planning import acts_of
from compression.calibration import attention_of
from compression.compressor import Stage
from compression.errors import InvalidStrategyText, MissingSignal
from compression.selection import Fate
from compression.strategies import CATALOGUE
from tests.compression.backends.test_calibration import sizes_of
from tests.compression.backends.test_inside import prompt, stock

__all__ = ["stock"]

CHOICES = ("north east ship", "west", "the red b")
PLANS = (
    "lvlm_csp@8",
    "lvlm_csp@12",
    "lvlm_csp:first=random,stages=2/3@10",
    "lvlm_csp:first=cls,ratio=0.5@9",
    "divprune@12+lvlm_csp@7",
    "visionzip@12+lvlm_csp@9",
    "average_pool:attention=proportional@9+lvlm_csp@6",
    "lvlm_csp:stages=1/2@12+fastv:layer=3@11",
)


@torch.no_grad()
def frozen(
    stock: LlavaForConditionalGeneration,
    ids: Tensor,
    visual: list[int],
    features: Tensor,
    present: list[set[int]],
    sizes: dict[int, float],
) -> Tensor:
    """Logits [length, vocabulary]: in each layer only the present visual positions are attended and change."""
    language = stock.model.language_model
    hidden = language.embed_tokens(ids).clone()
    hidden[0, visual] = features
    length = ids.shape[1]
    positions = torch.arange(length)[None]
    rotary = language.rotary_emb(hidden, positions)
    for index, block in enumerate(language.layers):
        skipped = set(visual) - present[index]
        mask = torch.full((length, length), float("-inf"))
        for row in range(length):
            for column in range(row + 1):
                if column not in skipped or column == row:  # rows that nobody reads must not be empty
                    mask[row, column] = math.log(sizes.get(column, 1.0))
        left = block(hidden, attention_mask=mask[None, None], position_embeddings=rotary, position_ids=positions)
        for position in skipped:
            left[0, position] = hidden[0, position]
        hidden = left
    return stock.lm_head(language.norm(hidden))[0]


def present_in(given, layout, layers: int = 4) -> list[set[int]]:
    """The positions of the visual tokens that each layer processes, told by the frozen decisions."""
    here = layout.visual.tolist()
    said = []
    for layer in range(layers):
        if layer in given.acts:
            decision = given.acts[layer]
            here = [(layout.visual.tolist() if decision.tokens != len(here) else here)[at] for at in decision.anchor]
        said.append(set(here))
    return said


@pytest.mark.parametrize("strategy", PLANS)
def test_prefill_and_every_decoding_step_equal_a_model_with_frozen_tokens(
    tiny_vlm, stock: LlavaForConditionalGeneration, photo_tokens, strategy
):
    plan = CATALOGUE.plan(strategy)
    ours = tiny_vlm.generate(photo_tokens, prompt(*CHOICES), plan)
    given = tiny_vlm.give(photo_tokens, prompt(*CHOICES), plan)
    ids, layout = tiny_vlm.lay_out(prompt(), tiny_vlm.blocks(given.entering, given.grid), photo_tokens.grid)
    present = present_in(given, layout)
    assert [len(one) for one in present] == list(ours.tokens_per_layer)
    counted = sizes_of(given.entering, plan.steps[0].compressor)
    for choice, told in zip(CHOICES, ours.log_probabilities, strict=True):
        words = tiny_vlm.tokenizer.convert_tokens_to_ids(choice.split())
        logits = frozen(
            stock,
            torch.cat([ids, torch.tensor([words])], dim=1),
            layout.visual.tolist(),
            given.features,
            present,
            {int(place): counted[output] for place, output in zip(layout.visual, layout.outputs, strict=True)},
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
    assert (~np.isnan(recording.answer[-1].astype(float)) == (alone.selection.fate != Fate.DROPPED)).all()
    back = next(layer for layer, one in acts_of(plan, 16, len(alone.entering), 4).items() if one.act.returns)
    assert (~np.isnan(recording.answer[back].astype(float)) == (alone.entering.fate != Fate.DROPPED)).all()


@pytest.mark.parametrize("budget", range(5, 17))
def test_the_counts_and_the_cache_are_those_of_the_stages(tiny_vlm, photo_tokens, budget):
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan(f"lvlm_csp@{budget}"))
    first, whole, *last = ours.tokens_per_layer
    assert whole == 16
    assert last[0] == last[1] == len(ours.selection)
    assert budget - 1 < np.mean(ours.tokens_per_layer) <= budget
    assert first >= last[0]
    assert ours.sequence_per_layer == tuple(8 + count for count in ours.tokens_per_layer)
    # positions, keys and values, key heads, head dim, float32: layer 0 has no entry of what was skipped there
    assert ours.kv_cache_bytes == sum(ours.sequence_per_layer) * 2 * 2 * 6 * 4
    assert ours.selection.diagnostics["acts"] == [[0, first], [1, 16], [2, last[0]]]
    assert ours.selection.diagnostics["positions"] == "original"


def test_layer_0_chooses_by_the_class_token_of_the_encoder(tiny_vlm, photo_tokens):
    for text in ("lvlm_csp:first=cls@8", "divprune@12+lvlm_csp:first=cls@7"):
        given = tiny_vlm.give(photo_tokens, prompt("a", "b"), CATALOGUE.plan(text))
        looked = photo_tokens.signals["cls_attention"].mean(0)[torch.from_numpy(given.entering.anchor)]
        count = len(given.acts[0])
        assert 1 < count < len(given.entering)
        assert given.acts[0].anchor.tolist() == sorted(looked.topk(count).indices.tolist())
    with pytest.raises(MissingSignal, match="cls_attention"):  # [CLS] is itself an output and has no place
        tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan("visionzip@12+lvlm_csp:first=cls@9"))


def test_no_other_step_acts_in_front_of_the_return(tiny_vlm):
    with pytest.raises(InvalidStrategyText, match="lvlm_csp lets all tokens return before layer 2.*before layer 1"):
        tiny_vlm.check(CATALOGUE.plan("fastv:layer=1@14+lvlm_csp:stages=2/3@12"), 16)
    with pytest.raises(InvalidStrategyText, match="give that one a layer behind"):
        tiny_vlm.check(CATALOGUE.plan("lvlm_csp:stages=2/3@14+fastv:layer=1@12"), 16)
    tiny_vlm.check(CATALOGUE.plan("lvlm_csp:stages=1/2@12+fastv:layer=3@11"), 16)


def test_the_plans_here_merge_before_the_model_or_not_at_all():
    for text in PLANS:
        for step in CATALOGUE.plan(text).steps:
            assert step.stage is Stage.ENCODER or attention_of(step.compressor) == "plain"
