"""NumPy arrays as rows: compressed bytes, named by the SHA-256 of dtype, shape and content. Never pickle."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import NotStorable, StoreCorrupt

KINDS = "biuf"
"""Kinds of dtype that are stored: booleans, integers and floats. Objects would need pickle."""

LEVEL = 6
"""zlib level: above it random float16 attention gets slower and no smaller."""


@dataclass(frozen=True)
class PackedArray:
    """An array ready to be stored.

    Args:
        digest: SHA-256 of dtype, shape and uncompressed bytes, hex.
        dtype: NumPy's text with byte order, such as "<f2".
        shape: Axis lengths; () for a scalar.
        data: The bytes in C order, compressed with zlib.
    """

    digest: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


def array_digest(dtype: str, shape: tuple[int, ...], content: bytes) -> str:
    """SHA-256 that two arrays share only if dtype, shape and bytes are the same, hex."""
    header = json.dumps([dtype, list(shape)], separators=(",", ":"))
    return hashlib.sha256(header.encode() + b"\n" + content).hexdigest()


def pack(array: NDArray[Any]) -> PackedArray:
    """An array as it is stored; the layout in memory does not matter.

    Raises:
        NotStorable: its dtype is not boolean, integer or float.
    """
    if array.dtype.kind not in KINDS or array.dtype.hasobject:
        raise NotStorable(
            f"arrays must be boolean, integer or float, got dtype {array.dtype}; convert it before storing"
        )
    content = array.tobytes()
    digest = array_digest(array.dtype.str, array.shape, content)
    return PackedArray(digest, array.dtype.str, array.shape, zlib.compress(content, LEVEL))


def unpack(packed: PackedArray) -> NDArray[Any]:
    """The array that was packed, writable and owned by the caller.

    Raises:
        StoreCorrupt: the bytes do not belong to the digest.
    """
    damaged = StoreCorrupt(
        f"the stored array {packed.digest[:12]} does not match its digest; restore the store from a backup"
    )
    try:
        dtype = np.dtype(packed.dtype)
    except TypeError as error:
        raise damaged from error
    if dtype.kind not in KINDS:
        raise damaged
    size = dtype.itemsize * math.prod(packed.shape)
    try:
        # One byte more than expected is enough to notice bytes that unfold into gigabytes.
        content = zlib.decompressobj().decompress(packed.data, size + 1)
    except zlib.error as error:
        raise damaged from error
    if len(content) != size or array_digest(packed.dtype, packed.shape, content) != packed.digest:
        raise damaged
    return np.frombuffer(bytearray(content), dtype=dtype).reshape(packed.shape)
