"""The LLaVA backend against the stock model: nothing changes but what a strategy asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from analysis.recorder import Recorder
from compression.backends import load_model
from compression.backends.base import Prompt
from compression.backends.llava import LlavaBackend
from compression.errors import Cancelled, InvalidBudget, InvalidQuestion, MissingSignal, ModelUnavailable, UnknownModel
from compression.grid import TokenGrid, View
from compression.sight import LOOKS
from compression.strategies import CATALOGUE
from compression.tokens import Signal, VisualTokens
from tests.compression.backends.conftest import SPECIAL, WORDS, save_tiny_llava
from tests.contracts.toys import PER_HEAD

ALL_WORDS = tuple(WORDS)
QUESTION = "where is the red ship"


GRID = TokenGrid.single(4, 4, (320, 320))


def hooks_on(vlm: LlavaBackend) -> int:
    """Forward hooks on all parts of the model. The library itself leaves a few on the tower at its first pass."""
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in vlm.model.modules())


@pytest.fixture
def prompt() -> Prompt:
    """A prompt whose choices are all words, so that an answer's probabilities are the model's logits."""
    return Prompt(QUESTION, ALL_WORDS, f"USER: <image> {QUESTION} ASSISTANT:")


@pytest.fixture(scope="session")
def stock(tiny_folder: Path) -> LlavaForConditionalGeneration:
    """The same checkpoint in the library's own class with its own kernel."""
    return LlavaForConditionalGeneration.from_pretrained(tiny_folder, attn_implementation="sdpa").eval()


def stock_inputs(vlm: LlavaBackend, photo: NDArray[np.uint8]) -> dict[str, Tensor]:
    ids = vlm.tokenizer(f"USER: <image> {QUESTION} ASSISTANT:")["input_ids"]
    full = [token for one in ids for token in ([4] * 16 if one == 4 else [one])]
    pixels = vlm.processor(images=photo, return_tensors="pt")["pixel_values"]
    return {"input_ids": torch.tensor([full]), "pixel_values": pixels}


def word_logs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)[len(SPECIAL) :]


@torch.no_grad()
def masked_reference(
    stock: Any,
    ids: Tensor,
    features: Tensor,
    dropped: list[int],
    layer: int,
    positions: Tensor | None = None,
    planes: Sequence[Tensor] = (),
) -> Tensor:
    """Logits of the full-length model in which dropped positions cannot be attended from `layer` on.

    Positions are ids [..., 1, length], otherwise 0, 1, …; planes [tokens, dim] are added to the tokens behind the first
    layers.
    """
    language = stock.get_decoder()
    hidden = language.embed_tokens(ids).clone()
    visual = (ids[0] == 4).nonzero()[:, 0]
    hidden[0, visual] = features
    length = ids.shape[1]
    positions = torch.arange(length)[None] if positions is None else positions
    rotary = language.rotary_emb(hidden, positions)
    causal = torch.full((length, length), float("-inf")).triu(1)
    for index, block in enumerate(language.layers):
        mask = causal.clone()
        if index >= layer:
            mask[:, dropped] = float("-inf")
            mask[dropped, 0] = 0.0  # rows that nobody reads must not be empty
        hidden = block(hidden, attention_mask=mask[None, None], position_embeddings=rotary, position_ids=positions)
        if index < len(planes):
            hidden[0, visual] += planes[index]
    return stock.lm_head(language.norm(hidden))[0]


@torch.no_grad()
def test_identity_gives_the_stock_models_logits_bit_for_bit(tiny_vlm, stock, photo, photo_tokens, prompt):
    ours = tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("identity"))
    theirs = word_logs(stock(**stock_inputs(tiny_vlm, photo), logits_to_keep=1).logits[0, -1])
    assert torch.equal(torch.tensor(ours.log_probabilities), theirs)
    assert ours.text == ALL_WORDS[int(theirs.argmax())]


@torch.no_grad()
def test_a_free_answer_is_what_the_stock_model_generates(tiny_vlm, stock, photo, photo_tokens):
    free = Prompt(QUESTION, (), f"USER: <image> {QUESTION} ASSISTANT:")
    ours = tiny_vlm.generate(photo_tokens, free, CATALOGUE.plan("identity"), max_new_tokens=5)
    inputs = stock_inputs(tiny_vlm, photo)
    theirs = stock.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert ours.text == tiny_vlm.tokenizer.decode(theirs, skip_special_tokens=True).strip()


@torch.no_grad()
@pytest.mark.parametrize("layer", [1, 2, 3])
def test_a_cut_inside_the_language_model_equals_masking_what_was_dropped(tiny_vlm, stock, photo_tokens, prompt, layer):
    ours = tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan(f"fastv:layer={layer}@14"))
    ids, layout = tiny_vlm.lay_out(prompt, [np.arange(16)], GRID)
    dropped = [int(layout.visual[token]) for token in range(16) if token not in ours.selection.anchor]
    assert dropped
    theirs = masked_reference(stock, ids, photo_tokens.signals[Signal.PROJECTED], dropped, layer)
    assert torch.allclose(torch.tensor(ours.log_probabilities), word_logs(theirs[-1]), atol=1e-5)


@torch.no_grad()
def test_decoding_after_a_cut_continues_from_the_original_positions(tiny_vlm, stock, photo_tokens):
    free = Prompt(QUESTION, (), f"USER: <image> {QUESTION} ASSISTANT:")
    ours = tiny_vlm.generate(photo_tokens, free, CATALOGUE.plan("fastv:layer=1@8"), max_new_tokens=5)
    ids, layout = tiny_vlm.lay_out(free, [np.arange(16)], GRID)
    dropped = [int(layout.visual[token]) for token in range(16) if token not in ours.selection.anchor]
    said: list[int] = []
    for _ in range(5):
        logits = masked_reference(stock, ids, photo_tokens.signals[Signal.PROJECTED], dropped, 1)
        said.append(int(logits[-1].argmax()))
        if said[-1] == 2:
            break
        ids = torch.cat([ids, torch.tensor([[said[-1]]])], dim=1)
    assert ours.text == tiny_vlm.tokenizer.decode(said, skip_special_tokens=True).strip()


def test_a_cut_keeps_the_asked_mean_over_the_layers(tiny_vlm, photo_tokens, prompt):
    ours = tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("fastv:layer=1@8"))
    assert ours.tokens_per_layer == (16, 5, 5, 5)
    assert np.mean(ours.tokens_per_layer) <= 8
    assert len(ours.selection) == 5
    assert ours.sequence_per_layer == (24, 13, 13, 13)
    assert (
        ours.kv_cache_bytes == (24 + 3 * 13) * 2 * 2 * 6 * 4
    )  # positions, keys and values, key heads, head dim, float32


def test_a_budget_below_the_cuts_reach_is_refused_with_the_lowest_reachable_one(tiny_vlm, photo_tokens, prompt):
    with pytest.raises(InvalidBudget, match="write at least 5") as refused:
        tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("fastv:layer=1@3"))
    assert refused.value.lowest == 5
    assert tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("fastv:layer=1@5")).tokens_per_layer[-1] == 1


@torch.no_grad()
def test_compression_before_the_language_model_leaves_no_gap_in_the_positions(tiny_vlm, stock, photo_tokens, prompt):
    ours = tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("uniform_grid@4"))
    ids, _ = tiny_vlm.lay_out(prompt, [np.arange(4)], GRID)
    given = BaseModelOutputWithPooling(pooler_output=[photo_tokens.signals[Signal.PROJECTED][ours.selection.anchor]])
    theirs = word_logs(stock(input_ids=ids, mm_encoder_outputs={"image": given}).logits[0, -1])
    assert torch.allclose(torch.tensor(ours.log_probabilities), theirs, atol=1e-6)


@torch.no_grad()
def test_recorded_rows_are_those_of_eager_attention(tiny_vlm, tiny_folder, photo, photo_tokens, prompt):
    eager = LlavaForConditionalGeneration.from_pretrained(tiny_folder, attn_implementation="eager").eval()
    full = eager(**stock_inputs(tiny_vlm, photo), output_attentions=True).attentions
    recorder = Recorder()
    ours = tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("identity"), probe=recorder)
    recording = recorder.finish(ours.entering)
    visual = slice(2, 18)
    words = slice(18, 23)
    for layer, weights in enumerate(full):
        assert np.allclose(recording.answer[layer], weights[0, :, -1, visual].mean(0), atol=1e-3)
        assert np.allclose(recording.question[layer], weights[0, :, words, visual].mean((0, 1)), atol=1e-3)
        assert recording.answer_mass[layer] == pytest.approx(float(weights[0, :, -1, visual].sum() / 4), abs=1e-5)


class Listening:
    """A probe that keeps every row it hears."""

    def __init__(self) -> None:
        self.rows: dict[int, Tensor] = {}
        self.layouts = {}

    def attention(self, layer, rows, layout):
        self.rows[layer], self.layouts[layer] = rows, layout


@pytest.mark.parametrize("strategy", ["identity", "fastv:layer=2@10", "dualcomp@6", "visionzip@6"])
def test_attention_rows_handed_to_a_probe_sum_to_one(tiny_vlm, photo_tokens, prompt, strategy):
    probe = Listening()
    tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan(strategy), probe=probe)
    assert sorted(probe.rows) == [0, 1, 2, 3]
    for layer, rows in probe.rows.items():
        assert rows.shape == (6, probe.layouts[layer].length)
        assert torch.allclose(rows.sum(-1), torch.ones(6), atol=1e-5)


@torch.no_grad()
def test_the_signals_are_those_of_the_feature_layer(tiny_vlm, tiny_folder, photo, photo_tokens):
    eager = LlavaForConditionalGeneration.from_pretrained(tiny_folder, attn_implementation="eager").eval()
    tower = eager.model.vision_tower
    told = tower(stock_inputs(tiny_vlm, photo)["pixel_values"], output_hidden_states=True, output_attentions=True)
    signals = photo_tokens.signals
    assert torch.allclose(signals[Signal.FEATURES], told.hidden_states[-2][0, 1:], atol=1e-5)
    assert torch.allclose(signals[Signal.CLS_FEATURE], told.hidden_states[-2][0, :1], atol=1e-5)
    assert torch.allclose(signals[Signal.CLS_ATTENTION], told.attentions[-2][0, :, 0, 1:], atol=1e-5)
    early = told.attentions[0][0, :, 0, 1:]
    assert torch.allclose(signals[Signal.EARLY_CLS_ATTENTION], early, atol=1e-5)
    received = told.attentions[-2][0].mean((0, 1))[1:]
    assert torch.allclose(signals[Signal.RECEIVED_ATTENTION], received, atol=1e-5)
    layer = tower.encoder.layers[-2]
    keys = layer.self_attn.k_proj(layer.layer_norm1(told.hidden_states[-3]))[0, 1:].view(16, 4, 8).mean(1)
    assert torch.allclose(signals[Signal.KEYS], keys, atol=1e-5)
    assert torch.allclose(signals[Signal.VALUES], layer.self_attn.v_proj(told.hidden_states[-2][0, 1:]), atol=1e-5)
    assert torch.allclose(signals[Signal.CLS_QUERY], layer.self_attn.q_proj(told.hidden_states[-2][0, :1]), atol=1e-5)
    last = tower.encoder.layers[-1]
    entering = last.layer_norm1(told.hidden_states[-2])[0]
    query, wide = last.self_attn.q_proj(entering)[0], last.self_attn.k_proj(entering)
    assert torch.allclose(signals[Signal.LAST_KEYS], wide[1:], atol=1e-5)
    one_head = (wide @ query / wide.shape[1] ** 0.5).softmax(0)[1:]
    assert torch.allclose(signals[Signal.LAST_CLS_ATTENTION], one_head, atol=1e-6)


def test_everything_that_is_provided_is_there(tiny_vlm, photo_tokens):
    told = set(photo_tokens.signals) | {
        Signal.TEXT,
        Signal.LAYER_ATTENTION,
        Signal.LAYER_STATE,
        Signal.TEACHER_ATTENTION,
        Signal.ENCODER_BLOCKS,
        Signal.CROPS,
    }
    assert told == tiny_vlm.provides
    assert len(photo_tokens) == len(photo_tokens.features) == tiny_vlm.count_tokens((320, 320))


@pytest.mark.parametrize("strategy", [kind.info.name for kind in CATALOGUE if kind.info.stage not in LOOKS])
def test_no_hook_survives_a_run_of_any_strategy(tiny_vlm, photo_tokens, prompt, strategy):
    before = hooks_on(tiny_vlm)
    tiny_vlm.generate(
        photo_tokens, prompt, CATALOGUE.plan(f"{strategy}@{'1.0' if strategy == 'identity' else 10}"), probe=Recorder()
    )
    assert hooks_on(tiny_vlm) == before


def test_no_hook_survives_a_refused_budget_a_cancelled_run_or_a_raising_layer(tiny_vlm, photo, photo_tokens, prompt):
    before = hooks_on(tiny_vlm)
    with pytest.raises(InvalidBudget):
        tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("fastv@1"))
    asked = iter([False, False, True])
    with pytest.raises(Cancelled):
        tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("identity"), cancel=lambda: next(asked, True))

    def fail(*_args):
        raise FloatingPointError("a layer that fails")

    for module in (tiny_vlm.model.model.language_model.layers[2], tiny_vlm.model.model.vision_tower.encoder.layers[1]):
        handle = module.register_forward_hook(fail)
        with pytest.raises(FloatingPointError):
            tiny_vlm.generate(tiny_vlm.encode(photo, (32, 32)), prompt, CATALOGUE.plan("fastv@10"), probe=Recorder())
        handle.remove()
    assert hooks_on(tiny_vlm) == before


def test_score_agrees_with_what_generate_reports_and_has_a_gradient(tiny_vlm, photo_tokens, prompt):
    ours = tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("identity"))
    features = photo_tokens.signals[Signal.PROJECTED].clone().requires_grad_()
    for choice in ("north", "ship"):
        told = ours.log_probabilities[ALL_WORDS.index(choice)]
        assert tiny_vlm.score(features, photo_tokens, prompt, choice).item() == pytest.approx(told, abs=1e-5)
    tiny_vlm.score(features, photo_tokens, prompt, "north").backward()
    assert features.grad is not None
    assert (features.grad.abs().sum(-1) > 0).all()


def test_a_choice_of_several_words_is_scored_whole(tiny_vlm, photo_tokens):
    two = Prompt(QUESTION, ("north east", "north west"), f"USER: <image> {QUESTION} ASSISTANT:")
    ours = tiny_vlm.generate(photo_tokens, two, CATALOGUE.plan("fastv:layer=2@12"))
    identity = tiny_vlm.generate(photo_tokens, two, CATALOGUE.plan("identity"))
    projected = photo_tokens.signals[Signal.PROJECTED]
    for choice, told in zip(two.choices, identity.log_probabilities, strict=True):
        assert told == pytest.approx(float(tiny_vlm.score(projected, photo_tokens, two, choice)), abs=1e-5)
    assert ours.log_probabilities != identity.log_probabilities


@torch.no_grad()
def test_several_views_fill_their_own_placeholders(tiny_vlm, stock, photo):
    one = tiny_vlm.encode(photo, (32, 32))
    other = tiny_vlm.encode(photo[::-1].copy(), (32, 32))
    grid = TokenGrid((View(4, 4, (0, 0, 32, 32), "a1"), View(4, 4, (32, 0, 64, 32), "b1")), (32, 64))
    signals = {
        name: torch.cat([one.signals[name], other.signals[name]], dim=1 if name in PER_HEAD else 0)
        for name in one.signals
    }
    tokens = VisualTokens.whole(torch.cat([one.features, other.features]), grid, signals)
    prompt = Prompt(QUESTION, ALL_WORDS, f"a <image> b {QUESTION} ASSISTANT:")
    ours = tiny_vlm.generate(tokens, prompt, CATALOGUE.plan("uniform_grid@12"))
    views = grid.view_indices()[ours.selection.anchor]
    projected = signals[Signal.PROJECTED][ours.selection.anchor]
    ids = tiny_vlm.tokenizer(prompt.text.replace("<image>", "<image> <image>"))["input_ids"]
    sizes = iter([int((views == 0).sum()), int((views == 1).sum())])
    full = [token for token in ids for token in ([4] * next(sizes) if token == 4 else [token])]
    given = BaseModelOutputWithPooling(pooler_output=[projected[views == 0], projected[views == 1]])
    theirs = word_logs(stock(input_ids=torch.tensor([full]), mm_encoder_outputs={"image": given}).logits[0, -1])
    assert torch.allclose(torch.tensor(ours.log_probabilities), theirs, atol=1e-6)


def test_the_grid_lies_on_the_original_image(tiny_vlm, photo):
    tokens = tiny_vlm.encode(photo, (3200, 1600))
    assert tokens.grid.boxes()[0].tolist() == [0, 0, 400, 800]
    assert tokens.grid.boxes()[-1].tolist() == [1200, 2400, 1600, 3200]
    assert any("squeezed" in notice for notice in tiny_vlm.notices((3200, 1600)))
    assert tiny_vlm.notices((32, 32)) == ()


def test_a_checkpoint_that_crops_says_what_it_does_not_see(tmp_path, photo):
    vlm = LlavaBackend(save_tiny_llava(tmp_path / "crop", centre_crop=True), device="cpu")
    assert vlm.seen_box((100, 300)) == (100, 0, 200, 100)
    assert any("central 100 × 100" in notice for notice in vlm.notices((100, 300)))
    wide = np.zeros((32, 96, 3), dtype=np.uint8)
    wide[:, 32:64] = photo
    assert torch.equal(vlm.encode(wide, (32, 96)).features, vlm.encode(photo, (32, 32)).features)


def test_a_huge_image_is_wanted_small(tiny_vlm):
    assert tiny_vlm.wanted_size((8192, 8192)) == (64, 64)
    assert tiny_vlm.wanted_size((20, 30)) == (20, 30)


def test_mistakes_are_named(tiny_vlm, photo_tokens, prompt, tmp_path, tiny_folder):
    with pytest.raises(ModelUnavailable, match="cannot be loaded"):
        load_model(str(tmp_path / "nothing"))
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnknownModel, match="family 'bert'"):
        load_model(str(tmp_path / "bert"))
    with pytest.raises(InvalidQuestion, match="empty"):
        tiny_vlm.prompt("   ")
    with pytest.raises(InvalidQuestion, match="placeholders"):
        tiny_vlm.generate(
            photo_tokens, Prompt("x", ALL_WORDS, "<image> <image> where ASSISTANT:"), CATALOGUE.plan("identity")
        )
    bare = VisualTokens(
        photo_tokens.features,
        photo_tokens.grid,
        photo_tokens.index,
        {Signal.PROJECTED: photo_tokens.signals[Signal.PROJECTED]},
    )
    with pytest.raises(MissingSignal, match="cls_attention"):
        tiny_vlm.generate(bare, prompt, CATALOGUE.plan("visionzip@4"))
    assert load_model(str(tiny_folder), device="cpu").card.revision == tiny_vlm.card.revision


def test_the_same_seed_gives_the_same_run(tiny_vlm, photo_tokens, prompt):
    first, second, other = (
        tiny_vlm.generate(photo_tokens, prompt, CATALOGUE.plan("random_subset@6"), seed=seed) for seed in (3, 3, 4)
    )
    assert first.selection == second.selection
    assert first.log_probabilities == second.log_probabilities
    assert first.selection != other.selection
