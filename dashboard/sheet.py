"""A picture that colours are laid on, one over the other, and what is laid: hatch, borders, lines, discs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dashboard.palette import Colour

HATCH_PIXELS = 4
# How much of a pixel a line of width 1 along x + y = 0 covers, by (x + y) modulo 4: in its middle, beside it, none.
_HATCH = np.array([0.914, 0.25, 0.0, 0.25], dtype=np.float32)

_HALF = 0.5 + 1e-6


class Sheet:
    """Premultiplied float32 [height, width, 4], empty at first."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.pixels = np.zeros((*shape, 4), dtype=np.float32)

    def over(self, colour: Colour, coverage: NDArray[np.float32] | NDArray[np.bool_]) -> None:
        """Lay a colour where `coverage` [height, width], in [0, 1], says so."""
        if not coverage.any():
            return
        colours = np.asarray(colour[:3], dtype=np.float32)
        self.tint(colours, coverage.astype(np.float32) * np.float32(colour[3]))

    def tint(self, colours: NDArray[np.float32], opacity: NDArray[np.float32]) -> None:
        """Lay colours [height, width, 3], or one [3], with an opacity [height, width]."""
        alpha = opacity[..., None]
        self.pixels *= 1 - alpha
        self.pixels[..., :3] += colours * alpha
        self.pixels[..., 3:] += alpha

    def finished(self, margin: int) -> NDArray[np.uint8]:
        """The picture without its margin, uint8 [height, width, 4], not premultiplied."""
        inner = self.pixels[margin : self.pixels.shape[0] - margin, margin : self.pixels.shape[1] - margin]
        alpha = inner[..., 3:]
        with np.errstate(invalid="ignore", divide="ignore"):
            plain = np.where(alpha > 0, inner[..., :3] / alpha, 0)
        return np.rint(np.clip(np.concatenate([plain, alpha], axis=2), 0, 1) * 255).astype(np.uint8)

    def hatch(self, left: int, top: int) -> NDArray[np.float32]:
        """Coverage of the lines x + y = 0 modulo 4, where (left, top) is the global place of the first pixel."""
        rows, cols = self.pixels.shape[:2]
        phase = (np.arange(rows)[:, None] + np.arange(cols) + left + top) % HATCH_PIXELS
        return _HATCH[phase]

    def border(self, labels: NDArray[np.generic], inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The pixels on both sides of every edge between different labels; the outline of the whole is no edge."""
        found = np.zeros(inside.shape, dtype=bool)
        across = (labels[:, 1:] != labels[:, :-1]) & inside[:, 1:] & inside[:, :-1]
        down = (labels[1:] != labels[:-1]) & inside[1:] & inside[:-1]
        found[:, 1:] |= across
        found[:, :-1] |= across
        found[1:] |= down
        found[:-1] |= down
        return found

    def grown(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask and the pixels beside it."""
        wider = mask.copy()
        wider[1:] |= mask[:-1]
        wider[:-1] |= mask[1:]
        wider[:, 1:] |= mask[:, :-1]
        wider[:, :-1] |= mask[:, 1:]
        return wider

    def discs(self, centres: NDArray[np.float64], radius: float) -> NDArray[np.float32]:
        """Coverage of discs around (column, row) centres [n, 2]."""
        covered = np.zeros(self.pixels.shape[:2], dtype=np.float32)
        if not len(centres):
            return covered
        reach = int(np.ceil(radius + 1))
        around = np.arange(-reach, reach + 1)
        nearest = np.rint(centres).astype(np.intp)
        cols = nearest[:, 0, None, None] + around[None, None, :]
        rows = nearest[:, 1, None, None] + around[None, :, None]
        cols, rows = np.broadcast_arrays(cols, rows)
        distance = np.hypot(cols - centres[:, 0, None, None], rows - centres[:, 1, None, None])
        share = np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32)
        height, width = covered.shape
        good = (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height) & (share > 0)
        np.maximum.at(covered, (rows[good], cols[good]), share[good])
        return covered

    def near(self, lines: NDArray[np.float64]) -> NDArray[np.float64]:
        """Those of the lines [n, 4], as (column, row, column, row), whose surrounding box touches the picture."""
        height, width = self.pixels.shape[:2]
        low, high = np.minimum(lines[:, :2], lines[:, 2:]), np.maximum(lines[:, :2], lines[:, 2:])
        touching = (high[:, 0] >= 0) & (high[:, 1] >= 0) & (low[:, 0] < width) & (low[:, 1] < height)
        return lines[touching]

    def lines(self, lines: NDArray[np.float64]) -> NDArray[np.float32]:
        """Coverage (0 or 1) of lines [n, 4], one pixel wide: the nearest pixel in each column, or row where steeper."""
        covered = np.zeros(self.pixels.shape[:2], dtype=np.float32)
        if not len(lines):
            return covered
        move = np.abs(lines[:, 2:] - lines[:, :2])
        steep = move[:, 1] > move[:, 0]
        for chosen, axis in ((lines[~steep], 0), (lines[steep], 1)):
            along, across = _walk(chosen, axis, covered.shape[1 - axis])
            good = (across >= 0) & (across < covered.shape[axis])
            cells = (across[good], along[good]) if axis == 0 else (along[good], across[good])
            covered[cells] = 1
        return covered


def _walk(lines: NDArray[np.float64], axis: int, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The whole numbers from 0 to `size` that lines pass along an axis, and the nearest ones across it.

    Both depend on the line alone, not on where the picture cuts it, so that lines go on across the border of a tile.
    """
    start, end = lines[:, axis], lines[:, axis + 2]
    first = np.maximum(np.ceil(np.minimum(start, end)), 0).astype(np.intp)
    last = np.minimum(np.floor(np.maximum(start, end)), size - 1).astype(np.intp)
    counts = np.maximum(last - first + 1, 0)
    line = np.repeat(np.arange(len(lines)), counts)
    along = np.arange(len(line)) - np.repeat(np.cumsum(counts) - counts, counts) + first[line]
    length = np.where(end == start, 1.0, end - start)
    slope = (lines[:, 3 - axis] - lines[:, 1 - axis]) / length
    # A little above one half: rounding noise must not decide between two pixels that are equally near.
    across = np.floor(lines[line, 1 - axis] + slope[line] * (along - start[line]) + _HALF).astype(np.intp)
    return along, across
