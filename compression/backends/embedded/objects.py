"""What stands in a scene: buildings, and small objects of several types and colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from compression.backends.embedded.textures import (
    CLUTTER,
    CLUTTER_TONES,
    COLOUR_NAMES,
    COLOURS,
    PATCH,
    ROTATIONS,
    TYPES,
    VIEW,
    sprites,
)

_ROOF_COLOURS = ((176, 98, 70), (120, 110, 118), (150, 84, 60), (100, 92, 96))


@dataclass(frozen=True)
class SceneObject:
    """One small object, about a patch in size, whose label lies on the patch (row, col)."""

    type: str
    colour: str
    row: int
    col: int
    on_road: bool

    @property
    def name(self) -> str:
        """Colour and type, as a question says them."""
        return f"{self.colour} {self.type}"

    @property
    def box(self) -> tuple[int, int, int, int]:
        """The patch's pixels: left, top, right, bottom, half-open."""
        return (self.col * PATCH, self.row * PATCH, (self.col + 1) * PATCH, (self.row + 1) * PATCH)


def build_towns(rng: np.random.Generator, pen: ImageDraw.ImageDraw, land: np.ndarray, size: int) -> np.ndarray:
    """Build on free land and draw it; bool [rows, cols]. A view favours a quarter, a larger scene has towns."""
    rows = land.shape[0]
    built = np.zeros((rows, rows), bool)
    if size == VIEW:
        if rng.random() >= 0.65:
            return built
        favour = (rng.dirichlet((0.8,) * 4) + 0.03).reshape(2, 2)
        weight = np.kron(favour, np.ones((rows // 2, rows // 2))) * land
        count = int(rng.integers(6, 26))
    else:
        towns = int(rng.integers(1, 2 + size // VIEW))
        y, x = np.mgrid[0:rows, 0:rows]
        weight, count = np.zeros((rows, rows)), 0
        for _ in range(towns):
            row, col = rng.integers(0, rows, 2)
            weight += np.exp(-((y - row) ** 2 + (x - col) ** 2) / (2 * rng.uniform(3, 5) ** 2))
            count += int(rng.integers(6, 30))
        weight = np.where(weight > 1e-3, weight, 0.0) * land
    if land.sum() <= 30:
        return built
    count = min(count, int((weight > 0).sum()))
    if not count:
        return built
    for index in rng.choice(rows * rows, count, replace=False, p=(weight / weight.sum()).ravel()):
        row, col = divmod(int(index), rows)
        built[row, col] = True
        width, height = (int(value) for value in rng.integers(7, 12, 2))
        left, top = col * PATCH + int(rng.integers(1, 15 - width)), row * PATCH + int(rng.integers(1, 15 - height))
        roof = _ROOF_COLOURS[rng.integers(len(_ROOF_COLOURS))]
        pen.rectangle((left + 2, top + 2, left + width + 2, top + height + 2), fill=(30, 30, 30))
        pen.rectangle((left, top, left + width, top + height), fill=roof)
        ridge = tuple(int(value * 0.75) for value in roof)
        pen.line((left, top + height // 2, left + width, top + height // 2), fill=ridge)
    return built


def place_objects(
    rng: np.random.Generator,
    image: np.ndarray,
    cover: np.ndarray,
    purity: np.ndarray,
    road: np.ndarray,
    building: np.ndarray,
) -> list[SceneObject]:
    """Place objects where they belong and paint them into the image."""
    rows = cover.shape[0]
    doublings = int(np.log2(rows * PATCH // VIEW))
    taken = building.copy()
    water, land = (cover == 0) & (purity > 0.93) & ~road, (cover != 0) & (purity > 0.9) & ~road
    placed: list[SceneObject] = []

    def place(kind: str) -> None:
        allowed = water if kind == "ship" else land
        if kind in ("car", "truck") and rng.random() < 0.75 and road.any():
            allowed = road
        free = np.flatnonzero(allowed & ~taken)
        if not len(free):
            return
        row, col = divmod(int(rng.choice(free)), rows)
        taken[row, col] = True
        colour = COLOUR_NAMES[rng.integers(len(COLOUR_NAMES))]
        _stamp(rng, image, kind, COLOURS[colour], row, col)
        placed.append(SceneObject(kind, colour, row, col, bool(road[row, col])))

    # Clutter looks as salient as an object: a strategy that keeps whatever stands out pays for it.
    free = np.flatnonzero((cover != 0) & (purity > 0.9) & ~road & ~taken)
    number = int(rng.integers(0, 9 * 4**doublings))
    for index in rng.permutation(free)[:number]:
        row, col = divmod(int(index), rows)
        taken[row, col] = True
        _stamp(
            rng,
            image,
            CLUTTER[rng.integers(len(CLUTTER))],
            CLUTTER_TONES[rng.integers(len(CLUTTER_TONES))],
            row,
            col,
        )
    # One type is the scene's favourite, so that larger counts occur.
    favourite = TYPES[rng.integers(len(TYPES))]
    for _ in range(int(rng.choice(7, p=(0.14, 0.1, 0.14, 0.15, 0.16, 0.16, 0.15)))):
        place(favourite)
    for _ in range(int(rng.integers(1, 5)) + 2 * doublings):
        place(TYPES[rng.integers(len(TYPES))])
    if road.any():
        for _ in range(int(rng.integers(0, 3)) + doublings):
            place(("car", "truck")[rng.integers(2)])
    return placed


def _stamp(
    rng: np.random.Generator, image: np.ndarray, kind: str, tone: tuple[int, int, int], row: int, col: int
) -> None:
    """Paint one thing on its patch, up to two pixels off, never across the border of a 256-pixel cell."""
    shade, alpha = sprites()[kind][rng.integers(ROTATIONS)]
    paint = np.array(tone, np.float32) * np.float32(rng.uniform(0.85, 1.1))
    cell = VIEW // PATCH
    shift_y, shift_x = (int(value) for value in rng.integers(-2, 3, 2))
    shift_y = max(shift_y, 0) if row % cell == 0 else min(shift_y, 0) if row % cell == cell - 1 else shift_y
    shift_x = max(shift_x, 0) if col % cell == 0 else min(shift_x, 0) if col % cell == cell - 1 else shift_x
    top, left = row * PATCH + shift_y, col * PATCH + shift_x
    spot = image[top : top + PATCH, left : left + PATCH]
    mixed = spot * (1 - alpha[..., None]) + shade[..., None] * paint * alpha[..., None]
    np.copyto(spot, np.clip(mixed, 0, 255).astype(np.uint8))
