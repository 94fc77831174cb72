"""FastKV's propagation against loops, its window and smoothing by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.decoder import Act
from compression.errors import InvalidParameter
from compression.grid import TokenGrid
from compression.layer import Heads, LayerState
from compression.strategies.fastkv import FastKV
from compression.tokens import VisualTokens
from tests.compression.strategies.test_pyramiddrop import slow_row
from tests.contracts.toys import toy_context, toy_state


def slow_fastkv(state: LayerState, window: int, kernel: int) -> list[float]:
    """Sum over the window's rows, mean over `kernel` positions with zeros beyond the ends, sum over heads."""
    start = max(state.length - window, int(max(state.visual)) + 1)
    rows = [slow_row(state.previous, query) for query in range(start, state.length)]
    scores = []
    for token in state.visual.tolist():
        total = 0.0
        for head in range(state.previous.query.shape[0]):
            for near in range(token - kernel // 2, token + kernel // 2 + 1):
                if 0 <= near < start:
                    total += sum(row[head][near] for row in rows) / kernel
        scores.append(total)
    return scores


@pytest.mark.parametrize(("window", "kernel"), [(8, 7), (1, 1), (3, 5), (2, 31)])
@pytest.mark.parametrize("budget", [1, 6, 24])
def test_it_keeps_what_the_slow_reference_keeps(
    tokens_4x6: VisualTokens, window: int, kernel: int, budget: int
) -> None:
    context = toy_context(tokens_4x6)
    assert context.state is not None
    scores = slow_fastkv(context.state, window, kernel)
    selection = FastKV(window=window, kernel=kernel).compress(tokens_4x6, budget, context)
    np.testing.assert_allclose(selection.scores, scores, atol=1e-5)
    assert selection.anchor.tolist() == sorted(sorted(range(24), key=lambda token: (-scores[token], token))[:budget])


def test_the_neighbours_of_what_is_looked_at_come_along_by_hand() -> None:
    tokens = VisualTokens.whole(torch.zeros(5, 2), TokenGrid.single(1, 5, (1, 5)))
    key = torch.zeros(1, 6, 1)
    key[0, 3] = 60.0  # the last position looks at token 3 alone
    heads = Heads(torch.ones(1, 6, 1), key, 1.0)
    state = replace(toy_state(tokens), hidden=torch.zeros(6, 2), visual=np.arange(5), previous=heads)
    selection = FastKV(window=1, kernel=3).compress(tokens, 3, Context(state=state))
    assert selection.anchor.tolist() == [2, 3, 4]
    assert selection.scores is not None
    assert selection.scores.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3])


def test_without_words_behind_the_image_its_last_token_looks_back() -> None:
    tokens = VisualTokens.whole(torch.zeros(3, 2), TokenGrid.single(1, 3, (1, 3)))
    heads = Heads(torch.ones(1, 3, 1), torch.tensor([[[0.0], [9.0], [0.0]]]), 1.0)
    state = replace(toy_state(tokens), hidden=torch.zeros(3, 2), visual=np.arange(3), previous=heads)
    assert FastKV(kernel=1).compress(tokens, 1, Context(state=state)).anchor.tolist() == [1]


def test_it_cuts_behind_layer_15_of_32() -> None:
    assert FastKV().schedule(576, 320, 32) == (Act(16, 64),)
    assert FastKV().cut_layers(6) == (3,)
    assert FastKV(layer=2).cut_layers(6) == (2,)
    assert FastKV().lowest(576, 32) == 289


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="kernel takes an odd number, got 4; write 5"):
        FastKV(kernel=4)
