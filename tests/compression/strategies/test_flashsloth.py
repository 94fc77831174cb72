"""FlashSloth's windows against loops, its weights by hand, and what a budget buys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidGrid
from compression.grid import TokenGrid
from compression.strategies.flashsloth import FlashSloth
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_windows(rows: int, cols: int, side: int) -> list[list[int]]:
    """Non-overlapping side x side windows, row by row, ragged at the right and lower border."""
    return [
        [y * cols + x for y in range(top, min(rows, top + side)) for x in range(left, min(cols, left + side))]
        for top in range(0, rows, side)
        for left in range(0, cols, side)
    ]


def slow_flashsloth(features: list[list[float]], windows: list[list[int]], temperature: float) -> list[list[float]]:
    """Sum of alpha*x per window with alpha a softmax of the squared deviation over temperature times its mean."""
    dims = range(len(features[0]))
    deviation = [0.0] * len(features)
    for window in windows:
        mean = [sum(features[i][d] for i in window) / len(window) for d in dims]
        for i in window:
            deviation[i] = sum((features[i][d] - mean[d]) ** 2 for d in dims)
    unit = temperature * sum(deviation) / len(deviation)
    outputs = []
    for window in windows:
        powers = [math.exp(deviation[i] / unit) if unit else 1.0 for i in window]
        outputs.append(
            [sum(p * features[i][d] for p, i in zip(powers, window, strict=True)) / sum(powers) for d in dims]
        )
    return outputs


@pytest.mark.parametrize("temperature", [0.2, 1.0, 50.0])
@pytest.mark.parametrize(("budget", "side"), [(1, 8), (2, 7), (4, 4), (6, 4), (12, 3), (35, 2), (56, 1)])
def test_outputs_are_those_of_the_slow_reference(budget: int, side: int, temperature: float) -> None:
    tokens = toy_tokens(toy_grid((7, 8)), dtype=torch.float64)
    selection = FlashSloth(temperature=temperature).compress(tokens, budget, Context())
    expected = slow_flashsloth(tokens.features.tolist(), slow_windows(7, 8, side), temperature)
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), expected, atol=1e-5)


def test_the_released_count_is_that_of_three_by_three_windows() -> None:
    selection = FlashSloth().compress(toy_tokens(toy_grid((27, 27))), 81, Context())
    assert len(selection) == 81
    assert (np.bincount(selection.weight_output) == 9).all()
    assert selection.anchor[:3].tolist() == [28, 31, 34]
    assert selection.diagnostics["notes"] == []


def test_the_token_that_stands_out_weighs_most_by_hand() -> None:
    # Mean 3, squared deviations 9, 9, 9 and 81 (mean 27): the last weighs e^3, the others e^(1/3).
    features = torch.tensor([[0.0], [0.0], [0.0], [12.0]])
    tokens = VisualTokens.whole(features, TokenGrid.single(2, 2, (2, 2)))
    selection = FlashSloth().compress(tokens, 1, Context())
    share = math.exp(3) / (math.exp(3) + 3 * math.exp(1 / 3))
    assert selection.scores is not None
    assert selection.scores[3] == pytest.approx(share)
    assert selection.apply(features).item() == pytest.approx(12 * share)
    assert selection.anchor.tolist() == [3]


def test_weights_of_a_window_sum_to_one(tokens_4x6: VisualTokens) -> None:
    for budget in range(1, 25):
        selection = FlashSloth().compress(tokens_4x6, budget, Context())
        sums = np.bincount(selection.weight_output, weights=selection.weight_value)
        np.testing.assert_allclose(sums, 1, rtol=1e-6)
        assert selection.counts()["dropped"] == 0


def test_equal_tokens_weigh_the_same() -> None:
    tokens = VisualTokens.whole(torch.ones(9, 2), toy_grid((3, 3)))
    assert FlashSloth().compress(tokens, 1, Context()).weight_value.tolist() == [pytest.approx(1 / 9)] * 9


@pytest.mark.parametrize(("budget", "square", "fitted"), [(24, 24, 24), (23, 6, 20), (7, 6, 6), (5, 4, 4), (1, 1, 1)])
def test_fitted_windows_come_nearer_to_the_budget(
    tokens_4x6: VisualTokens, budget: int, square: int, fitted: int
) -> None:
    assert len(FlashSloth().compress(tokens_4x6, budget, Context())) == square
    selection = FlashSloth(windows="fitted").compress(tokens_4x6, budget, Context())
    assert len(selection) == fitted
    assert selection.diagnostics["shortfall"] == budget - fitted
    assert (np.bincount(selection.weight_token) == 1).all()


def test_views_share_by_their_sizes_or_equally() -> None:
    tokens = toy_tokens(toy_grid((6, 6), (3, 3)))
    assert FlashSloth().compress(tokens, 12, Context()).diagnostics["sizes"] == [[3, 3], [1, 1]]
    assert FlashSloth(per="view").compress(tokens, 12, Context()).diagnostics["sizes"] == [[2, 2], [2, 2]]


def test_a_view_without_outputs_is_dropped_and_scores_nothing() -> None:
    tokens = toy_tokens(toy_grid((2, 2), (2, 2), (2, 2)))
    selection = FlashSloth().compress(tokens, 2, Context())
    assert selection.diagnostics["sizes"] == [[1, 1], [1, 1], [0, 0]]
    assert selection.scores is not None
    assert selection.scores[8:].tolist() == [0, 0, 0, 0]
    assert selection.counts()["dropped"] == 4


def test_survivors_of_an_earlier_stage_are_refused(grid_4x6: TokenGrid) -> None:
    survivors = VisualTokens(torch.zeros(5, 2), grid_4x6, np.array([0, 3, 8, 9, 20]))
    with pytest.raises(InvalidGrid, match="windows of all 24 visual tokens, got 5 survivors; make it the first step"):
        FlashSloth().compress(survivors, 2, Context())
