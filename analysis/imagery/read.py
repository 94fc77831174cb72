"""Reading an image as colours with a mask: the one way from a file to what models and maps see."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.errors import ImageTooLarge, InvalidWindow
from analysis.imagery.describe import describe
from analysis.imagery.info import ImageInfo
from analysis.imagery.limits import OUTPUT_PIXELS
from analysis.imagery.pixels import Box, strips
from analysis.imagery.rendering import Rendering, check_rendering, choose_rendering, render


@dataclass(frozen=True)
class ImageData:
    """Colours `rgb` uint8 [height, width, 3] and `mask` bool [height, width], True where the image has a pixel.

    Colours under a False mask are black and mean nothing.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width)."""
        height, width = self.mask.shape
        return height, width


def read_rgb(
    path: Path,
    window: Box | None = None,
    size: tuple[int, int] | None = None,
    rendering: Rendering | None = None,
) -> ImageData:
    """Read a window of an image, as it is or resized, in memory that does not grow with the file.

    Reducing averages the valid pixels under each output pixel and uses what overviews there are; enlarging repeats
    pixels.

    Args:
        path: The image file.
        window: (left, top, right, bottom) in original pixels, half-open, inside the image; all of it by default.
        size: (height, width) of the result; that of the window by default.
        rendering: Bands and stretch; those of `choose_rendering` by default.

    Raises:
        InvalidWindow: The window or the size is empty, or the window leaves the image.
        ImageTooLarge: The result would have more than 134 megapixels.
        ImageError: The file cannot be read.
    """
    info = describe(path)
    window = info.box if window is None else window
    left, top, right, bottom = window
    if not (0 <= left < right <= info.width and 0 <= top < bottom <= info.height):
        raise InvalidWindow(
            f"the window {tuple(window)} is not inside {info.name}; give left < right within 0 to {info.width} and "
            f"top < bottom within 0 to {info.height}"
        )
    return read_any(path, info, window, (bottom - top, right - left) if size is None else size, rendering)


def read_any(path: Path, info: ImageInfo, window: Box, size: tuple[int, int], rendering: Rendering | None) -> ImageData:
    """Read a window that may reach beyond the image, where the mask is False."""
    height, width = size
    if height < 1 or width < 1:
        raise InvalidWindow(f"the size {height} x {width} (height x width) is empty; give at least 1 x 1")
    if height * width > OUTPUT_PIXELS:
        raise ImageTooLarge(
            f"{width:,} x {height:,} pixels of {info.name} at once are more than {OUTPUT_PIXELS:,}; "
            "ask for a smaller window or size"
        )
    rendering = rendering or rendering_of(path, info)
    check_rendering(rendering, info)
    rgb = np.zeros((height, width, 3), np.uint8)
    mask = np.zeros((height, width), np.bool_)
    for strip in strips(path, info, rendering.bands, rendering.kind, window, size):
        rgb[strip.place], mask[strip.place] = render(strip.samples, rendering), strip.samples.valid
    return ImageData(rgb, mask)


_RENDERINGS: dict[str, Rendering] = {}
_MOST_RENDERINGS = 256


def rendering_of(path: Path, info: ImageInfo) -> Rendering:
    """Return the rendering that `choose_rendering` gives this content, remembered by its digest."""
    if info.sha256 not in _RENDERINGS:
        if len(_RENDERINGS) >= _MOST_RENDERINGS:
            _RENDERINGS.clear()
        _RENDERINGS[info.sha256] = choose_rendering(path, info)
    return _RENDERINGS[info.sha256]
