"""PyramidDrop against loops over one attention row, and its pyramid against the published averages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.decoder import Act, mean_over_layers
from compression.errors import InvalidParameter
from compression.grid import TokenGrid
from compression.layer import Heads, LayerState
from compression.strategies.pyramiddrop import PyramidDrop
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_context


def slow_row(heads: Heads, query: int) -> list[list[float]]:
    """softmax(q K^T / sqrt(d) + causal) of one query, [heads][keys up to the query]."""
    found = []
    group = heads.query.shape[0] // heads.key.shape[0]
    for head in range(heads.query.shape[0]):
        logits = [
            float(heads.query[head, query].double() @ heads.key[head // group, key].double()) * heads.scaling
            for key in range(query + 1)
        ]
        shifted = [math.exp(logit - max(logits)) for logit in logits]
        found.append([value / sum(shifted) for value in shifted])
    return found


def slow_pyramiddrop(state: LayerState, budget: int) -> tuple[list[int], list[float]]:
    """s_i = mean over heads of A[last, i] in the layer that comes next; the best stay, in order."""
    rows = slow_row(state.next, state.length - 1)
    scores = [sum(row[position] for row in rows) / len(rows) for position in state.visual]
    ranked = sorted(range(len(scores)), key=lambda token: (-scores[token], token))
    return sorted(ranked[:budget]), scores


@pytest.mark.parametrize("budget", [1, 5, 23, 24])
def test_it_keeps_what_the_slow_reference_keeps(tokens_4x6: VisualTokens, budget: int) -> None:
    context = toy_context(tokens_4x6)
    assert context.state is not None
    kept, scores = slow_pyramiddrop(context.state, budget)
    selection = PyramidDrop().compress(tokens_4x6, budget, context)
    assert selection.anchor.tolist() == kept
    np.testing.assert_allclose(selection.scores, scores, atol=1e-6)


def test_it_reads_the_last_row_of_the_coming_layer_by_hand() -> None:
    tokens = VisualTokens.whole(torch.zeros(3, 2), TokenGrid.single(1, 3, (1, 3)))
    # One head, one number: the last query is 1, so keys are logits; token 1 has the largest, then token 2.
    key = torch.tensor([[[0.0], [0.1], [0.9], [0.5], [2.0]]])
    heads = Heads(torch.tensor([[[5.0], [5.0], [5.0], [5.0], [1.0]]]), key, 1.0)
    state = replace(
        toy_context(tokens).state, hidden=torch.zeros(5, 2), visual=np.array([1, 2, 3]), upcoming=lambda: heads
    )
    selection = PyramidDrop().compress(tokens, 2, Context(state=state))
    assert selection.anchor.tolist() == [1, 2]
    total = sum(math.exp(value) for value in (0.0, 0.1, 0.9, 0.5, 2.0))
    assert selection.scores is not None
    assert selection.scores[1] == pytest.approx(math.exp(0.9) / total)


def test_the_published_pyramid_is_an_average_of_270() -> None:
    acts = PyramidDrop().schedule(576, 270, 32)
    assert acts == (Act(8, 288), Act(16, 144), Act(24, 72))
    assert mean_over_layers(acts, 576, 32) == 270.0


def test_each_stage_leaves_the_same_share_of_the_tokens_that_entered() -> None:
    first, second, third = (act.keep for act in PyramidDrop().schedule(576, 200, 32))
    assert second == pytest.approx(first**2 / 576, abs=1.5)
    assert third == pytest.approx(first**3 / 576**2, abs=1.5)


def test_stages_asked_for_are_taken_and_others_refused() -> None:
    assert PyramidDrop(stages="2/5").cut_layers(8) == (2, 5)
    with pytest.raises(InvalidParameter, match=r"layer in 1\.\.7 of a language model with 8 layers, got layer 9"):
        PyramidDrop(stages="2/9").cut_layers(8)
    with pytest.raises(InvalidParameter, match="joined by '/'"):
        PyramidDrop(stages="5/2")


def test_positions_move_up_as_released_unless_asked_otherwise() -> None:
    assert PyramidDrop().convention == "renumbered"
    assert PyramidDrop(positions="original").convention == "original"
