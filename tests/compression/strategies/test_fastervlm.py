"""FasterVLM against loops, and its views by hand."""

from __future__ import annotations

import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.strategies.fastervlm import FasterVLM
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_fastervlm(attention: list[list[float]], budget: int) -> list[int]:
    """The tokens of largest mean over heads, in raster order."""
    tokens = range(len(attention[0]))
    mean = [sum(head[i] for head in attention) / len(attention) for i in tokens]
    return sorted(sorted(tokens, key=lambda i: (-mean[i], i))[:budget])


def row(*attention: list[float], shapes: tuple[tuple[int, int], ...]) -> VisualTokens:
    """Views with these rows of [CLS] attention, one row per head."""
    heads = torch.tensor(attention)
    grid = toy_grid(*shapes)
    return VisualTokens.whole(torch.zeros(len(grid), 1), grid, {Signal.CLS_ATTENTION: heads})


@pytest.mark.parametrize("budget", [1, 2, 9, 23, 24])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_keeps_what_the_slow_reference_keeps(seed: int, budget: int) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), seed=seed)
    expected = slow_fastervlm(tokens.signals[Signal.CLS_ATTENTION].tolist(), budget)
    assert FasterVLM().compress(tokens, budget, Context()).anchor.tolist() == expected


def test_two_heads_are_averaged_by_hand() -> None:
    # means .2 .3 .25 .25: 1 first, then 2 before 3 at equal means
    tokens = row([0.3, 0.1, 0.2, 0.4], [0.1, 0.5, 0.3, 0.1], shapes=((1, 4),))
    selection = FasterVLM().compress(tokens, 2, Context())
    assert selection.anchor.tolist() == [1, 2]
    assert selection.scores is not None
    assert selection.scores.tolist() == pytest.approx([0.2, 0.3, 0.25, 0.25])


def test_views_share_the_budget_or_compete() -> None:
    tokens = row([0.1, 0.2, 0.0, 0.1, 0.9, 0.8, 0.7], shapes=((2, 2), (1, 3)))
    assert FasterVLM().compress(tokens, 3, Context()).anchor.tolist() == [0, 1, 4]
    assert FasterVLM(per="image").compress(tokens, 3, Context()).anchor.tolist() == [4, 5, 6]


def test_equal_attention_keeps_the_first_tokens_of_each_view() -> None:
    tokens = row([0.25] * 8, shapes=((2, 2), (2, 2)))
    assert FasterVLM().compress(tokens, 4, Context()).anchor.tolist() == [0, 1, 4, 5]


def test_what_is_kept_is_unchanged(tokens_4x6: VisualTokens) -> None:
    selection = FasterVLM().compress(tokens_4x6, 5, Context())
    assert torch.equal(selection.apply(tokens_4x6.features), tokens_4x6.features[selection.anchor])


def test_a_single_token_is_kept() -> None:
    grid = TokenGrid.single(1, 1, (4, 4))
    one = VisualTokens.whole(torch.ones(1, 2), grid, {Signal.CLS_ATTENTION: torch.zeros(2, 1)})
    assert FasterVLM().compress(one, 1, Context()).anchor.tolist() == [0]
