"""What the scene generator paints with: seamless land-cover textures and object sprites."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

COVERS = ("water", "forest", "farmland", "grass", "desert")
TYPES = ("ship", "plane", "car", "truck", "tank", "helipad")
COLOURS = {
    "red": (215, 40, 35),
    "yellow": (240, 215, 40),
    "blue": (50, 85, 225),
    "white": (245, 245, 245),
    "purple": (165, 50, 190),
}
COLOUR_NAMES = tuple(COLOURS)
# Things nobody asks about, as large and as sharp as objects, in tones that are none of the colours.
CLUTTER = ("bush", "rock", "shed", "mast", "hay")
CLUTTER_TONES = ((46, 52, 40), (112, 104, 96), (104, 70, 44), (78, 88, 94), (158, 132, 86), (60, 102, 54))
PATCH = 16
VIEW = 256
TILE = 512
VARIANTS = 4
ROTATIONS = 8

# Mean colour of a cover, and its noise as (amplitude, cells per tile) pairs; the last amplitude is per-pixel noise.
_COVER_RECIPE: dict[str, tuple[tuple[int, int, int], tuple[tuple[float, int], ...], float]] = {
    "water": ((38, 84, 128), ((5.0, 24), (3.0, 160)), 1.5),
    "forest": ((34, 74, 38), ((13.0, 128), (6.0, 40)), 4.0),
    "farmland": ((128, 138, 66), ((7.0, 8),), 3.0),
    "grass": ((96, 140, 78), ((6.0, 16),), 4.0),
    "desert": ((196, 172, 124), ((7.0, 30), (4.0, 6)), 3.0),
}


def smooth_noise(rng: np.random.Generator, size: int, cells: int, *, periodic: bool = False) -> np.ndarray:
    """Draw smooth noise of unit scale.

    Args:
        rng: source of chance.
        size: side of the result in pixels.
        cells: number of independent values along each side.
        periodic: whether the left edge continues the right one, and the top the bottom.

    Returns:
        float32 [size, size].
    """
    values = rng.standard_normal((cells, cells)).astype(np.float32)
    if not periodic:
        return _enlarge(values, size)
    # Enlarge three by three copies and keep the middle one, out of reach of the outer border.
    return _enlarge(np.tile(values, (3, 3)), 3 * size)[size : 2 * size, size : 2 * size]


def _enlarge(values: np.ndarray, size: int) -> np.ndarray:
    enlarged: np.ndarray = np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC))
    return enlarged


def _stripes(rng: np.random.Generator) -> np.ndarray:
    """Draw furrows of 6 to 9 pixels that close at the tile's border, [TILE, TILE]."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(6, 9)
    waves_x, waves_y = round(TILE / period * np.cos(angle)), round(TILE / period * np.sin(angle))
    y, x = np.mgrid[0:TILE, 0:TILE] / TILE
    waves: np.ndarray = np.sin(2 * np.pi * (waves_x * x + waves_y * y)).astype(np.float32)
    return waves


@cache
def texture_bank() -> dict[str, tuple[np.ndarray, ...]]:
    """Make the textures once: cover → VARIANTS arrays uint8 [TILE, TILE, 3] that repeat without a seam."""
    rng = np.random.default_rng(7)
    bank = {}
    for cover in COVERS:
        mean, layers, grain = _COVER_RECIPE[cover]
        variants = []
        for _ in range(VARIANTS):
            base = np.array(mean) + rng.normal(0, 6, 3)
            texture = grain * rng.standard_normal((TILE, TILE), dtype=np.float32)
            for amplitude, cells in layers:
                texture = texture + amplitude * smooth_noise(rng, TILE, cells, periodic=True)
            if cover == "farmland":
                texture = texture + 12 * _stripes(rng)
            variants.append(np.clip(base + texture[..., None], 0, 255).astype(np.uint8))
        bank[cover] = tuple(variants)
    return bank


def _draw(kind: str, scale: int) -> Image.Image:
    """Draw one object, pointing north, as shade and alpha on a canvas of PATCH * scale pixels."""
    image = Image.new("LA", (PATCH * scale, PATCH * scale), (0, 0))
    pen = ImageDraw.Draw(image)

    def at(*points: tuple[float, float]) -> list[tuple[float, float]]:
        return [(x * scale, y * scale) for x, y in points]

    body, glass, dark = (255, 255), (40, 255), (110, 255)
    if kind == "ship":
        pen.polygon(at((8, 0.5), (11, 4.5), (10.5, 15), (5.5, 15), (5, 4.5)), fill=body)
        pen.rectangle(at((6.5, 9), (9.5, 13)), fill=dark)
    elif kind == "plane":
        pen.rectangle(at((7, 1), (9, 15)), fill=body)
        pen.polygon(at((8, 4.5), (15.5, 9), (15.5, 10.5), (0.5, 10.5), (0.5, 9)), fill=body)
        pen.rectangle(at((5, 13), (11, 14.6)), fill=body)
    elif kind == "car":
        pen.rounded_rectangle(at((5.2, 3.7), (10.8, 12.3)), radius=1.5 * scale, fill=body)
        pen.rectangle(at((6, 5.6), (10, 7)), fill=glass)
        pen.rectangle(at((6, 9.6), (10, 10.6)), fill=glass)
    elif kind == "truck":
        pen.rectangle(at((4.6, 5.2), (11.4, 15.2)), fill=body)
        pen.rectangle(at((5, 0.8), (11, 4.2)), fill=(150, 255))
        pen.line(at((8, 5.4), (8, 15)), fill=(140, 255), width=scale)
    elif kind == "tank":
        pen.ellipse(at((2, 2), (14, 14)), fill=body)
        pen.ellipse(at((5, 5), (11, 11)), fill=(170, 255))
        pen.ellipse(at((7, 7), (9, 9)), fill=body)
    elif kind == "bush":
        pen.ellipse(at((2.5, 2.5), (13.5, 13.5)), fill=dark)
        pen.ellipse(at((3, 2.5), (10.5, 10)), fill=body)
    elif kind == "rock":
        pen.polygon(at((3, 10), (4.5, 4), (9, 2), (13.5, 6), (12.5, 12.5), (7, 14)), fill=body)
        pen.polygon(at((7, 14), (12.5, 12.5), (13.5, 6), (9, 9)), fill=dark)
    elif kind == "shed":
        pen.rectangle(at((4.2, 3.2), (12.2, 13)), fill=glass)
        pen.rectangle(at((3.6, 2.6), (8, 12.4)), fill=body)
        pen.rectangle(at((8, 2.6), (11.6, 12.4)), fill=dark)
    elif kind == "mast":
        for end in ((8, 0.8), (14.4, 11.8), (1.6, 11.8)):
            pen.line(at((8, 8), end), fill=body, width=int(1.8 * scale))
        pen.ellipse(at((6.4, 6.4), (9.6, 9.6)), fill=dark)
    elif kind == "hay":
        for left, top in ((2, 3), (8.5, 2.5), (5, 9)):
            pen.ellipse(at((left, top), (left + 5, top + 5)), fill=body)
            pen.ellipse(at((left + 1.6, top + 1.6), (left + 3.4, top + 3.4)), fill=dark)
    else:  # a helipad: an H on dark ground
        pen.rectangle(at((1.5, 1.5), (14.5, 14.5)), fill=(60, 255))
        width = int(1.9 * scale)
        pen.line(at((5, 3.5), (5, 12.5)), fill=body, width=width)
        pen.line(at((11, 3.5), (11, 12.5)), fill=body, width=width)
        pen.line(at((5, 8), (11, 8)), fill=body, width=width)
    return image


@cache
def sprites() -> dict[str, tuple[tuple[np.ndarray, np.ndarray], ...]]:
    """Make the sprites once: type or clutter → ROTATIONS pairs of shade and alpha, float32 [PATCH, PATCH] in 0..1."""
    out = {}
    for kind in (*TYPES, *CLUTTER):
        drawn = _draw(kind, 4)
        turned = []
        for step in range(ROTATIONS):
            rotated = drawn.rotate(360 / ROTATIONS * step, resample=Image.Resampling.BICUBIC)
            values = np.asarray(rotated.resize((PATCH, PATCH), Image.Resampling.BOX), dtype=np.float32) / 255
            turned.append((values[..., 0], values[..., 1]))
        out[kind] = tuple(turned)
    return out
