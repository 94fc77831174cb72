"""Real files: a US aerial GeoTIFF in UTM, a Landsat scene, an aerial JPEG."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform as warp_points

from analysis.imagery import (
    choose_rendering,
    corners_lonlat,
    describe,
    max_mercator_zoom,
    mercator_lattice,
    mercator_tile,
    pixel_tile,
    read_rgb,
    thumbnail,
)
from tests.analysis.test_imagery_geometry import tile_of
from tests.analysis.test_imagery_tiles import decoded

FOLDER = Path(os.environ.get("KEEPMAP_TEST_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no real images: set KEEPMAP_TEST_DATA to a folder that has them"),
]

PLACED = ["landsat_bahamas_rgb.tif", "m_4709963_se_14_1_20090818.tif", "m_4709963_se_14_1_20200831.tif"]
ALL = [*PLACED, "berkeley.jpg"]


def real(name: str) -> Path:
    """The path of a real file, or a skip that names it."""
    if not (FOLDER / name).is_file():
        pytest.skip(f"{name} is not in the folder of real images")
    return FOLDER / name


@pytest.mark.parametrize("name", PLACED)
def test_corners_are_placed_to_a_millionth_of_a_degree(name: str) -> None:
    info = describe(real(name))
    with rasterio.open(real(name)) as dataset:
        columns = np.array([0, dataset.width, dataset.width, 0])
        rows = np.array([0, 0, dataset.height, dataset.height])
        a, b, c, d, e, f = tuple(dataset.transform)[:6]
        x, y = a * columns + b * rows + c, d * columns + e * rows + f
        longitudes, latitudes = warp_points(dataset.crs, "EPSG:4326", x, y)
    found = np.array(corners_lonlat(info))
    assert np.abs(found - np.stack([longitudes, latitudes], axis=1)).max() < 1e-6
    assert info.is_mappable
    assert info.notices == ()


@pytest.mark.parametrize("name", PLACED)
def test_a_page_can_place_them_to_a_hundredth_of_a_pixel(name: str) -> None:
    reference = mercator_lattice(describe(real(name)))
    assert reference.lattice.shape == (17, 17, 2)
    assert reference.max_error_pixels < 0.01


def test_aerial_files_of_four_bands_show_red_green_blue_as_they_are() -> None:
    for name in PLACED[1:]:
        info = describe(real(name))
        assert info.bands == 4
        assert str(choose_rendering(real(name), info)) == "bands 1, 2, 3 as red, green, blue; values as they are"
        with rasterio.open(real(name)) as dataset:
            assert np.array_equal(read_rgb(real(name)).rgb, np.moveaxis(dataset.read((1, 2, 3)), 0, 2))


def test_nodata_around_the_landsat_scene_is_transparent() -> None:
    path = real(PLACED[0])
    data = read_rgb(path)
    assert 0.6 < data.mask.mean() < 0.75
    assert not data.mask[0, 0]
    tile = decoded(mercator_tile(path, 6, *tile_of(describe(path), 6)))
    assert tile[128:, :, 3].any()
    assert (tile[:, :, 3] == 0).any()


def test_a_photograph_without_a_place_stays_in_plain_pixels() -> None:
    info = describe(real("berkeley.jpg"))
    assert (info.format, info.size, info.crs) == ("JPEG", (771, 1311), None)


@pytest.mark.parametrize("name", ALL)
def test_every_real_file_has_tiles_and_a_thumbnail(name: str) -> None:
    path = real(name)
    info = describe(path)
    assert decoded(pixel_tile(path, 0, 0, 0))[:, :, 3].any()
    assert len(thumbnail(path, 200)) > 1000
    if info.is_mappable:
        for zoom in range(max_mercator_zoom(info) - 3, max_mercator_zoom(info) + 2):
            assert decoded(mercator_tile(path, zoom, *tile_of(info, zoom)))[:, :, 3].any()
