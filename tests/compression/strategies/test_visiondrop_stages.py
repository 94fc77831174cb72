"""VisionDrop's stages inside the language model against loops, its schedule, and the bias of the causal mask."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.layer import Heads, LayerState
from compression.strategies.visiondrop_stages import VisionDropStages, received_by
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_context, toy_grid, toy_state, toy_tokens


def slow_scores(state: LayerState, *, causal: bool) -> list[float]:
    """score_j = mean over image queries and heads of softmax(q k^T / sqrt(d)) over all that a query sees."""
    heads, visual = state.next, state.visual.tolist()
    group = heads.query.shape[0] // heads.key.shape[0]
    totals = [0.0] * len(visual)
    for query in visual:
        for head in range(heads.query.shape[0]):
            seen = [key for key in range(state.length) if key <= query or (not causal and key in visual)]
            logits = {
                key: float(heads.query[head, query].double() @ heads.key[head // group, key].double()) * heads.scaling
                for key in seen
            }
            whole = sum(math.exp(logit) for logit in logits.values())
            for at, token in enumerate(visual):
                if token in logits:
                    totals[at] += math.exp(logits[token]) / whole
    return [total / len(visual) / heads.query.shape[0] for total in totals]


def slow_stage(
    tokens: VisualTokens, state: LayerState, budget: int, share: float, merge: str, *, causal: bool
) -> tuple[list[int], list[torch.Tensor]]:
    """Dominant by score, then contextual: evenly spaced targets, the others join by cosine of keys."""
    scores = slow_scores(state, causal=causal)
    contextual = math.floor(share * budget + 0.5)
    ranked = sorted(range(len(tokens)), key=lambda token: (-scores[token], token))
    dominant = sorted(ranked[: budget - contextual])
    outputs = [tokens.features[token].double() for token in dominant]
    rest = [token for token in range(len(tokens)) if token not in dominant]
    if not contextual:
        return dominant, outputs
    step = max(1, len(rest) // contextual)
    targets = [rest[place * step] for place in range(contextual)]
    key = state.next.key.double().mean(0)
    joined: dict[int, list[int]] = {target: [] for target in targets}
    for token in rest:
        if token not in targets:

            def alike(target: int, token: int = token) -> float:
                a, b = key[int(state.visual[token])], key[int(state.visual[target])]
                return float(a @ b / (a.norm() * b.norm()))

            joined[max(targets, key=alike)].append(token)
    for target, members in joined.items():
        own = tokens.features[target].double()
        if merge == "mean":
            outputs.append((own + sum(tokens.features[member].double() for member in members)) / (1 + len(members)))
        else:
            outputs.append(own + sum(tokens.features[member].double() for member in members) / max(1, len(members)))
    return dominant + targets, outputs


@pytest.mark.parametrize("mask", ["causal", "none"])
@pytest.mark.parametrize("merge", ["sum", "mean"])
@pytest.mark.parametrize(("budget", "share"), [(1, 0.15), (7, 0.15), (23, 0.15), (8, 0.0), (8, 0.5), (8, 1.0)])
def test_it_keeps_and_folds_what_the_slow_reference_does(
    tokens_4x6: VisualTokens, mask: str, merge: str, budget: int, share: float
) -> None:
    context = toy_context(tokens_4x6)
    assert context.state is not None
    strategy = VisionDropStages(mask=mask, merge=merge, share=share)  # type: ignore[arg-type]
    anchors, outputs = slow_stage(tokens_4x6, context.state, budget, share, merge, causal=mask == "causal")
    selection = strategy.compress(tokens_4x6, budget, context)
    assert selection.anchor.tolist() == anchors
    np.testing.assert_allclose(selection.scores, slow_scores(context.state, causal=mask == "causal"), atol=1e-6)
    np.testing.assert_allclose(selection.apply(tokens_4x6.features), torch.stack(outputs), atol=1e-5)


def test_a_token_that_all_look_at_is_dominant_by_hand() -> None:
    tokens = VisualTokens.whole(torch.eye(4), TokenGrid.single(1, 4, (1, 4)))
    key = torch.tensor([[[0.0, 1.0], [50.0, 1.0], [0.0, -1.0], [0.0, -2.0]]])  # all that can look at token 1
    heads = Heads(torch.tensor([[[1.0, 0.0]]]).expand(1, 4, 2), key, 1.0)
    state = replace(toy_state(tokens), hidden=torch.eye(4), visual=np.arange(4), upcoming=lambda: heads)
    selection = VisionDropStages(share=0.5).compress(tokens, 2, Context(state=state))
    # Token 0 sees itself only: 1/4; tokens 1 to 3 look at token 1: 3/4. Of 0, 2 and 3 the first is the target.
    assert selection.scores is not None
    assert selection.scores.tolist() == pytest.approx([0.25, 0.75, 0.0, 0.0])
    assert selection.anchor.tolist() == [1, 0]
    assert selection.apply(tokens.features).tolist() == [[0, 1, 0, 0], [1, 0, 0.5, 0.5]]


def test_the_causal_mask_favours_early_tokens_and_none_does_not() -> None:
    draw = torch.Generator().manual_seed(0)
    heads = Heads(torch.randn(8, 40, 16, generator=draw), torch.randn(8, 40, 16, generator=draw), 0.25)
    columns = torch.arange(4, 34)

    def third(causal: bool) -> float:
        scores = received_by(heads, columns, causal=causal)
        return float(scores[:10].sum() / scores[-10:].sum())

    assert third(True) > 4
    assert third(False) == pytest.approx(1, abs=0.3)


def test_the_released_stages_are_a_mean_of_32_of_48() -> None:
    acts = VisionDropStages().schedule(48, 32, 32)
    assert [(act.layer, act.keep) for act in acts] == [(8, 35), (16, 26), (24, 19)]
    tokens = toy_tokens(toy_grid((6, 8)))
    for keep, dominant in ((35, 30), (26, 22), (19, 16)):
        selection = VisionDropStages().compress(tokens, keep, toy_context(tokens))
        assert (np.diff(selection.anchor[:dominant]) > 0).all()
        assert np.bincount(selection.weight_output)[dominant:].sum() == 48 - dominant


def test_stages_and_positions_can_be_asked_for() -> None:
    assert VisionDropStages(stages="1/4").cut_layers(6) == (1, 4)
    assert VisionDropStages().convention == "renumbered"
    assert VisionDropStages(positions="original").convention == "original"


def test_without_a_mask_the_question_behind_the_picture_has_no_say(tokens_4x6: VisualTokens) -> None:
    state = toy_state(tokens_4x6)
    heads, behind = state.next, int(state.visual.max()) + 1
    louder = heads.key.clone()
    louder[:, behind:] *= 9
    strategy = VisionDropStages(mask="none")
    asked = [replace(state, upcoming=lambda key=key: replace(heads, key=key)) for key in (heads.key, louder)]
    plain, loud = (strategy.compress(tokens_4x6, 8, Context(state=one)) for one in asked)
    np.testing.assert_array_equal(plain.scores, loud.scores)
