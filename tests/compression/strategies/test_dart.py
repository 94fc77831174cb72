"""DART against loops, its size against the released rule, and one case by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.decoder import Act
from compression.grid import TokenGrid
from compression.layer import Heads, LayerState
from compression.strategies.dart import DART
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_context, toy_grid, toy_state, toy_tokens


def slow_dart(state: LayerState, budget: int, image_pivots: int, text_pivots: int) -> tuple[set[int], list[float]]:
    """Pivots by L1 norm of their keys; each takes the least similar of what is left."""
    norms = [
        sum(abs(float(value)) for head in state.previous.key for value in head[position])
        for position in range(state.length)
    ]
    visual = state.visual.tolist()
    scores = [norms[position] for position in visual]
    images = sorted(range(len(visual)), key=lambda token: (-scores[token], token))[: min(image_pivots, budget)]
    behind = range(max(visual) + 1, state.length)
    words = sorted(behind, key=lambda position: (-norms[position], position))[:text_pivots]
    states = state.norm(state.hidden).double()

    def cosine(a: int, b: int) -> float:
        size = math.sqrt(float(states[a] @ states[a]) * float(states[b] @ states[b]))
        return float(states[a] @ states[b]) / size

    pivots = [visual[token] for token in images] + words
    kept = set(images)
    each, rest = divmod(budget - len(images), len(pivots))
    for turn, pivot in enumerate(pivots):
        left = sorted((token for token in range(len(visual)) if token not in kept), key=lambda token: token)
        left.sort(key=lambda token: cosine(pivot, visual[token]))
        kept |= set(left[: each + (1 if turn < rest else 0)])
    return kept, scores


@pytest.mark.parametrize("budget", [1, 3, 4, 12, 17, 23, 24])
@pytest.mark.parametrize(("image_pivots", "text_pivots"), [(4, 4), (1, 0), (2, 9)])
def test_it_keeps_what_the_slow_reference_keeps(
    tokens_4x6: VisualTokens, budget: int, image_pivots: int, text_pivots: int
) -> None:
    context = toy_context(tokens_4x6)
    assert context.state is not None
    kept, scores = slow_dart(context.state, budget, image_pivots, text_pivots)
    strategy = DART(image_pivots=image_pivots, text_pivots=text_pivots)
    selection = strategy.compress(tokens_4x6, budget, context)
    assert selection.anchor.tolist() == sorted(kept)
    np.testing.assert_allclose(selection.scores, scores, rtol=1e-6)


def test_a_pivot_keeps_what_is_unlike_it_by_hand() -> None:
    tokens = VisualTokens.whole(torch.zeros(4, 2), TokenGrid.single(1, 4, (1, 4)))
    # Token 0 has the largest key; token 2 points the other way, token 1 across, token 3 the same way.
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [2.0, 0.1], [1.0, 1.0]])
    heads = Heads(torch.zeros(1, 6, 1), torch.tensor([[[0.0], [-9.0], [1.0], [1.0], [1.0], [0.0]]]), 1.0)
    state = replace(
        toy_state(tokens), hidden=hidden, visual=np.array([1, 2, 3, 4]), previous=heads, norm=torch.nn.Identity()
    )
    strategy = DART(image_pivots=1, text_pivots=0)
    assert strategy.compress(tokens, 2, Context(state=state)).anchor.tolist() == [0, 2]
    assert strategy.compress(tokens, 3, Context(state=state)).anchor.tolist() == [0, 1, 2]


@pytest.mark.parametrize("each", [0, 1, 5])
def test_a_released_size_gives_each_of_eight_pivots_the_same(each: int) -> None:
    tokens = toy_tokens(toy_grid((6, 10)))
    context = toy_context(tokens)
    assert context.state is not None
    size = 4 + 8 * each
    kept, _ = slow_dart(context.state, size, 4, 4)
    assert DART().compress(tokens, size, context).anchor.tolist() == sorted(kept)


def test_its_cut_is_that_of_a_single_layer() -> None:
    assert DART().schedule(576, 192, 32) == (Act(2, 166),)
    assert DART(layer=5).cut_layers(32) == (5,)
    assert DART().convention == "original"
