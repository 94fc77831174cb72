"""Procedural overhead scenes with exact ground truth: the world of the embedded model.

A scene is a square of land covers, a river or lakes, roads, buildings and small objects. The same seed and size give
the same bytes. Every label is known per patch of 16 pixels, and the georeference is plausible but invented.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

from compression.backends.embedded.ground import River, lay_ground, majority, paint_ground
from compression.backends.embedded.objects import SceneObject, build_towns, place_objects
from compression.backends.embedded.roads import EAST, NORTH, SOUTH, WEST, draw_roads, label_roads, lay_roads
from compression.backends.embedded.textures import COLOUR_NAMES, COLOURS, COVERS, PATCH, TYPES, VIEW

__all__ = [
    "COLOURS",
    "COLOUR_NAMES",
    "COVERS",
    "EAST",
    "MAX_SIZE",
    "NORTH",
    "PATCH",
    "SOUTH",
    "TYPES",
    "VIEW",
    "WEST",
    "River",
    "Scene",
    "SceneObject",
    "make_scene",
]

MAX_SIZE = 8192

# Where scenes pretend to lie: (EPSG code of a UTM north zone, easting, northing) of inland plains.
_ANCHORS = (
    (32614, 560_000, 4_250_000),
    (32615, 440_000, 4_640_000),
    (32613, 520_000, 5_560_000),
    (32631, 420_000, 5_330_000),
    (32633, 480_000, 5_450_000),
    (32634, 560_000, 5_770_000),
    (32636, 470_000, 5_480_000),
    (32643, 500_000, 3_420_000),
    (32650, 460_000, 3_800_000),
    (32637, 540_000, 1_020_000),
)
_METRES_PER_PIXEL = (0.3, 0.5, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Scene:
    """An image and everything that is true about it.

    Attributes:
        image: uint8 [size, size, 3].
        cover: index into COVERS of the cover that fills most of each patch, uint8 [rows, cols].
        cover_share: share of the pixels of each cover, float [5].
        object_id: 0 where there is no object, else 1 + type * 5 + colour, uint8 [rows, cols].
        road_links: sum of NORTH, EAST, SOUTH, WEST where the road leaves the patch, uint8 [rows, cols].
        building: whether the patch holds a building, bool [rows, cols].
        road: whether a road runs through the patch, bool [rows, cols].
        objects: the objects, in the order in which they were placed.
        river: the river, if there is one.
        seed: the seed that gives this scene again.
        name: a short name for people.
        crs: coordinate reference system; invented, as is the transform.
        metres_per_pixel: ground size of a pixel.
        transform: (a, b, c, d, e, f) with x = a * col + b * row + c and y = d * col + e * row + f.
    """

    image: np.ndarray
    cover: np.ndarray
    cover_share: np.ndarray
    object_id: np.ndarray
    road_links: np.ndarray
    building: np.ndarray
    road: np.ndarray
    objects: tuple[SceneObject, ...]
    river: River | None
    seed: int
    name: str
    crs: str
    metres_per_pixel: float
    transform: tuple[float, float, float, float, float, float]
    georeference: str = field(default="synthetic")

    @property
    def size(self) -> int:
        """Side in pixels."""
        return int(self.image.shape[0])


def make_scene(seed: int, size: int = VIEW) -> Scene:
    """Make the scene of a seed.

    Args:
        seed: any non-negative integer.
        size: side in pixels, a multiple of 256 up to 8,192.

    Returns:
        The scene; the same seed and size always give the same bytes.

    Raises:
        ValueError: for a negative seed or a size that is not offered.
    """
    if seed < 0:
        raise ValueError(f"seed must be 0 or larger, got {seed}; pass a non-negative integer")
    if size % VIEW or not VIEW <= size <= MAX_SIZE:
        raise ValueError(f"size must be a multiple of {VIEW} up to {MAX_SIZE}, got {size}; choose such a size")
    rng = np.random.default_rng((seed, size))
    ground, river, base = lay_ground(rng, size)
    cover, purity, share = majority(ground)
    image = paint_ground(rng, ground)
    del ground
    roads = lay_roads(rng, size // PATCH)
    links, road = label_roads(roads, size // PATCH)
    canvas = Image.fromarray(image)
    del image
    pen = ImageDraw.Draw(canvas)
    draw_roads(rng, pen, roads, size)
    building = build_towns(rng, pen, (cover != 0) & (purity > 0.8) & ~road, size)
    image = np.array(canvas)
    del canvas, pen
    objects = place_objects(rng, image, cover, purity, road, building)
    object_id = np.zeros_like(cover)
    for item in objects:
        object_id[item.row, item.col] = 1 + TYPES.index(item.type) * len(COLOURS) + COLOUR_NAMES.index(item.colour)
    metres = float(rng.choice(_METRES_PER_PIXEL))
    code, east, north = _ANCHORS[rng.integers(len(_ANCHORS))]
    left = east + metres * int(rng.integers(-40_000, 40_000))
    top = north + metres * int(rng.integers(-40_000, 40_000))
    return Scene(
        image=image,
        cover=cover,
        cover_share=share,
        object_id=object_id,
        road_links=links,
        building=building,
        road=road,
        objects=tuple(objects),
        river=river,
        seed=seed,
        name=f"{_title(rng, base, river, cover, road, building)} {seed}",
        crs=f"EPSG:{code}",
        metres_per_pixel=metres,
        transform=(metres, 0.0, left, 0.0, -metres, top),
    )


def _title(
    rng: np.random.Generator,
    base: int,
    river: River | None,
    cover: np.ndarray,
    road: np.ndarray,
    building: np.ndarray,
) -> str:
    """Name the scene after what stands out in it."""
    if base == 0:
        return str(rng.choice(("Island", "Coast", "Shore")))
    words = {1: "Forest", 2: "Farmland", 3: "Meadow", 4: "Desert"}
    if river is not None:
        return str(rng.choice(("River bend", "River crossing", f"{words[base]} river")))
    if (cover == 0).mean() > 0.1:
        return str(rng.choice(("Lakeside", f"{words[base]} lake")))
    if building.sum() > 0.04 * building.size:
        return f"{words[base]} {'town' if road.any() else 'hamlet'}"
    return f"{words[base]} {'road' if road.any() else 'plain'}"
