"""Layers drawn as tiles, for runs with too many tokens to paint in the browser.

The rules are those of the browser's painters (assets/keepmap/painters.js): kept tokens are clear, dropped ones veiled,
merged ones half veiled under a hatch that is counted in global tile pixels, so that tiles join.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from compression.selection import Fate
from dashboard.opened import Opened
from dashboard.palette import STEPS, Colour, Palette
from dashboard.rasters import NO_TOKEN, Level
from dashboard.sheet import Sheet
from dashboard.tiles import MARGIN, TileView
from dashboard.wire import token_boxes

Layer: TypeAlias = Literal["retention", "clusters", "scores", "attention", "streams", "difference"]
Kind: TypeAlias = Literal["answer", "question"]
Compared: TypeAlias = Literal["attention", "retention"]
PAINTER_VERSION = 1
"""Raised whenever the same run gives another picture: browsers keep tiles by it."""

DETAIL_PIXELS = 6
"""Cells smaller than this on screen get no outline, dot or line: they would hide what they mark."""

_SIGN_PIXELS = 12
_SIGNED = 0.25  # share of the difference scale from which a token is marked
_MOST_LINES = 4_000  # more lines in one tile hide what they lead to
_PRESENCE = np.array([1.0, 0.5, 0.0], dtype=np.float32)  # kept, merged, dropped


@dataclass(frozen=True, eq=False)
class Look:
    """What of a run is drawn.

    Args:
        layer: Which layer.
        level: Which level of views.
        of: Attention from the "answer" or the "question".
        depth: Layer of the language model, from 0.
        scale: Values of the ends of the colour scale; None takes the run's own.
        against: The run of the first pane, for a difference.
        compared: What the difference is of.
    """

    layer: Layer
    level: int = 0
    of: Kind = "answer"
    depth: int = 0
    scale: tuple[float, float] | None = None
    against: Opened | None = None
    compared: Compared = "attention"


def layer_names() -> tuple[Layer, ...]:
    """The layers that can be drawn."""
    names: tuple[Layer, ...] = get_args(Layer)
    return names


def paint(run: Opened, look: Look, view: TileView, palette: Palette) -> NDArray[np.uint8]:
    """One tile of a layer, uint8 [256, 256, 4]: red, green, blue, opacity, not premultiplied."""
    level = run.levels[look.level]
    scene = _Scene(run, look, view, palette, level)
    if (scene.token != NO_TOKEN).any():
        _PAINTERS[look.layer](scene)
    return scene.sheet.finished(MARGIN)


class _Scene:
    """One tile while it is painted."""

    def __init__(self, run: Opened, look: Look, view: TileView, palette: Palette, level: Level) -> None:
        self.run, self.look, self.view, self.palette, self.level = run, look, view, palette, level
        self.sheet = Sheet(view.shape)
        width, height = run.image.width, run.image.height
        with np.errstate(invalid="ignore"):
            on_image = (view.x >= 0) & (view.x < width) & (view.y >= 0) & (view.y < height)
        # Padded views reach over the image; what lies there is not on the picture.
        self.token = np.where(on_image, level.tokens_at(view.x, view.y), NO_TOKEN)
        self.is_token = self.token != NO_TOKEN
        self.cell_pixels = min(level.cell) * view.scale
        self.is_detailed = self.cell_pixels >= DETAIL_PIXELS

    def of_tokens(self, values: NDArray[Any], missing: float) -> NDArray[Any]:
        """A value per token as a value per pixel, `missing` where there is no token."""
        return np.where(self.is_token, values[self.token], np.asarray(missing, dtype=values.dtype))

    def inside(self, tokens: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """Those of the tokens whose centre lies on or near the tile, and their (column, row) there."""
        centres = self.centres(tokens)
        near = ((centres > -MARGIN) & (centres < np.array(self.view.shape[::-1]) + MARGIN)).all(axis=1)
        return tokens[near], centres[near]

    def centres(self, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
        """(column, row) of the tokens' centres, float64 [n, 2]."""
        return self.view.place(token_centres(self.run, tokens))

    def veil(self, but: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Veil what was dropped or merged, except where `but`; returns the fate of each pixel, 255 for none."""
        fate = self.of_tokens(self.run.fate, 255)
        open_ = np.ones(fate.shape, dtype=bool) if but is None else ~but
        self.sheet.over(self.palette.veil, (fate == Fate.DROPPED) & open_)
        self.sheet.over(self.palette.veil_merged, (fate == Fate.MERGED) & open_)
        return fate.astype(np.uint8)

    def hatch(self, where: NDArray[np.bool_]) -> None:
        """The hatch of merged tokens, every four pixels of the whole map."""
        self.sheet.over(self.palette.hatch, self.sheet.hatch(self.view.left, self.view.top) * where)

    def border(self, labels: NDArray[np.generic]) -> NDArray[np.bool_]:
        """The pixels on both sides of every edge between tokens with different labels."""
        return self.sheet.border(labels, self.is_token)

    def cased(self, line: NDArray[np.bool_], ink: Colour, coverage: float) -> None:
        """A line with its halo."""
        self.sheet.over(self.palette.casing, self.sheet.grown(line).astype(np.float32))
        self.sheet.over(ink, line * np.float32(coverage))

    def dots(self, tokens: NDArray[np.integer], radius: float, ink: Colour) -> None:
        """Dots on the centres of tokens, no larger than the cells allow."""
        _, centres = self.inside(tokens)
        radius = min(radius, self.cell_pixels * 0.3)
        self.sheet.over(self.palette.casing, self.sheet.discs(centres, radius))
        self.sheet.over(ink, self.sheet.discs(centres, max(0.8, radius - 1.4)))


def _paint_retention(scene: _Scene) -> None:
    run, palette = scene.run, scene.palette
    fate = scene.veil()
    scene.hatch(fate == Fate.MERGED)
    if not scene.is_detailed:
        return
    scene.sheet.over(palette.ink, scene.border(fate == Fate.DROPPED) * np.float32(0.55 / 2))
    scene.cased(scene.border(scene.of_tokens(run.groups, -1)), palette.ink, 0.75)
    scene.dots(_targets(run), 4.2, palette.ink)


def _paint_clusters(scene: _Scene) -> None:
    run, palette = scene.run, scene.palette
    category = scene.of_tokens(run.category, 0)
    scene.veil(but=category > 0)
    for number, colour in enumerate(palette.categories, start=1):
        scene.sheet.over((*colour[:3], 0.62), category == number)
    if not scene.is_detailed:
        return
    scene.cased(scene.border(scene.of_tokens(run.groups, -1)), palette.ink, 0.75)
    members = np.flatnonzero((run.category > 0) & (run.target != np.arange(len(run))))
    here = np.concatenate([raster.index.ravel() for raster in scene.level.rasters])
    is_here = np.zeros(len(run) + 1, dtype=bool)
    is_here[here] = True
    members = members[is_here[members] & is_here[run.target[members]]]
    lines = scene.sheet.near(np.hstack([scene.centres(run.target[members]), scene.centres(members)]))
    if len(lines) <= _MOST_LINES:
        scene.sheet.over(palette.casing, scene.sheet.lines(lines) * np.float32(0.85))
    scene.dots(_targets(run), 5.0, palette.ink)


def _paint_scores(scene: _Scene) -> None:
    run, palette = scene.run, scene.palette
    scale = scene.look.scale or run.score_range
    if run.scores is None or scale is None:
        scene.sheet.over(palette.veil_merged, scene.is_token)
        return
    values = scene.of_tokens(run.scores, np.nan).astype(np.float32)
    _sequential(scene, values, scale)


def _paint_attention(scene: _Scene) -> None:
    kind = scene.run.attention.get(scene.look.of)
    if kind is None or scene.look.depth >= kind.layers:
        return
    scale = scene.look.scale or (0.0, float(kind.top[scene.look.depth]))
    values = scene.of_tokens(kind.rows[scene.look.depth].astype(np.float32), np.nan).astype(np.float32)
    _sequential(scene, values, scale)
    if scene.is_detailed:
        scene.sheet.over(scene.palette.ink, scene.border(np.isnan(values)) * np.float32(0.35 / 2))


def _sequential(scene: _Scene, values: NDArray[np.float32], scale: tuple[float, float]) -> None:
    """Colour by the square root of the place between the ends; what has no value is veiled."""
    low, high = scale
    missing = np.isnan(values)
    place = (values - low) / (high - low) if high > low else np.zeros_like(values)
    share = np.sqrt(np.clip(np.where(missing, 0, place), 0, 1))
    scene.sheet.over(scene.palette.veil, missing & scene.is_token)
    colours = scene.palette.sequential[np.rint(share * (STEPS - 1)).astype(np.intp)]
    scene.sheet.tint(colours, np.where(missing, 0, 0.5 + 0.42 * share).astype(np.float32))


def _paint_streams(scene: _Scene) -> None:
    run, palette = scene.run, scene.palette
    fate = scene.veil()
    if run.semantic is None or run.path is None:
        return
    scene.hatch(fate == Fate.MERGED)
    semantic = scene.of_tokens(run.semantic, -1)
    if not scene.is_detailed:
        on_path = np.zeros(len(run), dtype=bool)
        on_path[run.path] = True
        path = scene.of_tokens(on_path, False).astype(bool)
        scene.sheet.over((*palette.semantic[:3], 0.5), (semantic >= 0) & ~path)
        scene.sheet.over((*palette.geometric[:3], 0.75), path)
        return
    scene.cased(scene.border(semantic), palette.semantic, 1.0)
    line = scene.sheet.lines(scene.sheet.near(path_steps(scene.run, scene.level, scene.view))) > 0
    scene.cased(scene.sheet.grown(line), palette.geometric, 0.85)
    here = np.zeros(len(run), dtype=bool)
    for raster in scene.level.rasters:
        here[raster.index[raster.index != NO_TOKEN]] = True
    scene.dots(run.path[here[run.path]], 3.2, palette.geometric)
    scene.dots(run.anchors[here[run.anchors]], 7.5, palette.geometric)


def _paint_difference(scene: _Scene) -> None:
    change = change_of(scene.run, scene.look)
    if change is None:
        return
    values = np.nan_to_num(scene.of_tokens(change, 0.0).astype(np.float32))
    colours = scene.palette.diverging[np.rint((values + 1) / 2 * (STEPS - 1)).astype(np.intp)]
    strength = np.where(values == 0, 0.1, np.minimum(0.95, 0.15 + 0.95 * np.abs(values)))
    scene.sheet.tint(colours, (strength * scene.is_token).astype(np.float32))
    if scene.cell_pixels < _SIGN_PIXELS:
        return
    # More is marked by a plus, so that colour is not alone.
    _, centres = scene.inside(np.flatnonzero(change >= _SIGNED))
    arm = min(4.0, scene.cell_pixels * 0.2)
    strokes = [np.hstack([centres - stroke, centres + stroke]) for stroke in ((arm, 0.0), (0.0, arm))]
    scene.cased(scene.sheet.lines(np.concatenate(strokes)) > 0, scene.palette.ink, 1.0)


def change_of(run: Opened, look: Look) -> NDArray[np.float32] | None:
    """The difference against the first pane on its scale, float32 [tokens] in [-1, 1]; None where it cannot be told.

    Retention: kept is 1, merged 1/2, dropped 0, and the difference is linear. Attention: the sign times the square root
    of the share of the scale's end; a token that was not there counts as zero. Runs on different grids have none.
    """
    first = look.against
    if first is None or first.grid != run.grid:
        return None
    if look.compared == "retention":
        retention: NDArray[np.float32] = _PRESENCE[run.fate] - _PRESENCE[first.fate]
        return retention
    own, other = run.attention.get(look.of), first.attention.get(look.of)
    if own is None or other is None or look.depth >= min(own.layers, other.layers):
        return None
    mine, theirs = (np.nan_to_num(kind.rows[look.depth].astype(np.float32), nan=0.0) for kind in (own, other))
    change = mine - theirs
    end = look.scale[1] if look.scale else float(np.abs(change).max())
    if end <= 0:
        return np.zeros_like(change)
    shares: NDArray[np.float32] = np.sign(change) * np.sqrt(np.clip(np.abs(change) / end, 0, 1))
    return shares


def token_centres(run: Opened, tokens: NDArray[np.integer]) -> NDArray[np.float64]:
    """The centres of tokens in original pixels, float64 [n, 2] as (x, y)."""
    boxes = token_boxes(run, tokens)
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def path_steps(run: Opened, level: Level, view: TileView) -> NDArray[np.float64]:
    """The steps of the traced path between touching tokens, float64 [steps, 4] in (column, row) of the tile."""
    if run.path is None or len(run.path) < 2:
        return np.empty((0, 4))
    centres = token_centres(run, run.path)
    width, height = level.cell
    move = np.abs(np.diff(centres, axis=0))
    touching = (move[:, 0] <= 1.5 * width) & (move[:, 1] <= 1.5 * height)
    placed = view.place(centres)
    return np.hstack([placed[:-1], placed[1:]])[touching]


def _targets(run: Opened) -> NDArray[np.integer]:
    """The tokens that took others."""
    return np.flatnonzero((run.category > 0) & (run.target == np.arange(len(run))))


_PAINTERS: dict[Layer, Callable[[_Scene], None]] = {
    "retention": _paint_retention,
    "clusters": _paint_clusters,
    "scores": _paint_scores,
    "attention": _paint_attention,
    "streams": _paint_streams,
    "difference": _paint_difference,
}
