"""Judging a file by its first bytes, and refusing what is too large before anything is decoded.

A file's name decides nothing. Sizes come from the header, and each is compared with its limit here.
"""

import re
from pathlib import Path
from typing import BinaryIO

from analysis.errors import DamagedImage, ImageTooLarge, MissingImage, NotAnImage
from analysis.imagery import tiff
from analysis.imagery.header import Header, jpeg_header, png_header, webp_header
from analysis.imagery.limits import Limits

ALLOWED = "PNG, JPEG, WebP and TIFF (GeoTIFF, COG) are allowed, whatever the file is called"

#: Bytes of plain English text.
_TEXT = frozenset(b"\t\n\r\f") | frozenset(range(0x20, 0x7F))

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

#: A first look at content that people mistake for an image, for a message that helps.
_RECOGNISED = (
    (re.compile(rb"\s*<VRTDataset", re.I), "a GDAL virtual raster, which only points to other files"),
    (re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!DOCTYPE svg|svg)", re.I | re.S), "an SVG drawing"),
    (re.compile(rb"\s*(<!DOCTYPE html|<html)", re.I), "an HTML page"),
    (re.compile(rb"%PDF-"), "a PDF document"),
    (re.compile(rb"GIF8[79]a"), "a GIF"),
    (re.compile(rb"BM.{4}\0\0\0\0", re.S), "a BMP"),
    (re.compile(rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 image"),
    (re.compile(rb".{4}ftyp(heic|heix|mif1|avif)", re.S), "a HEIC or AVIF image"),
    (re.compile(rb"PK\x03\x04"), "a ZIP archive"),
    (re.compile(rb"\x1f\x8b"), "a gzip archive"),
    (re.compile(rb"\s*[\[{]"), "JSON or other text"),
)


def read_header(path: Path, name: str, limits: Limits) -> Header:
    """Judge a file by its content and refuse what cannot, or should not, be opened; messages call it `name`.

    Raises:
        MissingImage: There is no regular local file at `path`.
        NotAnImage: The file is empty or holds something else.
        TruncatedImage, DamagedImage, UnsupportedImage, ImageTooLarge: See each class.
    """
    size = file_bytes(path)
    if size == 0:
        raise NotAnImage(f"{name} is empty (0 bytes); {ALLOWED}; copy or export the image again")
    if size > limits.file_bytes:
        raise ImageTooLarge(
            f"{name} has {size:,} bytes; at most {limits.file_bytes:,} are allowed; cut out the part of interest"
        )
    with path.open("rb") as file:
        start = file.read(1024)
        file.seek(0)
        if start.startswith(b"\x89PNG\r\n\x1a\n"):
            header = png_header(file, name, size)
        elif start.startswith(b"\xff\xd8\xff"):
            header = jpeg_header(file, name, size, limits)
        elif start.startswith(b"RIFF") and start[8:12] == b"WEBP":
            header = webp_header(file, name, size)
        elif start.startswith(_TIFF_MAGIC):
            header = _tiff(file, name, size, limits)
        else:
            raise NotAnImage(
                f"{name} is not an image that can be opened: it is {_likely(start)}; {ALLOWED}; export it as one of "
                "them"
            )
    _check_size(header, name, limits)
    return header


def file_bytes(path: Path) -> int:
    """Return the size of a regular local file.

    Raises:
        MissingImage: There is none, or it cannot be read.
    """
    try:
        # GDAL gives paths below /vsi... a meaning of their own (network, archives, memory).
        if path.is_file() and not str(path.absolute()).startswith("/vsi"):
            return path.stat().st_size
    except (OSError, ValueError) as error:
        raise MissingImage(f"{path.name!r} cannot be read; give the path of a local image file") from error
    if path.is_dir():
        raise MissingImage(f"{path.name or str(path)!r} is a folder; give the path of a local image file")
    if path.exists():
        raise MissingImage(f"{path.name!r} is no regular file; give the path of a local image file")
    raise MissingImage(f"there is no file {path.name!r} there; give the path of a local image file")


def _likely(start: bytes) -> str:
    for pattern, words in _RECOGNISED:
        if pattern.match(start):
            return words
    if not set(start) - _TEXT:
        return "text"
    return f"of unknown content (it begins with the bytes {start[:4].hex(' ')})"


def _check_size(header: Header, name: str, limits: Limits) -> None:
    """Refuse from the header what would take too much memory or time; TIFF adds its own blocks in `_tiff`."""
    width, height = header.width, header.height
    if width < 1 or height < 1:
        raise DamagedImage(f"{name} claims {width:,} x {height:,} pixels; at least 1 x 1 is needed; export it again")
    largest = limits.raster_pixels if header.format == "TIFF" else limits.decoded_pixels
    if width * height > largest:
        cure = "cut out the part of interest" if header.format == "TIFF" else "convert it to a tiled GeoTIFF"
        raise ImageTooLarge(
            f"{name} claims {width:,} x {height:,} pixels; at most {largest:,} pixels are allowed for {header.format}; "
            f"{cure} or reduce it"
        )
    if max(width, height) > limits.side_pixels:
        raise ImageTooLarge(
            f"{name} claims {width:,} x {height:,} pixels; at most {limits.side_pixels:,} along a side are allowed; "
            "cut out the part of interest"
        )
    if not 1 <= header.bands <= limits.bands:
        raise ImageTooLarge(
            f"{name} has {header.bands:,} bands; 1 to {limits.bands} are allowed; export the bands of interest"
        )
    decoded = width * height * header.bands * -(-header.bits // 8)
    largest = limits.raster_bytes if header.format == "TIFF" else limits.decoded_bytes
    if decoded > largest:
        raise ImageTooLarge(
            f"{name} would decode to {decoded:,} bytes; at most {largest:,} are allowed for {header.format}; "
            "export fewer bands or a part of it"
        )


def _tiff(file: BinaryIO, name: str, size: int, limits: Limits) -> Header:
    directories = tiff.read_directories(file, name, size)
    first = directories[0]
    for directory in directories:
        # Overviews and masks are decoded too, so each answers for itself.
        if directory is not first and not directory.is_part:
            continue
        part = Header("TIFF", directory.width, directory.height, directory.bands, directory.bits)
        _check_size(part, name, limits)
        if directory.block_bytes > limits.block_bytes:
            raise ImageTooLarge(
                f"{name} stores its pixels in blocks of {directory.block_bytes:,} bytes; at most "
                f"{limits.block_bytes:,} are allowed; rewrite it as a tiled GeoTIFF or COG"
            )
    return Header(
        format="TIFF",
        width=first.width,
        height=first.height,
        bands=first.bands,
        bits=first.bits,
        orientation=first.orientation,
        frames=1 + sum(not directory.is_part for directory in directories[1:]),
        has_geotags=first.has_geotags,
        is_tiled=first.is_tiled,
    )
