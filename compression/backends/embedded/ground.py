"""The ground of a scene: land covers, a river across it, and the textures they are painted with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from compression.backends.embedded.textures import COVERS, PATCH, TILE, VARIANTS, VIEW, smooth_noise, texture_bank


@dataclass(frozen=True)
class River:
    """A river that crosses the whole scene.

    Attributes:
        vertical: whether it runs from north to south (else from west to east).
        centre: centre line in pixels, float [size]: x per row if vertical, y per column if not.
        half_width: in pixels.
    """

    vertical: bool
    centre: np.ndarray
    half_width: float

    def offset(self, row: int, col: int) -> float:
        """Signed pixels from the centre line to a patch centre; negative is west of it (or north of it)."""
        x, y = col * PATCH + PATCH // 2, row * PATCH + PATCH // 2
        return float(x - self.centre[y]) if self.vertical else float(y - self.centre[x])


def lay_ground(rng: np.random.Generator, size: int) -> tuple[np.ndarray, River | None, int]:
    """Lay out the land covers: index per pixel uint8 [size, size], the river, and the base cover."""
    scale = size / VIEW
    base = int(rng.choice(len(COVERS), p=(0.16, 0.21, 0.21, 0.21, 0.21)))
    ground = np.full((size, size), base, np.uint8)
    has_river = base != 0 and rng.random() < 0.55
    blobs: list[tuple[int, float]] = []
    if base == 0:
        blobs.append((int(rng.integers(1, 5)), rng.uniform(0.25, 0.4)))
    else:
        if not has_river and rng.random() < 0.6:
            blobs.append((0, rng.uniform(0.12, 0.35)))
        for _ in range(1 if scale == 1 else int(rng.integers(1, 4))):
            if rng.random() < 0.75 or scale > 1:
                others = [index for index in range(1, 5) if index != base]
                blobs.append((int(rng.choice(others)), rng.uniform(0.15, 0.45) / (1 if scale == 1 else 1.6)))
    for index, share in blobs:
        field_ = smooth_noise(rng, size, 5 if scale == 1 else round(5 * scale**0.6))
        ground[field_ > np.quantile(field_[::8, ::8], 1 - share)] = index
    if not has_river:
        return ground, None, base
    along = np.arange(size) / size
    waves = (rng.uniform(0.5, 1.4), rng.uniform(2, 3) * scale**0.7)
    centre = np.full(size, rng.uniform(0.36, 0.64) * size)
    centre = centre + rng.uniform(12, 34) * scale * np.sin(2 * np.pi * (along * waves[0] + rng.random()))
    centre = centre + rng.uniform(4, 12) * scale**0.3 * np.sin(2 * np.pi * (along * waves[1] + rng.random()))
    half_width = float(rng.uniform(10, 16) * scale**0.4)
    vertical = bool(rng.random() < 0.5)
    if vertical:
        wet = np.abs(np.arange(size, dtype=np.float32)[None, :] - centre[:, None].astype(np.float32)) < half_width
    else:
        wet = np.abs(np.arange(size, dtype=np.float32)[:, None] - centre[None, :].astype(np.float32)) < half_width
    ground[wet] = 0
    return ground, River(vertical, centre, half_width), base


def majority(ground: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cover per patch uint8 [rows, cols], its share of the patch, and the share of each cover in the scene [5]."""
    rows = ground.shape[0] // PATCH
    patches = ground.reshape(rows, PATCH, rows, PATCH)
    counts = np.stack([(patches == index).sum((1, 3)) for index in range(len(COVERS))], -1)
    return counts.argmax(-1).astype(np.uint8), counts.max(-1) / PATCH**2, counts.sum((0, 1)) / ground.size


def paint_ground(rng: np.random.Generator, ground: np.ndarray) -> np.ndarray:
    """Fill every cover with its texture, in strips so that large scenes stay modest in memory."""
    size = ground.shape[0]
    image = np.empty((size, size, 3), np.uint8)
    for index in np.unique(ground):
        tile = texture_bank()[COVERS[index]][rng.integers(VARIANTS)]
        shift_y, shift_x = rng.integers(0, TILE, 2)
        strip = np.tile(np.roll(tile, (shift_y, shift_x), (0, 1)), (1, -(-size // TILE), 1))[:, :size]
        for top in range(0, size, TILE):
            part = ground[top : top + TILE]
            np.copyto(image[top : top + TILE], strip[: len(part)], where=(part == index)[..., None])
    if size > VIEW:  # slow shading hides that the texture repeats
        coarse = 5 * rng.standard_normal((size // VIEW * 2, size // VIEW * 2)).astype(np.float32)
        shade = np.asarray(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))
        for top in range(0, size, TILE):
            part = image[top : top + TILE]
            np.copyto(part, np.clip(part + shade[top : top + TILE, :, None], 0, 255).astype(np.uint8))
    return image
