"""Samples with a mask, and reducing them so that what is missing never bleeds into what is there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Samples:
    """Band values [height, width, channels] of any real type and the mask `valid` [height, width] of real ones.

    Values under a False mask mean nothing.
    """

    values: NDArray[np.generic]
    valid: NDArray[np.bool_]

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return self.values.nbytes + self.valid.nbytes


def resize(samples: Samples, size: tuple[int, int], box: tuple[float, float, float, float]) -> Samples:
    """Resize the part `box` (left, top, right, bottom; fractions allowed) of `samples` to `size` (height, width).

    Reducing takes the mean over the valid source pixels that fall into an output pixel, which is valid if any of them
    is; enlarging repeats pixels. Bytes stay bytes, everything else becomes float32.
    """
    if box == (0, 0, samples.valid.shape[1], samples.valid.shape[0]) and samples.valid.shape == size:
        return samples
    if samples.valid.all():
        valid = np.ones(size, np.bool_)
        if samples.values.dtype == np.uint8:
            return Samples(_bytes(samples.values, size, box), valid)
        return Samples(_floats(samples.values, size, box), valid)
    share = _float(samples.valid.astype(np.float32), size, box)
    valid = share > 0
    weighted = np.where(samples.valid, np.moveaxis(samples.values, 2, 0), 0)
    values = _floats(np.moveaxis(weighted, 0, 2), size, box) / np.where(valid, share, 1)[:, :, None]
    if samples.values.dtype == np.uint8:
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return Samples(values, valid)


def _bytes(
    values: NDArray[np.generic], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    picture = Image.fromarray(np.ascontiguousarray(values.squeeze(2) if values.shape[2] == 1 else values))
    resized = np.asarray(picture.resize(size[::-1], Image.Resampling.BOX, box))
    return resized.reshape(*size, values.shape[2])


def _floats(
    values: NDArray[np.generic], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.float32]:
    channels = np.moveaxis(values, 2, 0).astype(np.float32)
    return np.stack([_float(channel, size, box) for channel in channels], axis=2)


def _float(
    values: NDArray[np.float32], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(values).resize(size[::-1], Image.Resampling.BOX, box))
