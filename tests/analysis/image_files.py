"""Image files drawn for tests, byte by byte where a library would refuse to write them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio.env import Env
from rasterio.transform import Affine

from analysis.imagery.raster import create_raster

UTM = "EPSG:32618"
TEN_METRES = (10.0, 0.0, 500_000.0, 0.0, -10.0, 4_200_000.0)


def colours(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random colours without a zero, so that none is nodata by accident."""
    return np.random.default_rng(seed).integers(1, 256, (height, width, 3), dtype=np.uint8)


def write_tiff(
    path: Path,
    array: NDArray[Any],
    *,
    crs: str | None = None,
    transform: Sequence[float] | None = None,
    mask: NDArray[np.bool_] | None = None,
    **profile: Any,
) -> Path:
    """Write an array [height, width] or [height, width, bands] as TIFF, without a place unless one is given."""
    bands = array[:, :, None] if array.ndim == 2 else array
    place = {} if transform is None else {"transform": Affine(*transform)}
    if crs is not None:
        place["crs"] = crs
    height, width, count = bands.shape
    size = {"height": height, "width": width, "count": count, "dtype": bands.dtype.name}
    with (
        create_raster(path, with_place=bool(place), **size, **place, **profile) as dataset,
        Env(GDAL_TIFF_INTERNAL_MASK=True),
    ):
        dataset.write(np.moveaxis(bands, 2, 0))
        if mask is not None:
            dataset.write_mask(mask)
    return path


def write_picture(path: Path, array: NDArray[np.uint8], **options: Any) -> Path:
    """Write colours or greys with Pillow, in the format of the suffix."""
    Image.fromarray(array).save(path, **options)
    return path


def png(width: int, height: int, *, bits: int = 8, colour: int = 2, pixels: bytes = b"") -> bytes:
    """A PNG whose header says what it likes. `pixels` are the unfiltered rows, each after a zero byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


def deep_png(array: NDArray[np.uint16]) -> bytes:
    """A 16-bit PNG of an array [height, width, 1 to 4], which Pillow cannot write in colour."""
    height, width, count = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return png(width, height, bits=16, colour={1: 0, 2: 4, 3: 2, 4: 6}[count], pixels=rows)


def tiff(width: int, height: int, *, next_directory: int = 0, **tags: int) -> bytes:
    """A bare little-endian TIFF of one grey byte a pixel, with 512 bytes of pixels, whatever its header says.

    `tags` replace or add entries, as `t278=4`.
    """
    entries = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 256, 277: 1, 278: height, 279: 256}
    entries.update({int(name.removeprefix("t")): value for name, value in tags.items()})
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    start = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", next_directory)
    return start.ljust(256, b"\0") + bytes(512)


def webp_header(width: int, height: int) -> bytes:
    """An extended WebP that is only a canvas."""
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little")
    canvas += (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(canvas)) + b"WEBP" + canvas


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG that is only a frame header and an end."""
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + frame + b"\xff\xd9"
