"""A picture that colours are laid on, one over the other, and what is laid: hatch, borders, lines, discs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dashboard.palette import Colour

HATCH_PIXELS = 4
# How much of a pixel a line of width 1 along x + y = 0 covers, by (x + y) modulo 4: in its middle, beside it, none.
_HATCH = np.array([0.914, 0.25, 0.0, 0.25], dtype=np.float32)


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

    def clipped(self, lines: NDArray[np.float64]) -> NDArray[np.float64]:
        """Lines [n, 4] as (column, row, column, row), cut to the picture; those outside are left out."""
        if not len(lines):
            return lines
        height, width = self.pixels.shape[:2]
        start, move = lines[:, :2], lines[:, 2:] - lines[:, :2]
        enter, leave = np.zeros(len(lines)), np.ones(len(lines))
        outside = np.zeros(len(lines), dtype=bool)
        # Liang and Barsky: each side of the picture moves the place where a line enters or leaves.
        for axis, size in ((0, width), (1, height)):
            for step, room in ((-move[:, axis], start[:, axis]), (move[:, axis], size - 1 - start[:, axis])):
                with np.errstate(divide="ignore", invalid="ignore"):
                    at = room / step
                outside |= (step == 0) & (room < 0)
                enter = np.where(step < 0, np.maximum(enter, at), enter)
                leave = np.where(step > 0, np.minimum(leave, at), leave)
        kept = ~outside & (enter <= leave)
        first, last = start + move * enter[:, None], start + move * leave[:, None]
        return np.hstack([first, last])[kept]

    def lines(self, lines: NDArray[np.float64]) -> NDArray[np.float32]:
        """Coverage (0 or 1) of lines [n, 4] that lie in the picture, one pixel wide."""
        covered = np.zeros(self.pixels.shape[:2], dtype=np.float32)
        if not len(lines):
            return covered
        move = lines[:, 2:] - lines[:, :2]
        steps = np.ceil(np.abs(move).max(axis=1)).astype(np.intp) + 1
        line = np.repeat(np.arange(len(lines)), steps)
        at = np.arange(len(line)) - np.repeat(np.cumsum(steps) - steps, steps)
        share = at / np.maximum(steps[line] - 1, 1)
        points = np.rint(lines[line, :2] + move[line] * share[:, None]).astype(np.intp)
        height, width = covered.shape
        good = (points[:, 0] >= 0) & (points[:, 0] < width) & (points[:, 1] >= 0) & (points[:, 1] < height)
        covered[points[good, 1], points[good, 0]] = 1
        return covered
