"""What the maps page asks for about tokens: packed for painting, in words for pointing, raw for attention."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.grid import Box
from compression.selection import Fate
from dashboard.opened import Opened
from dashboard.placement import Placement
from dashboard.rasters import NO_TOKEN, Level

_NAMES = tuple(fate.name.lower() for fate in sorted(Fate))


def packed(array: NDArray[Any] | None) -> dict[str, str] | None:
    """An array as {dtype, data}: little-endian values in base64; None stays None.

    >>> packed(np.array([1, 2], dtype=np.uint8))
    {'dtype': 'u1', 'data': 'AQI='}
    """
    if array is None:
        return None
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return {"dtype": little.dtype.str[1:], "data": base64.b64encode(little.tobytes()).decode("ascii")}


def tokens_json(run: Opened) -> dict[str, Any]:
    """All tokens of a run for painting in the browser: views and rasters once, then packed arrays over the tokens."""
    index = np.int16 if len(run) < 2**15 else np.int32
    return {
        "run": run.run,
        "tokens": len(run),
        "views": [view.name for view in run.grid.views],
        "levels": [_level_json(level) for level in run.levels],
        "fate": packed(run.fate),
        "target": packed(run.target.astype(index)),
        "category": packed(run.category),
        "scores": packed(run.scores),
        "semantic": None if run.semantic is None else packed(run.semantic.astype(index)),
        "path": None if run.path is None else packed(run.path.astype(index)),
        "anchors": packed(run.anchors.astype(index)),
    }


def _level_json(level: Level) -> dict[str, Any]:
    rasters = [
        {
            "box": list(raster.box),
            "rows": raster.shape[0],
            "cols": raster.shape[1],
            "parts": [[part.view, part.start, part.rows, part.cols, part.row, part.col] for part in raster.parts],
        }
        for raster in level.rasters
    ]
    return {"name": level.name, "rasters": rasters}


def attention_bytes(run: Opened, of: str, layer: int) -> bytes | None:
    """One layer's attention as stored, little-endian float16 [tokens]; None where it was not recorded."""
    kind = run.attention.get(of)
    if kind is None or not 0 <= layer < kind.layers:
        return None
    return kind.rows[layer].astype("<f2", copy=False).tobytes()


def token_boxes(run: Opened, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """The boxes of tokens in original pixels, float64 [n, 4]."""
    place = _places(run, tokens)
    boxes = np.array([view.box for view in run.grid.views])[place[:, 0]]
    shapes = np.array([(view.rows, view.cols) for view in run.grid.views])[place[:, 0]]
    width, height = (boxes[:, 2] - boxes[:, 0]) / shapes[:, 1], (boxes[:, 3] - boxes[:, 1]) / shapes[:, 0]
    left, top = boxes[:, 0] + place[:, 2] * width, boxes[:, 1] + place[:, 1] * height
    return np.stack([left, top, left + width, top + height], axis=1)


def tokens_in(level: Level, box: Box) -> NDArray[np.int32]:
    """The tokens of a level that a box touches, ascending; a box without area touches the token that holds it."""
    left, top, right, bottom = box
    found = []
    for raster in level.rasters:
        (rows, cols), (width, height) = raster.shape, raster.cell
        first_col, last_col = _range(left - raster.box[0], right - raster.box[0], width, cols)
        first_row, last_row = _range(top - raster.box[1], bottom - raster.box[1], height, rows)
        found.append(raster.index[first_row:last_row, first_col:last_col].ravel())
    tokens = np.concatenate(found)
    return np.sort(tokens[tokens != NO_TOKEN])


def _range(low: float, high: float, cell: float, count: int) -> tuple[int, int]:
    first = math.floor(low / cell)
    last = math.ceil(high / cell)
    return max(0, min(count, first)), max(0, min(count, max(last, first + 1)))


def facts_json(
    run: Opened, tokens: NDArray[np.integer], placement: Placement, of: str, layer: int | None
) -> list[dict[str, Any]]:
    """What is known about each of the tokens, as plain values; None stands for "not there".

    `attention` is left out where it was not recorded or no layer is asked for. `lonlat` holds the upper left and the
    lower right corner. Rows, columns, tokens and layers count from 0.
    """
    place, boxes = _places(run, tokens), token_boxes(run, tokens)
    corners = placement.lonlat(boxes.reshape(-1, 2))
    members = np.bincount(run.target[run.target >= 0], minlength=len(run))
    kind = run.attention.get(of)
    row_of = None if kind is None or layer is None or not 0 <= layer < kind.layers else kind.rows[layer]
    facts = []
    for i, token in enumerate(tokens.tolist()):
        target = int(run.target[token])
        one: dict[str, Any] = {
            "token": token,
            **_where(run, place[i]),
            "fate": _NAMES[run.fate[token]],
            "target": None,
            "members": int(members[token]) if target == token else 0,
            "score": None if run.scores is None else _finite(run.scores[token]),
            "box": boxes[i].tolist(),
            "lonlat": None if corners is None else corners[2 * i : 2 * i + 2].tolist(),
        }
        if target not in (NO_TOKEN, token):
            aim = _where(run, _places(run, np.array([target]))[0])
            one["target"] = {"token": target, **aim}
        if row_of is not None:
            one["attention"] = _finite(row_of[token])
        facts.append(one)
    return facts


def _places(run: Opened, tokens: NDArray[np.integer]) -> NDArray[np.int64]:
    """View, row and column of tokens, int64 [n, 3]."""
    starts = np.asarray(run.grid.starts)
    views = np.searchsorted(starts, tokens, side="right") - 1
    cols = np.array([view.cols for view in run.grid.views])[views]
    local = tokens - starts[views]
    return np.stack([views, local // cols, local % cols], axis=1)


def _where(run: Opened, place: NDArray[np.int64]) -> dict[str, Any]:
    view, row, col = (int(value) for value in place)
    return {"view": view, "view_name": run.grid.views[view].name, "row": row, "col": col}


def _finite(value: np.floating[Any]) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
