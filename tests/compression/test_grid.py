"""Where tokens lie: boxes, painting, and what overlaps."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from compression.errors import InvalidBudget, InvalidGrid
from compression.grid import TokenGrid, View
from tests.contracts.toys import toy_grid


def test_boxes_tile_the_image_without_gap_or_overlap(grid_4x6: TokenGrid) -> None:
    boxes = grid_4x6.boxes()
    assert boxes.shape == (24, 4)
    assert boxes[0].tolist() == [0, 0, 10, 10]
    assert boxes[23].tolist() == [50, 30, 60, 40]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert areas.sum() == 40 * 60


def test_painting_puts_tokens_at_their_rows_and_columns() -> None:
    grid = toy_grid((4, 6), (3, 3))
    picture = grid.paint(np.arange(33), view=1)
    assert picture.tolist() == [[24, 25, 26], [27, 28, 29], [30, 31, 32]]
    rows, cols = grid.rows_cols()
    assert (grid.paint(rows, 0)[:, 0] == np.arange(4)).all()
    assert (grid.paint(cols, 0)[0] == np.arange(6)).all()


def test_views_lie_one_after_the_other() -> None:
    grid = toy_grid((4, 6), (3, 3))
    assert len(grid) == 33
    assert grid.starts == (0, 24, 33)
    assert grid.tokens_of(1) == slice(24, 33)
    assert np.bincount(grid.view_indices()).tolist() == [24, 9]


def test_values_of_another_grid_are_refused(grid_4x6: TokenGrid) -> None:
    with pytest.raises(InvalidGrid, match="one entry for each of 24 tokens, got 23"):
        grid_4x6.paint(np.zeros(23))


def test_evidence_marks_tokens_by_area_and_small_boxes_by_their_centre(grid_4x6: TokenGrid) -> None:
    # Five of ten pixels of the second column are enough, four are not.
    assert np.flatnonzero(grid_4x6.overlapping(np.array([[0, 0, 15, 10]]))).tolist() == [0, 1]
    assert np.flatnonzero(grid_4x6.overlapping(np.array([[0, 0, 14, 10]]))).tolist() == [0]
    assert np.flatnonzero(grid_4x6.overlapping(np.array([[22, 11, 24, 13]]))).tolist() == [8]
    assert not grid_4x6.overlapping(np.empty((0, 4))).any()


def test_a_grid_survives_storage() -> None:
    grid = toy_grid((4, 6), (3, 3))
    assert TokenGrid.from_json(json.loads(json.dumps(grid.to_json()))) == grid


@pytest.mark.parametrize(("ratio", "budget"), [(1.0, 24), (0.5, 12), (0.001, 1), (0.25, 6)])
def test_a_ratio_is_a_count_of_at_least_one(grid_4x6: TokenGrid, ratio: float, budget: int) -> None:
    assert grid_4x6.budget_for(ratio) == budget


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, math.nan])
def test_a_ratio_outside_its_range_is_refused(grid_4x6: TokenGrid, ratio: float) -> None:
    with pytest.raises(InvalidBudget, match=f"lies above 0 and up to 1.0, got {ratio}"):
        grid_4x6.budget_for(ratio)


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ((0, 3, (0, 0, 1, 1)), "at least 1 x 1 tokens, got 0 x 3"),
        ((3, 3, (1, 0, 1, 1)), "left < right and top < bottom"),
        ((3, 3, (0, 0, math.inf, 1)), "left < right and top < bottom"),
        ((3, 3, (0, 0, math.nan, 1)), "left < right and top < bottom"),
    ],
)
def test_a_view_that_cannot_lie_on_an_image_is_refused(view: tuple[int, int, tuple], message: str) -> None:
    with pytest.raises(InvalidGrid, match=message):
        View(*view)


def test_a_grid_without_views_or_pixels_is_refused() -> None:
    with pytest.raises(InvalidGrid, match="at least one view, got none"):
        TokenGrid((), (4, 4))
    with pytest.raises(InvalidGrid, match=r"at least one pixel, got \(0, 4\)"):
        TokenGrid((View(1, 1, (0, 0, 1, 1)),), (0, 4))
