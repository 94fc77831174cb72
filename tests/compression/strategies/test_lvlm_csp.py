"""LVLM_CSP against loops, by hand, and its budget against the numbers of its stages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.decoder import Act, mean_over_layers, tokens_per_layer
from compression.errors import InvalidBudget, InvalidParameter, MissingSignal
from compression.strategies.lvlm_csp import LVLMCSP
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_context, toy_grid, toy_tokens


def slow_stages(tokens: int, looked: list[list[float]], attention: list[list[float]], first: int, last: int):
    """Uniform and [CLS] representatives, and what the last stage keeps, with loops."""

    def best(rows: list[list[float]], count: int) -> list[int]:
        means = [sum(row[token] for row in rows) / len(rows) for token in range(tokens)]
        return sorted(sorted(range(tokens), key=lambda token: (-means[token], token))[:count])

    step = tokens // first
    return [i * step for i in range(first)], best(looked, first), best(attention, last)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (5, 3), (7, 24), (24, 2)])
def test_it_keeps_what_the_slow_reference_keeps(tokens_4x6: VisualTokens, first: int, last: int) -> None:
    context = toy_context(tokens_4x6)
    assert context.attention is not None
    looked = tokens_4x6.signals[Signal.CLS_ATTENTION].tolist()
    uniform, seen, kept = slow_stages(24, looked, context.attention[:, 0].tolist(), first, last)
    begin = Context(layer=0, layers=8)
    assert LVLMCSP().compress(tokens_4x6, first, begin).anchor.tolist() == uniform
    assert LVLMCSP(first="cls").compress(tokens_4x6, first, begin).anchor.tolist() == seen
    assert LVLMCSP().compress(tokens_4x6, last, context).anchor.tolist() == kept


def test_its_stages_by_hand() -> None:
    tokens = toy_tokens(toy_grid((2, 5)))
    begin = Context(layer=0, layers=8)
    # floor(10 / 3) = 3 and floor(10 / 4) = 2: what does not divide is left at the end, as published
    assert LVLMCSP().compress(tokens, 3, begin).anchor.tolist() == [0, 3, 6]
    assert LVLMCSP().compress(tokens, 4, begin).anchor.tolist() == [0, 2, 4, 6]
    looked = torch.tensor([[0.0, 0.5, 0, 0, 0.1, 0, 0, 0, 0, 0.2], [0.3, 0.1, 0, 0, 0.1, 0, 0, 0, 0, 0.2]])
    marked = replace(tokens, signals={Signal.CLS_ATTENTION: looked})
    # means: token 1 has .3, token 9 .2, token 0 .15, token 4 .1
    assert LVLMCSP(first="cls").compress(marked, 3, begin).anchor.tolist() == [0, 1, 9]
    rows = torch.zeros(2, 3, 10)
    rows[:, 0, 7], rows[0, 0, 2], rows[:, 1, 5] = 0.2, 0.3, 0.9
    kept = LVLMCSP().compress(tokens, 2, Context(layer=4, attention=rows))
    assert kept.anchor.tolist() == [2, 7]
    assert kept.scores is not None
    np.testing.assert_allclose(kept.scores, [0, 0, 0.15, 0, 0, 0, 0, 0.2, 0, 0], atol=1e-6)


def test_random_representatives_follow_the_seed(tokens_4x6: VisualTokens) -> None:
    def drawn(seed: int) -> list[int]:
        return LVLMCSP(first="random").compress(tokens_4x6, 6, Context(layer=0, seed=seed)).anchor.tolist()

    assert drawn(1) == sorted(set(drawn(1))) == drawn(1)
    assert len({tuple(drawn(seed)) for seed in range(8)}) > 1


def test_a_quarter_and_a_ninth_are_a_mean_of_212_of_576() -> None:
    # (8 * 144 + 8 * 576 + 16 * 64) / 32
    acts = LVLMCSP().schedule(576, 212, 32)
    assert acts == (Act(0, 144), Act(8, 576, returns=True), Act(16, 64))
    assert mean_over_layers(acts, 576, 32) == 212.0
    assert tokens_per_layer(acts, 576, 32) == (144,) * 8 + (576,) * 8 + (64,) * 16


@pytest.mark.parametrize("ratio", [0.01, 0.5, 1.0, 2.25, 100.0])
@pytest.mark.parametrize("layers", [2, 3, 4, 28, 32])
def test_every_mean_is_met_within_one_token(ratio: float, layers: int) -> None:
    strategy = LVLMCSP(ratio=ratio)
    for average in range(strategy.lowest(60, layers), 61):
        acts = strategy.schedule(60, average, layers)
        assert average - 1 < mean_over_layers(acts, 60, layers) <= average


def test_the_full_look_is_the_least_that_it_costs() -> None:
    assert LVLMCSP().lowest(576, 32) == 145  # (8 * 1 + 8 * 576 + 16 * 1) / 32 = 144.75
    with pytest.raises(InvalidBudget, match="cuts from layer 0 on of 32 leave a mean of at least 145 of 576"):
        LVLMCSP().schedule(576, 144, 32)


def test_the_layers_scale_and_can_be_given() -> None:
    assert LVLMCSP().cut_layers(28) == (0, 7, 14)
    assert LVLMCSP(stages="3/20").cut_layers(32) == (0, 3, 20)
    assert LVLMCSP().cut_layers(2) == (0, 1)
    for text in ("8", "4/8/12"):
        with pytest.raises(InvalidParameter, match=r"stages of lvlm_csp are two layers.*write for example 8/16"):
            LVLMCSP(stages=text)


def test_what_the_encoder_cannot_give_is_named(tokens_4x6: VisualTokens) -> None:
    blind = replace(tokens_4x6, signals={})
    with pytest.raises(MissingSignal, match="lvlm_csp needs the signal 'cls_attention'"):
        LVLMCSP(first="cls").compress(blind, 3, Context(layer=0))
    with pytest.raises(MissingSignal, match="lvlm_csp needs the signal 'layer_attention'"):
        LVLMCSP().compress(blind, 3, Context(layer=4))
