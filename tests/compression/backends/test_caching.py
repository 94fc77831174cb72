"""Caches that are compressed for decoding, against a full-length model that hides the rest from what is decoded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from compression.backends.caching import slots_of
from compression.backends.planning import acts_of
from compression.calibration import attention_of
from compression.strategies import CATALOGUE
from tests.compression.backends.test_calibration import sizes_of
from tests.compression.backends.test_inside import layout_of, masked, prompt, stock

__all__ = ["stock"]

CHOICES = ("north east ship", "west", "the red b")
PLANS = (
    "fastkv@12",
    "fastkv:retain=0.3,window=2@11",
    "fastkv:positions=renumbered@10",
    "visionzip@12+fastkv@9",
    "fastv:layer=1@12+fastkv@10",
    "average_pool:attention=proportional@9+fastkv@7",
    "apet_stage:layer=1,attention=proportional@12+fastkv:layer=3@10",
)
RETURNING = ("lvlm_csp:stages=1/2@12+fastkv:layer=3@11",)


@pytest.mark.parametrize("strategy", PLANS)
def test_decoding_equals_a_model_that_hides_what_the_caches_lack(
    tiny_vlm, stock: LlavaForConditionalGeneration, photo_tokens, strategy
):
    plan = CATALOGUE.plan(strategy)
    ours = tiny_vlm.generate(photo_tokens, prompt(*CHOICES), plan)
    given = tiny_vlm.give(photo_tokens, prompt(*CHOICES), plan)
    assert sorted(given.cached) == [0, 1, 2, 3]
    ids, layout = tiny_vlm.lay_out(prompt(), tiny_vlm.blocks(given.entering, given.grid), photo_tokens.grid)
    planned = acts_of(plan, 16, len(given.entering), 4)
    entered = sizes_of(given.entering, plan.steps[0].compressor)
    for choice, told in zip(CHOICES, ours.log_probabilities, strict=True):
        words = tiny_vlm.tokenizer.convert_tokens_to_ids(choice.split())
        logits = masked(
            stock,
            torch.cat([ids, torch.tensor([words])], dim=1),
            layout.visual.tolist(),
            given.features,
            dict(given.acts),
            renumbered=frozenset(at for at, one in planned.items() if one.strategy.convention == "renumbered"),
            sizes={int(place): entered[output] for place, output in zip(layout.visual, layout.outputs, strict=True)},
            growing=frozenset(at for at, one in planned.items() if attention_of(one.strategy) == "proportional"),
            cached=given.cached,
            asked=layout.length,
        ).log_softmax(-1)
        said = sum(float(logits[layout.answer + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)


@pytest.mark.parametrize("strategy", [*PLANS, *RETURNING])
def test_a_replay_hides_what_the_caches_lack_too(tiny_vlm, photo_tokens, strategy):
    plan, asked = CATALOGUE.plan(strategy), prompt(*CHOICES)
    alone = tiny_vlm.generate(photo_tokens, asked, plan)
    replayed = tiny_vlm.ask(tiny_vlm.give(photo_tokens, asked, plan), [asked, prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], alone.log_probabilities, atol=3e-5)
    kept = strategy.replace("fastkv", "fastkv:cache=whole").replace("whole:", "whole,")
    whole = tiny_vlm.generate(photo_tokens, asked, CATALOGUE.plan(kept))
    # One word is read at the prompt's end, before any cache is read; of several, the later ones change.
    assert alone.log_probabilities[1] == whole.log_probabilities[1]
    assert abs(alone.log_probabilities[0] - whole.log_probabilities[0]) > 1e-4


@pytest.mark.parametrize("budget", range(9, 16))
def test_the_cache_has_the_room_that_the_run_tells(tiny_vlm, photo_tokens, budget):
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan(f"fastkv@{budget}"))
    left = max(1, ours.tokens_per_layer[-1] // 2)
    cached = ours.selection.diagnostics["cached"]
    assert cached == [min(left, count) for count in ours.tokens_per_layer]
    # words and tokens, keys and values, key heads, head dim, float32
    assert ours.kv_cache_bytes == sum(8 + count for count in cached) * 2 * 2 * 6 * 4
    whole = tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan(f"fastkv:cache=whole@{budget}"))
    assert "cached" not in whole.selection.diagnostics
    assert (ours.selection.anchor == whole.selection.anchor).all()
    assert ours.log_probabilities == whole.log_probabilities, "single words are read before any cache is"


def test_words_stay_in_every_cache_by_hand():
    # words and tokens: w v v w v w w; the first key head keeps tokens 0 and 2, the second 1 and 2
    slots = slots_of(layout_of(7, [1, 2, 4]), torch.tensor([[0, 2], [1, 2]]))
    assert slots.tolist() == [[0, 1, 3, 4, 5, 6], [0, 2, 3, 4, 5, 6]]
