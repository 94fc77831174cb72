"""ViR's surrogate router against loops, the published decision rule, and budgets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidBudget, InvalidGrid
from compression.grid import TokenGrid
from compression.strategies.vir import ViR
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_probabilities(tokens: VisualTokens, most: float | None = None) -> list[float]:
    """1 - clip(HF/HF95): HF is the mean over a view of ||x - mean of its 3 x 3 neighbourhood||^2."""
    busy = []
    for view, start in zip(tokens.grid.views, tokens.grid.starts, strict=False):
        picture = tokens.features[start : start + len(view)].double().reshape(view.rows, view.cols, -1).tolist()
        total = 0.0
        for y in range(view.rows):
            for x in range(view.cols):
                near = [
                    picture[b][a]
                    for b in range(max(0, y - 1), min(view.rows, y + 2))
                    for a in range(max(0, x - 1), min(view.cols, x + 2))
                ]
                total += sum(
                    (value - sum(n[d] for n in near) / len(near)) ** 2 for d, value in enumerate(picture[y][x])
                )
        busy.append(total / len(view))
    ranked = sorted(busy)
    place = 0.95 * (len(busy) - 1)
    low, high = ranked[int(place)], ranked[min(len(busy) - 1, int(place) + 1)]
    most = low + (high - low) * (place - int(place)) if most is None else most
    return [1 - min(1.0, value / most) for value in busy]


def scaled(*strengths: float, side: int = 4) -> VisualTokens:
    """Views of side x side tokens with the same pattern at these strengths."""
    pattern = toy_tokens(toy_grid((side, side))).features
    return VisualTokens.whole(
        torch.cat([strength * pattern for strength in strengths]), toy_grid(*[(side, side)] * len(strengths))
    )


@pytest.mark.parametrize("calibration", [None, 3.0])
def test_probabilities_are_those_of_the_slow_reference(calibration: float | None) -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3), (1, 5), (2, 2)))
    selection = ViR(calibration=calibration).compress(tokens, None, Context())
    expected = slow_probabilities(tokens, calibration)
    np.testing.assert_allclose(selection.diagnostics["compress_probability"], expected, atol=1e-5)


def test_views_of_little_structure_are_compressed_by_hand() -> None:
    # HF is 1 : 1/4 : 1/16 : 1; its 95th percentile is 1, so p = 0, .75, .9375, 0 and the 10 % quantile is 0.
    selection = ViR().compress(scaled(1, 0.5, 0.25, 1), None, Context())
    np.testing.assert_allclose(selection.diagnostics["compress_probability"], [0, 0.75, 0.9375, 0], atol=1e-6)
    assert selection.diagnostics["window_sides"] == [1, 2, 2, 1]
    assert len(selection) == 16 + 4 + 4 + 16
    assert selection.anchor[16:20].tolist() == [16 + 5, 16 + 7, 16 + 13, 16 + 15]


def test_a_compressed_view_holds_the_means_of_two_by_two_tokens() -> None:
    tokens = scaled(1, 0.5, 0.25, 1)
    outputs = ViR().compress(tokens, None, Context()).apply(tokens.features)
    picture = tokens.features[16:32].reshape(4, 4, -1)
    expected = [picture[y : y + 2, x : x + 2].mean((0, 1)) for y in (0, 2) for x in (0, 2)]
    torch.testing.assert_close(outputs[16:20], torch.stack(expected))


@pytest.mark.parametrize("views", [2, 5, 9])
def test_the_count_is_that_of_the_published_rule(views: int) -> None:
    tokens = scaled(*np.linspace(0.1, 1, views).tolist(), side=16)
    selection = ViR().compress(tokens, None, Context())
    compressed = selection.diagnostics["window_sides"].count(2)
    assert compressed > 0
    assert len(selection) == 256 * views - 192 * compressed


def test_an_image_of_one_view_is_never_compressed_by_the_router() -> None:
    for strength in (0.0, 1.0):
        selection = ViR(absolute=0.0).compress(scaled(strength), None, Context())
        assert len(selection) == 16
        assert "never compressed" in selection.diagnostics["notes"][0]


def test_both_thresholds_must_be_passed() -> None:
    tokens = scaled(1, 0.5, 0.25, 1)
    assert ViR(absolute=0.8).compress(tokens, None, Context()).diagnostics["window_sides"] == [1, 1, 2, 1]
    assert ViR(absolute=0.75).compress(tokens, None, Context()).diagnostics["window_sides"] == [1, 2, 2, 1]
    # the quantile at two thirds is the p of the second view, and a view must be strictly above it
    assert ViR(relative=0.67).compress(tokens, None, Context()).diagnostics["window_sides"] == [1, 1, 2, 1]
    assert ViR(relative=1.0).compress(tokens, None, Context()).diagnostics["window_sides"] == [1, 1, 1, 1]


def test_a_router_that_compresses_nothing_says_so() -> None:
    notes = ViR().compress(scaled(1, 0.9), None, Context()).diagnostics["notes"]
    assert notes[0].startswith("the router compresses no view: the likeliest has p = 0.1")


def test_equal_views_are_all_kept_whole() -> None:
    assert ViR(absolute=0.0).compress(scaled(1, 1, 1), None, Context()).diagnostics["window_sides"] == [1, 1, 1]
    flat = ViR().compress(scaled(0, 0, 0), None, Context())
    assert flat.diagnostics["compress_probability"] == [1, 1, 1]
    assert len(flat) == 48


@pytest.mark.parametrize(
    ("budget", "sides"),
    [
        (64, [1, 1, 1, 1]),
        (63, [1, 1, 2, 1]),
        (52, [1, 1, 2, 1]),
        (51, [1, 2, 2, 1]),
        (39, [2, 2, 2, 1]),
        (16, [2, 2, 2, 2]),
        (15, [2, 2, 4, 2]),
        (4, [4, 4, 4, 4]),
        (3, [4, 4, 0, 4]),
        (1, [0, 0, 0, 4]),
    ],
)
def test_a_budget_compresses_the_likeliest_views_first(budget: int, sides: list[int]) -> None:
    selection = ViR().compress(scaled(1, 0.5, 0.25, 1), budget, Context())
    assert selection.diagnostics["window_sides"] == sides
    assert len(selection) <= budget


def test_a_budget_beyond_the_two_rates_is_said() -> None:
    tokens = scaled(1, 0.5, 0.25, 1)
    assert ViR().compress(tokens, 16, Context()).diagnostics["notes"] == []
    assert "larger than the method's 2 x 2" in ViR().compress(tokens, 15, Context()).diagnostics["notes"][0]
    assert "2 views have no output" in ViR().compress(tokens, 2, Context()).diagnostics["notes"][0]


def test_odd_views_have_smaller_windows_at_the_border() -> None:
    tokens = VisualTokens.whole(torch.arange(15.0)[:, None], toy_grid((3, 5)))
    selection = ViR().compress(tokens, 6, Context())
    assert np.bincount(selection.weight_output).tolist() == [4, 4, 2, 2, 2, 1]
    assert selection.apply(tokens.features)[:, 0].tolist() == [3, 5, 6.5, 10.5, 12.5, 14]


def test_a_calibration_of_zero_compresses_flat_views_only() -> None:
    selection = ViR(calibration=0.0).compress(scaled(1, 0, 0.5), None, Context())
    assert selection.diagnostics["compress_probability"] == [0, 1, 0]


def test_bad_budgets_and_survivors_are_refused(grid_4x6: TokenGrid) -> None:
    with pytest.raises(InvalidBudget, match="got 0"):
        ViR().compress(scaled(1), 0, Context())
    survivors = VisualTokens(torch.zeros(5, 2), grid_4x6, np.array([0, 3, 8, 9, 20]))
    with pytest.raises(InvalidGrid, match="views of 24 visual tokens, got 5 survivors; make it the first step"):
        ViR().compress(survivors, None, Context())
