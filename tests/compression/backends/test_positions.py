"""Position ids that are kept before the language model, against a full-length model in which what left is masked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from analysis.recorder import Recorder
from compression.backends import attention
from compression.backends.decoding import step
from compression.backends.placing import original_ids, told
from compression.backends.prefill import Pass, prefill
from compression.strategies import CATALOGUE
from tests.compression.backends.conftest import SPECIAL, WORDS
from tests.compression.backends.families import ids_of_axes
from tests.compression.backends.test_families import ONE_EACH, Case, case, prompt
from tests.compression.backends.test_llava import masked_reference
from tests.compression.backends.test_qwen import renumber

__all__ = ["case"]

ONE_AXIS = [one for one in ONE_EACH if one.values[0][0].axes == 1]
each_family = pytest.mark.parametrize("case", ONE_AXIS, indirect=True)
each_with_axes = pytest.mark.parametrize("case", [one for one in ONE_EACH if one not in ONE_AXIS], indirect=True)
CHOICES = ("north east ship", "west", "the red b")
STEPS = 4


@torch.no_grad()
def full_length(case: Case, ids: Tensor, left: Mapping[int, set[int]], renumbered: frozenset[int]) -> Tensor:
    """Logits [length, vocabulary] of the stock model on the whole prompt.

    From a layer in `left` on only those entries of the picture can be attended; in a layer in `renumbered` all that can
    be attended is numbered anew.
    """
    language = case.stock.get_decoder()
    hidden = language.embed_tokens(ids).clone()
    visual = (ids[0] == 4).nonzero()[:, 0].tolist()
    hidden[0, visual] = case.packed()
    length, gone = ids.shape[1], set[int]()
    places = list(range(length))
    for index, block in enumerate(language.layers):
        if index in left:
            gone = {place for entry, place in enumerate(visual) if entry not in left[index]}
        if index in renumbered:
            alive = [place for place in range(length) if place not in gone]
            places = [alive.index(place) if place in alive else 0 for place in range(length)]
        mask = torch.full((length, length), float("-inf")).triu(1)
        mask[:, sorted(gone)] = float("-inf")
        mask[sorted(gone), 0] = 0.0  # rows that nobody reads must not be empty
        position_ids = torch.tensor([places])
        rotary = language.rotary_emb(hidden, position_ids)
        hidden = block(hidden, attention_mask=mask[None, None], position_embeddings=rotary, position_ids=position_ids)
    return case.stock.lm_head(language.norm(hidden))[0]


def entries_left(case: Case, last: Pass) -> dict[int, set[int]]:
    """Entries of the picture that are there from a layer on; ends of rows go with what entered."""
    entering = last.entering
    assert entering.is_pruning
    assert not entering.extra
    first = set(case.kept_entries(set(entering.anchor.tolist())))
    _, layout = case.vlm.lay_out(prompt(), case.vlm.blocks(entering, case.tokens.grid), case.tokens.grid)
    tokens = entering.anchor[layout.outputs]
    found = {0: first}
    ends = first - {case.kept_entries({int(token)})[0] for token in tokens}
    for layer, decision in sorted(last.acts.items()):
        assert (np.diff(decision.anchor) > 0).all()
        tokens = tokens[decision.anchor]
        found[layer] = ends | {case.kept_entries({int(token)})[0] for token in tokens}
    return found


def check_each_step(case: Case, strategy: str, logits_of: Any) -> Pass:
    """Compare the prefill and the steps of the likeliest words with a reference, told the ids so far and the pass."""
    last = prefill(case.vlm, case.tokens, prompt(), CATALOGUE.plan(strategy))
    ids, ours = case.ids(range(len(case.packed()))), last.logits.log_softmax(-1)
    with case.vlm.continuing(last), attention.calibrated(lambda layer: last.biases[layer]):
        for _ in range(STEPS):
            theirs = logits_of(ids, last)[-1].log_softmax(-1)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
            token = len(SPECIAL) + int(theirs[len(SPECIAL) : len(SPECIAL) + len(WORDS)].argmax())
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
            ours, _ = step(case.vlm.model, token, last.cache, case.vlm.device)
    return last


@each_family
@torch.no_grad()
@pytest.mark.parametrize("name", ["random_subset", "uniform_grid"])
def test_pruning_with_original_positions_is_masking_in_the_prefill_and_in_each_step(case: Case, name: str) -> None:
    def masked(ids: Tensor, last: Pass) -> Tensor:
        kept = case.kept_entries(set(last.entering.anchor.tolist()))
        places = (ids[0] == 4).nonzero()[:, 0].tolist()
        dropped = [place for entry, place in enumerate(places) if entry not in kept]
        assert dropped
        return masked_reference(case.stock, ids, case.packed(), dropped, 0)

    last = check_each_step(case, f"{name}:positions=original@7", masked)
    assert last.selection.diagnostics["positions"] == "original"
    moved = prefill(case.vlm, case.tokens, prompt(), CATALOGUE.plan(f"{name}@7"))
    assert moved.selection.diagnostics["positions"] == "renumbered"
    assert (moved.logits - last.logits).abs().max() > 1e-3


@each_family
@torch.no_grad()
@pytest.mark.parametrize(
    ("inside", "renumbered", "positions"),
    [
        ("fastv:layer=1@0.5", frozenset(), "original"),
        ("fastv:layer=1@0.7+adaptinfer:stages=3,positions=renumbered@0.6", frozenset({3}), "original+renumbered"),
        (
            "fastv:layer=1,positions=renumbered@0.7+adaptinfer:stages=3@0.6",
            frozenset({1}),
            "original+renumbered+original",
        ),
    ],
)
def test_steps_inside_go_on_from_the_positions_that_were_kept(
    case: Case, inside: str, renumbered: frozenset[int], positions: str
) -> None:
    def masked(ids: Tensor, last: Pass) -> Tensor:
        return full_length(case, ids, entries_left(case, last), renumbered)

    last = check_each_step(case, f"random_subset:positions=original@0.8+{inside}", masked)
    assert last.selection.diagnostics["positions"] == "+".join(dict.fromkeys(positions.split("+")))


@each_family
@pytest.mark.parametrize(
    "strategy",
    [
        "uniform_grid:positions=original@7",
        "average_pool:positions=original,attention=proportional@9",
        "divprune:positions=original@0.8+pyramiddrop:stages=2/3@0.6",
        "divprune:positions=original@0.8+fastkv:layer=2@0.5",
        "divprune:positions=original@0.8+lvlm_csp@0.5",
    ],
)
def test_a_replay_and_the_recording_of_kept_positions_are_those_of_the_pass(case: Case, strategy: str) -> None:
    plan, asked = CATALOGUE.plan(strategy), prompt(*CHOICES)
    recorder = Recorder()
    alone = case.vlm.generate(case.tokens, asked, plan, probe=recorder)
    given = case.vlm.give(case.tokens, asked, plan)
    replayed = case.vlm.ask(given, [asked, prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], alone.log_probabilities, atol=3e-5)
    recording = recorder.finish(alone.entering)
    np.testing.assert_allclose(np.nansum(recording.answer, axis=1), recording.answer_mass, atol=2e-3)


@torch.no_grad()
@pytest.mark.parametrize("case", ONE_AXIS[:1], indirect=True)
@pytest.mark.parametrize("strategy", ["visionzip", "prumerge", "dualcomp", "geollava8k"])
def test_merged_outputs_are_read_at_their_places_in_their_own_order(case: Case, strategy: str) -> None:
    last = prefill(case.vlm, case.tokens, prompt(), CATALOGUE.plan(f"{strategy}:positions=original@6"))
    made, count = last.entering, len(case.tokens)
    cols, start = case.tokens.grid.views[0].cols, case.ids([0])[0].tolist().index(4)
    places = list(range(start))
    for output, anchor in enumerate(made.anchor.tolist()):
        mine = (made.weight_output == output) & (made.weight_token < count)
        if anchor < 0 and not mine.any():
            anchor = 0  # [CLS]
        elif anchor < 0:
            weight = np.abs(made.weight_value[mine].astype(np.float64))
            row, col = (float(weight @ line / weight.sum()) for line in divmod(made.weight_token[mine], cols))
            anchor = int(row + 0.5) * cols + int(col + 0.5)
        places.append(start + anchor)
    ids = case.ids(range(len(made)))
    places += range(start + count, start + count + ids.shape[1] - len(places))
    embedded = case.stock.get_input_embeddings()(ids).clone()
    embedded[0, start : start + len(made)] = last.features
    mask = torch.ones_like(ids)
    theirs = case.stock(inputs_embeds=embedded, position_ids=torch.tensor([places]), attention_mask=mask).logits[0, -1]
    torch.testing.assert_close(last.logits, theirs, atol=1e-5, rtol=0)


@each_family
@torch.no_grad()
@pytest.mark.parametrize("strategy", ["random_subset:positions=original@1.0", "identity"])
def test_a_picture_of_which_nothing_is_left_out_is_read_as_ever(case: Case, strategy: str) -> None:
    ours = prefill(case.vlm, case.tokens, prompt(), CATALOGUE.plan(strategy))
    theirs = prefill(case.vlm, case.tokens, prompt(), CATALOGUE.plan("identity"))
    assert torch.equal(ours.logits, theirs.logits)


@each_family
@torch.no_grad()
def test_a_look_ahead_takes_gaps_for_no_borders_of_sequences(case: Case) -> None:
    last = prefill(case.vlm, case.tokens, prompt(), CATALOGUE.plan("random_subset:positions=original@7"))
    grid = case.tokens.grid
    blocks = case.vlm.blocks(last.entering, grid)
    ids, layout = case.vlm.lay_out(prompt(), blocks, grid)
    kept = original_ids(case.vlm, prompt(), ids, layout, last.entering, grid)
    assert (kept.diff() != 1).any()
    made = case.vlm.forward(ids, last.features, blocks, **told(None, kept), use_cache=False)
    torch.testing.assert_close(made.logits[0, -1], last.logits, atol=1e-5, rtol=0)


@each_with_axes
@torch.no_grad()
@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_ids_of_several_axes_are_kept_or_closed_up_as_asked(case: Case, positions: str) -> None:
    made = case.stock.get_image_features(**case.family.read(case.folder, case.image), return_dict=True)
    planes = [torch.cat(list(plane)) for plane in getattr(made, "deepstack_features", None) or ()]
    view = case.tokens.grid.views[0]

    def masked(ids: Tensor, last: Pass) -> Tensor:
        places = (ids[0] == 4).nonzero()[:, 0].tolist()
        kept = [places[token] for token in last.entering.anchor]
        triples = [tuple(one) for one in ids_of_axes(ids[0].tolist(), (view.rows, view.cols))[:, 0].T.tolist()]
        if positions == "renumbered":
            renumber(triples, ids[0].tolist(), kept)
        dropped = sorted(set(places) - set(kept))
        return masked_reference(case.stock, ids, case.packed(), dropped, 0, torch.tensor(triples).T[:, None], planes)

    last = check_each_step(case, f"random_subset:positions={positions}@4", masked)
    assert last.selection.diagnostics["positions"] == positions
    plan, asked = CATALOGUE.plan(f"random_subset:positions={positions}@0.5+fastv:layer=1@0.3"), prompt(*CHOICES)
    alone = case.vlm.generate(case.tokens, asked, plan)
    replayed = case.vlm.ask(case.vlm.give(case.tokens, asked, plan), [asked, prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], alone.log_probabilities, atol=3e-5)
    usual = prefill(case.vlm, case.tokens, prompt(), CATALOGUE.plan("random_subset@4"))
    assert usual.selection.diagnostics["positions"] == "original"
