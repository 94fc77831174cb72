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


def slow_cache(heads: Heads, visual: list[int], window: int, kernel: int, count: int) -> list[list[int]]:
    """Of each key head the tokens of highest score, summed over the query heads that share it."""
    start = max(heads.key.shape[1] - window, max(visual) + 1)
    rows = [slow_row(heads, query) for query in range(start, heads.key.shape[1])]
    sharing = len(heads.query) // len(heads.key)
    kept = []
    for group in range(len(heads.key)):
        scores = [0.0] * len(visual)
        for place, token in enumerate(visual):
            for head in range(group * sharing, (group + 1) * sharing):
                for near in range(token - kernel // 2, token + kernel // 2 + 1):
                    if 0 <= near < start:
                        scores[place] += sum(row[head][near] for row in rows) / kernel
        best = sorted(range(len(visual)), key=lambda place, scores=scores: (-scores[place], place))
        kept.append(sorted(best[:count]))
    return kept


@pytest.mark.parametrize(("window", "kernel"), [(8, 7), (1, 1), (3, 5)])
@pytest.mark.parametrize(("keep", "retain", "count"), [(12, 0.5, 6), (9, 0.5, 4), (24, 0.9, 21), (3, 0.1, 1)])
def test_each_cache_keeps_what_the_slow_reference_keeps(
    tokens_4x6: VisualTokens, window: int, kernel: int, keep: int, retain: float, count: int
) -> None:
    state = toy_state(tokens_4x6)
    kept = FastKV(window=window, kernel=kernel, retain=retain).cached(state.previous, state.columns, state.behind, keep)
    assert kept is not None
    assert kept.tolist() == slow_cache(state.previous, state.visual.tolist(), window, kernel, count)


def test_each_key_head_keeps_what_its_own_queries_look_at_by_hand() -> None:
    key = torch.zeros(2, 5, 1)
    key[0, 1], key[1, 3] = 60.0, 60.0  # the first key head has token 1, the second token 3
    heads = Heads(torch.ones(4, 5, 1), key, 1.0)
    kept = FastKV(window=1, kernel=1).cached(heads, torch.arange(4), torch.tensor([4]), 2)
    assert kept is not None
    assert kept.tolist() == [[1], [3]]


def test_a_cache_that_holds_no_more_than_it_may_stays_whole(tokens_4x6: VisualTokens) -> None:
    state = toy_state(tokens_4x6)
    assert FastKV(retain=1.0).cached(state.previous, state.columns, state.behind, 24) is None
    assert FastKV(cache="whole").cached(state.previous, state.columns, state.behind, 6) is None


def test_it_cuts_behind_layer_15_of_32() -> None:
    assert FastKV().schedule(576, 320, 32) == (Act(16, 64),)
    assert FastKV().cut_layers(6) == (3,)
    assert FastKV(layer=2).cut_layers(6) == (2,)
    assert FastKV().lowest(576, 32) == 289


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="kernel takes an odd number, got 4; write 5"):
        FastKV(kernel=4)
