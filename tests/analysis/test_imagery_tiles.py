"""Tiles show the right pixels at the right place, and only where there is an image."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import Resampling
from rasterio.warp import reproject

from analysis.errors import InvalidWindow, NotGeoreferenced
from analysis.imagery import (
    describe,
    max_mercator_zoom,
    max_zoom,
    mercator_tile,
    mercator_tile_pixels,
    pixel_tile,
    pixel_tile_pixels,
    read_rgb,
)
from tests.analysis.image_files import TEN_METRES, UTM, colours, write_picture, write_tiff
from tests.analysis.test_imagery_geometry import placed, tile_of


def decoded(tile: bytes | None) -> NDArray[np.uint8]:
    """The pixels of a PNG as [height, width, 4]."""
    assert tile is not None
    with Image.open(BytesIO(tile), formats=["PNG"]) as image:
        return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize(
    ("size", "zoom"),
    [((1, 1), 0), ((256, 256), 0), ((257, 10), 1), ((724, 934), 2), ((8192, 8192), 5), ((20_000, 100), 7)],
)
def test_the_deepest_zoom_is_the_one_that_shows_every_pixel(size: tuple[int, int], zoom: int) -> None:
    assert max_zoom(placed(UTM, TEN_METRES, size)) == zoom


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_tiles_of_the_deepest_zoom_put_the_image_together(suffix: str, tmp_path: Path) -> None:
    array = colours(300, 600)
    path = write_picture(tmp_path / f"a{suffix}", array)
    whole = np.zeros((512, 768, 4), np.uint8)
    for x in range(3):
        for y in range(2):
            whole[y * 256 : (y + 1) * 256, x * 256 : (x + 1) * 256] = decoded(pixel_tile(path, 2, x, y))
    assert np.array_equal(whole[:300, :600, :3], array)
    assert (whole[:300, :600, 3] == 255).all()
    assert (whole[300:, :, 3] == 0).all()
    assert (whole[:, 600:, 3] == 0).all()


def test_a_zoom_below_averages_two_by_two(tmp_path: Path) -> None:
    array = colours(300, 600)
    path = write_picture(tmp_path / "a.png", array)
    tile = decoded(pixel_tile(path, 1, 0, 0))
    means = array.reshape(150, 2, 300, 2, 3).mean(axis=(1, 3))
    assert np.abs(tile[:150, :, :3] - means[:, :256]).max() <= 1
    assert (tile[150:, :, 3] == 0).all()


def test_zoom_0_holds_the_whole_image_even_a_line(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", np.full((1, 5000, 3), 77, np.uint8))
    tile = decoded(pixel_tile(path, 0, 0, 0))
    assert (tile[0, :157, :3] == 77).all()
    assert (tile[0, :157, 3] == 255).all()
    assert (tile[1:, :, 3] == 0).all()


@pytest.mark.parametrize("tile", [(-1, 0, 0), (3, 0, 0), (2, 3, 0), (2, 0, 2), (2, -1, 0), (0, 1, 0)])
def test_there_is_no_tile_outside(tile: tuple[int, int, int], tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", colours(300, 600))
    assert pixel_tile(path, *tile) is None
    assert np.isnan(pixel_tile_pixels(describe(path), *tile)).all()


@pytest.mark.parametrize("tile", [0, 100, 2048])
def test_a_tile_of_an_odd_size_is_refused(tile: int, tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", colours(30, 60))
    with pytest.raises(InvalidWindow, match="give a multiple of 16 up to 1024"):
        pixel_tile(path, 0, 0, 0, tile=tile)


def test_positions_of_plain_tiles_are_pixel_centres(tmp_path: Path) -> None:
    info = describe(write_picture(tmp_path / "a.png", colours(300, 600)))
    deepest = pixel_tile_pixels(info, 2, 1, 1)
    assert deepest[3, 5].tolist() == [256 + 5.5, 256 + 3.5]
    assert np.isnan(deepest[44:]).all()
    assert np.isfinite(deepest[:44]).all()
    assert pixel_tile_pixels(info, 1, 0, 0)[0, 0].tolist() == [1.0, 1.0]
    assert pixel_tile_pixels(info, 2, 0, 0, tile=512).shape == (512, 512, 2)


def test_positions_index_an_array_to_the_very_tile(tmp_path: Path) -> None:
    """What a layer does: look up token arrays by the positions of the tile's pixels."""
    array = colours(300, 600)
    path = write_picture(tmp_path / "a.png", array)
    positions = pixel_tile_pixels(describe(path), 2, 2, 1)
    is_inside = np.isfinite(positions[:, :, 0])
    column, row = positions[is_inside].astype(int).T
    tile = decoded(pixel_tile(path, 2, 2, 1))
    assert np.array_equal(tile[is_inside][:, :3], array[row, column])
    assert np.array_equal(tile[:, :, 3] == 255, is_inside)


@pytest.fixture
def aerial(tmp_path: Path) -> Path:
    """A smooth image in UTM, with a missing corner."""
    row, column = np.mgrid[0:400, 0:500]
    array = np.dstack([row / 2, column / 2, (row + column) / 4]).astype(np.uint8) + np.uint8(5)
    array[:60, :80] = 0
    return write_tiff(tmp_path / "aerial.tif", array, crs=UTM, transform=TEN_METRES, nodata=0)


@pytest.mark.parametrize("closer", [-3, -1, 0, 2])
def test_mercator_tiles_agree_with_rasterios_warp(aerial: Path, closer: int) -> None:
    info = describe(aerial)
    zoom = max_mercator_zoom(info) + closer
    x, y = tile_of(info, zoom)
    tile = decoded(mercator_tile(aerial, zoom, x, y))
    half = np.pi * 6_378_137
    side = 2 * half / 2**zoom
    warped = np.zeros((4, 256, 256), np.uint8)
    data = read_rgb(aerial)
    source = np.moveaxis(np.dstack([data.rgb, data.mask.astype(np.uint8) * 255]), 2, 0)
    reproject(
        source,
        warped,
        src_transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0),
        src_crs=UTM,
        dst_transform=(side / 256, 0.0, x * side - half, 0.0, -side / 256, half - y * side),
        dst_crs="EPSG:3857",
        resampling=Resampling.average if closer < 0 else Resampling.nearest,
    )
    expected = np.moveaxis(warped, 0, 2)
    assert (tile[:, :, 3] > 0).mean() == pytest.approx((expected[:, :, 3] > 0).mean(), abs=0.01)
    both = (tile[:, :, 3] == 255) & (expected[:, :, 3] == 255)
    assert both.any()
    difference = np.abs(tile[both][:, :3].astype(int) - expected[both][:, :3])
    # A gradient of one half per pixel: two units are four pixels at the deepest zoom.
    assert np.percentile(difference, 99) <= 2 * max(1, 2 ** (-closer - 1))


def test_mercator_tiles_are_transparent_at_nodata_and_absent_elsewhere(aerial: Path) -> None:
    info = describe(aerial)
    zoom = max_mercator_zoom(info)
    x, y = tile_of(info, zoom - 2)
    positions = mercator_tile_pixels(info, zoom - 2, x, y)
    tile = decoded(mercator_tile(aerial, zoom - 2, x, y))
    is_outside = np.isnan(positions[:, :, 0])
    with np.errstate(invalid="ignore"):
        is_missing = (positions[:, :, 0] < 76) & (positions[:, :, 1] < 56)
    assert is_missing.any()
    assert (tile[is_outside][:, 3] == 0).all()
    assert (tile[is_missing][:, 3] == 0).all()
    assert mercator_tile(aerial, zoom, 0, 0) is None
    assert mercator_tile(aerial, 99, 0, 0) is None


def test_an_image_is_seen_from_far_away(tmp_path: Path) -> None:
    array = np.full((300, 400, 3), 90, np.uint8)
    path = write_tiff(tmp_path / "a.tif", array, crs=UTM, transform=(500.0, 0.0, 400_000.0, 0.0, -500.0, 4_200_000.0))
    for zoom in range(max_mercator_zoom(describe(path)) + 1):
        tile = decoded(mercator_tile(path, zoom, *tile_of(describe(path), zoom)))
        assert (tile[tile[:, :, 3] > 0][:, :3] == 90).all()
        assert (tile[:, :, 3] > 0).any()


def test_plain_pixels_have_no_mercator_tiles(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png", colours(30, 60))
    with pytest.raises(NotGeoreferenced, match="show it in plain pixels"):
        mercator_tile(path, 0, 0, 0)


def test_the_same_tile_has_the_same_bytes(aerial: Path) -> None:
    info = describe(aerial)
    zoom = max_mercator_zoom(info)
    x, y = tile_of(info, zoom)
    assert mercator_tile(aerial, zoom, x, y) == mercator_tile(aerial, zoom, x, y)
    assert pixel_tile(aerial, 1, 0, 0) == pixel_tile(aerial, 1, 0, 0)
