"""One map tile and what lies under it: the place in the image of each of its pixels, plain or in Web Mercator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.imagery import ImageInfo, lonlat_to_pixel

TILE = 256
MARGIN = 10
"""Pixels painted around a tile and cut off again, so that outlines and dots go on across its border."""

DEEPEST = 30
_NODES = 18  # places looked up along a tile's side; between them the projection is straight to a thousandth of a pixel


@dataclass(frozen=True, eq=False)
class TileView:
    """A tile with its margin.

    Args:
        x, y: float64 [side, side], the place in original pixels under the centre of each pixel; NaN off the map.
        left, top: Global tile pixel of the first of them, at this zoom.
        forward: float64 [2, 3], from (x, y, 1) in original pixels to (column, row) in this array; off by at most half a
            pixel where a tile spans 70 km, a pixel at 280 km.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    left: int
    top: int
    forward: NDArray[np.float64]

    @property
    def scale(self) -> float:
        """Screen pixels per original pixel."""
        return float(math.sqrt(abs(np.linalg.det(self.forward[:, :2]))))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns with the margin."""
        return self.x.shape[0], self.x.shape[1]

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Original pixels [n, 2] as (column, row) of this array [n, 2]."""
        placed: NDArray[np.float64] = points @ self.forward[:, :2].T + self.forward[:, 2]
        return placed


def depth_of(width: int, height: int) -> int:
    """The zoom at which a tile pixel is an original pixel: zoom 0 shows the whole image in one tile.

    >>> depth_of(256, 256), depth_of(257, 100), depth_of(8192, 8192)
    (0, 1, 5)
    """
    return max(0, math.ceil(math.log2(max(width, height) / TILE)))


def is_tile(zoom: int, x: int, y: int) -> bool:
    """Whether there can be a tile of these coordinates."""
    return 0 <= zoom <= DEEPEST and 0 <= x < 2**zoom and 0 <= y < 2**zoom


def plain_view(depth: int, zoom: int, x: int, y: int, margin: int = MARGIN) -> TileView:
    """A tile of an image in plain pixels."""
    step = 2.0 ** (depth - zoom)
    side = np.arange(TILE + 2 * margin)
    left, top = x * TILE - margin, y * TILE - margin
    across, down = np.meshgrid((left + side + 0.5) * step, (top + side + 0.5) * step)
    forward = np.array([[1 / step, 0.0, -left - 0.5], [0.0, 1 / step, -top - 0.5]])
    return TileView(across, down, left, top, forward)


def mercator_view(info: ImageInfo, zoom: int, x: int, y: int, margin: int = MARGIN) -> TileView:
    """A tile of a georeferenced image in Web Mercator."""
    size = TILE + 2 * margin
    left, top = x * TILE - margin, y * TILE - margin
    nodes = np.linspace(0, size - 1, _NODES)
    world = TILE * 2.0**zoom
    longitude = ((left + nodes + 0.5) / world - 0.5) * 360
    latitude = np.degrees(np.arctan(np.sinh(math.pi * (1 - 2 * (top + nodes + 0.5) / world))))
    lonlat = np.stack(np.meshgrid(longitude, latitude), axis=2).reshape(-1, 2)
    found = lonlat_to_pixel(info, lonlat).reshape(_NODES, _NODES, 2)
    column, row = _between(found[..., 0], size), _between(found[..., 1], size)
    return TileView(column, row, left, top, _affine(column, row))


def _between(nodes: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Bilinear interpolation from evenly spaced nodes to `size` x `size` values."""
    at = np.linspace(0, len(nodes) - 1, size)
    low = np.minimum(at.astype(np.intp), len(nodes) - 2)
    share = at - low
    rows = nodes[low] * (1 - share)[:, None] + nodes[low + 1] * share[:, None]
    between: NDArray[np.float64] = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    return between


def _affine(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine map from original pixels to array columns and rows that fits a tile best; zeros off the map."""
    rows, cols = np.meshgrid(*(np.linspace(0, side - 1, 9).astype(int) for side in x.shape), indexing="ij")
    px, py = x[rows, cols].ravel(), y[rows, cols].ravel()
    good = np.isfinite(px) & np.isfinite(py)
    if good.sum() < 3:
        return np.zeros((2, 3))
    # Around the mean, or the constant column would drown the others at large coordinates.
    mean = np.array([px[good].mean(), py[good].mean()])
    places = np.stack([px[good] - mean[0], py[good] - mean[1], np.ones(good.sum())], axis=1)
    wanted = np.stack([cols.ravel()[good], rows.ravel()[good]], axis=1)
    fitted, *_ = np.linalg.lstsq(places, wanted, rcond=None)
    linear = fitted[:2].T
    return np.column_stack([linear, fitted[2] - linear @ mean])
