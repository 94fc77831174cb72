"""How samples of any type become the colours that are shown, as a value that can be stored and read out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.errors import InvalidRendering
from analysis.imagery.info import ImageInfo
from analysis.imagery.pixels import Kind, overview
from analysis.imagery.resample import Samples

#: A stretch ignores this share (percent) of the darkest and of the brightest samples.
PERCENTILES = (2.0, 98.0)

#: Percentiles are taken over at most about this many pixels, evenly spaced.
_SAMPLED_PIXELS = 2**20

_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Rendering:
    """Which bands are shown and how their values become bytes.

    `bands` are numbers counted from 1: one for "grey" and "palette", three for "rgb", four for "cmyk". `ranges` holds
    the (low, high) that become 0 and 255, one for all bands or one for each; without it, bytes are shown as they are.
    `percentiles` says which percentiles the ranges were measured at, and `measured_on` the (height, width) of the
    reduced copy that they were measured on. `str()` puts all this into words.
    """

    bands: tuple[int, ...]
    kind: Kind
    ranges: tuple[tuple[float, float], ...] | None = None
    percentiles: tuple[float, float] | None = None
    measured_on: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        needed = {"grey": 1, "palette": 1, "rgb": 3, "cmyk": 4}.get(self.kind)
        if needed != len(self.bands) or min(self.bands) < 1:
            raise InvalidRendering(
                f"a rendering of kind {self.kind!r} cannot show bands {self.bands}; grey and palette take one band, "
                "rgb three and cmyk four, counted from 1"
            )
        for low, high in self.ranges or ():
            if not (np.isfinite((low, high)).all() and low < high):
                raise InvalidRendering(f"the range {low} to {high} is not a range; give two finite numbers, low < high")
        if self.ranges is not None and len(self.ranges) not in (1, len(self.bands)):
            raise InvalidRendering(
                f"{len(self.ranges)} ranges do not fit {len(self.bands)} bands; give one for all or one for each"
            )

    def __str__(self) -> str:
        listed = ", ".join(str(band) for band in self.bands)
        what = {
            "grey": f"band {listed} in grey",
            "palette": f"the palette of band {listed}",
            "rgb": f"bands {listed} as red, green, blue",
            "cmyk": f"bands {listed} converted from cyan, magenta, yellow, black",
        }[self.kind]
        if self.ranges is None:
            return f"{what}; values as they are"
        spans = ", ".join(f"{low:.6g} to {high:.6g}" for low, high in self.ranges)
        if self.percentiles is None or self.measured_on is None:
            return f"{what}; {spans} shown from black to white"
        low, high = (_ordinal(percentile) for percentile in self.percentiles)
        whose = "all bands together" if len(self.ranges) < len(self.bands) else "each band"
        whose = "the band" if len(self.bands) == 1 else whose
        height, width = self.measured_on
        return f"{what}; {low} to {high} percentile of {whose} ({spans}), measured on {width:,} x {height:,} pixels"


def choose_rendering(path: Path, info: ImageInfo) -> Rendering:
    """Choose bands and stretch as someone who opens the image in a GIS would, and record the choice.

    Bands named red, green and blue are shown as such; otherwise the first three that are not alpha, which is right for
    aerial files of red, green, blue and near infrared; with fewer, the first in grey. Bytes are shown as they are.
    Samples of fewer bits fill the range. All others are stretched between their 2nd and 98th percentile: named colours
    by one common range, which keeps the colour balance, other bands each by its own. Where a band has no two
    different ones, all are shown from their smallest to their largest value.

    Raises:
        ImageError: The pixels cannot be read.
    """
    bands, kind = _shown(info)
    if kind in ("palette", "cmyk") or (info.dtype == "uint8" and (info.format != "TIFF" or info.bits >= 8)):
        return Rendering(bands, kind)
    if info.dtype == "uint8":
        return Rendering(bands, kind, ranges=((0.0, float(2**info.bits - 1)),))
    samples = overview(path, info, bands, kind)
    step = max(1, int(np.sqrt(samples.valid.size / _SAMPLED_PIXELS)))
    values = samples.values[::step, ::step][samples.valid[::step, ::step]].astype(np.float64)
    is_joint = kind == "rgb" and all(info.colours[band - 1] in _COLOURS for band in bands)
    groups = [values] if is_joint else list(values.T)
    ranges = [span for group in groups if (span := _percentile_range(group)) is not None]
    if len(ranges) < len(groups):
        return Rendering(bands, kind, tuple(_whole_range(group) for group in groups))
    return Rendering(bands, kind, tuple(ranges), PERCENTILES, samples.valid.shape)


def render(samples: Samples, rendering: Rendering) -> NDArray[np.uint8]:
    """Turn samples into colours uint8 [height, width, 3]; black where nothing is valid."""
    values = samples.values
    if rendering.ranges is not None:
        low, high = np.array(rendering.ranges, np.float32).T
        span = np.maximum(high - low, np.finfo(np.float32).tiny)
        # Missing samples may be NaN, which has no byte.
        known = np.where(samples.valid[:, :, None], values, low).astype(np.float32)
        values = np.rint(np.clip((known - low) / span, 0, 1) * 255).astype(np.uint8)
    elif values.dtype != np.uint8:
        raise InvalidRendering(f"{values.dtype} samples have no colour by themselves; give a rendering with ranges")
    rgb = np.broadcast_to(values, (*samples.valid.shape, 3)) if values.shape[2] == 1 else values
    return np.where(samples.valid[:, :, None], rgb, np.uint8(0)).astype(np.uint8, copy=False)


def check_rendering(rendering: Rendering, info: ImageInfo) -> None:
    """Refuse a rendering that this image cannot have.

    Raises:
        InvalidRendering: It names a band that the image does not have, or a palette that is none.
    """
    if max(rendering.bands) > info.bands:
        raise InvalidRendering(
            f"the rendering shows bands {rendering.bands}; {info.name} has {info.bands}; choose among 1 to {info.bands}"
        )
    if rendering.kind == "palette" and info.colours[rendering.bands[0] - 1] != "palette":
        raise InvalidRendering(f"band {rendering.bands[0]} of {info.name} has no palette; show it in grey")


def _shown(info: ImageInfo) -> tuple[tuple[int, ...], Kind]:
    colours = info.colours
    if colours[0] == "palette":
        return (1,), "palette"
    if colours[:1] == ("cyan",):
        return (1, 2, 3, 4), "cmyk"
    if all(colour in colours for colour in _COLOURS):
        return tuple(colours.index(colour) + 1 for colour in _COLOURS), "rgb"
    usable = [band for band, colour in enumerate(colours, 1) if colour != "alpha"] or [1]
    return (tuple(usable[:3]), "rgb") if len(usable) >= 3 else ((usable[0],), "grey")


def _percentile_range(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the values at the percentiles, or None where there are no two different ones."""
    low, high = np.percentile(values, PERCENTILES) if values.size else (0.0, 0.0)
    return (float(low), float(high)) if low < high else None


def _whole_range(values: NDArray[np.float64]) -> tuple[float, float]:
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    if low == high:
        # One value everywhere has no contrast to show: it becomes a middle grey.
        return low - 1.0, high + 1.0
    return low, high


def _ordinal(number: float) -> str:
    ending = {1: "st", 2: "nd", 3: "rd"}.get(int(number) % 10, "th") if int(number) not in (11, 12, 13) else "th"
    return f"{number:g}{ending}"
