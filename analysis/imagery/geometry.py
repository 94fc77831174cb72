"""Between pixels of an image and places on Earth.

Longitude comes before latitude everywhere (EPSG:4326 in traditional order). Pixel coordinates are (column, row) and
continuous: (0, 0) is the upper left corner of the first pixel, (0.5, 0.5) its centre.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rasterio.crs import CRS
from rasterio.warp import transform as warp_points

from analysis.errors import NotGeoreferenced
from analysis.imagery.info import ImageInfo
from analysis.imagery.raster import GDAL_ERRORS, environment

Points = NDArray[np.float64]

_LONLAT = "EPSG:4326"
_EDGE_POINTS = 33
_LATTICE_NODES = (17, 33, 65)

#: Web Mercator ends where the map is square: atan(sinh(pi)).
MERCATOR_LATITUDE = 85.05112877980659


@dataclass(frozen=True)
class Georeference:
    """Where an image lies, in a form that a page can use without a projection library.

    `lattice` [nodes, nodes, 2] holds (longitude, latitude) at evenly spaced pixel positions, rows first, from corner to
    corner. Bilinear interpolation between its nodes is off by at most `max_error_pixels` original pixels, measured at
    the middle of every cell and of every cell's edges. `bounds_lonlat` is (west, south, east, north). An image across
    the antimeridian stays in one piece: its longitudes then go beyond 180 or below -180.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    bounds_lonlat: tuple[float, float, float, float]
    lattice: NDArray[np.float64]
    max_error_pixels: float


def pixel_to_lonlat(info: ImageInfo, points: ArrayLike) -> Points:
    """Place pixel coordinates [n, 2] on Earth as (longitude, latitude) [n, 2]; NaN where the projection ends.

    Raises:
        NotGeoreferenced: The image does not say where it lies.
    """
    crs, (a, b, c, d, e, f) = _place(info)
    column, row = _columns(points)
    return _project(crs, _LONLAT, a * column + b * row + c, d * column + e * row + f)


def lonlat_to_pixel(info: ImageInfo, points: ArrayLike) -> Points:
    """Return the pixel coordinates [n, 2] of (longitude, latitude) [n, 2]; NaN where the projection ends.

    Raises:
        NotGeoreferenced: The image does not say where it lies.
    """
    crs, (a, b, c, d, e, f) = _place(info)
    projected = _project(_LONLAT, crs, *_columns(points))
    x, y = projected[:, 0], projected[:, 1]
    if _parsed(crs).is_geographic:
        # 350 and -10 degrees are one meridian: take the turn that is nearest to the image.
        middle = a * info.width / 2 + b * info.height / 2 + c
        x = x + 360 * np.round((middle - x) / 360)
    determinant = a * e - b * d
    x, y = x - c, y - f
    return np.stack([(e * x - b * y) / determinant, (a * y - d * x) / determinant], axis=1)


def corners_lonlat(info: ImageInfo) -> tuple[tuple[float, float], ...]:
    """Return (longitude, latitude) of the upper left, upper right, lower right and lower left corner."""
    width, height = info.width, info.height
    corners = pixel_to_lonlat(info, [(0, 0), (width, 0), (width, height), (0, height)])
    return tuple((float(longitude), float(latitude)) for longitude, latitude in corners)


@lru_cache(maxsize=256)
def bounds_lonlat(info: ImageInfo) -> tuple[float, float, float, float]:
    """Return (west, south, east, north) of the image's outline, in one piece across the antimeridian."""
    edge = np.linspace(0, 1, _EDGE_POINTS)[:-1]
    zero, one = np.zeros_like(edge), np.ones_like(edge)
    outline = np.concatenate(
        [np.stack(side, axis=1) for side in ((edge, zero), (one, edge), (1 - edge, one), (zero, 1 - edge))]
    )
    lonlat = pixel_to_lonlat(info, outline * (info.width, info.height))
    longitude, latitude = np.unwrap(lonlat[:, 0], period=360), lonlat[:, 1]
    return float(longitude.min()), float(latitude.min()), float(longitude.max()), float(latitude.max())


def mercator_lattice(info: ImageInfo, *, max_error_pixels: float = 0.1) -> Georeference:
    """Sample the placement finely enough for bilinear interpolation, with 17, 33 or 65 nodes a side.

    The coarsest lattice whose measured error is at most `max_error_pixels` is taken, else the finest; the error that
    it really has is reported.

    Raises:
        NotGeoreferenced: The image does not say where it lies, or Web Mercator cannot show it there.
    """
    crs, transform = _place(info)
    if not info.is_mappable:
        raise NotGeoreferenced(f"{info.name} cannot be shown on a Web Mercator map; show it in plain pixels")
    for nodes in _LATTICE_NODES:
        # Every second node of a lattice twice as fine; the others are the places where the error is measured.
        fine = _lattice(info, 2 * nodes - 1)
        error = _interpolation_error(info, fine)
        if error <= max_error_pixels:
            break
    return Georeference(crs, transform, bounds_lonlat(info), fine[::2, ::2].copy(), error)


def why_not_mappable(info: ImageInfo) -> str | None:
    """Say why Web Mercator cannot show a georeferenced image in place, or return None if it can."""
    lattice = pixel_to_lonlat(info, _positions(info, 9).reshape(-1, 2))
    if not np.isfinite(lattice).all():
        return "part of it lies outside the area of its reference system"
    back = lonlat_to_pixel(info, lattice)
    # A thousandth of the image is far above rounding and far below any real disagreement.
    tolerance = 0.01 + 0.001 * max(info.size)
    if not (np.abs(back - _positions(info, 9).reshape(-1, 2)) <= tolerance).all():
        return "its reference system does not lead back from the ground to the pixel"
    if np.abs(lattice[:, 1]).min() > MERCATOR_LATITUDE or np.abs(lattice[:, 1]).max() > 90:
        return "it lies beyond 85 degrees of latitude"
    crs, _ = _place(info)
    if not _parsed(crs).is_geographic:
        poles = lonlat_to_pixel(info, [(0, 90), (0, -90)])
        if ((poles >= 0) & (poles <= (info.width, info.height))).all(axis=1).any():
            return "it contains a pole"
    return None


def _place(info: ImageInfo) -> tuple[str, tuple[float, float, float, float, float, float]]:
    if info.crs is None or info.transform is None:
        raise NotGeoreferenced(
            f"{info.name} does not say where on Earth it lies; show it in plain pixels, or save it as a GeoTIFF with a "
            "reference system and a transform"
        )
    return info.crs, info.transform


def _columns(points: ArrayLike) -> tuple[Points, Points]:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"points must be an array [n, 2], got shape {array.shape}; give one pair a row")
    return array[:, 0], array[:, 1]


@lru_cache(maxsize=64)
def _parsed(crs: str) -> CRS:
    with environment():
        return CRS.from_user_input(crs)


def _project(source: str, target: str, x: Points, y: Points) -> Points:
    """Return [n, 2] in the target system; a point outside its domain is NaN, and does not spoil the others."""
    if not len(x):
        return np.zeros((0, 2))
    systems = _parsed(source), _parsed(target)
    try:
        with environment():
            found = np.stack([np.asarray(axis) for axis in warp_points(*systems, x.tolist(), y.tolist())], axis=1)
    except GDAL_ERRORS:
        if len(x) == 1:
            return np.full((1, 2), np.nan)
        middle = len(x) // 2
        return np.concatenate(
            [_project(source, target, x[:middle], y[:middle]), _project(source, target, x[middle:], y[middle:])]
        )
    found[~np.isfinite(found).all(axis=1)] = np.nan
    return found


def _positions(info: ImageInfo, nodes: int) -> Points:
    """Return evenly spaced pixel coordinates [nodes, nodes, 2], rows first, corner to corner."""
    column, row = np.meshgrid(np.linspace(0, info.width, nodes), np.linspace(0, info.height, nodes))
    return np.stack([column, row], axis=2)


def _lattice(info: ImageInfo, nodes: int) -> Points:
    lattice = pixel_to_lonlat(info, _positions(info, nodes).reshape(-1, 2)).reshape(nodes, nodes, 2)
    lattice[:, 0, 0] = np.unwrap(lattice[:, 0, 0], period=360)
    lattice[:, :, 0] = np.unwrap(lattice[:, :, 0], period=360, axis=1)
    return lattice


def _interpolation_error(info: ImageInfo, fine: Points) -> float:
    """Return the largest distance in pixels between interpolated and true places, at the nodes left out."""
    guess = fine.copy()
    guess[1::2, ::2] = (fine[:-1:2, ::2] + fine[2::2, ::2]) / 2
    guess[:, 1::2] = (guess[:, :-1:2] + guess[:, 2::2]) / 2
    found = lonlat_to_pixel(info, guess.reshape(-1, 2)).reshape(guess.shape)
    error = np.hypot(*np.moveaxis(found - _positions(info, len(fine)), 2, 0))
    return float(np.nan_to_num(error, nan=np.inf).max())
