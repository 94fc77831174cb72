"""Map tiles of an image: in plain pixels (Leaflet's CRS.Simple) and on Web Mercator (XYZ, EPSG:3857).

Plain pixels: at the deepest zoom Z a tile pixel is an image pixel; each zoom below halves. Tile (0, 0) begins at the
upper left corner of the image. In Leaflet, pixel (column, row) lies at latitude -row / 2^Z, longitude column / 2^Z.
"""

from math import ceil, log2, pi
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InvalidWindow, NotGeoreferenced
from analysis.imagery.describe import describe
from analysis.imagery.geometry import MERCATOR_LATITUDE, bounds_lonlat, lonlat_to_pixel, pixel_to_lonlat
from analysis.imagery.info import ImageInfo
from analysis.imagery.read import ImageData, read_any
from analysis.imagery.rendering import Rendering
from analysis.imagery.write import encode_image

TILE_PIXELS = 256
_DEEPEST_ZOOM = 30

#: Exact positions are computed at every 16th tile pixel and interpolated, if that is right to this part of one.
_NODE_SPACING = 16
_TOLERANCE_TILE_PIXELS = 0.05

Positions = NDArray[np.float64]
Offsets = NDArray[np.floating]


def max_zoom(info: ImageInfo, tile: int = TILE_PIXELS) -> int:
    """Return the zoom Z at which `pixel_tile` shows every pixel: ceil(log2(longer side / tile)), at least 0."""
    return max(0, ceil(log2(max(info.size) / tile)))


def max_mercator_zoom(info: ImageInfo, tile: int = TILE_PIXELS) -> int:
    """Return the smallest zoom at which a Web Mercator tile pixel is no larger than the image's, at its centre.

    Raises:
        NotGeoreferenced: The image does not say where it lies.
    """
    column, row = info.width / 2, info.height / 2
    x, y = _mercator(pixel_to_lonlat(info, [(column, row), (column + 1, row), (column, row + 1)]))
    pixel = min(np.hypot(x[1:] - x[0], y[1:] - y[0]))
    return min(_DEEPEST_ZOOM, max(0, ceil(log2(1 / (tile * pixel)) - 1e-9)))


def pixel_tile(
    path: Path, z: int, x: int, y: int, *, tile: int = TILE_PIXELS, rendering: Rendering | None = None
) -> bytes | None:
    """Encode a tile in plain pixels as PNG, transparent where there is no image; None where there is none at all.

    Zooms beyond `max_zoom` have no tiles: the browser enlarges the last ones.

    Raises:
        ImageError: The file cannot be read.
    """
    info = describe(path)
    window = _pixel_window(info, z, x, y, tile)
    if window is None:
        return None
    return encode_image(read_any(path, info, window, (tile, tile), rendering))


def pixel_tile_pixels(info: ImageInfo, z: int, x: int, y: int, *, tile: int = TILE_PIXELS) -> Positions:
    """Return the original pixel coordinates (column, row) of a plain tile's pixel centres.

    Returns:
        float64 [tile, tile, 2], rows first; NaN outside the image.
    """
    window = _pixel_window(info, z, x, y, tile)
    if window is None:
        return np.full((tile, tile, 2), np.nan)
    left, top, right, _ = window
    offsets = (np.arange(tile) + 0.5) * ((right - left) / tile)
    column, row = np.meshgrid(left + offsets, top + offsets)
    return _inside(info, np.stack([column, row], axis=2))


def mercator_tile(
    path: Path, z: int, x: int, y: int, *, tile: int = TILE_PIXELS, rendering: Rendering | None = None
) -> bytes | None:
    """Encode a Web Mercator tile as PNG, transparent where there is no image; None where there is none at all.

    Where a tile pixel is larger than an image pixel, colours are averaged to its size and then interpolated; where it
    is smaller, image pixels are repeated.

    Raises:
        NotGeoreferenced: The image does not say where it lies, or Web Mercator cannot show it there.
        ImageError: The file cannot be read.
    """
    info = describe(path)
    positions = mercator_tile_pixels(info, z, x, y, tile=tile)
    is_inside = np.isfinite(positions[:, :, 0])
    if not is_inside.any():
        return None
    # The pixels around the outermost positions too, for interpolation at the tile's edge.
    reach = np.array([_spacing(positions, axis) for axis in (0, 1)])
    seen = positions[is_inside]
    left, top = np.maximum(np.floor(seen.min(axis=0) - reach), 0).astype(int)
    right, bottom = np.minimum(np.floor(seen.max(axis=0) + reach) + 1, (info.width, info.height)).astype(int)
    window = (int(left), int(top), int(right), int(bottom))
    size = (ceil((bottom - top) / max(1.0, reach[1])), ceil((right - left) / max(1.0, reach[0])))
    data = read_any(path, info, window, size, rendering)
    scale = np.array([size[1] / (right - left), size[0] / (bottom - top)])
    return encode_image(_gather(data, (positions - (left, top)) * scale, is_inside, is_smooth=bool(reach.max() > 1)))


def mercator_tile_pixels(info: ImageInfo, z: int, x: int, y: int, *, tile: int = TILE_PIXELS) -> Positions:
    """Return the original pixel coordinates (column, row) of a Web Mercator tile's pixel centres.

    They are right to 0.05 tile pixels: interpolated between exact nodes where that is measured to hold, else exact.

    Returns:
        float64 [tile, tile, 2], rows first; NaN outside the image.

    Raises:
        NotGeoreferenced: The image does not say where it lies, or Web Mercator cannot show it there.
    """
    if not info.is_mappable:
        raise NotGeoreferenced(f"{info.name} cannot be shown on a Web Mercator map; show it in plain pixels")
    _check_tile(tile)
    nothing = np.full((tile, tile, 2), np.nan)
    if not (0 <= z <= _DEEPEST_ZOOM and 0 <= x < 2**z and 0 <= y < 2**z):
        return nothing
    west, south, east, north = bounds_lonlat(info)
    longitude, latitude = _tile_lonlat(z, x, y, tile, np.arange(tile) + 0.5)
    longitude = longitude + 360 * np.round(((west + east) / 2 - longitude) / 360)
    columns = (longitude >= west - 1e-9) & (longitude <= east + 1e-9)
    rows = (latitude >= south - 1e-9) & (latitude <= north + 1e-9)
    if not (columns.any() and rows.any()):
        return nothing
    # Nodes beyond the image are needed as well, but far away from it a projection may not hold.
    if columns.mean() > 0.25 and rows.mean() > 0.25:
        interpolated = _interpolated(info, z, x, y, tile)
        if interpolated is not None:
            return _inside(info, interpolated)
    positions = nothing
    grid = np.stack(np.meshgrid(longitude[columns], latitude[rows]), axis=2)
    positions[np.ix_(rows, columns)] = lonlat_to_pixel(info, grid.reshape(-1, 2)).reshape(grid.shape)
    return _inside(info, positions)


def _pixel_window(info: ImageInfo, z: int, x: int, y: int, tile: int) -> tuple[int, int, int, int] | None:
    _check_tile(tile)
    deepest = max_zoom(info, tile)
    if not 0 <= z <= deepest or x < 0 or y < 0:
        return None
    side = tile * 2 ** (deepest - z)
    if x * side >= info.width or y * side >= info.height:
        return None
    return x * side, y * side, (x + 1) * side, (y + 1) * side


def _check_tile(tile: int) -> None:
    if not 16 <= tile <= 1024 or tile % _NODE_SPACING:
        raise InvalidWindow(f"a tile of {tile} pixels is not served; give a multiple of {_NODE_SPACING} up to 1024")


def _inside(info: ImageInfo, positions: Positions) -> Positions:
    is_inside = ((positions >= 0) & (positions < (info.width, info.height))).all(axis=2)
    positions[~is_inside] = np.nan
    return positions


def _tile_lonlat(z: int, x: int, y: int, tile: int, offsets: Offsets) -> tuple[Positions, Positions]:
    """Return the longitudes and latitudes at `offsets` (tile pixels from the corner) along both sides of a tile."""
    longitude = 360 * (x + offsets / tile) / 2**z - 180
    latitude = np.degrees(np.arctan(np.sinh(pi * (1 - 2 * (y + offsets / tile) / 2**z))))
    return longitude, latitude


def _mercator(lonlat: Positions) -> tuple[Positions, Positions]:
    """Return x and y as shares of the square world map, y downwards."""
    latitude = np.radians(np.clip(lonlat[:, 1], -MERCATOR_LATITUDE, MERCATOR_LATITUDE))
    return lonlat[:, 0] / 360 + 0.5, 0.5 - np.arcsinh(np.tan(latitude)) / (2 * pi)


def _interpolated(info: ImageInfo, z: int, x: int, y: int, tile: int) -> Positions | None:
    """Interpolate positions between nodes, or return None where that is not accurate enough."""
    nodes = np.arange(0, tile + 1, _NODE_SPACING // 2).astype(np.float64)
    longitude, latitude = _tile_lonlat(z, x, y, tile, nodes)
    grid = np.stack(np.meshgrid(longitude, latitude), axis=2)
    exact = lonlat_to_pixel(info, grid.reshape(-1, 2)).reshape(grid.shape)
    if not np.isfinite(exact).all():
        return None
    coarse = exact[::2, ::2]
    at = (np.arange(tile) + 0.5) / _NODE_SPACING
    middles = np.arange(len(coarse) - 1) + 0.5
    error = np.abs(_bilinear(coarse, middles, middles) - exact[1::2, 1::2]).max(axis=(0, 1))
    spacing = np.abs(np.diff(coarse, axis=0)).max(axis=(0, 1)) + np.abs(np.diff(coarse, axis=1)).max(axis=(0, 1))
    if (error > _TOLERANCE_TILE_PIXELS * spacing / _NODE_SPACING).any():
        return None
    return _bilinear(coarse, at, at)


def _bilinear(nodes: Positions, rows: Offsets, columns: Offsets) -> Positions:
    """Interpolate nodes [n, n, 2] at all pairs of fractional `rows` and `columns`."""
    first = np.minimum(rows.astype(int), len(nodes) - 2)
    share = (rows - first)[:, None, None]
    lines = nodes[first] * (1 - share) + nodes[first + 1] * share
    first = np.minimum(columns.astype(int), len(nodes) - 2)
    share = (columns - first)[None, :, None]
    found: Positions = lines[:, first] * (1 - share) + lines[:, first + 1] * share
    return found


def _spacing(positions: Positions, axis: int) -> float:
    """Return how many image pixels lie between neighbouring tile pixels, along columns (0) or rows (1)."""
    across, down = (np.abs(np.diff(positions[:, :, axis], axis=way)) for way in (0, 1))
    steps = [float(np.median(step[np.isfinite(step)])) for step in (across, down) if np.isfinite(step).any()]
    # A single tile pixel has no neighbours: it stands for about as much as one image can hold.
    return max(steps) if steps else 64.0


def _gather(data: ImageData, at: Positions, is_inside: NDArray[np.bool_], *, is_smooth: bool) -> ImageData:
    """Pick colours at positions `at` (column, row) of `data`; smooth ones weigh the four valid pixels around."""
    height, width = data.size
    at = np.where(is_inside[:, :, None], at, 0)
    column = np.clip(at[:, :, 0].astype(int), 0, width - 1)
    row = np.clip(at[:, :, 1].astype(int), 0, height - 1)
    mask = data.mask[row, column] & is_inside
    if not is_smooth:
        return ImageData(np.where(mask[:, :, None], data.rgb[row, column], np.uint8(0)), mask)
    column_0, row_0 = (np.floor(at[:, :, axis] - 0.5).astype(int) for axis in (0, 1))
    right, down = at[:, :, 0] - 0.5 - column_0, at[:, :, 1] - 0.5 - row_0
    colours, weights = np.zeros((*mask.shape, 3)), np.zeros(mask.shape)
    for row_k, share_y in ((row_0, 1 - down), (row_0 + 1, down)):
        for column_k, share_x in ((column_0, 1 - right), (column_0 + 1, right)):
            rows, columns = np.clip(row_k, 0, height - 1), np.clip(column_k, 0, width - 1)
            weight = share_x * share_y * data.mask[rows, columns]
            colours += weight[:, :, None] * data.rgb[rows, columns]
            weights += weight
    rgb = np.rint(colours / np.where(weights > 0, weights, 1)[:, :, None]).astype(np.uint8)
    return ImageData(np.where(mask[:, :, None], rgb, np.uint8(0)), mask)
