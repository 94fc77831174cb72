"""What a strategy that looks at the image itself is given: one image file, one model, and the time that it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis import imagery
from analysis.cost import encode_flops, merged_encode_flops
from analysis.errors import AnalysisError
from analysis.lens import ImageLens, Spent
from compression.backends.base import VLM, Prompt, Seconds
from compression.compressor import Cancel
from compression.errors import MissingSignal
from compression.grid import Box
from compression.merging import Merging
from compression.selection import Selection
from compression.sight import Prospect, Size
from compression.tokens import Signal, VisualTokens

Made = TypeVar("Made")


class ImageSight:
    """A `compression.sight.Sight` of an image file. What was encoded adds up in `seconds` and `flops`.

    Args:
        path: The image file.
        image_size: Its (height, width).
        vlm: The model.
        repeats, warmup: Passes of each encoding that are measured, and those before them.
        prompt: The question, for a zoom.
        cancel: Asked while a zoom asks.
    """

    def __init__(
        self,
        path: Path,
        image_size: Size,
        vlm: VLM,
        *,
        repeats: int = 1,
        warmup: int = 0,
        prompt: Prompt | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        self._path, self._size, self._vlm = path, image_size, vlm
        self._repeats, self._warmup = repeats, warmup
        self._prompt, self._cancel = prompt, cancel
        self._times: list[Seconds] = []
        self.flops = 0
        self.notices: tuple[str, ...] = ()

    @property
    def prospect(self) -> Prospect:
        """What the model tells of the image before it reads any of it."""
        return self._vlm.prospect(self._size)

    @property
    def seconds(self) -> Seconds:
        """Measured time of all encodings, one after the other.

        Raises:
            AnalysisError: nothing was encoded.
        """
        if not self._times:
            raise AnalysisError("the strategy encoded nothing of the image; look at it before answering")
        return Seconds.total(self._times)

    def encode(self, box: Box | None = None, size: Size | None = None) -> VisualTokens:
        """Visual tokens of the image or of a part of it, boxes in original pixels; see `Sight.encode`.

        Raises:
            ImageError: the box holds no pixel, or the file cannot be read.
        """
        height, width = self._size
        window = (0, 0, width, height) if box is None else _pixels(box, self._size)
        part = (window[3] - window[1], window[2] - window[0])
        if size is None:
            image = self._read(window, self._vlm.wanted_size(part))
            tokens = self._timed(lambda: self._vlm.encode(image, part))
            if box is None:
                self._say(self._vlm.notices(part))
        else:
            reduced = self._read(window, size)
            tokens = self._timed(lambda: self._vlm.encode_reduced(reduced))
        self.flops += encode_flops(self._vlm.architecture, self._vlm.patches_per_view(tokens.grid))
        if box is None and size is None:
            return tokens
        left, top, right, bottom = window
        grid = tokens.grid.placed((float(left), float(top), float(right), float(bottom)), self._size)
        return VisualTokens(tokens.features, grid, tokens.index, tokens.signals)

    @cached_property
    def lens(self) -> ImageLens:
        """Parts of the image beside each other, and questions about them; see `Sight.lens`.

        Raises:
            MissingSignal: the model cannot be shown several pictures.
            AnalysisError: nothing is asked.
        """
        if Signal.CROPS not in self._vlm.provides:
            raise MissingSignal(
                f"{self._vlm.card.name} does not provide {Signal.CROPS.value}: it cannot be shown several pictures; "
                "choose another strategy"
            )
        if self._prompt is None:
            raise AnalysisError("a zoom asks the model while it looks; give the sight a prompt")
        return ImageLens(
            self._encode_part,
            self._size,
            self._vlm,
            self._prompt,
            repeats=self._repeats,
            warmup=self._warmup,
            cancel=self._cancel,
        )

    def spent(self, shown: VisualTokens) -> Spent | None:
        """What a zoom took of the language model until it was shown these tokens; None for nothing."""
        return self.lens.spent(shown) if "lens" in self.__dict__ else None

    def _encode_part(
        self, box: Box | None, size: Callable[[Size], Size], work: Callable[[NDArray[np.uint8], Box], VisualTokens]
    ) -> VisualTokens:
        """Read a part of the image and let it be encoded; see `analysis.lens.Encode`."""
        height, width = self._size
        window = (0, 0, width, height) if box is None else _pixels(box, self._size)
        image = self._read(window, size((window[3] - window[1], window[2] - window[0])))
        left, top, right, bottom = (float(edge) for edge in window)
        tokens = self._timed(lambda: work(image, (left, top, right, bottom)))
        self.flops += encode_flops(self._vlm.architecture, self._vlm.patches_per_view(tokens.grid))
        return tokens

    def encode_merged(self, merging: Merging) -> tuple[VisualTokens, Selection]:
        """The image as a whole, merged inside the encoder; see `Sight.encode_merged`.

        Raises:
            MissingSignal: the model's tower cannot do it.
            ImageError: the file cannot be read.
        """
        height, width = self._size
        image = self._read((0, 0, width, height), self._vlm.wanted_size(self._size))
        tokens, selection = self._timed(lambda: self._vlm.encode_merged(image, self._size, merging))
        patches = self._vlm.patches_per_view(tokens.grid)
        self.flops += merged_encode_flops(self._vlm.architecture, patches, merging.reductions)
        self._say(self._vlm.notices(self._size))
        return tokens, selection

    def _read(self, window: tuple[int, int, int, int], size: Size) -> NDArray[np.uint8]:
        return imagery.read_rgb(self._path, window, size).rgb

    def _say(self, notices: tuple[str, ...]) -> None:
        self.notices = tuple(dict.fromkeys((*self.notices, *notices)))

    def _timed(self, work: Callable[[], Made]) -> Made:
        """What the work makes, its time noted."""
        made, seconds = timed(work, repeats=self._repeats, warmup=self._warmup)
        self._times.append(seconds)
        return made


def timed(work: Callable[[], Made], *, repeats: int, warmup: int) -> tuple[Made, Seconds]:
    """What some work makes, and the measured time of `repeats` times of it after `warmup` others.

    Raises:
        AnalysisError: `repeats` is below 1.
    """
    if repeats < 1:
        raise AnalysisError(f"repeats must be at least 1, got {repeats}; measure once or more")
    samples = []
    for turn in range(warmup + repeats):
        start = time.perf_counter()
        made = work()
        if turn >= warmup:
            samples.append(time.perf_counter() - start)
    return made, Seconds.of(samples)


def _pixels(box: Box, image_size: Size) -> tuple[int, int, int, int]:
    """The whole pixels of the image that a box touches."""
    height, width = image_size
    left, top, right, bottom = box
    return (
        max(0, math.floor(left)),
        max(0, math.floor(top)),
        min(width, math.ceil(right)),
        min(height, math.ceil(bottom)),
    )
