"""Windows of native samples, and reading any of them at any size in bounded memory.

A read is answered from the coarsest copy that is still fine enough: the pixels themselves, an overview in the file, or
a reduced copy (at most 2,048 pixels a side) that is made once for a large image and kept. Whatever it is, it is walked
in strips of about four megapixels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, floor
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from analysis.imagery import photo
from analysis.imagery.cache import ByteCache
from analysis.imagery.describe import identity
from analysis.imagery.info import ImageInfo
from analysis.imagery.limits import CHUNK_PIXELS, OVERVIEW_CACHE_BYTES, OVERVIEW_SIDE_PIXELS
from analysis.imagery.raster import open_raster
from analysis.imagery.resample import Samples, resize

Box = tuple[int, int, int, int]
Kind = Literal["grey", "rgb", "palette", "cmyk"]

#: Floating-point samples beyond this are taken for missing ones; -3.4e38 is a common mark for them.
_LARGEST_VALUE = 1e38

#: A read that would decode more source pixels than this comes from the kept copy, where that is fine enough.
_DIRECT_PIXELS = 2**20

_overviews: ByteCache[Samples] = ByteCache(OVERVIEW_CACHE_BYTES)


@dataclass(frozen=True)
class _Level:
    """One copy of the image: its size (height, width) and a reader of its own boxes, which lie inside it."""

    size: tuple[int, int]
    read: Callable[[Box], Samples]


@dataclass(frozen=True)
class Strip:
    """A part of a result, to be placed with its first pixel at (row, column)."""

    row: int
    column: int
    samples: Samples

    @property
    def place(self) -> tuple[slice, slice]:
        """The rows and columns of the result that it fills."""
        height, width = self.samples.valid.shape
        return slice(self.row, self.row + height), slice(self.column, self.column + width)


def clear_caches() -> None:
    """Forget decoded images and reduced copies."""
    _overviews.clear()
    photo.clear_cache()


def strips(
    path: Path, info: ImageInfo, bands: tuple[int, ...], kind: Kind, window: Box, size: tuple[int, int]
) -> Iterator[Strip]:
    """Yield horizontal strips that together are what the image has of `window`, resized to `size`.

    The window may reach beyond the image, where no strip comes. Channels are the bands, or red, green, blue where the
    kind is "palette".
    """
    left, top, right, bottom = window
    reduction = max(1.0, min((right - left) / size[1], (bottom - top) / size[0]))
    seen = (min(right, info.width) - max(left, 0)) * (min(bottom, info.height) - max(top, 0))
    index, decimation = _stored_level(info, reduction)
    factor = overview_factor(info)
    if factor > 1 and reduction >= factor and seen > decimation**2 * _DIRECT_PIXELS:
        copy = overview(path, info, bands, kind)
        yield from _walk(_Level(copy.valid.shape, lambda box: _crop(copy, box)), info, window, size, factor)
    else:
        with _open(path, info, bands, kind, index) as level:
            yield from _walk(level, info, window, size, None)


def overview_factor(info: ImageInfo) -> int:
    """Return the power of two by which the kept copy of this image is reduced; 1 where none is needed."""
    factor = 1
    while max(info.size) > factor * OVERVIEW_SIDE_PIXELS:
        factor *= 2
    return factor


def overview(path: Path, info: ImageInfo, bands: tuple[int, ...], kind: Kind) -> Samples:
    """Return the whole image reduced by `overview_factor`; it is made once for large images."""
    factor = overview_factor(info)

    def make() -> Samples:
        size = ceil(info.height / factor), ceil(info.width / factor)
        index, _ = _stored_level(info, factor)
        values: NDArray[np.generic] | None = None
        valid = np.zeros(size, np.bool_)
        with _open(path, info, bands, kind, index) as level:
            for strip in _walk(level, info, (0, 0, size[1] * factor, size[0] * factor), size, None):
                found = strip.samples
                if values is None:
                    values = np.zeros((*size, found.values.shape[2]), found.values.dtype)
                values[strip.place], valid[strip.place] = found.values, found.valid
        return Samples(np.zeros((*size, 1), np.uint8) if values is None else values, valid)

    return make() if factor == 1 else _overviews.get((identity(path), bands, kind), make)


def _stored_level(info: ImageInfo, reduction: float) -> tuple[int | None, int]:
    """Return the index and decimation of the coarsest overview in the file that is not too coarse."""
    fitting = [(decimation, index) for index, decimation in enumerate(info.overviews) if 1 < decimation <= reduction]
    if not fitting:
        return None, 1
    decimation, index = max(fitting)
    return index, decimation


def _walk(level: _Level, info: ImageInfo, window: Box, size: tuple[int, int], factor: int | None) -> Iterator[Strip]:
    """Read a window, given in image pixels, from a level in strips of bounded size.

    `factor` is the exact reduction of a kept copy, whose last row and column may reach beyond the image; an overview in
    a file is scaled to the image instead.
    """
    scale_x = 1 / factor if factor else level.size[1] / info.width
    scale_y = 1 / factor if factor else level.size[0] / info.height
    columns = _Axis(window[0] * scale_x, window[2] * scale_x, size[1])
    rows = _Axis(window[1] * scale_y, window[3] * scale_y, size[0])
    first_column, last_column = columns.within(level.size[1])
    first_row, last_row = rows.within(level.size[0])
    if first_column >= last_column:
        return
    left, right = columns.at(first_column), columns.at(last_column)
    width = max(ceil(right) - floor(left), last_column - first_column)
    height = max(1, floor(CHUNK_PIXELS / width / max(1.0, rows.step)))
    for row in range(first_row, last_row, height):
        end = min(last_row, row + height)
        box = (left, rows.at(row), right, rows.at(end))
        outer = (floor(box[0]), floor(box[1]), ceil(box[2]), ceil(box[3]))
        inner = (box[0] - outer[0], box[1] - outer[1], box[2] - outer[0], box[3] - outer[1])
        samples = resize(_padded(level, outer), (end - row, last_column - first_column), inner)
        yield Strip(row, first_column, samples)


@dataclass(frozen=True)
class _Axis:
    """`pixels` equal steps from `start` to `stop`, which are source coordinates."""

    start: float
    stop: float
    pixels: int

    @property
    def step(self) -> float:
        return (self.stop - self.start) / self.pixels

    def at(self, pixel: int) -> float:
        # Rounded, because k · step may land a hair beside the whole number that it stands for.
        return round(self.start + pixel * self.step, 6)

    def within(self, length: int) -> tuple[int, int]:
        """Return the first pixel and the one after the last that see anything of a source of this length."""
        first = floor(round(-self.start / self.step, 6))
        last = ceil(round((length - self.start) / self.step, 6))
        return max(0, first), min(self.pixels, last)


def _padded(level: _Level, box: Box) -> Samples:
    """Read a box of which a last fraction of a step may lie outside the level; what is outside is not valid."""
    left, top, right, bottom = box
    height, width = level.size
    inside = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    samples = level.read(inside)
    if inside == box:
        return samples
    shape = (bottom - top, right - left)
    values = np.zeros((*shape, samples.values.shape[2]), samples.values.dtype)
    valid = np.zeros(shape, np.bool_)
    rows = slice(inside[1] - top, inside[3] - top)
    columns = slice(inside[0] - left, inside[2] - left)
    values[rows, columns], valid[rows, columns] = samples.values, samples.valid
    return Samples(values, valid)


def _crop(samples: Samples, box: Box) -> Samples:
    left, top, right, bottom = box
    return Samples(samples.values[top:bottom, left:right], samples.valid[top:bottom, left:right])


@contextmanager
def _open(path: Path, info: ImageInfo, bands: tuple[int, ...], kind: Kind, index: int | None) -> Iterator[_Level]:
    if info.format != "TIFF":
        picture = photo.decoded(path, info)
        yield _Level(info.size, lambda box: picture.window(box, bands))
        return
    with open_raster(path, info.name, overview=index) as dataset:
        table = _palette(dataset, bands[0]) if kind == "palette" else None
        yield _Level((dataset.height, dataset.width), lambda box: _read(dataset, info, bands, table, box))


def _palette(dataset: DatasetReader, band: int) -> NDArray[np.uint8]:
    """Return the colours [entries, 4] of a paletted band; an entry that is not listed is transparent."""
    colours = dataset.colormap(band)
    table = np.zeros((256 if dataset.dtypes[0] == "uint8" else 65536, 4), np.uint8)
    for entry, colour in colours.items():
        if 0 <= entry < len(table):
            table[entry] = colour
    return table


def _read(
    dataset: DatasetReader, info: ImageInfo, bands: tuple[int, ...], table: NDArray[np.uint8] | None, box: Box
) -> Samples:
    """Read a box of one level in its own type, with the mask that the file states."""
    left, top, right, bottom = box
    window = Window(left, top, right - left, bottom - top)
    values = np.moveaxis(dataset.read(list(bands), window=window), 0, 2)
    valid = _valid(dataset, info, bands, values, window)
    if table is not None:
        colours = table[values[:, :, 0]]
        return Samples(colours[:, :, :3], valid & (colours[:, :, 3] > 0))
    return Samples(values, valid)


def _valid(
    dataset: DatasetReader, info: ImageInfo, bands: tuple[int, ...], values: NDArray[np.generic], window: Window
) -> NDArray[np.bool_]:
    """Say which pixels the image has.

    One is missing where alpha is 0, where the file's mask says so, where a shown value is not finite or beyond 1e38,
    and where all shown values are nodata: one band alone does not make a hole in black water whose nodata is 0.
    """
    valid = np.ones(values.shape[:2], np.bool_)
    if values.dtype.kind == "f":
        # Also false for NaN. Beyond it, sums and differences overflow in float32.
        valid &= (np.abs(values) <= _LARGEST_VALUE).all(axis=2)
    if info.nodata is not None and np.isfinite(info.nodata):
        valid &= ~_equal(values, info.nodata).all(axis=2)
    if info.alpha_band is not None:
        valid &= dataset.read(info.alpha_band, window=window) > 0
    elif set(dataset.mask_flag_enums[bands[0] - 1]) == {MaskFlags.per_dataset}:
        valid &= dataset.read_masks(bands[0], window=window) > 0
    return valid


def _equal(values: NDArray[np.generic], nodata: float) -> NDArray[np.bool_]:
    """Compare in the type of the values: a nodata of -3.4e38 is stored as float64, the samples are float32."""
    if values.dtype.kind == "f":
        return np.asarray(values == np.asarray(nodata).astype(values.dtype))
    return np.asarray(values == (int(nodata) if float(nodata).is_integer() else nodata))
