"""AdaptInfer against loops, each reading of what the paper leaves open, and its stages."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.layer import Heads, LayerState
from compression.strategies.adaptinfer import AdaptInfer, inflection_layers
from compression.tokens import VisualTokens
from tests.compression.strategies.test_pyramiddrop import slow_row
from tests.contracts.toys import toy_context, toy_state


def slow_adaptinfer(state: LayerState, reduction: str, weights: str) -> list[float]:
    """w from text-to-text attention, s_i = sum_j w_j A_tv[j, i]."""
    words = list(range(int(max(state.visual)) + 1, state.length))
    rows = {}
    for word in words:
        heads = slow_row(state.previous, word)
        rows[word] = [sum(head[key] for head in heads) / len(heads) for key in range(word + 1)]
    importance = []
    for word in words:
        if reduction == "kept":
            importance.append(sum(rows[word][other] for other in words if other <= word))
        else:
            seen_by = [other for other in words if other >= word]
            importance.append(sum(rows[other][word] for other in seen_by) / len(seen_by))
    raised = [math.exp(value) for value in importance] if weights == "softmax" else importance
    share = [value / sum(raised) for value in raised]
    return [
        sum(part * rows[word][token] for part, word in zip(share, words, strict=True))
        for token in state.visual.tolist()
    ]


@pytest.mark.parametrize("reduction", ["received", "kept"])
@pytest.mark.parametrize("weights", ["softmax", "share"])
@pytest.mark.parametrize("budget", [1, 6, 24])
def test_it_keeps_what_the_slow_reference_keeps(
    tokens_4x6: VisualTokens, reduction: str, weights: str, budget: int
) -> None:
    context = toy_context(tokens_4x6)
    assert context.state is not None
    scores = slow_adaptinfer(context.state, reduction, weights)
    selection = AdaptInfer(reduction=reduction, weights=weights).compress(  # type: ignore[arg-type]
        tokens_4x6, budget, context
    )
    np.testing.assert_allclose(selection.scores, scores, atol=1e-6)
    assert selection.anchor.tolist() == sorted(sorted(range(24), key=lambda token: (-scores[token], token))[:budget])


def test_a_word_that_others_look_at_counts_for_more_by_hand() -> None:
    tokens = VisualTokens.whole(torch.zeros(2, 2), TokenGrid.single(1, 2, (1, 2)))
    # Positions: two visual tokens, then words a and b. Logits: a looks at token 0, b at token 1 and at a.
    big = 50.0
    query = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    key = torch.tensor([[[big, 0.0, 0.0], [0.0, big, 0.0], [0.0, big, 0.0], [0.0, 0.0, 0.0]]])
    state = replace(
        toy_state(tokens), hidden=torch.zeros(4, 2), visual=np.array([0, 1]), previous=Heads(query, key, 1.0)
    )
    selection = AdaptInfer(weights="share").compress(tokens, 1, Context(state=state))
    # A: a -> token 0 wholly; b -> token 1 and word a, half each. u_a = (0 + 1/2) / 2, u_b = 0: all weight is on a.
    assert selection.scores is not None
    assert selection.scores.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert selection.anchor.tolist() == [0]


def test_stages_keep_the_split_where_it_meets_the_budget() -> None:
    strategy = AdaptInfer()
    split = [int(576 * part) for part in (0.5, 0.25, 0.11)]
    mean = (2 * 576 + 9 * split[0] + 10 * split[1] + 11 * split[2]) / 32
    assert [act.keep for act in strategy.schedule(576, math.ceil(mean), 32)] == pytest.approx(split, abs=3)
    assert [act.layer for act in strategy.schedule(576, 200, 32)] == [2, 11, 21]


def test_stages_can_be_asked_for_and_positions_stay_as_they_are() -> None:
    assert AdaptInfer(stages="1/3").cut_layers(6) == (1, 3)
    assert AdaptInfer().cut_layers(6) == (1, 2, 4)
    assert AdaptInfer().convention == "original"
    assert AdaptInfer(positions="renumbered").convention == "renumbered"


def test_inflections_lie_behind_the_largest_turns_by_hand() -> None:
    a, b, c = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.5]
    rows = np.array([a, a, b, b, c, c, c])
    assert inflection_layers(rows, 2) == (3, 5)
    assert inflection_layers(rows, 1) == (3,)
    assert inflection_layers(np.array([a, a, a]), 2) == ()
