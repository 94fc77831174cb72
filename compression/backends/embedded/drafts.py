"""How each task finds a question in a scene, its right answer, and the patches that the answer depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from compression.backends.embedded.cells import SIDE, cell_name
from compression.backends.embedded.facts import FACTS
from compression.backends.embedded.mosaics import Truth
from compression.backends.embedded.objects import SceneObject
from compression.backends.embedded.templates import LAND
from compression.backends.embedded.textures import COLOUR_NAMES, COVERS, PATCH, TYPES
from compression.backends.embedded.vocabulary import NUMBERS, QUARTERS

Box = tuple[int, int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """A question before it is worded as a sentence."""

    text: str
    answer: str
    evidence: tuple[Box, ...] = ()


def _patch_boxes(mask: np.ndarray) -> tuple[Box, ...]:
    """Boxes of the patches where the mask [rows, cols] holds."""
    return tuple(
        (int(col) * PATCH, int(row) * PATCH, (int(col) + 1) * PATCH, (int(row) + 1) * PATCH)
        for row, col in np.argwhere(mask)
    )


def _unique(scene: Truth) -> list[SceneObject]:
    """Objects that colour and type together name without doubt."""
    names = [item.name for item in scene.objects]
    return [item for item in scene.objects if names.count(item.name) == 1]


def _pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    return items[int(rng.integers(len(items)))]


def _presence(scene: Truth, rng: np.random.Generator) -> Draft | None:
    # Mostly types that are there, for both answers: the type alone then says nothing.
    here = sorted({item.type for item in scene.objects})
    if not here:
        return None
    kind = _pick(rng, here)
    colours = sorted({item.colour for item in scene.objects if item.type == kind})
    if rng.random() < 0.5:
        colour = _pick(rng, colours)
        boxes = tuple(item.box for item in scene.objects if (item.type, item.colour) == (kind, colour))
        return Draft(f"is there a {colour} {kind}", "yes", boxes)
    if rng.random() < 0.25:
        absent = [name for name in TYPES if name not in here]
        if not absent:
            return None
        return Draft(f"is there a {_pick(rng, COLOUR_NAMES)} {_pick(rng, absent)}", "no")
    missing = [name for name in COLOUR_NAMES if name not in colours]
    return Draft(f"is there a {_pick(rng, missing)} {kind}", "no") if missing else None


def _count(scene: Truth, rng: np.random.Generator) -> Draft | None:
    number = int(rng.integers(len(NUMBERS)))
    found: list[tuple[str, list[SceneObject]]] = []
    for kind in TYPES:
        found.append((f"{kind}s", [item for item in scene.objects if item.type == kind]))
    for colour in COLOUR_NAMES:
        found.append((f"{colour} objects", [item for item in scene.objects if item.colour == colour]))
    fitting = [(words, items) for words, items in found if len(items) == number]
    if not fitting:
        return None
    words, items = _pick(rng, fitting)
    return Draft(f"how many {words} are there", NUMBERS[number], tuple(item.box for item in items))


def _colour(scene: Truth, rng: np.random.Generator) -> Draft | None:
    types = [item.type for item in scene.objects]
    single = [item for item in scene.objects if types.count(item.type) == 1]
    if not single:
        return None
    item = _pick(rng, single)
    return Draft(f"what colour is the {item.type}", item.colour, (item.box,))


def _type(scene: Truth, rng: np.random.Generator) -> Draft | None:
    colours = [item.colour for item in scene.objects]
    single = [item for item in scene.objects if colours.count(item.colour) == 1]
    if not single:
        return None
    item = _pick(rng, single)
    return Draft(f"what is the {item.colour} object", item.type, (item.box,))


def _surround(scene: Truth, rng: np.random.Generator) -> Draft | None:
    cover = LAND[int(rng.integers(len(LAND)))]
    rows, cols = scene.cover.shape
    fitting = [
        item
        for item in _unique(scene)
        if not item.on_road and item.type != "ship" and COVERS[scene.cover[item.row, item.col]] == cover
    ]
    if not fitting:
        return None
    item = _pick(rng, fitting)
    top, left = max(item.row - 1, 0), max(item.col - 1, 0)
    bottom, right = min(item.row + 2, rows), min(item.col + 2, cols)
    box = (left * PATCH, top * PATCH, right * PATCH, bottom * PATCH)
    return Draft(f"what land cover is around the {item.name}", cover, (box,))


def _cells(scene: Truth) -> tuple[int, int]:
    """Rows and columns of cells."""
    rows, cols = scene.cover.shape
    return rows // SIDE, cols // SIDE


def _compass(south: bool, east: bool) -> str:
    return QUARTERS[2 * int(south) + int(east)]


def _dir(scene: Truth, rng: np.random.Generator) -> Draft | None:
    named = _unique(scene)
    if len(named) < 2:
        return None
    first, second = (named[index] for index in rng.choice(len(named), 2, replace=False))
    down, right = first.row - second.row, first.col - second.col
    # Between cells the question is which cells, so near neighbours across a border are left out.
    least = 2 if _cells(scene) == (1, 1) else 6
    same_cell = (first.row // SIDE, first.col // SIDE) == (second.row // SIDE, second.col // SIDE)
    if min(abs(down), abs(right)) < least or (least > 2 and same_cell):
        return None
    text = f"where is the {first.name} relative to the {second.name}"
    return Draft(text, _compass(down > 0, right > 0), (first.box, second.box))


def _side(scene: Truth, rng: np.random.Generator) -> Draft | None:
    river = scene.river
    if river is None:
        return None
    clear = river.half_width + PATCH // 2
    negative = bool(rng.random() < 0.5)
    offsets = [(item, river.offset(item.row, item.col)) for item in _unique(scene)]
    fitting = [item for item, offset in offsets if abs(offset) > clear and (offset < 0) == negative]
    if not fitting:
        return None
    item = _pick(rng, fitting)
    # The part of the river that lies across from the object decides.
    across = np.zeros(scene.cover.shape, bool)
    line = int(river.centre[(item.row if river.vertical else item.col) * PATCH + PATCH // 2]) // PATCH
    reach = int(np.ceil(river.half_width / PATCH))
    near = slice(max(line - reach, 0), line + reach + 1)
    across[(item.row, near) if river.vertical else (near, item.col)] = True
    answer = ("west" if negative else "east") if river.vertical else ("north" if negative else "south")
    evidence = (item.box, *_patch_boxes(across & (scene.cover == 0)))
    return Draft(f"on which side of the river is the {item.name}", answer, evidence)


def _region(scene: Truth, rng: np.random.Generator) -> Draft | None:
    high, wide = (edge // 2 for edge in scene.building.shape)
    counts = scene.building.reshape(2, high, 2, wide).sum((1, 3)).ravel()
    ranked = np.sort(counts)
    if ranked[-1] < 3 or ranked[-1] - ranked[-2] < max(2, 0.2 * ranked[-1]):
        return None
    answer = QUARTERS[int(counts.argmax())]
    return Draft("which quarter has the most buildings", answer, _patch_boxes(scene.building))


def _corner(scene: Truth, rng: np.random.Generator) -> Draft | None:
    high, wide = (edge // 4 for edge in scene.cover.shape)
    wanted = int(rng.integers(len(COVERS)))
    fitting = []
    for index in range(len(QUARTERS)):
        top, left = (index // 2) * 3 * high, (index % 2) * 3 * wide
        share = (scene.cover[top : top + high, left : left + wide] == wanted).mean()
        if share > 0.67:
            fitting.append((index, top, left))
    if not fitting:
        return None
    index, top, left = _pick(rng, fitting)
    box = (left * PATCH, top * PATCH, (left + wide) * PATCH, (top + high) * PATCH)
    return Draft(f"what land cover is in the {QUARTERS[index]} corner", COVERS[wanted], (box,))


def _dominant(scene: Truth, rng: np.random.Generator) -> Draft | None:
    ranked = np.sort(scene.cover_share)
    if ranked[-1] - ranked[-2] < 0.06:
        return None
    answer = COVERS[int(scene.cover_share.argmax())]
    rows, cols = scene.cover.shape
    return Draft("which land cover is the largest", answer, ((0, 0, cols * PATCH, rows * PATCH),))


def _placed(scene: Truth, rng: np.random.Generator) -> tuple[SceneObject, str] | None:
    """An object that its name tells from all others, and the quarter it clearly lies in."""
    row, col = ((edge - 1) / 2 for edge in scene.cover.shape)
    fitting = [item for item in _unique(scene) if min(abs(item.row - row), abs(item.col - col)) > 1]
    if not fitting:
        return None
    item = _pick(rng, fitting)
    return item, _compass(item.row > row, item.col > col)


def _quarter(scene: Truth, rng: np.random.Generator) -> Draft | None:
    found = _placed(scene, rng)
    if found is None:
        return None
    item, answer = found
    return Draft(f"in which quarter is the {item.name}", answer, (item.box,))


def _told(scene: Truth, rng: np.random.Generator) -> Draft | None:
    # The question tells the answer and the picture shows it: either is enough.
    found = _placed(scene, rng)
    if found is None:
        return None
    item, answer = found
    text = f"the {item.name} is in the {answer} quarter. in which quarter is the {item.name}"
    return Draft(text, answer, (item.box,))


def _cell(scene: Truth, rng: np.random.Generator) -> Draft | None:
    if _cells(scene) == (1, 1) or not (named := _unique(scene)):
        return None
    item = _pick(rng, named)
    answer = cell_name(item.row // SIDE, item.col // SIDE)
    return Draft(f"in which cell is the {item.name}", answer, (item.box,))


def _cellcover(scene: Truth, rng: np.random.Generator) -> Draft | None:
    rows, cols = _cells(scene)
    if (rows, cols) == (1, 1):
        return None
    # The wanted cover first: else the cover of the whole would answer most of these questions.
    wanted = int(rng.integers(len(COVERS)))
    shares = (scene.cover == wanted).reshape(rows, SIDE, cols, SIDE).mean((1, 3))
    fitting = [(int(row), int(col)) for row, col in np.argwhere(shares >= 0.6)]
    if not fitting:
        return None
    row, col = _pick(rng, fitting)
    edge = SIDE * PATCH
    box = (col * edge, row * edge, (col + 1) * edge, (row + 1) * edge)
    return Draft(f"what land cover is in cell {cell_name(row, col)}", COVERS[wanted], (box,))


def _knowledge(scene: Truth, rng: np.random.Generator) -> Draft:
    fact = _pick(rng, FACTS)
    return Draft(fact.text, fact.answer)


DRAFTERS: dict[str, Callable[[Truth, np.random.Generator], Draft | None]] = {
    "presence": _presence,
    "count": _count,
    "colour": _colour,
    "type": _type,
    "surround": _surround,
    "dir": _dir,
    "side": _side,
    "region": _region,
    "corner": _corner,
    "dominant": _dominant,
    "quarter": _quarter,
    "cell": _cell,
    "cellcover": _cellcover,
    "told": _told,
    "knowledge": _knowledge,
}
