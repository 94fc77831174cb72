"""Ground truth without pixels: cells put together anew, and the labels that questions need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from compression.backends.embedded.ground import River
from compression.backends.embedded.objects import SceneObject
from compression.backends.embedded.textures import COLOUR_NAMES, COVERS, TYPES

BUILDING, ROAD = 1, 2
"""Bits of the fourth label."""


class Truth(Protocol):
    """What questions are asked about; a scene is one."""

    @property
    def cover(self) -> np.ndarray:
        """Index into COVERS per patch, uint8 [rows, cols]."""

    @property
    def cover_share(self) -> np.ndarray:
        """Share of each cover, float [5]."""

    @property
    def building(self) -> np.ndarray:
        """Whether a patch holds a building, bool [rows, cols]."""

    @property
    def objects(self) -> Sequence[SceneObject]:
        """The objects."""

    @property
    def river(self) -> River | None:
        """The river that crosses it, if there is one."""


@dataclass(frozen=True)
class Mosaic:
    """Ground truth read off the labels of patches; see `Truth`."""

    cover: np.ndarray
    cover_share: np.ndarray
    building: np.ndarray
    objects: tuple[SceneObject, ...]
    river: River | None = None


def mosaic_of(labels: np.ndarray, river: River | None = None) -> Mosaic:
    """Read labels, uint8 [rows, cols, 4] of cover, object, road links and flags."""
    cover = labels[..., 0]
    objects = []
    for row, col in np.argwhere(labels[..., 1] > 0):
        kind, colour = divmod(int(labels[row, col, 1]) - 1, len(COLOUR_NAMES))
        on_road = bool(labels[row, col, 3] & ROAD)
        objects.append(SceneObject(TYPES[kind], COLOUR_NAMES[colour], int(row), int(col), on_road))
    return Mosaic(
        cover=cover,
        cover_share=np.bincount(cover.ravel(), minlength=len(COVERS)) / cover.size,
        building=(labels[..., 3] & BUILDING) > 0,
        objects=tuple(objects),
        river=river,
    )


def join_cells(labels: np.ndarray) -> np.ndarray:
    """Cells of labels [rows, cols, tokens, 4] → one sheet [rows * side, cols * side, 4]."""
    rows, cols, tokens, kinds = labels.shape
    side = round(tokens**0.5)
    sheet = labels.reshape(rows, cols, side, side, kinds).swapaxes(1, 2)
    return sheet.reshape(rows * side, cols * side, kinds)


def cut_cells(sheet: np.ndarray, side: int) -> np.ndarray:
    """One sheet [rows * side, cols * side, ...] → cells [rows, cols, side, side, ...]."""
    rows, cols = sheet.shape[0] // side, sheet.shape[1] // side
    return sheet.reshape(rows, side, cols, side, *sheet.shape[2:]).swapaxes(1, 2)
