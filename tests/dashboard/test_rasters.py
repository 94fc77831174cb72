from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.grid import TokenGrid, View
from dashboard.rasters import finest, levels_of
from tests.factories import make_grid


def test_views_side_by_side_are_one_raster() -> None:
    (level,) = levels_of(make_grid((8, 8), views=16, image_size=(512, 512)))
    (raster,) = level.rasters
    assert raster.shape == (32, 32)
    assert raster.box == (0, 0, 512, 512)
    assert sorted(raster.index.ravel().tolist()) == list(range(1024))
    assert level.name == "16 views"


def test_views_of_sizes_that_do_not_divide_the_image_are_one_raster_as_well() -> None:
    (level,) = levels_of(make_grid((7, 5), views=9, image_size=(1000, 777)))
    assert len(level.rasters) == 1


def test_a_thousand_views_are_one_raster() -> None:
    (level,) = levels_of(make_grid((8, 8), views=1024, image_size=(8192, 8192)))
    assert level.rasters[0].shape == (256, 256)
    assert level.cell == (32, 32)


def test_a_thumbnail_and_its_crops_are_two_levels_and_the_finer_one_is_shown() -> None:
    thumbnail = View(4, 4, (0, 0, 400, 400), "thumbnail")
    crops = [View(4, 4, (x, y, x + 200, y + 200), f"crop {x} {y}") for y in (0, 200) for x in (0, 200)]
    levels = levels_of(TokenGrid((thumbnail, *crops), (400, 400)))
    assert [level.name for level in levels] == ["thumbnail", "4 views"]
    assert finest(levels) == 1
    assert levels[0].tokens == 16


def test_views_with_other_cells_stay_rasters_of_their_own() -> None:
    views = (View(4, 4, (0, 0, 100, 100), "coarse"), View(8, 8, (100, 0, 200, 100), "fine"))
    (level,) = levels_of(TokenGrid(views, (100, 200)))
    assert [raster.shape for raster in level.rasters] == [(4, 4), (8, 8)]


def test_equal_views_far_apart_are_not_joined_by_an_empty_raster() -> None:
    views = (View(2, 2, (0, 0, 20, 20), "here"), View(2, 2, (980, 980, 1000, 1000), "there"))
    (level,) = levels_of(TokenGrid(views, (1000, 1000)))
    assert [raster.shape for raster in level.rasters] == [(2, 2), (2, 2)]


@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    side=st.integers(1, 4),
    height=st.integers(7, 999),
    width=st.integers(7, 999),
)
def test_the_token_under_its_own_centre_is_itself(rows: int, cols: int, side: int, height: int, width: int) -> None:
    grid = make_grid((rows, cols), views=side * side, image_size=(height, width))
    (level,) = levels_of(grid)
    boxes = grid.boxes()
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    assert level.tokens_at(x, y).tolist() == list(range(len(grid)))


@pytest.mark.parametrize("point", [(-0.1, 5), (5, -0.1), (10, 5), (5, 10), (np.nan, 5)])
def test_there_is_no_token_outside(point: tuple[float, float]) -> None:
    (level,) = levels_of(TokenGrid.single(2, 2, (10, 10)))
    assert level.tokens_at(np.array([point[0]]), np.array([point[1]])).tolist() == [-1]
