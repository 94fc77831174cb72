"""The roads of a scene: walks on the lattice of patches, with gaps, their labels and their picture."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from compression.backends.embedded.textures import PATCH, VIEW

# Bits of a road label: the road leaves the patch towards this side.
NORTH, EAST, SOUTH, WEST = 1, 2, 4, 8


@dataclass(frozen=True)
class Road:
    """Lattice cells in order, cut into segments where a gap was taken out."""

    horizontal: bool
    segments: tuple[tuple[tuple[int, int], ...], ...]


def lay_roads(rng: np.random.Generator, rows: int) -> list[Road]:
    """Lay roads on the patch lattice; parallel ones keep to their own bands, so they never touch."""
    if rows == VIEW // PATCH:
        count = int(rng.choice(3, p=(0.3, 0.3, 0.4)))
        horizontal = int(rng.integers(0, 2)) if count < 2 or rng.random() >= 0.25 else 2
        shares = (horizontal, 0) if horizontal == 2 else (1, 1) if count == 2 else (horizontal, 1 - horizontal)
        shares = shares if count else (0, 0)
    else:
        most = max(2, rows // 32)
        shares = (int(rng.integers(0, most + 1)), int(rng.integers(1, most + 1)))
    roads = []
    for is_horizontal, number in zip((True, False), shares, strict=True):
        for band in range(number):
            low, high = band * rows // number + 1, (band + 1) * rows // number - 2
            cells = _walk(rng, rows, low, high)
            if not is_horizontal:
                cells = [(col, row) for row, col in cells]
            roads.append(Road(is_horizontal, _cut(rng, cells)))
    return roads


def _walk(rng: np.random.Generator, rows: int, low: int, high: int) -> list[tuple[int, int]]:
    """Walk from the west border to the east one with jogs, staying within rows low..high."""
    row = int(rng.integers(low, high + 1))
    cells = []
    for col in range(rows):
        cells.append((row, col))
        if rng.random() < 0.3 and 0 < col < rows - 1:
            goal = int(np.clip(row + rng.integers(-2, 3), low, high))
            while row != goal:
                row += 1 if goal > row else -1
                cells.append((row, col))
    return cells


def _cut(rng: np.random.Generator, cells: list[tuple[int, int]]) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Take gaps of two cells out of a road: at most one in a view, now and then along a longer road."""
    blocks = max(1, len(cells) // 48)
    share = 0.6 if blocks == 1 else 0.25
    length = len(cells) // blocks
    segments, start = [], 0
    for block in range(blocks):
        if rng.random() < share:
            gap = block * length + int(rng.integers(3, length - 5))
            segments.append(tuple(cells[start:gap]))
            start = gap + 2
    segments.append(tuple(cells[start:]))
    return tuple(segments)


def label_roads(roads: list[Road], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Connection bits uint8 and road flags bool, both [rows, rows]; a road also leaves through the scene's border."""
    links, road = np.zeros((rows, rows), np.uint8), np.zeros((rows, rows), bool)
    for item in roads:
        for segment in item.segments:
            for (row, col), (next_row, next_col) in itertools.pairwise(segment):
                down, right = next_row - row, next_col - col
                links[row, col] |= SOUTH if down > 0 else NORTH if down < 0 else EAST if right > 0 else WEST
                links[next_row, next_col] |= NORTH if down > 0 else SOUTH if down < 0 else WEST if right > 0 else EAST
            for row, col in segment:
                road[row, col] = True
        first, last = item.segments[0][0], item.segments[-1][-1]
        links[first] |= WEST if item.horizontal else NORTH
        links[last] |= EAST if item.horizontal else SOUTH
    return links, road


def draw_roads(rng: np.random.Generator, pen: ImageDraw.ImageDraw, roads: list[Road], size: int) -> None:
    """Draw every road as a dark edge with a lighter lane, asphalt or dirt for the whole scene."""
    lane = np.array((118, 116, 116) if rng.random() < 0.6 else (158, 128, 98)) + rng.integers(-8, 8)
    for width, shade in ((8, 0.62), (5, 1.0)):
        colour = tuple(int(value * shade) for value in lane)
        for road in roads:
            for number, segment in enumerate(road.segments):
                points = [(col * PATCH + PATCH // 2, row * PATCH + PATCH // 2) for row, col in segment]
                if number == 0:
                    x, y = points[0]
                    points.insert(0, (0, y) if road.horizontal else (x, 0))
                if number == len(road.segments) - 1:
                    x, y = points[-1]
                    points.append((size, y) if road.horizontal else (x, size))
                if len(points) > 1:
                    pen.line(points, fill=colour, width=width, joint="curve")
