"""What the header of a PNG, JPEG or WebP says, read without decoding a pixel.

Nothing here allocates in proportion to what a header claims. Layouts are those of the PNG specification (W3C, third
edition), ITU-T T.81 annex B for JPEG, and RFC 9649 for WebP; TIFF is in `tiff`.
"""

import re
from dataclasses import dataclass
from typing import BinaryIO, Literal, get_args

from analysis.errors import DamagedImage, ImageTooLarge, TruncatedImage, UnsupportedImage
from analysis.imagery import tiff
from analysis.imagery.limits import Limits

Format = Literal["PNG", "JPEG", "WebP", "TIFF"]


@dataclass(frozen=True)
class Header:
    """The facts that decide whether a file is opened at all.

    `width` and `height` are as stored, before the orientation (1 to 8, TIFF tag 274) is applied.
    """

    format: Format
    width: int
    height: int
    bands: int
    bits: int
    colours: tuple[str, ...] = ()
    orientation: int = 1
    frames: int = 1
    has_geotags: bool = False
    is_tiled: bool = False


def formats() -> tuple[str, ...]:
    """Return the names of the formats that are accepted."""
    return get_args(Format)


_PNG_COLOURS = {
    0: ("gray",),
    2: ("red", "green", "blue"),
    3: ("palette",),
    4: ("gray", "alpha"),
    6: ("red", "green", "blue", "alpha"),
}


def png_header(file: BinaryIO, name: str, size: int) -> Header:
    """Walk the chunks to IEND: their lengths must lie inside the file."""
    orientation, frames = 1, 1
    header: tuple[int, int, int, int] | None = None
    position = 8
    while position + 12 <= size:
        file.seek(position)
        start = file.read(8)
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if position + 12 + length > size:
            break
        if kind == b"IHDR" and length == 13 and header is None:
            data = file.read(13)
            header = (int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big"), data[8], data[9])
        elif header is None:
            raise DamagedImage(f"{name} is a PNG whose first chunk is not a header; export it again")
        elif kind == b"acTL" and length == 8:
            frames = max(1, int.from_bytes(file.read(4), "big"))
        elif kind == b"eXIf":
            orientation = tiff.exif_orientation(file.read(length))
        elif kind == b"IEND":
            width, height, bits, colour = header
            if colour not in _PNG_COLOURS or bits not in (1, 2, 4, 8, 16):
                raise DamagedImage(f"{name} is a PNG of no known kind (colour {colour}, {bits} bits); export it again")
            colours = _PNG_COLOURS[colour]
            return Header("PNG", width, height, len(colours), bits, colours, orientation, frames)
        position += 12 + length
    if header is None:
        raise TruncatedImage(f"{name} is a PNG that ends inside its header; copy or export it again")
    raise TruncatedImage(f"{name} is a PNG that ends before its last chunk ({size:,} bytes); copy or export it again")


#: In entropy-coded data 0xFF is followed by 0 (a literal) or by a restart marker; anything else is the next marker.
_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
_JPEG_COLOURS = {1: ("gray",), 3: ("red", "green", "blue"), 4: ("cyan", "magenta", "yellow", "black")}


def jpeg_header(file: BinaryIO, name: str, size: int, limits: Limits) -> Header:
    """Follow the markers from the frame header to the end of the image."""
    if size > limits.decoded_bytes:
        raise ImageTooLarge(
            f"{name} is a JPEG of {size:,} bytes; at most {limits.decoded_bytes:,} are allowed; reduce it"
        )
    data = file.read()
    position, orientation = 2, 1
    frame: tuple[int, int, int, int] | None = None
    while marker := _JPEG_MARKER.search(data, position):
        kind, position = marker.group()[-1], marker.end()
        if kind == 0xD9:
            if frame is None:
                break
            bits, height, width, bands = frame
            return Header("JPEG", width, height, bands, bits, _JPEG_COLOURS[bands], orientation)
        if kind in (0x01, 0xD8):
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        if length < 2 or len(segment) != length - 2:
            break
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC) and length >= 8:
            frame = (segment[0], int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big"), segment[5])
            if frame[0] != 8 or frame[3] not in _JPEG_COLOURS or kind not in (0xC0, 0xC1, 0xC2):
                raise UnsupportedImage(
                    f"{name} is a JPEG of {frame[3]} components with {frame[0]} bits (process {kind:#x}); baseline and "
                    "progressive JPEG of 1, 3 or 4 components with 8 bits are allowed; export it as PNG or TIFF"
                )
        elif kind == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation = tiff.exif_orientation(segment[6:])
        position += length
    raise TruncatedImage(f"{name} is a JPEG that ends before its end marker ({size:,} bytes); copy or export it again")


def without_metadata(jpeg: bytes) -> bytes:
    """Leave EXIF, XMP, colour profiles and further pictures (segments APP1 and APP2) out of a JPEG."""
    parts, position = [jpeg[:2]], 2
    while (marker := _JPEG_MARKER.match(jpeg, position)) and marker.group()[-1] not in (0xD9, 0xDA):
        end = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
        if marker.group()[-1] not in (0xE1, 0xE2):
            parts.append(jpeg[position:end])
        position = end
    return b"".join([*parts, jpeg[position:]])


def webp_header(file: BinaryIO, name: str, size: int) -> Header:
    """Walk the RIFF chunks; the first one gives the canvas."""
    file.seek(4)
    end = 8 + int.from_bytes(file.read(4), "little")
    if end > size:
        raise TruncatedImage(f"{name} is a WebP of {end:,} bytes of which {size:,} are there; copy or export it again")
    position, orientation, frames = 12, 1, 0
    canvas: tuple[int, int, bool] | None = None
    while position + 8 <= end:
        file.seek(position)
        start = file.read(8)
        kind, length = start[:4], int.from_bytes(start[4:], "little")
        if position + 8 + length > end:
            raise TruncatedImage(f"{name} is a WebP whose last chunk is cut off; copy or export it again")
        if canvas is None and kind in (b"VP8X", b"VP8L", b"VP8 ") and length >= 5:
            canvas = _webp_canvas(kind, file.read(10))
        elif kind == b"ANMF":
            frames += 1
        elif kind == b"EXIF":
            exif = file.read(length)
            orientation = tiff.exif_orientation(exif.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2
    if canvas is None:
        raise DamagedImage(f"{name} is a WebP without an image in it; export it again")
    width, height, has_alpha = canvas
    colours = ("red", "green", "blue") + (("alpha",) if has_alpha else ())
    return Header("WebP", width, height, len(colours), 8, colours, orientation, max(1, frames))


def _webp_canvas(kind: bytes, data: bytes) -> tuple[int, int, bool]:
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (4, 7))
        return width, height, bool(data[0] & 0x10)
    if kind == b"VP8L":
        packed = int.from_bytes(data[1:5], "little")
        return 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF), bool(packed >> 28 & 1)
    width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (6, 8))
    return width, height, False
