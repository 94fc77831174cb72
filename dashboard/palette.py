"""The colours of tokens.css as numbers, so that tiles drawn here and canvases drawn in the browser agree."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

TOKENS_CSS = Path(__file__).parent / "assets" / "keepmap" / "tokens.css"
STEPS = 256

Theme: TypeAlias = Literal["light", "dark"]
Colour: TypeAlias = tuple[float, float, float, float]
"""Red, green, blue and opacity, each in [0, 1], not premultiplied."""

_VARIABLE = re.compile(r"--km-([a-z0-9-]+):\s*([^;]+);")
_HEX = re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", re.I)
_RGBA = re.compile(r"rgba\(\s*([\d.]+),\s*([\d.]+),\s*([\d.]+),\s*([\d.]+)\s*\)")


@dataclass(frozen=True, eq=False)
class Palette:
    """What the painters need of one theme.

    Args:
        veil, veil_merged, hatch: Over dropped tokens, over merged ones, and the lines on those.
        ink, casing: Lines and dots on the map, and the halo around them.
        semantic, geometric: The two streams.
        categories: Clusters, in this order, then again.
        sequential: Float [256, 3], from the lowest to the highest value.
        diverging: Float [256, 3], from -1 to +1.
    """

    veil: Colour
    veil_merged: Colour
    hatch: Colour
    ink: Colour
    casing: Colour
    semantic: Colour
    geometric: Colour
    categories: tuple[Colour, ...]
    sequential: NDArray[np.float32]
    diverging: NDArray[np.float32]


@cache
def palette(theme: Theme) -> Palette:
    """The palette of a theme, read from tokens.css."""
    text = TOKENS_CSS.read_text(encoding="utf-8")
    light, _, dark = text.partition("\n.dark {")
    found = dict(_VARIABLE.findall(light))
    if theme == "dark":
        found |= dict(_VARIABLE.findall(dark))
    read = {name: parse_colour(value) for name, value in found.items() if value.startswith(("#", "rgba("))}
    return Palette(
        veil=read["veil"],
        veil_merged=read["veil-merged"],
        hatch=read["hatch"],
        ink=read["map-ink"],
        casing=read["map-casing"],
        semantic=read["semantic"],
        geometric=read["geometric"],
        categories=tuple(read[f"cat-{i}"] for i in range(1, 7)),
        sequential=ramp([read[f"seq-{i}"] for i in range(7)]),
        diverging=ramp([read[f"div-{name}"] for name in ("neg-2", "neg-1", "0", "pos-1", "pos-2")]),
    )


@cache
def palette_digest() -> str:
    """A short digest of tokens.css: a tile drawn with other colours is another tile."""
    return hashlib.sha256(TOKENS_CSS.read_bytes()).hexdigest()[:12]


def themes() -> tuple[str, ...]:
    """The names of the themes."""
    return get_args(Theme)


def parse_colour(text: str) -> Colour:
    """A colour written as #rrggbb or rgba(r, g, b, a).

    >>> parse_colour("rgba(255, 0, 51, .5)")
    (1.0, 0.0, 0.2, 0.5)

    Raises:
        ValueError: it is written in another way.
    """
    text = text.strip()
    if found := _HEX.fullmatch(text):
        red, green, blue = (int(part, 16) / 255 for part in found.groups())
        return red, green, blue, 1.0
    if found := _RGBA.fullmatch(text):
        red, green, blue, opacity = (float(part) for part in found.groups())
        return red / 255, green / 255, blue / 255, opacity
    raise ValueError(f"a colour of tokens.css is #rrggbb or rgba(r, g, b, a), got {text!r}")


def ramp(stops: list[Colour]) -> NDArray[np.float32]:
    """Linear interpolation between equally spaced stops, float32 [256, 3] in [0, 1]."""
    at = np.linspace(0, len(stops) - 1, STEPS)
    values = np.array([stop[:3] for stop in stops])
    channels = [np.interp(at, np.arange(len(stops)), values[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.float32)
