"""From a file to its description, by content alone."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.io import DatasetReader
from rasterio.windows import Window

from analysis.errors import MissingImage
from analysis.imagery.geometry import why_not_mappable
from analysis.imagery.header import Header
from analysis.imagery.info import ImageInfo
from analysis.imagery.limits import LIMITS, Limits
from analysis.imagery.raster import GDAL_ERRORS, open_raster
from analysis.imagery.sniff import file_bytes, read_header

#: An alpha band is a measurement where at least this share of its pixels is neither 0 nor full, with this many values.
_ALPHA_SHARE = 0.25
_ALPHA_VALUES = 32
_SAMPLE_PIXELS = 64

#: EXIF orientations from here on exchange width and height.
_FIRST_TURNED = 5


class Identity(NamedTuple):
    """What tells one state of a file from another without reading it; the key of every cache here."""

    path: Path
    bytes: int
    modified_ns: int
    inode: int


def identity(path: Path) -> Identity:
    """Return the identity of the file at `path`.

    Raises:
        MissingImage: There is no readable regular file.
    """
    size = file_bytes(path)
    state = path.stat()
    return Identity(path.absolute(), size, state.st_mtime_ns, state.st_ino)


def describe(source: Path, *, name: str | None = None, limits: Limits = LIMITS) -> ImageInfo:
    """Describe an image file, or say in one sentence why it is refused.

    The content decides, never the extension. Only the header is decoded, so damage inside the compressed pixels shows
    when they are read (`thumbnail` reads all of them). The answer is remembered until the file changes.

    Args:
        source: A local file.
        name: What to call it in messages; the file's own name by default.
        limits: What is too large.

    Raises:
        ImageError: One of its children; see `analysis.errors`.
    """
    source = Path(source)
    return _described(identity(source), name or source.name, limits)


@lru_cache(maxsize=256)
def _described(file: Identity, name: str, limits: Limits) -> ImageInfo:
    header = read_header(file.path, name, limits)
    if header.format == "TIFF":
        return _described_raster(file, name, header)
    width, height = header.width, header.height
    notices = _notices(header)
    if header.orientation >= _FIRST_TURNED:
        width, height = height, width
    if header.orientation != 1:
        notices += ("The picture is shown upright, as its EXIF orientation asks; pixel coordinates refer to that.",)
    return ImageInfo(
        name=name,
        sha256=_digest(file),
        file_bytes=file.bytes,
        format=header.format,
        width=width,
        height=height,
        bands=header.bands,
        dtype="uint8" if header.bits <= 8 else "uint16",
        bits=header.bits,
        colours=header.colours,
        orientation=header.orientation,
        notices=notices,
    )


@lru_cache(maxsize=256)
def _digest(file: Identity) -> str:
    try:
        with file.path.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise MissingImage(f"{file.path.name} cannot be read to its end; copy it to a local disk") from error


def _described_raster(file: Identity, name: str, header: Header) -> ImageInfo:
    notices = _notices(header)
    with open_raster(file.path, name, with_place=header.has_geotags) as dataset:
        crs, transform, place_notices = _place(dataset, header)
        colours, colour_notices = _colours(dataset)
        info = ImageInfo(
            name=name,
            sha256=_digest(file),
            file_bytes=file.bytes,
            format="TIFF",
            width=dataset.width,
            height=dataset.height,
            bands=dataset.count,
            dtype=dataset.dtypes[0],
            bits=header.bits,
            colours=colours,
            is_tiled=header.is_tiled,
            overviews=tuple(dataset.overviews(1)),
            nodata=dataset.nodata,
            crs=crs,
            transform=transform,
            tags=tuple(sorted(tag for tag in dataset.tags() if tag.startswith("KEEPMAP_"))),
            notices=notices + colour_notices + place_notices,
        )
    if header.orientation != 1:
        info = replace(
            info, notices=(*info.notices, "The TIFF's orientation tag is not applied: pixels are shown as stored.")
        )
    if info.crs is None:
        return info
    if reason := why_not_mappable(info):
        return replace(info, notices=(*info.notices, f"The image is shown in plain pixels: {reason}."))
    return replace(info, is_mappable=True)


def _colours(dataset: DatasetReader) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Name the bands. Writers mark a fourth band as alpha by default, even where it holds near infrared."""
    colours = tuple(colour.name for colour in dataset.colorinterp)
    if "alpha" not in colours or not np.issubdtype(dataset.dtypes[0], np.unsignedinteger):
        return colours, ()
    band = colours.index("alpha") + 1
    samples = np.concatenate([dataset.read(band, window=window).ravel() for window in _spread_windows(dataset)])
    partial = samples[(samples > 0) & (samples < np.iinfo(samples.dtype).max)]
    if len(partial) < _ALPHA_SHARE * len(samples) or len(np.unique(partial)) < _ALPHA_VALUES:
        return colours, ()
    notice = f"Band {band} is marked as alpha but holds many different values: it is taken for a band of its own."
    return tuple("undefined" if colour == "alpha" else colour for colour in colours), (notice,)


def _spread_windows(dataset: DatasetReader) -> Iterator[Window]:
    """Yield nine small windows, spread evenly over the image."""
    height, width = min(_SAMPLE_PIXELS, dataset.height), min(_SAMPLE_PIXELS, dataset.width)
    for row in range(3):
        for column in range(3):
            yield Window((dataset.width - width) * column // 2, (dataset.height - height) * row // 2, width, height)


def _notices(header: Header) -> tuple[str, ...]:
    if header.frames == 1:
        return ()
    return (f"The file holds {header.frames} pictures; the first is used.",)


def _place(
    dataset: DatasetReader, header: Header
) -> tuple[str | None, tuple[float, float, float, float, float, float] | None, tuple[str, ...]]:
    """Return the reference system and transform that the file itself holds, both or neither."""
    plain = "the image is shown in plain pixels."
    try:
        crs = dataset.crs.to_string() if dataset.crs else None
        has_points = bool(dataset.gcps[0])
    except GDAL_ERRORS:
        return None, None, (f"The file's reference system cannot be read; {plain}",)
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    has_transform = header.has_geotags and (a, b, c, d, e, f) != (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    if has_transform and crs:
        if np.isfinite((a, b, c, d, e, f)).all() and a * e - b * d != 0:
            return crs, (a, b, c, d, e, f), ()
        return None, None, (f"The file's transform maps all pixels to one line; {plain}",)
    if has_points:
        return None, None, (f"The file holds ground control points but no transform; {plain}",)
    if has_transform:
        return None, None, (f"The file holds a transform but no reference system; {plain}",)
    if crs:
        return None, None, (f"The file names a reference system but no transform; {plain}",)
    return None, None, ()
