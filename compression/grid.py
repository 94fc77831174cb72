"""Where each visual token lies in the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from compression.errors import InvalidBudget, InvalidGrid

THUMBNAIL = "thumbnail"
"""Name of the view that shows the whole image beside its parts."""

Box: TypeAlias = tuple[float, float, float, float]
"""(left, top, right, bottom) in pixels of the original image, half-open."""


@dataclass(frozen=True)
class View:
    """One rectangle of the image that the vision encoder saw as `rows` x `cols` tokens.

    Args:
        rows: Token rows, at least 1.
        cols: Token columns, at least 1.
        box: (left, top, right, bottom) in original pixels. It may reach over the image's border where the view was
            padded.
        name: How people call the view: "image", "thumbnail", or a cell name such as "b3".
    """

    rows: int
    cols: int
    box: Box
    name: str = "image"

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if self.rows < 1 or self.cols < 1:
            raise InvalidGrid(f"a view has at least 1 x 1 tokens, got {self.rows} x {self.cols}")
        if not all(math.isfinite(edge) for edge in self.box) or right <= left or bottom <= top:
            raise InvalidGrid(
                f"a view's box is (left, top, right, bottom) with left < right and top < bottom, got {self.box}"
            )

    def __len__(self) -> int:
        return self.rows * self.cols


@dataclass(frozen=True)
class TokenGrid:
    """The visual tokens of one image: views in the model's order, each row-major.

    Arrays of `[tokens]` elsewhere are flat over the views in this order. Separator tokens have no area and are not in a
    grid: the backend strips and restores them.

    Args:
        views: At least one view.
        image_size: (height, width) of the original image in pixels.
        read_size: (height, width) of the picture that the model read in its place, where that was a reduced copy or a
            part of it; None where it was the image itself.
    """

    views: tuple[View, ...]
    image_size: tuple[int, int]
    read_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not self.views:
            raise InvalidGrid("a token grid has at least one view, got none")
        if min(self.image_size) < 1:
            raise InvalidGrid(f"image_size is (height, width) of at least one pixel, got {self.image_size}")

    @classmethod
    def single(cls, rows: int, cols: int, image_size: tuple[int, int]) -> TokenGrid:
        """One view of `rows` x `cols` tokens over the whole image."""
        height, width = image_size
        return cls((View(rows, cols, (0.0, 0.0, float(width), float(height))),), image_size)

    def __len__(self) -> int:
        return sum(len(view) for view in self.views)

    @property
    def shown_size(self) -> tuple[int, int]:
        """(height, width) of the picture that the model read: how it lies on tiles follows from this."""
        return self.read_size or self.image_size

    def placed(self, box: Box, image_size: tuple[int, int]) -> TokenGrid:
        """The same tokens, where the picture that was read is a part of a larger image, reduced or not.

        >>> TokenGrid.single(2, 2, (8, 8)).placed((16.0, 0.0, 48.0, 32.0), (64, 64)).views[0].box
        (16.0, 0.0, 48.0, 32.0)

        Args:
            box: The part, in pixels of the image.
            image_size: (height, width) of the image.
        """
        left, top, right, bottom = box
        height, width = self.image_size
        across, down = (right - left) / width, (bottom - top) / height
        views = tuple(
            View(
                view.rows,
                view.cols,
                (
                    left + view.box[0] * across,
                    top + view.box[1] * down,
                    left + view.box[2] * across,
                    top + view.box[3] * down,
                ),
                view.name,
            )
            for view in self.views
        )
        return TokenGrid(views, image_size, self.shown_size)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """Index of the first token of each view, and the number of tokens last."""
        starts = [0]
        for view in self.views:
            starts.append(starts[-1] + len(view))
        return tuple(starts)

    @property
    def thumbnail(self) -> int | None:
        """The view that shows the whole image beside its parts, or None."""
        names = [view.name for view in self.views]
        return names.index(THUMBNAIL) if THUMBNAIL in names and len(names) > 1 else None

    def tokens_of(self, view: int) -> slice:
        """The slice of the tokens of one view."""
        return slice(self.starts[view], self.starts[view + 1])

    def view_indices(self) -> NDArray[np.int64]:
        """The view of each token, int64 [tokens]."""
        return np.repeat(np.arange(len(self.views)), [len(view) for view in self.views])

    def rows_cols(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of each token inside its view, two int64 [tokens]."""
        rows = np.concatenate([np.repeat(np.arange(view.rows), view.cols) for view in self.views])
        cols = np.concatenate([np.tile(np.arange(view.cols), view.rows) for view in self.views])
        return rows, cols

    def boxes(self) -> NDArray[np.float64]:
        """The box of each token in original pixels, float64 [tokens, 4] as (left, top, right, bottom)."""
        parts = []
        for view in self.views:
            left, top, right, bottom = view.box
            xs = np.linspace(left, right, view.cols + 1)
            ys = np.linspace(top, bottom, view.rows + 1)
            part = np.empty((view.rows, view.cols, 4))
            part[..., 0], part[..., 2] = xs[:-1], xs[1:]
            part[..., 1], part[..., 3] = ys[:-1, None], ys[1:, None]
            parts.append(part.reshape(-1, 4))
        return np.concatenate(parts)

    def paint(self, values: NDArray[Any], view: int = 0) -> NDArray[Any]:
        """The values of one view as a picture, [rows, cols].

        Raises:
            InvalidGrid: `values` does not have one entry per token.
        """
        if len(values) != len(self):
            raise InvalidGrid(f"values must have one entry for each of {len(self)} tokens, got {len(values)}")
        shape = self.views[view]
        return values[self.tokens_of(view)].reshape(shape.rows, shape.cols, *values.shape[1:])

    def overlapping(self, boxes: NDArray[np.float64], share: float = 0.5) -> NDArray[np.bool_]:
        """Which tokens lie in any of the boxes with at least `share` of their area, bool [tokens].

        A box that is smaller than a token marks the token that holds its centre.
        """
        cells = self.boxes()
        hit = np.zeros(len(self), dtype=bool)
        area = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])
        for left, top, right, bottom in np.asarray(boxes, dtype=np.float64).reshape(-1, 4):
            width = np.minimum(cells[:, 2], right) - np.maximum(cells[:, 0], left)
            height = np.minimum(cells[:, 3], bottom) - np.maximum(cells[:, 1], top)
            covered = np.clip(width, 0, None) * np.clip(height, 0, None)
            inside = covered >= share * area
            if not inside.any():
                x, y = (left + right) / 2, (top + bottom) / 2
                inside = (cells[:, 0] <= x) & (x < cells[:, 2]) & (cells[:, 1] <= y) & (y < cells[:, 3])
            hit |= inside
        return hit

    def budget_for(self, retention_ratio: float) -> int:
        """The number of visual tokens that a retention ratio stands for on this image, at least 1.

        Raises:
            InvalidBudget: the ratio is not in (0, 1].
        """
        if not 0 < retention_ratio <= 1:
            raise InvalidBudget(
                f"a retention ratio lies above 0 and up to 1.0, got {retention_ratio}; write 0.25 for a quarter"
            )
        return max(1, round(retention_ratio * len(self)))

    def to_json(self) -> dict[str, Any]:
        """A plain value from which `from_json` rebuilds an equal grid."""
        read = {} if self.read_size is None else {"read_size": list(self.read_size)}
        return {
            "image_size": list(self.image_size),
            **read,
            "views": [{"rows": v.rows, "cols": v.cols, "box": list(v.box), "name": v.name} for v in self.views],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> TokenGrid:
        """The grid that `to_json` described."""
        height, width = value["image_size"]
        views = []
        for view in value["views"]:
            left, top, right, bottom = view["box"]
            views.append(View(view["rows"], view["cols"], (left, top, right, bottom), view["name"]))
        read = value.get("read_size")
        return cls(tuple(views), (height, width), None if read is None else (read[0], read[1]))


def lattice(rows: int, cols: int, count: int) -> NDArray[np.int64]:
    """Exactly `count` evenly spaced cells of a grid in its proportions, ascending flat indices.

    >>> lattice(4, 6, 6).tolist()
    [7, 9, 11, 19, 21, 23]

    Args:
        rows, cols: Size of the grid.
        count: 1..rows*cols.
    """
    fitting = math.floor(math.sqrt(count * rows / cols) + 0.5)
    used = min(max(fitting, -(-count // cols)), min(rows, count))
    cells = []
    for line in range(used):
        across = (line + 1) * count // used - line * count // used
        row = (2 * line + 1) * rows // (2 * used)
        cells.append(row * cols + (2 * np.arange(across) + 1) * cols // (2 * across))
    return np.concatenate(cells)
