"""Proportional attention in every layer of a model, against one whose dense softmax is raised by the sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlavaForConditionalGeneration

from analysis.recorder import Recorder
from compression.backends.planning import acts_of
from compression.calibration import attention_of
from compression.compressor import Compressor
from compression.selection import Selection
from compression.strategies import CATALOGUE
from tests.compression.backends.test_inside import masked, prompt, stock

__all__ = ["stock"]

CHOICES = ("north east ship", "west", "the red b")
BEFORE = ("average_pool", "visionzip", "visiondrop", "prumerge", "dualcomp", "apet", "trim")
PLANS = (
    *(f"{name}:attention=proportional@6" for name in BEFORE),
    "apet_stage:positions=original,attention=proportional@12",
    "visiondrop_stages:attention=proportional@12",
    "sparsevlm:attention=proportional@12",
    "average_pool:attention=proportional@9+fastkv:cache=whole@7",
    "average_pool:attention=proportional@9+visiondrop_stages:mask=none,attention=proportional@6",
    "average_pool:attention=proportional@9+visiondrop_stages:positions=original@6",  # sizes stay with the anchors
    "visionzip@12+visiondrop_stages:attention=proportional@8",
)


def sizes_of(selection: Selection, compressor: Compressor) -> list[float]:
    """Members of each output, counted one by one."""
    if attention_of(compressor) == "plain":
        return [1.0] * len(selection)
    return [
        float(
            sum(
                1
                for one, weight in zip(selection.weight_output, selection.weight_value, strict=True)
                if one == output and weight > 0
            )
        )
        for output in range(len(selection))
    ]


@pytest.mark.parametrize("strategy", PLANS)
def test_prefill_and_decoding_equal_a_dense_softmax_with_the_sizes(
    tiny_vlm, stock: LlavaForConditionalGeneration, photo_tokens, strategy
):
    plan = CATALOGUE.plan(strategy)
    ours = tiny_vlm.generate(photo_tokens, prompt(*CHOICES), plan)
    plain = tiny_vlm.generate(photo_tokens, prompt(*CHOICES), CATALOGUE.plan(strategy.replace("proportional", "plain")))
    assert np.abs(np.subtract(ours.log_probabilities, plain.log_probabilities)).max() > 1e-3
    given = tiny_vlm.give(photo_tokens, prompt(*CHOICES), plan)
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
        ).log_softmax(-1)
        said = sum(float(logits[layout.answer + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)


@pytest.mark.parametrize("strategy", PLANS)
def test_a_replay_is_calibrated_too(tiny_vlm, photo_tokens, strategy):
    plan, asked = CATALOGUE.plan(strategy), prompt("north", "south east", "red")
    alone = tiny_vlm.generate(photo_tokens, asked, plan)
    replayed = tiny_vlm.ask(tiny_vlm.give(photo_tokens, asked, plan), [asked, prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], alone.log_probabilities, atol=3e-5)
    assert alone.selection.diagnostics["attention"] == "proportional"


@pytest.mark.parametrize(
    ("strategy", "same"),
    [
        ("visionzip:share=0,attention=proportional@8", "visionzip:share=0@8"),
        ("apet_stage:attention=proportional@1.0", "identity@1.0"),
        ("visiondrop_stages:share=0,attention=proportional@10", "visiondrop_stages:share=0@10"),
    ],
)
def test_where_nothing_is_merged_not_a_bit_changes(tiny_vlm, photo_tokens, strategy, same):
    ours, other = (tiny_vlm.generate(photo_tokens, prompt(*CHOICES), CATALOGUE.plan(text)) for text in (strategy, same))
    assert ours.log_probabilities == other.log_probabilities
    assert (ours.selection.anchor == other.selection.anchor).all()


@torch.no_grad()
def test_the_recorded_rows_are_those_of_the_dense_softmax(tiny_vlm, tiny_folder, photo_tokens):
    eager = LlavaForConditionalGeneration.from_pretrained(tiny_folder, attn_implementation="eager").eval()
    plan = CATALOGUE.plan("average_pool:attention=proportional@6")
    recorder = Recorder()
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), plan, probe=recorder)
    given = tiny_vlm.give(photo_tokens, prompt("a", "b"), plan)
    ids, layout = tiny_vlm.lay_out(prompt(), tiny_vlm.blocks(given.entering, given.grid), photo_tokens.grid)
    dense: list[torch.Tensor] = []
    for layer in eager.model.language_model.layers:
        layer.self_attn.register_forward_hook(lambda _module, _args, output: dense.append(output[1][0].mean(0)))
    sizes = dict(zip(layout.visual.tolist(), sizes_of(given.entering, plan.steps[0].compressor), strict=True))
    masked(eager, ids, layout.visual.tolist(), given.features, {}, renumbered=False, sizes=sizes)
    recording = recorder.finish(ours.entering)
    wanted = [float(rows[layout.answer, layout.visual].sum()) for rows in dense]
    np.testing.assert_allclose(recording.answer_mass, wanted, atol=1e-6)
    np.testing.assert_allclose(np.nansum(recording.answer, axis=1), wanted, atol=2e-3)


@torch.no_grad()
def test_a_strategy_inside_sees_the_calibrated_attention(tiny_vlm, photo_tokens):
    heard: dict[int, torch.Tensor] = {}

    class Both:
        def attention(self, layer, rows, layout):
            heard[layer] = rows[0, layout.visual]

    scores = {}
    for strategy, layer in (("pyramiddrop:stages=2", 2), ("fastv:layer=2", 1)):  # the coming layer, the one before
        plan = CATALOGUE.plan(f"average_pool:attention=proportional@6+{strategy}@6")
        given = tiny_vlm.give(photo_tokens, prompt("a", "b"), plan)
        tiny_vlm.generate(photo_tokens, prompt("a", "b"), plan, probe=Both())
        scores[strategy] = given.acts[2].scores
        np.testing.assert_allclose(scores[strategy], heard[layer], atol=1e-6)
