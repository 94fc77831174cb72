"""FastV against loops, and its budget against the published averages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidParameter, MissingSignal
from compression.grid import TokenGrid
from compression.strategies.fastv import FastV
from compression.tokens import VisualTokens
from tests.compression.strategies.test_pyramiddrop import slow_row
from tests.contracts.toys import toy_context, toy_grid, toy_state, toy_tokens


def slow_fastv(attention: torch.Tensor, budget: int) -> tuple[list[int], list[float]]:
    """s_i = mean over heads of A[last row, i]; the best stay, in order."""
    heads, _, tokens = attention.shape
    scores = []
    for token in range(tokens):
        scores.append(sum(float(attention[head, 0, token]) for head in range(heads)) / heads)
    ranked = sorted(range(tokens), key=lambda token: (-scores[token], token))
    return sorted(ranked[:budget]), scores


@pytest.mark.parametrize("budget", [1, 5, 24])
def test_it_keeps_what_the_slow_reference_keeps(tokens_4x6: VisualTokens, budget: int) -> None:
    context = toy_context(tokens_4x6)
    assert context.attention is not None
    kept, scores = slow_fastv(context.attention, budget)
    selection = FastV().compress(tokens_4x6, budget, context)
    assert selection.anchor.tolist() == kept
    np.testing.assert_allclose(selection.scores, scores, atol=1e-6)


def test_it_reads_the_answer_row_by_hand() -> None:
    tokens = VisualTokens.whole(torch.zeros(4, 2), TokenGrid.single(2, 2, (2, 2)))
    rows = torch.tensor([[[0.1, 0.4, 0.2, 0.3], [1.0, 0.0, 0.0, 0.0]], [[0.1, 0.2, 0.5, 0.2], [1.0, 0.0, 0.0, 0.0]]])
    # Head means of the first row: .1, .3, .35, .25; the second row would keep token 0.
    assert FastV().compress(tokens, 2, Context(attention=rows)).anchor.tolist() == [1, 2]


@pytest.mark.parametrize("shape", [(4, 6), (12, 12)])  # the second is more positions than one part
@pytest.mark.parametrize("budget", [1, 7, 24])
def test_the_mean_of_all_rows_is_that_of_the_slow_reference(shape: tuple[int, int], budget: int) -> None:
    tokens = toy_tokens(toy_grid(shape))
    context = toy_context(tokens)
    assert context.state is not None
    state, heads = context.state, context.state.previous.query.shape[0]
    scores = [0.0] * len(tokens)
    for query in range(state.length):
        row = slow_row(state.previous, query)
        for at, token in enumerate(state.visual.tolist()):
            if token <= query:
                scores[at] += sum(row[head][token] for head in range(heads)) / heads / state.length
    selection = FastV(rows="mean").compress(tokens, budget, context)
    np.testing.assert_allclose(selection.scores, scores, rtol=1e-4)
    assert selection.anchor.tolist() == sorted(sorted(range(len(tokens)), key=lambda t: (-scores[t], t))[:budget])


def test_under_uniform_attention_the_mean_of_all_rows_prefers_early_tokens() -> None:
    tokens = toy_tokens(toy_grid((1, 4)))
    state = toy_state(tokens, in_front=0, behind=0)
    flat = replace(state.previous, query=torch.zeros(4, 4, 4))
    context = replace(toy_context(tokens), state=replace(state, previous=flat))
    selection = FastV(rows="mean").compress(tokens, 2, context)
    # Row q gives 1/(q + 1) to each token up to itself.
    np.testing.assert_allclose(selection.scores, [25 / 48, 13 / 48, 7 / 48, 3 / 48], rtol=1e-5)
    assert selection.anchor.tolist() == [0, 1]


def test_the_mean_of_all_rows_without_a_state_is_refused(tokens_4x6: VisualTokens) -> None:
    with pytest.raises(MissingSignal, match="fastv needs the signal 'layer_state'"):
        FastV(rows="mean").compress(tokens_4x6, 3, replace(toy_context(tokens_4x6), state=None))


def test_equal_attention_keeps_the_first_tokens(tokens_4x6: VisualTokens) -> None:
    context = Context(attention=torch.full((2, 1, 24), 1 / 24))
    assert FastV().compress(tokens_4x6, 3, context).anchor.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("layers", "cut"), [(32, 2), (28, 2), (64, 4), (8, 1), (6, 1), (2, 1)])
def test_the_cut_layer_scales_with_depth(layers: int, cut: int) -> None:
    assert FastV().cut_layers(layers) == (cut,)


def test_a_layer_asked_for_is_taken() -> None:
    assert FastV(layer=3).cut_layers(8) == (3,)


@pytest.mark.parametrize("layer", [8, 9])
def test_a_layer_that_the_model_does_not_have_is_refused(layer: int) -> None:
    with pytest.raises(
        InvalidParameter, match=rf"layer in 1\.\.7 of a language model with 8 layers, got layer {layer}"
    ):
        FastV(layer=layer).cut_layers(8)


def test_layer_zero_is_refused_when_built() -> None:
    with pytest.raises(InvalidParameter, match="layer takes a whole number of at least 1, got 0"):
        FastV(layer=0)


def test_attention_over_other_tokens_is_refused(tokens_4x6: VisualTokens) -> None:
    context = toy_context(toy_tokens(toy_grid((3, 3))))
    with pytest.raises(MissingSignal, match=r"over 24 visual tokens, got \(3, 2, 9\)"):
        FastV().compress(tokens_4x6, 4, context)
