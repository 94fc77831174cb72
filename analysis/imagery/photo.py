"""PNG, JPEG and WebP: formats that are decoded whole, upright, and kept for the next tile."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.errors import DamagedImage
from analysis.imagery.cache import ByteCache
from analysis.imagery.describe import identity
from analysis.imagery.header import without_metadata
from analysis.imagery.info import ImageInfo
from analysis.imagery.limits import DECODED_CACHE_BYTES
from analysis.imagery.raster import open_raster
from analysis.imagery.resample import Samples

#: How to turn the stored picture upright, by EXIF orientation (CIPA DC-008, tag 274).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: What Pillow's decoders raise for damaged content.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, Image.DecompressionBombError)


class Decoded(Protocol):
    """A decoded picture that gives native windows."""

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""

    def window(self, box: tuple[int, int, int, int], bands: tuple[int, ...]) -> Samples:
        """Return the samples of a box inside the picture."""


@dataclass(frozen=True)
class _Picture:
    """Eight bits a sample, kept as Pillow's own image: another copy as an array would double the memory."""

    image: Image.Image

    @property
    def nbytes(self) -> int:
        return self.image.width * self.image.height * (1 if self.image.mode == "L" else 4)

    def window(self, box: tuple[int, int, int, int], bands: tuple[int, ...]) -> Samples:
        values = np.asarray(self.image.crop(box))
        if values.ndim == 2:
            return Samples(values[:, :, None], np.ones(values.shape, np.bool_))
        valid = values[:, :, 3] > 0 if values.shape[2] == 4 else np.ones(values.shape[:2], np.bool_)
        # A palette or CMYK has become red, green and blue; other bands are picked by number.
        channels = [band - 1 for band in bands] if len(bands) == 3 else [0, 1, 2]
        return Samples(values[:, :, channels], valid)


@dataclass(frozen=True)
class _Deep:
    """Sixteen bits a sample, as an array [height, width, bands]."""

    values: NDArray[np.uint16]
    valid: NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.valid.nbytes

    def window(self, box: tuple[int, int, int, int], bands: tuple[int, ...]) -> Samples:
        left, top, right, bottom = box
        values = self.values[top:bottom, left:right, [band - 1 for band in bands]]
        return Samples(values, self.valid[top:bottom, left:right])


_decoded: ByteCache[Decoded] = ByteCache(DECODED_CACHE_BYTES)


def clear_cache() -> None:
    """Forget all decoded pictures."""
    _decoded.clear()


def decoded(path: Path, info: ImageInfo) -> Decoded:
    """Decode a PNG, JPEG or WebP, or return it from memory.

    Raises:
        DamagedImage: The compressed pixels are not what the header promised.
    """
    return _decoded.get(identity(path), lambda: _decode(path, info))


def _decode(path: Path, info: ImageInfo) -> Decoded:
    if info.bits == 16:
        return _decode_deep(path, info)
    try:
        with Image.open(_source(path, info), formats=[info.format.upper()]) as file:
            file.load()
            image: Image.Image = file
            if file.mode not in ("L", "RGB", "RGBA") or "transparency" in file.info:
                image = file.convert(_shown_mode(file))
            turned = image.transpose(_TURNS[info.orientation]) if info.orientation in _TURNS else image
    except _DECODER_ERRORS as error:
        raise DamagedImage(
            f"the pixels of {info.name} cannot be decoded ({error}); copy the file again or export it anew"
        ) from error
    if turned.size != (info.width, info.height):
        raise DamagedImage(
            f"{info.name} decodes to {turned.width} x {turned.height} pixels where its header says {info.width} x "
            f"{info.height}; export it again"
        )
    return _Picture(turned)


def _source(path: Path, info: ImageInfo) -> Path | BytesIO:
    """Return what Pillow opens; it reads the EXIF of a JPEG unasked and warns of damage there, so that is left out."""
    return BytesIO(without_metadata(path.read_bytes())) if info.format == "JPEG" else path


def _shown_mode(image: Image.Image) -> str:
    if image.has_transparency_data:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def _decode_deep(path: Path, info: ImageInfo) -> Decoded:
    """Read a 16-bit PNG by GDAL: Pillow would keep the upper eight bits of a colour image only."""
    with open_raster(path, info.name, driver="PNG") as dataset:
        values = np.moveaxis(dataset.read(), 0, 2)
        valid = dataset.dataset_mask() > 0
    if info.orientation in _TURNS:
        values, valid = _turned(values, info.orientation), _turned(valid, info.orientation)
    return _Deep(values, valid)


def _turned(array: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Do to an array [height, width, …] what `_TURNS` does to a picture."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return array[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
