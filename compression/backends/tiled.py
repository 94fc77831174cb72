"""What families share that resize an image onto tiles of one size."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray
from transformers.image_utils import SizeDict

from compression.backends.llava import PROVIDES, LlavaBackend
from compression.backends.sequence import PLACEHOLDER
from compression.grid import TokenGrid
from compression.zooming.written import Coordinates


class TiledBackend(LlavaBackend):
    """An image resized onto tiles; one placeholder stands for all of them, and there is one picture in a prompt."""

    provides = PROVIDES
    coordinates: Coordinates | None = None
    framing = ""

    @abstractmethod
    def resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at which an image of (height, width) lies on the tiles."""

    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Twice what the tiles hold at most."""
        resized = self.resized(image_size)
        shrink = min(1.0, 2 * max(resized[0] / image_size[0], resized[1] / image_size[1]))
        return max(1, round(image_size[0] * shrink)), max(1, round(image_size[1] * shrink))

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """That the image is reduced before it is cut into tiles, where it is much."""
        resized = self.resized(image_size)
        scale = max(image_size[0] / resized[0], image_size[1] / resized[1])
        if scale <= 1.5:
            return ()
        said = (
            f"The model reads this image at {resized[1]:,} × {resized[0]:,} pixels: {scale:.1f} pixels of the image "
            "become one, and smaller things vanish."
        )
        return (said,)

    def picture_text(self, grid: TokenGrid) -> str:
        """One placeholder for the picture and all its views."""
        return PLACEHOLDER

    def _resize(self, image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
        """An image uint8 [height, width, 3] at another (height, width), by the checkpoint's filter."""
        wanted = SizeDict(height=size[0], width=size[1])
        resized = self.processor.resize(image.transpose(2, 0, 1), wanted, resample=self.processor.resample)
        return np.asarray(resized, dtype=np.uint8).transpose(1, 2, 0)
