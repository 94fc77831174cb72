"""PruMerge against loops, and its outliers, neighbours and weights by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.selection import Fate
from compression.strategies.prumerge import PruMerge, outliers
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def quartile(values: list[float], share: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    ranked = sorted(values)
    place = share * (len(ranked) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ranked) - 1)
    return ranked[below] + (place - below) * (ranked[above] - ranked[below])


def slow_outliers(attention: list[float]) -> int:
    low, high = quartile(attention, 0.25), quartile(attention, 0.75)
    return sum(a > high + 1.5 * (high - low) for a in attention)


def slow_merge(tokens: VisualTokens, kept: list[int], neighbours: int = 32) -> list[list[float]]:
    """The released merging of the kept tokens of one view, and the sum of the others behind them."""
    features = tokens.features.double().tolist()
    attention = tokens.signals[Signal.LAST_CLS_ATTENTION].double().tolist()
    keys = tokens.signals[Signal.LAST_KEYS].double().tolist()
    dims = range(len(features[0]))
    outputs = []
    for i in kept:
        others = sorted((j for j in range(len(features)) if j != i), key=lambda j: (-cosine(keys[i], keys[j]), j))
        outputs.append([features[i][d] + sum(attention[j] * features[j][d] for j in others[:neighbours]) for d in dims])
    rest = [j for j in range(len(features)) if j not in kept]
    return [*outputs, [sum(attention[j] * features[j][d] for j in rest) for d in dims]]


def slow_prumerge(tokens: VisualTokens, count: int, neighbours: int = 32) -> list[list[float]]:
    attention = tokens.signals[Signal.LAST_CLS_ATTENTION].tolist()
    best = sorted(range(len(attention)), key=lambda i: (-attention[i], i))
    return slow_merge(tokens, best[:count], neighbours)


@pytest.mark.parametrize("budget", [2, 3, 20, 63])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_a_budget_outputs_are_those_of_the_slow_reference(seed: int, budget: int) -> None:
    tokens = toy_tokens(toy_grid((8, 8)), seed=seed, dtype=torch.float64)
    outputs = PruMerge().compress(tokens, budget, Context()).apply(tokens.features)
    np.testing.assert_allclose(outputs.numpy(), slow_prumerge(tokens, budget - 1), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_without_a_budget_the_outliers_are_kept(seed: int) -> None:
    tokens = toy_tokens(toy_grid((8, 8)), seed=seed, dtype=torch.float64)
    selection = PruMerge().compress(tokens, None, Context())
    found = slow_outliers(tokens.signals[Signal.LAST_CLS_ATTENTION].float().tolist())
    assert selection.diagnostics["outliers"] == found > 0
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), slow_prumerge(tokens, found), atol=1e-6)


ATTENTION = (0.1, 0.1, 0.4, 0.1, 0.2, 0.1)


def by_hand(attention: Sequence[float] = ATTENTION) -> VisualTokens:
    """Six tokens in a row. Attention: 2 above all, then 4; the key of 3 is most like that of 2, 5's like that of 4."""
    grid = TokenGrid.single(1, 6, (1, 6))
    signals = {
        Signal.LAST_CLS_ATTENTION: torch.tensor(attention),
        Signal.LAST_KEYS: torch.tensor([[1.0, 0.0], [1.0, 0.3], [0.1, 1.0], [0.0, 1.0], [-1.0, 0.1], [-1.0, 0.0]]),
    }
    return VisualTokens.whole(torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0]]), grid, signals)


def test_two_kept_tokens_by_hand() -> None:
    tokens = by_hand()
    selection = PruMerge(neighbours=1).compress(tokens, 3, Context())
    assert selection.anchor.tolist() == [2, 4, -1]
    rest = 0.1 * (1 + 2 + 8 + 32)
    expected = torch.tensor([4 + 0.1 * 8, 16 + 0.1 * 32, rest])
    torch.testing.assert_close(selection.apply(tokens.features)[:, 0], expected)
    assert selection.fate.tolist() == [Fate.MERGED, Fate.MERGED, Fate.KEPT, Fate.MERGED, Fate.KEPT, Fate.MERGED]
    averaged = PruMerge(neighbours=1, merge="mean").compress(tokens, 3, Context()).apply(tokens.features)
    torch.testing.assert_close(averaged[:, 0], torch.tensor([4.8 / 1.1, 19.2 / 1.1, rest / 0.4]))


def test_the_attention_of_six_tokens_has_outliers_by_hand() -> None:
    # sorted .1 .1 .1 .1 .2 .4: Q1 = .1, Q3 = .1 + .75 * .1 = .175, fence .175 + 1.5 * .075 = .2875
    assert outliers(np.array(ATTENTION, np.float32)) == 1
    assert PruMerge().compress(by_hand(), None, Context()).anchor.tolist() == [2, -1]


def test_in_raster_order_the_same_tokens_come_as_they_lie() -> None:
    attention = torch.tensor([0.1, 0.2, 0.1, 0.4, 0.1, 0.3])
    tokens = VisualTokens.whole(
        by_hand().features, by_hand().grid, {**by_hand().signals, Signal.LAST_CLS_ATTENTION: attention}
    )
    assert PruMerge().compress(tokens, 4, Context()).anchor.tolist() == [3, 5, 1, -1]
    assert PruMerge(order="raster").compress(tokens, 4, Context()).anchor.tolist() == [1, 3, 5, -1]


def test_without_neighbours_kept_tokens_are_unchanged() -> None:
    tokens = by_hand()
    outputs = PruMerge(neighbours=0).compress(tokens, 3, Context()).apply(tokens.features)
    assert outputs[:2, 0].tolist() == [4, 16]


def test_a_budget_of_one_is_the_most_attended_token_alone() -> None:
    selection = PruMerge(neighbours=0).compress(by_hand(), 1, Context())
    assert selection.anchor.tolist() == [2]
    assert selection.counts() == {"kept": 1, "merged": 0, "dropped": 5}


def test_a_budget_of_all_tokens_leaves_nothing_to_sum_up() -> None:
    assert sorted(PruMerge().compress(by_hand(), 6, Context()).anchor) == [0, 1, 2, 3, 4, 5]


def test_flat_attention_has_no_outlier_and_keeps_one_token() -> None:
    selection = PruMerge().compress(by_hand([1 / 7] * 6), None, Context())
    assert selection.anchor.tolist() == [0, -1]
    assert selection.diagnostics["outliers"] == 0


def test_no_attention_at_all_averages_the_rest_plainly_when_weights_are_scaled() -> None:
    tokens = by_hand([0.0] * 6)
    outputs = PruMerge(merge="mean").compress(tokens, 2, Context()).apply(tokens.features)
    torch.testing.assert_close(outputs[:, 0], torch.tensor([1.0, (2 + 4 + 8 + 16 + 32) / 5]))
    assert PruMerge().compress(tokens, 2, Context()).apply(tokens.features)[:, 0].tolist() == [1, 0]


def test_each_view_has_its_own_outliers_and_its_own_rest() -> None:
    two = toy_grid((1, 6), (1, 6))
    one = by_hand()
    signals = {name: torch.cat([value, value]) for name, value in one.signals.items()}
    tokens = VisualTokens.whole(torch.cat([one.features, one.features]), two, signals)
    assert PruMerge().compress(tokens, None, Context()).anchor.tolist() == [2, -1, 8, -1]
    assert PruMerge().compress(tokens, 6, Context()).anchor.tolist() == [2, 4, -1, 8, 10, -1]
    assert PruMerge(per="image").compress(tokens, 5, Context()).anchor.tolist() == [2, 8, 4, 10, -1]


def test_equal_keys_give_the_neighbours_of_lowest_index() -> None:
    same = {**by_hand().signals, Signal.LAST_KEYS: torch.ones(6, 2)}
    tokens = VisualTokens.whole(by_hand().features, by_hand().grid, same)
    selection = PruMerge(neighbours=2).compress(tokens, 1, Context())
    assert selection.weight_token.tolist() == [2, 0, 1]
