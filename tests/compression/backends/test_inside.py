"""Every strategy inside the language model against a full-length model in which nothing is cut, only masked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from analysis.recorder import Recorder
from compression.backends.base import Prompt, SequenceLayout
from compression.backends.sequence import rearranged
from compression.compressor import Budget, Plan, Step
from compression.decoder import DecoderStrategy, tokens_per_layer
from compression.errors import InvalidBudget, InvalidSelection, InvalidStrategyText
from compression.selection import Fate, Selection
from compression.strategies import CATALOGUE
from compression.strategies.pyramiddrop import PyramidDrop
from tests.compression.backends.test_llava import hooks_on, stock_inputs

QUESTION = "where is the red ship"
INSIDE = tuple(kind.info.name for kind in CATALOGUE if issubclass(kind, DecoderStrategy))
RETURNING = {"lvlm_csp"}  # tokens return: see test_returning.py
WHOLE = {"fastkv": "cache=whole"}  # what decoding no longer sees: see test_caching.py
CASES = tuple(
    f"{name}:{','.join(filter(None, [f'positions={positions}', WHOLE.get(name)]))}@{budget}"
    for name in INSIDE
    if name not in RETURNING
    for positions in ("original", "renumbered")
    for budget in (9, 12, 15)
)


@pytest.fixture(scope="module")
def stock(tiny_folder) -> LlavaForConditionalGeneration:
    return LlavaForConditionalGeneration.from_pretrained(tiny_folder, attn_implementation="sdpa").eval()


def prompt(*choices: str) -> Prompt:
    return Prompt(QUESTION, choices, f"USER: <image> {QUESTION} ASSISTANT:")


@torch.no_grad()
def masked(
    stock: LlavaForConditionalGeneration,
    ids: Tensor,
    visual: list[int],
    features: Tensor,
    acts: dict[int, Selection],
    *,
    renumbered: bool | frozenset[int],
    sizes: dict[int, float] | None = None,
    growing: frozenset[int] = frozenset(),
    cached: Mapping[int, Tensor] | None = None,
    asked: int = 0,
) -> Tensor:
    """Logits [length, vocabulary] of a model that processes all positions in all layers.

    A position that an act left out is attended by nobody from then on; one that an act rewrote holds the weighted sum.
    Order in the sequence is a number for each position: an output that moved behind others gets a later one. Acts
    that renumber, all or those before the layers named, count anew what is left. A key counts as often as its size
    says: its logits are raised by the logarithm. An act before a layer in `growing` sums the sizes of what it merges.
    Positions from `asked` on are decoded: in a layer of `cached` each key head shows them the tokens named there alone.
    """
    sizes = sizes or {}
    language = stock.model.language_model
    hidden = language.embed_tokens(ids).clone()
    hidden[0, visual] = features
    length = ids.shape[1]
    alive = [True] * length
    order = [float(position) for position in range(length)]
    where = list(range(length))  # position ids
    present = list(visual)  # position of each visual token, in the order in which the strategy counts them
    for index, block in enumerate(language.layers):
        if index in acts:
            decision, before = acts[index], hidden.clone()
            for position in present:
                alive[position] = False
            left = [present[anchor] for anchor in decision.anchor]
            for rank, position in enumerate(left):
                alive[position] = True
                order[position] = visual[0] + rank / 1000
                hidden[0, position] = sum(
                    float(weight) * before[0, present[source]]
                    for output, source, weight in zip(
                        decision.weight_output, decision.weight_token, decision.weight_value, strict=True
                    )
                    if output == rank
                )
            if index in growing:
                members: dict[int, list[int]] = {position: [] for position in left}
                for output, source, weight in zip(
                    decision.weight_output, decision.weight_token, decision.weight_value, strict=True
                ):
                    if weight > 0:
                        members[left[output]].append(present[source])
                sizes = {at: sum(sizes.get(one, 1.0) for one in ones) for at, ones in members.items()}
            present = left
            if index in (acts if renumbered is True else renumbered or ()):
                ranked = sorted((order[position], position) for position in range(length) if alive[position])
                for rank, (_, position) in enumerate(ranked):
                    where[position] = rank
        mask = torch.full((length, length), float("-inf"))
        for row in range(length):
            for column in range(length):
                if alive[column] and order[column] <= order[row]:
                    mask[row, column] = math.log(sizes.get(column, 1.0))
            mask[row, row] = math.log(sizes.get(row, 1.0))  # rows that nobody reads must not be empty
        masks = mask[None].repeat(language.config.num_attention_heads, 1, 1)
        for head in range(len(masks) if cached and index in cached else 0):
            kept = cached[index][head * len(cached[index]) // len(masks)].tolist()
            for row in range(asked, length):
                for at, position in enumerate(present):
                    if at not in kept:
                        masks[head, row, position] = float("-inf")
        positions = torch.tensor([where])
        rotary = language.rotary_emb(hidden, positions)
        hidden = block(hidden, attention_mask=masks[None], position_embeddings=rotary, position_ids=positions)
    return stock.lm_head(language.norm(hidden))[0]


@pytest.mark.parametrize("strategy", CASES)
def test_prefill_and_decoding_equal_a_model_in_which_what_left_is_masked(tiny_vlm, stock, photo_tokens, strategy):
    plan = CATALOGUE.plan(strategy)
    renumbered = "renumbered" in strategy
    choices = ("north east ship", "west", "the red b")
    ours = tiny_vlm.generate(photo_tokens, prompt(*choices), plan)
    given = tiny_vlm.give(photo_tokens, prompt(*choices), plan)
    ids, layout = tiny_vlm.lay_out(prompt(), [np.arange(16)], photo_tokens.grid)
    for choice, told in zip(choices, ours.log_probabilities, strict=True):
        words = tiny_vlm.tokenizer.convert_tokens_to_ids(choice.split())
        whole = torch.cat([ids, torch.tensor([words])], dim=1)
        logits = masked(
            stock, whole, layout.visual.tolist(), given.features, dict(given.acts), renumbered=renumbered
        ).log_softmax(-1)
        said = sum(float(logits[layout.answer + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)


@pytest.mark.parametrize("strategy", CASES)
def test_a_replay_and_the_recording_are_those_of_the_pass(tiny_vlm, photo_tokens, strategy):
    plan, asked = CATALOGUE.plan(strategy), prompt("north", "south east", "red")
    recorder = Recorder()
    alone = tiny_vlm.generate(photo_tokens, asked, plan, probe=recorder)
    replayed = tiny_vlm.ask(tiny_vlm.give(photo_tokens, asked, plan), [asked, prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], alone.log_probabilities, atol=3e-5)
    recording = recorder.finish(alone.entering)
    # All that falls on visual tokens is shared out over those of the image that are still in them.
    np.testing.assert_allclose(np.nansum(recording.answer, axis=1), recording.answer_mass, atol=2e-3)
    present = ~np.isnan(recording.answer[-1].astype(float))
    assert (present == (alone.selection.fate != Fate.DROPPED)).all()


@pytest.mark.parametrize("name", INSIDE)
def test_the_recorded_counts_are_those_of_the_schedule(tiny_vlm, photo_tokens, name):
    strategy = CATALOGUE.build(name)
    assert isinstance(strategy, DecoderStrategy)
    lowest = strategy.lowest(16, 4)
    text = f"{name}:{WHOLE[name]}" if name in WHOLE else name
    for budget in range(lowest, 17):
        ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan(f"{text}@{budget}"))
        assert ours.tokens_per_layer == tokens_per_layer(strategy.schedule(16, budget, 4), 16, 4)
        assert budget - 1 < np.mean(ours.tokens_per_layer) <= budget
        assert len(ours.selection) == ours.tokens_per_layer[-1]
        assert ours.sequence_per_layer == tuple(8 + count for count in ours.tokens_per_layer)
        # positions, keys and values, key heads, head dim, float32
        assert ours.kv_cache_bytes == sum(ours.sequence_per_layer) * 2 * 2 * 6 * 4
        acts = ours.selection.diagnostics["acts"]
        assert [left for _, left in acts] == [ours.tokens_per_layer[layer] for layer, _ in acts]
        assert ours.selection.diagnostics["positions"] == strategy.convention
    with pytest.raises(InvalidBudget, match=f"at least {lowest} of 16 visual tokens") as refused:
        tiny_vlm.check(CATALOGUE.plan(f"{name}@{lowest - 1}"), 16)
    assert refused.value.lowest == lowest


@pytest.mark.parametrize("name", INSIDE)
def test_all_tokens_are_the_identity_bit_for_bit(tiny_vlm, photo_tokens, name):
    whole = tiny_vlm.generate(photo_tokens, prompt("north east", "b"), CATALOGUE.plan("identity"))
    ours = tiny_vlm.generate(photo_tokens, prompt("north east", "b"), CATALOGUE.plan(f"{name}@1.0"))
    assert ours.log_probabilities == whole.log_probabilities


@pytest.mark.parametrize("name", INSIDE)
def test_no_hook_survives_a_layer_that_raises_after_a_cut(tiny_vlm, photo_tokens, name):
    def fail(*_args):
        raise FloatingPointError("a layer that fails")

    before = hooks_on(tiny_vlm)
    handle = tiny_vlm.model.model.language_model.layers[3].register_forward_hook(fail)
    try:
        with pytest.raises(FloatingPointError):
            tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan(f"{name}@12"), probe=Recorder())
    finally:
        handle.remove()
    assert hooks_on(tiny_vlm) == before


def test_no_hook_survives_a_decoding_step_that_raises(tiny_vlm, photo_tokens):
    def fail(_module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        if hidden.shape[1] == 1:
            raise FloatingPointError("a layer that fails")

    before = hooks_on(tiny_vlm)
    handle = tiny_vlm.model.model.language_model.layers[3].register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(FloatingPointError):
            tiny_vlm.generate(photo_tokens, prompt("north east", "b"), CATALOGUE.plan("pyramiddrop@12"))
    finally:
        handle.remove()
    assert hooks_on(tiny_vlm) == before


@torch.no_grad()
def test_the_heads_of_the_coming_layer_are_those_that_it_will_have(tiny_vlm, photo_tokens):
    heard: dict[int, list[Tensor]] = {}

    class Both:
        def attention(self, layer, rows, layout):
            heard.setdefault(layer, []).append(rows)

    plan = CATALOGUE.plan("pyramiddrop:stages=2@1.0")  # all stay, so that layer 2 sees what was foreseen
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), plan, probe=Both())
    visual = slice(2, 18)
    np.testing.assert_allclose(ours.selection.scores, heard[2][0][0, visual], atol=1e-6)


@torch.no_grad()
def test_the_teacher_is_the_questions_attention_in_a_full_pass(tiny_vlm, tiny_folder, photo, photo_tokens):
    eager = LlavaForConditionalGeneration.from_pretrained(tiny_folder, attn_implementation="eager").eval()
    full = eager(**stock_inputs(tiny_vlm, photo), output_attentions=True).attentions
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), CATALOGUE.plan("covipal:guidance=3@10"))
    wanted = full[3][0, :, 18:23, 2:18].sum(dim=(0, 1))  # heads, words of the question, visual tokens
    np.testing.assert_allclose(ours.selection.scores, wanted / wanted.sum(), atol=1e-6)
    assert any("full first pass" in note for note in ours.selection.diagnostics["notes"])


def layout_of(length: int, visual: list[int]) -> SequenceLayout:
    return SequenceLayout(length, np.array(visual), np.arange(len(visual)), np.array([length - 2]), length - 1)


def test_outputs_stay_in_the_run_of_their_anchor_by_hand() -> None:
    # words and tokens: w v v w v v v w w; the tokens are numbered 0 to 4
    decision = Selection.merge(5, [0, 4, 2, 1], [([0], [1]), ([4, 3], [0.5, 0.5]), ([2], [1]), ([1], [1])])
    source, layout = rearranged(layout_of(9, [1, 2, 4, 5, 6]), decision)
    assert source.tolist() == [0, 1, 2, 3, 6, 4, 7, 8]
    assert layout.visual.tolist() == [1, 4, 5, 2]
    assert layout.outputs.tolist() == [0, 4, 2, 1]
    assert (layout.length, layout.answer, layout.question.tolist()) == (8, 7, [6])


@pytest.mark.parametrize("anchor", [[-1, 2], [2, 2]])
def test_an_output_without_a_place_of_its_own_is_refused(anchor: list[int]) -> None:
    with pytest.raises(InvalidSelection, match="give each output an anchor of its own"):
        rearranged(layout_of(6, [1, 2, 3]), Selection.merge(3, anchor, [([0], [1]), ([2], [1])]))


def test_two_steps_before_one_layer_are_refused(tiny_vlm):
    plan = CATALOGUE.plan("fastv:layer=2@12")
    twice = type(plan)(plan.steps * 2)
    with pytest.raises(InvalidStrategyText, match="two steps act before layer 2"):
        tiny_vlm.check(twice, 16)


@dataclass(frozen=True)
class Placed(PyramidDrop):
    """Notes the index of the tokens at each of its acts, and what it keeps of them."""

    heard: ClassVar[list[tuple[list[int], list[int]]]] = []

    def compress(self, tokens, budget, context):
        decision = super().compress(tokens, budget, context)
        self.heard.append((tokens.index.tolist(), decision.anchor.tolist()))
        return decision


def test_tokens_inside_know_their_places_on_the_grid(tiny_vlm, photo_tokens):
    Placed.heard.clear()
    steps = (CATALOGUE.plan("uniform_grid@9").steps[0], Step(Placed(stages="1/2/3"), Budget(count=6)))
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), Plan(steps))
    first = Placed.heard[0][0]
    assert first == ours.entering.anchor.tolist() != list(range(9))
    for (index, kept), (following, _) in itertools.pairwise(Placed.heard):
        assert following == [index[one] for one in kept]
    index, kept = Placed.heard[-1]
    assert ours.selection.anchor.tolist() == [index[one] for one in kept]
    assert len(kept) < len(first)


def test_a_token_without_a_place_has_none_inside(tiny_vlm, photo_tokens):
    Placed.heard.clear()
    steps = (CATALOGUE.plan("visionzip@9").steps[0], Step(Placed(stages="1/2/3"), Budget(count=8)))
    ours = tiny_vlm.generate(photo_tokens, prompt("a", "b"), Plan(steps))
    assert Placed.heard[0][0] == ours.entering.anchor.tolist()
    assert Placed.heard[0][0].count(-1) == 1  # [CLS]
