"""Encoding pixels: PNG for tiles, small previews, and GeoTIFF files that are complete or not there."""

import os
import secrets
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import Affine
from rasterio.windows import Window

from analysis.errors import ImageError, ImageNotWritten, InvalidWindow
from analysis.imagery.describe import describe
from analysis.imagery.pixels import Box
from analysis.imagery.raster import GDAL_ERRORS, create_raster, reason, update_raster
from analysis.imagery.read import ImageData, read_any
from analysis.imagery.rendering import Rendering

#: Deflate level of tiles: level 1 is several times faster than 6 and about a tenth larger on photographs.
_TILE_LEVEL = 1
_PREVIEW_QUALITY = 85
_BLOCK_PIXELS = 512
_SMALLEST_OVERVIEW_PIXELS = 256

_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode uint8 [height, width, 3] (RGB) or [height, width, 4] (with alpha) as PNG; same pixels, same bytes."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4) or 0 in pixels.shape:
        raise ValueError(
            f"pixels must be uint8 [height, width, 3 or 4] and not empty, got {pixels.dtype} {pixels.shape}"
        )
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", compress_level=_TILE_LEVEL)
    return buffer.getvalue()


def encode_image(data: ImageData) -> bytes:
    """Encode as PNG, with an alpha channel only where something is missing."""
    if data.mask.all():
        return encode_png(data.rgb)
    return encode_png(np.dstack([data.rgb, data.mask.astype(np.uint8) * 255]))


def thumbnail(path: Path, size: int, rendering: Rendering | None = None) -> bytes:
    """Encode the whole image with its longer side at most `size` pixels: JPEG, or PNG where something is missing.

    `media_type` tells which. Every pixel of the file is decoded, unless it holds overviews.

    Raises:
        ImageError: The file cannot be read.
    """
    if size < 1:
        raise InvalidWindow(f"a thumbnail of {size} pixels cannot be drawn; give at least 1")
    info = describe(path)
    scale = min(1.0, size / max(info.size))
    height, width = (max(1, round(side * scale)) for side in info.size)
    data = read_any(path, info, info.box, (height, width), rendering)
    if not data.mask.all():
        return encode_image(data)
    buffer = BytesIO()
    Image.fromarray(data.rgb).save(buffer, "JPEG", quality=_PREVIEW_QUALITY)
    return buffer.getvalue()


def media_type(encoded: bytes) -> str:
    """Return the media type of what this module encodes."""
    return "image/png" if encoded.startswith(_PNG_MAGIC) else "image/jpeg"


def write_geotiff(
    path: Path,
    rgb: NDArray[np.uint8],
    crs: str | None,
    transform: tuple[float, float, float, float, float, float] | None,
    *,
    tiled: bool = True,
    overviews: bool = False,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write colours uint8 [height, width, 3] as a GeoTIFF; see `write_geotiff_blocks`."""
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"rgb must be uint8 [height, width, 3] and not empty, got {rgb.dtype} {rgb.shape}")
    height, width = rgb.shape[:2]
    blocks = [((0, 0, width, height), rgb)]
    write_geotiff_blocks(path, (height, width), blocks, crs, transform, tiled=tiled, overviews=overviews, tags=tags)


def write_geotiff_blocks(
    path: Path,
    size: tuple[int, int],
    blocks: Iterable[tuple[Box, NDArray[np.uint8]]],
    crs: str | None,
    transform: tuple[float, float, float, float, float, float] | None,
    *,
    tiled: bool = True,
    overviews: bool = False,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a deflate-compressed RGB GeoTIFF block by block, so that the whole never has to be in memory.

    The file appears under its name only when it is complete and has been read back; an existing one is replaced at
    that moment. What no block covers is black.

    Args:
        path: Where to write; the folder must exist.
        size: (height, width) in pixels.
        blocks: Boxes (left, top, right, bottom) inside the image, each with its colours uint8 [height, width, 3].
            Boxes that follow the file's tiles of 512 x 512 pixels compress best.
        crs: "EPSG:…" or WKT, or None for plain pixels.
        transform: (a, b, c, d, e, f) as in `ImageInfo`, None exactly where `crs` is.
        tiled: Tiles of 512 x 512 pixels, or strips.
        overviews: Add reduced copies inside the file, down to 256 pixels.
        tags: Text to keep in the file's metadata.

    Raises:
        ImageNotWritten: The disk is full, the folder is missing, or the reference system is unknown.
    """
    height, width = size
    if (crs is None) != (transform is None):
        raise ImageNotWritten(f"{path.name} needs a reference system and a transform, or neither; got one of them")
    with_place = crs is not None
    layout = {"blockxsize": _BLOCK_PIXELS, "blockysize": _BLOCK_PIXELS} if tiled else {}
    place = {"crs": crs, "transform": Affine(*transform)} if transform is not None else {}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with create_raster(
            temporary,
            with_place=with_place,
            width=width,
            height=height,
            count=3,
            dtype="uint8",
            photometric="RGB",
            compress="deflate",
            predictor=2,
            tiled=tiled,
            **layout,
            **place,
        ) as dataset:
            dataset.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            dataset.update_tags(**(tags or {}))
            for (left, top, right, bottom), pixels in blocks:
                dataset.write(np.moveaxis(pixels, 2, 0), window=Window(left, top, right - left, bottom - top))
        if overviews and (factors := _overview_factors(size)):
            with update_raster(temporary, with_place=with_place) as dataset:
                dataset.build_overviews(factors, Resampling.average)
        # GDAL reports a full disk late or not at all: the directories of the file are checked against its length.
        written = describe(temporary, name=path.name)
        if written.size != size or written.is_georeferenced != with_place:
            raise ImageNotWritten(f"{path.name} was not written as asked; check the reference system and the transform")
        _flush(temporary)
        temporary.replace(path)
    except (OSError, ImageError, *GDAL_ERRORS) as error:
        if isinstance(error, ImageNotWritten):
            raise
        raise ImageNotWritten(
            f"{path.name} could not be written ({reason(error, temporary, path.name)}); check the folder, the free "
            "space and the reference system"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _overview_factors(size: tuple[int, int]) -> list[int]:
    factors: list[int] = []
    while max(size) > _SMALLEST_OVERVIEW_PIXELS * 2 ** len(factors):
        factors.append(2 ** (len(factors) + 1))
    return factors


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
