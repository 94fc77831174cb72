from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.imagery import (
    describe,
    max_mercator_zoom,
    max_zoom,
    mercator_tile_pixels,
    pixel_tile_pixels,
    write_geotiff,
)
from analysis.run import ImageRef
from dashboard.placement import place_image
from dashboard.tiles import TILE, depth_of, is_tile, mercator_view, plain_view
from tests.factories import make_image_file


@pytest.mark.parametrize("size", [(1, 1), (256, 256), (257, 256), (600, 900), (3000, 20)])
def test_the_image_and_its_layers_have_the_same_depth(tmp_path: Path, size: tuple[int, int]) -> None:
    info = describe(make_image_file(tmp_path, size=(max(size[0], 40), max(size[1], 40))))
    assert depth_of(info.width, info.height) == max_zoom(info)


@pytest.mark.parametrize("tile", [(0, 0, 0), (1, 1, 0), (2, 2, 1)])
def test_a_plain_layer_tile_lies_where_the_image_tile_lies(tmp_path: Path, tile: tuple[int, int, int]) -> None:
    info = describe(make_image_file(tmp_path, size=(600, 900)))
    view = plain_view(depth_of(900, 600), *tile, margin=0)
    wanted = pixel_tile_pixels(info, *tile)
    inside = np.isfinite(wanted[..., 0])
    assert np.abs(np.stack([view.x, view.y], axis=2) - wanted)[inside].max() < 1e-9


def test_a_mercator_layer_tile_lies_where_the_image_tile_lies(tmp_path: Path) -> None:
    path = tmp_path / "place.tif"
    pixels = np.zeros((500, 700, 3), dtype=np.uint8)
    write_geotiff(path, pixels, "EPSG:32618", (300.0, 0.0, 101_985.0, 0.0, -300.0, 2_826_915.0))
    info = describe(path)
    placement = place_image(ImageRef("0" * 64, "place.tif", 700, 500), path)
    assert placement.place is not None
    west, south, east, north = placement.place.bounds_lonlat
    # A tile spans 70 km at the first zoom and 280 km at the second: there dots and lines are placed to a pixel only.
    for zoom, forward_pixels in ((max_mercator_zoom(info), 0.5), (max_mercator_zoom(info) - 2, 1.0)):
        x = int(((west + east) / 2 / 360 + 0.5) * 2**zoom)
        y = int((0.5 - np.arcsinh(np.tan(np.radians((south + north) / 2))) / (2 * np.pi)) * 2**zoom)
        view = mercator_view(info, zoom, x, y, margin=0)
        wanted = mercator_tile_pixels(info, zoom, x, y)
        inside = np.isfinite(wanted[..., 0])
        assert inside.any()
        off = np.abs(np.stack([view.x, view.y], axis=2) - wanted)[inside].max() * view.scale
        assert off < 0.1, "tile pixels"
        # What is drawn forwards, dots and lines, meets what is looked up backwards.
        rows, cols = np.nonzero(inside)
        chosen = np.linspace(0, len(rows) - 1, 50).astype(int)
        points = np.stack([view.x, view.y], axis=2)[rows[chosen], cols[chosen]]
        assert np.abs(view.place(points) - np.stack([cols, rows], axis=1)[chosen]).max() < forward_pixels


@pytest.mark.parametrize("tile", [(-1, 0, 0), (31, 0, 0), (2, 4, 0), (2, 0, 4), (2, -1, 0), (0, 1, 0)])
def test_there_are_no_tiles_outside_the_pyramid(tile: tuple[int, int, int]) -> None:
    assert not is_tile(*tile)


def test_a_tile_with_its_margin_is_larger_on_every_side() -> None:
    assert plain_view(2, 1, 0, 0, margin=5).shape == (TILE + 10, TILE + 10)


def test_an_image_whose_bytes_are_gone_lies_in_plain_pixels() -> None:
    placement = place_image(
        ImageRef("0" * 64, "gone.tif", 640, 480, crs="EPSG:32632", transform=(1, 0, 0, 0, -1, 0)), None
    )
    assert not placement.is_placed
    assert placement.ratio == pytest.approx(4 / 3)


@pytest.mark.parametrize(("width", "height", "ratio"), [(256, 256, 1), (1000, 100, 4 / 3), (100, 1000, 3 / 4)])
def test_plates_are_between_three_to_four_and_four_to_three(width: int, height: int, ratio: float) -> None:
    assert place_image(ImageRef("0" * 64, "x.png", width, height), None).ratio == pytest.approx(ratio)


def test_a_pixel_of_a_utm_image_is_as_long_as_its_scale_says(tmp_path: Path) -> None:
    path = tmp_path / "utm.tif"
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    write_geotiff(path, pixels, "EPSG:32632", (0.5, 0.0, 500_000.0, 0.0, -0.5, 5_400_000.0))
    metres = place_image(ImageRef("0" * 64, "utm.tif", 64, 64), path).metres_per_pixel
    assert metres == pytest.approx(0.5 / 0.9996, rel=1e-4), "on the central meridian the scale is 0.9996"
