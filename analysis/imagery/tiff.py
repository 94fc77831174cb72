"""The directories of a TIFF file, read defensively and without touching a pixel.

GDAL would find most of this too, but only after opening the file. Reading it first refuses sizes, loops and cut-off
files before any codec runs. Layout: TIFF 6.0 (1992), section 2, and the BigTIFF extension of libtiff.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from analysis.errors import DamagedImage, TruncatedImage, UnsupportedImage

_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _SAMPLES = 256, 257, 258, 274, 277
_SUBFILE, _ROWS_PER_STRIP, _PLANAR, _SAMPLE_FORMAT = 254, 278, 284, 339
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_PIXEL_SCALE, _TIE_POINTS, _MATRIX = 33550, 33922, 34264

_BLOCK_TAGS = (_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES, _TILE_WIDTH, _TILE_HEIGHT)
_IMAGE_TAGS = (_WIDTH, _HEIGHT, _BITS, _ORIENTATION, _SAMPLES, _SUBFILE, _ROWS_PER_STRIP, _PLANAR, _SAMPLE_FORMAT)
_READ = frozenset(_BLOCK_TAGS + _IMAGE_TAGS)

#: Field type → bytes per value; unsigned integers, the only type that is read here, have a NumPy type as well.
_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}

#: Later directories are pages that are not shown, or overviews far too many to be meant.
_DIRECTORIES = 1024
_ENTRIES = 4096
_BLOCKS = 2**22
_COMPLEX_FORMATS = (5, 6)


Tags = dict[int, NDArray[np.uint64]]


@dataclass(frozen=True)
class Directory:
    """One image in the file. `block_bytes` is the decoded size of its largest strip or tile."""

    width: int
    height: int
    bands: int
    bits: int
    orientation: int
    block_bytes: int
    is_tiled: bool
    is_part: bool
    has_geotags: bool


def read_directories(file: BinaryIO, name: str, size: int) -> list[Directory]:
    """Return the directories in file order, at least one and at most 1,024.

    Raises:
        TruncatedImage: A directory, a value or a block of pixels lies beyond the end of the file.
        DamagedImage: Directories form a loop or do not describe an image.
        UnsupportedImage: The samples are complex numbers.
    """
    directories: list[Directory] = []
    for tags in _walk(file, name, size):
        directories.append(_directory(tags, name, size))
        if len(directories) == _DIRECTORIES:
            break
    if not directories:
        raise DamagedImage(f"{name} is a TIFF without an image in it; export it again")
    return directories


def exif_orientation(data: bytes) -> int:
    """Return the orientation (1 to 8) that an EXIF block asks for, or 1 where it asks for none or is damaged."""
    nothing: Tags = {}
    try:
        tags = next(_walk(BytesIO(data), "EXIF", len(data)), nothing)
    except (TruncatedImage, DamagedImage):
        return 1
    return _orientation(tags)


def _walk(file: BinaryIO, name: str, size: int) -> Iterator[Tags]:
    """Yield the tags of one directory after the other; a tag that is only noted has an empty array."""
    start = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 8:
        raise TruncatedImage(f"{name} is a TIFF that ends inside its header; copy or export it again")
    is_big = start[2:4] in (b"+\0", b"\0+")
    if is_big and len(start) < 16:
        raise TruncatedImage(f"{name} is a TIFF that ends inside its header; copy or export it again")
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    (offset,) = struct.unpack(order + offset_format, start[8:16] if is_big else start[4:8])
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise DamagedImage(f"{name} is a TIFF whose directories form a loop; export it again")
        seen.add(offset)
        (entries,) = struct.unpack(
            order + count_format, _bytes(file, offset, struct.calcsize(count_format), name, size)
        )
        if not 1 <= entries <= _ENTRIES:
            raise DamagedImage(f"{name} is a TIFF whose directory claims {entries:,} entries; export it again")
        offset += struct.calcsize(count_format)
        table = _bytes(file, offset, entries * entry_bytes, name, size)
        tags: Tags = {}
        for at in range(0, len(table), entry_bytes):
            tag, values = _entry(file, table[at : at + entry_bytes], order, name, size)
            tags.setdefault(tag, values)
        yield tags
        offset += len(table)
        (offset,) = struct.unpack(
            order + offset_format, _bytes(file, offset, struct.calcsize(offset_format), name, size)
        )


def _entry(file: BinaryIO, entry: bytes, order: str, name: str, size: int) -> tuple[int, NDArray[np.uint64]]:
    nothing = np.zeros(0, np.uint64)
    is_big = len(entry) == 20
    tag, kind = struct.unpack(order + "HH", entry[:4])
    (count,) = struct.unpack(order + ("Q" if is_big else "I"), entry[4 : 12 if is_big else 8])
    field = entry[12:] if is_big else entry[8:]
    length = count * _TYPE_BYTES.get(kind, 0)
    if length <= len(field):
        data = field[:length]
    else:
        (offset,) = struct.unpack(order + ("Q" if is_big else "I"), field)
        if offset + length > size:
            raise _cut_off(name, size)
        if tag not in _READ:
            return tag, nothing
        if count > _BLOCKS:
            raise DamagedImage(f"{name} is a TIFF with {count:,} values in tag {tag}; at most {_BLOCKS:,} are allowed")
        data = _bytes(file, offset, length, name, size)
    if tag not in _READ or kind not in _UNSIGNED:
        return tag, nothing
    return tag, np.frombuffer(data, np.dtype(order + _UNSIGNED[kind])).astype(np.uint64)


def _bytes(file: BinaryIO, offset: int, length: int, name: str, size: int) -> bytes:
    if offset + length > size:
        raise _cut_off(name, size)
    file.seek(offset)
    return file.read(length)


def _cut_off(name: str, size: int) -> TruncatedImage:
    return TruncatedImage(
        f"{name} is a TIFF that points beyond its end ({size:,} bytes): it was cut off; copy or export it again"
    )


def _directory(tags: Tags, name: str, size: int) -> Directory:
    width, height = _one(tags, _WIDTH, 0), _one(tags, _HEIGHT, 0)
    bands, bits = _one(tags, _SAMPLES, 1), _one(tags, _BITS, 1)
    subfile = _one(tags, _SUBFILE, 0)
    if width < 1 or height < 1 or bits < 1 or bands < 1:
        raise DamagedImage(
            f"{name} is a TIFF that claims {width:,} x {height:,} pixels of {bands} bands with {bits} bits; "
            "export it again"
        )
    if _one(tags, _SAMPLE_FORMAT, 1) in _COMPLEX_FORMATS:
        raise UnsupportedImage(
            f"{name} holds complex numbers, which have no colour; integers and floating point are allowed; "
            "export the magnitude"
        )
    is_tiled = _TILE_WIDTH in tags
    if is_tiled:
        block_width, block_height = _one(tags, _TILE_WIDTH, 0), _one(tags, _TILE_HEIGHT, 0)
        offsets, lengths = tags.get(_TILE_OFFSETS), tags.get(_TILE_BYTES)
    else:
        block_width, block_height = width, min(height, _one(tags, _ROWS_PER_STRIP, height))
        offsets, lengths = tags.get(_STRIP_OFFSETS), tags.get(_STRIP_BYTES)
    if block_width < 1 or block_height < 1 or offsets is None:
        raise DamagedImage(f"{name} is a TIFF that does not say where its pixels are; export it again")
    if lengths is not None and len(lengths) == len(offsets):
        # A block of no bytes is one that was never written: it reads as nodata or zero.
        ends = np.where(lengths > 0, offsets + lengths, 0)
        if (ends > size).any() or (ends < lengths).any():
            raise _cut_off(name, size)
    bands_in_block = bands if _one(tags, _PLANAR, 1) == 1 else 1
    return Directory(
        width=width,
        height=height,
        bands=bands,
        bits=bits,
        orientation=_orientation(tags),
        block_bytes=block_width * block_height * bands_in_block * bits // 8,
        is_tiled=is_tiled,
        is_part=bool(subfile & 0b101),
        has_geotags=bool({_MATRIX, _TIE_POINTS, _PIXEL_SCALE} & tags.keys()),
    )


def _one(tags: Tags, tag: int, default: int) -> int:
    values = tags.get(tag)
    return default if values is None or not len(values) else int(values[0])


def _orientation(tags: Tags) -> int:
    orientation = _one(tags, _ORIENTATION, 1)
    return orientation if 1 <= orientation <= 8 else 1
