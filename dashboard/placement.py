"""How an image lies on the page's map: in Web Mercator at its true place where it has one, else in plain pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.errors import ImageError
from analysis.imagery import (
    Georeference,
    ImageInfo,
    corners_lonlat,
    describe,
    max_mercator_zoom,
    mercator_lattice,
    pixel_to_lonlat,
)
from analysis.run import ImageRef
from dashboard.tiles import DEEPEST, TileView, depth_of, mercator_view, plain_view

_CLOSER = 6
"""Zooms beyond the image's own at which the maps still go closer."""

_NARROWEST, _WIDEST = 3 / 4, 4 / 3
_EQUATOR_METRES = 6_378_137.0
_ECCENTRICITY_SQUARED = 0.00669437999014


@dataclass(frozen=True, eq=False)
class Placement:
    """Where an image lies, and how deep its map goes.

    Args:
        image: The image.
        info: Its file's description, None where the bytes are not kept here.
        place: Its lattice on Earth, None for plain pixels.
        zoom: The zoom at which a tile pixel is about an image pixel.
        ratio: Width over height of a map plate, between 3:4 and 4:3.
        metres_per_pixel: On the ground at the image's centre, None for plain pixels.
    """

    image: ImageRef
    info: ImageInfo | None
    place: Georeference | None
    zoom: int
    ratio: float
    metres_per_pixel: float | None

    @property
    def is_placed(self) -> bool:
        """Whether the map is Web Mercator."""
        return self.place is not None

    @property
    def zoom_most(self) -> int:
        """The deepest zoom of the map."""
        return min(DEEPEST, self.zoom + _CLOSER)

    def view(self, zoom: int, x: int, y: int) -> TileView:
        """A tile of this map."""
        if self.place is not None and self.info is not None:
            return mercator_view(self.info, zoom, x, y)
        return plain_view(depth_of(self.image.width, self.image.height), zoom, x, y)

    def lonlat(self, points: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Pixel coordinates [n, 2] as (longitude, latitude) [n, 2]; None for plain pixels."""
        return pixel_to_lonlat(self.info, points) if self.place is not None and self.info is not None else None


def place_image(image: ImageRef, path: Path | None) -> Placement:
    """Decide how an image is shown. Coordinates are never invented: without its bytes an image lies in plain pixels."""
    plain = Placement(
        image, None, None, depth_of(image.width, image.height), _clamped(image.width / image.height), None
    )
    if path is None:
        return plain
    try:
        info = describe(path, name=image.name)
        if not info.is_mappable:
            return Placement(image, info, None, plain.zoom, plain.ratio, None)
        place = mercator_lattice(info)
        return Placement(image, info, place, max_mercator_zoom(info), _ratio(info), _metres(info))
    except ImageError:
        return plain


def _clamped(ratio: float) -> float:
    return min(_WIDEST, max(_NARROWEST, ratio))


def _ratio(info: ImageInfo) -> float:
    """Width over height of the image's outline in Web Mercator."""
    corners = np.array(corners_lonlat(info))
    x = np.unwrap(corners[:, 0], period=360) / 360
    y = np.arcsinh(np.tan(np.radians(corners[:, 1]))) / (2 * math.pi)
    return _clamped(float(np.ptp(x) / np.ptp(y)))


def _metres(info: ImageInfo) -> float:
    """The ground length of a pixel's side at the image's centre, by the radii of curvature of the WGS 84 ellipsoid."""
    column, row = info.width / 2, info.height / 2
    (west, south), (east, north) = pixel_to_lonlat(info, [(column, row), (column + 1, row)])
    latitude = math.radians((south + north) / 2)
    flat = 1 - _ECCENTRICITY_SQUARED * math.sin(latitude) ** 2
    across = math.radians(east - west) * math.cos(latitude) * _EQUATOR_METRES / math.sqrt(flat)
    up = math.radians(north - south) * _EQUATOR_METRES * (1 - _ECCENTRICITY_SQUARED) / flat**1.5
    return math.hypot(across, up)
