"""Pixels lie where the file says: against rasterio, against formulas, there and back."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.warp import transform as warp_points

from analysis.errors import NotGeoreferenced
from analysis.imagery import (
    ImageInfo,
    bounds_lonlat,
    corners_lonlat,
    describe,
    lonlat_to_pixel,
    max_mercator_zoom,
    mercator_lattice,
    mercator_tile_pixels,
    pixel_to_lonlat,
)
from tests.analysis.image_files import TEN_METRES, UTM, colours, write_tiff

EARTH_RADIUS_METRES = 6_378_137.0


def placed(
    crs: str,
    transform: tuple[float, float, float, float, float, float],
    size: tuple[int, int] = (400, 300),
) -> ImageInfo:
    """A description of an image that needs no file."""
    height, width = size
    return ImageInfo(
        name="drawn",
        sha256="",
        file_bytes=0,
        format="TIFF",
        width=width,
        height=height,
        bands=3,
        dtype="uint8",
        bits=8,
        colours=("red", "green", "blue"),
        crs=crs,
        transform=transform,
        is_mappable=True,
    )


PLACES = {
    "utm": placed(UTM, TEN_METRES),
    "turned": placed(UTM, (8.0, 3.0, 500_000.0, 3.0, -8.0, 4_200_000.0)),
    "degrees": placed("EPSG:4326", (0.001, 0.0, 12.0, 0.0, -0.001, 48.0)),
    "mercator": placed("EPSG:3857", (10.0, 0.0, 1e6, 0.0, -10.0, 5e6)),
    "conic": placed("EPSG:2154", (25.0, 0.0, 600_000.0, 0.0, -25.0, 6_700_000.0)),
    "antimeridian": placed("EPSG:32601", (500.0, 0.0, 150_000.0, 0.0, -500.0, 4_200_000.0)),
    "south": placed("EPSG:32756", (0.5, 0.0, 334_000.0, 0.0, -0.5, 6_252_000.0)),
}


@pytest.mark.parametrize("place", PLACES)
def test_corners_are_those_of_rasterio(place: str) -> None:
    info = PLACES[place]
    assert info.transform is not None
    a, b, c, d, e, f = info.transform
    columns, rows = np.array([0, info.width, info.width, 0]), np.array([0, 0, info.height, info.height])
    longitudes, latitudes = warp_points(info.crs, "EPSG:4326", a * columns + b * rows + c, d * columns + e * rows + f)
    assert np.abs(np.array(corners_lonlat(info)) - np.stack([longitudes, latitudes], axis=1)).max() < 1e-9


def test_longitude_comes_first() -> None:
    (west, north), (east, _), (_, south), _ = corners_lonlat(PLACES["degrees"])
    assert (west, north) == pytest.approx((12.0, 48.0))
    assert (east, south) == pytest.approx((12.3, 47.6))
    assert bounds_lonlat(PLACES["degrees"]) == pytest.approx((12.0, 47.6, 12.3, 48.0))


def test_web_mercator_agrees_with_its_formula() -> None:
    (longitude, latitude), *_ = corners_lonlat(PLACES["mercator"])
    assert longitude == pytest.approx(math.degrees(1e6 / EARTH_RADIUS_METRES), abs=1e-9)
    assert latitude == pytest.approx(math.degrees(math.atan(math.sinh(5e6 / EARTH_RADIUS_METRES))), abs=1e-9)


@pytest.mark.parametrize("place", PLACES)
@given(column=st.floats(-50, 400), row=st.floats(-50, 500))
def test_there_and_back_is_the_same_pixel(place: str, column: float, row: float) -> None:
    info = PLACES[place]
    back = lonlat_to_pixel(info, pixel_to_lonlat(info, [(column, row)]))
    assert back[0] == pytest.approx((column, row), abs=1e-3)


def test_no_points_give_no_points() -> None:
    assert pixel_to_lonlat(PLACES["utm"], np.zeros((0, 2))).shape == (0, 2)


def test_a_point_beyond_the_projection_is_missing_and_spoils_no_other() -> None:
    found = lonlat_to_pixel(PLACES["utm"], [(-75.0, 37.9), (0.0, 99.0), (float("nan"), 1.0), (-75.0, 37.8)])
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, False, True]


@pytest.mark.parametrize("shape", [(3,), (3, 3), (2, 2, 2)])
def test_points_come_as_pairs(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"points must be an array \[n, 2\]"):
        pixel_to_lonlat(PLACES["utm"], np.zeros(shape))


def test_an_image_across_the_antimeridian_stays_in_one_piece() -> None:
    info = PLACES["antimeridian"]
    west, _, east, _ = bounds_lonlat(info)
    assert east - west < 3
    assert west < -180 < east or west < 180 < east
    lattice = mercator_lattice(info).lattice
    assert np.abs(np.diff(lattice[:, :, 0], axis=1)).max() < 1
    seen = set()
    for x in (0, 2**6 - 1):  # both ends of the world
        for y in range(20, 30):
            positions = mercator_tile_pixels(info, 6, x, y)
            if np.isfinite(positions).any():
                seen.add(x)
    assert seen == {0, 63}


def test_longitudes_from_0_to_360_are_the_same_places() -> None:
    info = placed("EPSG:4326", (1.0, 0.0, 0.0, 0.0, -1.0, 80.0), (160, 360))
    assert lonlat_to_pixel(info, [(-10.0, 0.0), (350.0, 0.0)]).tolist() == [[350.0, 80.0], [350.0, 80.0]]


@pytest.mark.parametrize("place", PLACES)
def test_the_lattice_is_as_accurate_as_it_says(place: str) -> None:
    info = PLACES[place]
    reference = mercator_lattice(info)
    nodes = len(reference.lattice)
    assert reference.lattice.shape == (nodes, nodes, 2)
    assert reference.max_error_pixels <= 0.1
    points = np.random.default_rng(0).uniform((0, 0), (info.width, info.height), (300, 2))
    at = points / (info.width, info.height) * (nodes - 1)
    first = np.minimum(at.astype(int), nodes - 2)
    (u, v), (i, j) = (at - first).T, first.T
    lattice = reference.lattice
    guess = (
        lattice[j, i] * ((1 - u) * (1 - v))[:, None]
        + lattice[j, i + 1] * (u * (1 - v))[:, None]
        + lattice[j + 1, i] * ((1 - u) * v)[:, None]
        + lattice[j + 1, i + 1] * (u * v)[:, None]
    )
    error = np.hypot(*(lonlat_to_pixel(info, guess) - points).T).max()
    assert error <= reference.max_error_pixels * 1.05 + 1e-6


def test_a_large_region_gets_a_finer_lattice() -> None:
    continent = placed("EPSG:3035", (500.0, 0.0, 2.5e6, 0.0, -500.0, 5.5e6), (8000, 8000))
    assert len(mercator_lattice(continent, max_error_pixels=0.5).lattice) == 65


def test_plain_pixels_have_no_place(tmp_path: Path) -> None:
    info = describe(write_tiff(tmp_path / "a.tif", colours(8, 8)))
    for ask in (corners_lonlat, bounds_lonlat, mercator_lattice, max_mercator_zoom):
        with pytest.raises(NotGeoreferenced, match=r"a\.tif does not say where on Earth it lies; show it in plain"):
            ask(info)
    with pytest.raises(NotGeoreferenced, match="cannot be shown on a Web Mercator map"):
        mercator_tile_pixels(info, 0, 0, 0)


@pytest.mark.parametrize(
    ("crs", "transform", "reason"),
    [
        ("EPSG:3413", (10_000.0, 0.0, -1e6, 0.0, -10_000.0, 1e6), "it contains a pole"),
        ("EPSG:3413", (10.0, 0.0, 1e5, 0.0, -10.0, 1e5), "beyond 85 degrees of latitude"),
        ("ESRI:54009", (1e5, 0.0, -2e7, 0.0, -1e5, 1e7), "outside the area of its reference system"),
    ],
    ids=["pole", "arctic", "off the globe"],
)
def test_what_web_mercator_cannot_show_is_said(
    crs: str, transform: tuple[float, ...], reason: str, tmp_path: Path
) -> None:
    info = describe(write_tiff(tmp_path / "a.tif", colours(200, 200), crs=crs, transform=transform))
    assert info.is_georeferenced
    assert not info.is_mappable
    assert reason in info.notices[0]
    with pytest.raises(NotGeoreferenced, match="cannot be shown on a Web Mercator map"):
        mercator_lattice(info)


def test_a_whole_world_in_degrees_can_be_shown(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", colours(90, 180), crs="EPSG:4326", transform=(2, 0, -180, 0, -2, 90))
    info = describe(path)
    assert info.is_mappable
    assert bounds_lonlat(info) == pytest.approx((-180, -90, 180, 90))
    positions = mercator_tile_pixels(info, 0, 0, 0)
    assert np.isfinite(positions).all()
    assert positions[:, :, 0].max() == pytest.approx(180, abs=1)


# Positions of tile pixels.


def tile_of(info: ImageInfo, zoom: int) -> tuple[int, int]:
    """The tile that holds the image's centre."""
    ((longitude, latitude),) = pixel_to_lonlat(info, [(info.width / 2, info.height / 2)])
    x = (longitude + 180) / 360
    y = (1 - math.asinh(math.tan(math.radians(latitude))) / math.pi) / 2
    return int(x * 2**zoom) % 2**zoom, int(y * 2**zoom)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("closer", [-4, -1, 0, 2])
def test_positions_of_tile_pixels_are_right_to_a_twentieth(place: str, closer: int) -> None:
    info = PLACES[place]
    zoom = max_mercator_zoom(info) + closer
    x, y = tile_of(info, zoom)
    positions = mercator_tile_pixels(info, zoom, x, y)
    is_inside = np.isfinite(positions[:, :, 0])
    assert is_inside.any()
    rows, columns = np.nonzero(is_inside)
    world = 256 * 2**zoom
    longitude = (x * 256 + columns + 0.5) / world * 360 - 180
    latitude = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * (y * 256 + rows + 0.5) / world))))
    exact = lonlat_to_pixel(info, np.stack([longitude, latitude], axis=1))
    tile_pixel = 2.0 ** (max_mercator_zoom(info) - zoom + 1) * 2
    assert np.abs(exact - positions[is_inside]).max() <= 0.05 * tile_pixel
    assert (positions[is_inside] >= 0).all()
    assert (positions[is_inside] < (info.width, info.height)).all()


@pytest.mark.parametrize("place", PLACES)
def test_every_tile_pixel_in_the_image_has_a_position(place: str) -> None:
    info = PLACES[place]
    zoom = max_mercator_zoom(info) - 1
    middle = tile_of(info, zoom)
    counted = 0
    for x in range(middle[0] - 2, middle[0] + 3):
        for y in range(middle[1] - 2, middle[1] + 3):
            counted += int(np.isfinite(mercator_tile_pixels(info, zoom, x % 2**zoom, y)[:, :, 0]).sum())
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * (info.width, info.height)
    lonlat = pixel_to_lonlat(info, corners)
    longitude = np.unwrap(lonlat[:, 0], period=360)
    across = 256 * 2**zoom * longitude / 360
    down = -256 * 2**zoom * np.arcsinh(np.tan(np.radians(lonlat[:, 1]))) / (2 * np.pi)
    area = abs(across @ np.roll(down, 1) - down @ np.roll(across, 1)) / 2  # the shoelace formula
    assert counted == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("tile", [(-1, 0, 0), (31, 0, 0), (3, 8, 0), (3, 0, 8), (3, -1, 0), (12, 0, 0)])
def test_tiles_that_do_not_exist_hold_nothing(tile: tuple[int, int, int]) -> None:
    assert np.isnan(mercator_tile_pixels(PLACES["utm"], *tile)).all()


def test_the_deepest_zoom_shows_every_pixel() -> None:
    info = PLACES["utm"]
    metres = 10 / math.cos(math.radians(37.9))
    zoom = math.ceil(math.log2(2 * math.pi * EARTH_RADIUS_METRES / 256 / metres))
    assert max_mercator_zoom(info) == zoom
