"""What a zoom is given: parts of an image file beside each other, answers on them, and what all that took."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.cost import decode_flops, prefill_flops
from analysis.recorder import Recorder
from compression.backends.base import VLM, Prompt, Seconds
from compression.compressor import Cancel
from compression.grid import Box
from compression.sight import Size, as_it_is
from compression.tokens import VisualTokens
from compression.zooming.lens import Reply
from compression.zooming.written import Coordinates

Encode = Callable[
    [Box | None, Callable[[Size], Size], Callable[[NDArray[np.uint8], Box], VisualTokens]],
    VisualTokens,
]
"""Read a box of the image, None for all of it, at the size that is chosen for its own, and let it be encoded, measured.

The encoding is told what was read, in whole original pixels, and gives tokens on a grid of the original.
"""


@dataclass(frozen=True, eq=False)
class _Pass:
    """One pass of the language model over some visual tokens."""

    tokens: VisualTokens
    seconds: Seconds
    flops: int
    is_answer: bool  # to the user's question


@dataclass(frozen=True)
class Spent:
    """What looking took of the language model, the answer's own pass left out.

    Args:
        passes: How many passes.
        tokens: Visual tokens that they read.
        seconds: Measured, one pass after the other.
        flops: Estimated.
    """

    passes: int
    tokens: int
    seconds: Seconds
    flops: int


class ImageLens:
    """A `compression.zooming.lens.Lens` of an image file.

    Args:
        encode: Of the sight that this is the lens of.
        image_size: (height, width).
        vlm: The model.
        prompt: The question.
        repeats, warmup: Passes that are measured, and those before them; a model writes once only.
        cancel: Asked on the way.
    """

    def __init__(
        self,
        encode: Encode,
        image_size: Size,
        vlm: VLM,
        prompt: Prompt,
        *,
        repeats: int,
        warmup: int,
        cancel: Cancel | None,
    ) -> None:
        self._encode, self._size, self._vlm, self._prompt = encode, image_size, vlm, prompt
        self._repeats, self._warmup, self._cancel = repeats, warmup, cancel
        self._overviews: dict[tuple[int, int], list[VisualTokens]] = {}
        self._passes: list[_Pass] = []

    @property
    def coordinates(self) -> Coordinates | None:
        """How the model writes boxes."""
        return self._vlm.coordinates

    @property
    def framing(self) -> str:
        """How boxes become frames."""
        return self._vlm.framing

    def overview(self, side: int, tiles: int = 1) -> list[VisualTokens]:
        """The whole image at low resolution, encoded once; see `Lens.overview`."""
        side, tiles = self._vlm.overview_tiles(side, tiles)
        if (side, tiles) not in self._overviews:
            self._overviews[side, tiles] = [
                self._encode(part, lambda size: _within(size, side), self._overview)
                for part in _tiles(self._size, tiles)
            ]
        return list(self._overviews[side, tiles])

    def frames(self, box: Box) -> tuple[Box, ...]:
        """What the model is to be shown of a box; see `Lens.frames`."""
        return self._vlm.frames(box, self._size)

    def count(self, frame: Box) -> int:
        """Visual tokens of a frame."""
        return self._vlm.count_crop(frame, self._size)

    def crop(self, frame: Box) -> VisualTokens:
        """A frame at full resolution."""
        return self._encode(
            frame,
            lambda _: self._vlm.crop_size(frame, self._size),
            lambda image, _: self._vlm.encode_crop(image, frame, self._size),
        )

    def _overview(self, image: NDArray[np.uint8], box: Box) -> VisualTokens:
        tokens = self._vlm.encode_overview(image)
        return replace(tokens, grid=tokens.grid.placed(box, self._size))

    def ask(self, tokens: VisualTokens) -> Reply:
        """The model's answer, and where the question looked; see `Lens.ask`."""
        recorder = Recorder()
        said = self._vlm.generate(
            tokens,
            self._prompt,
            as_it_is(len(tokens)),
            probe=recorder,
            repeats=self._repeats,
            warmup=self._warmup,
            cancel=self._cancel,
        )
        flops = prefill_flops(self._vlm.architecture, said.sequence_per_layer)
        self._passes.append(_Pass(tokens, said.prefill, flops, is_answer=True))
        rows = recorder.finish(said.entering).question
        looked = np.zeros((1, len(tokens))) if rows is None else np.nan_to_num(rows.astype(np.float64))
        probabilities = said.probabilities(renormalised=bool(self._prompt.choices))
        return Reply(said.text, float(probabilities.max()), looked[len(looked) // 2 :].mean(axis=0))

    def write(self, tokens: VisualTokens, request: str, *, count: int, temperature: float, seed: int) -> list[str]:
        """Texts that the model writes on what it is shown; see `Lens.write`."""
        start = time.perf_counter()
        written = self._vlm.write(tokens, request, count=count, temperature=temperature, seed=seed, cancel=self._cancel)
        seconds = Seconds.of([time.perf_counter() - start])
        architecture = self._vlm.architecture
        flops = prefill_flops(architecture, written.sequence_per_layer)
        flops += sum(decode_flops(architecture, written.sequence_per_layer, steps) for steps in written.steps)
        self._passes.append(_Pass(tokens, seconds, flops, is_answer=False))
        return list(written.texts)

    def spent(self, shown: VisualTokens) -> Spent | None:
        """What looking took until the model was shown what it answers on; None for nothing.

        A pass that answered on just that is the answer's own, and is not counted twice.
        """
        passes = [one for one in self._passes if not (one.is_answer and one.tokens is shown)]
        if not passes:
            return None
        return Spent(
            passes=len(passes),
            tokens=sum(len(one.tokens) for one in passes),
            seconds=Seconds.total([one.seconds for one in passes]),
            flops=sum(one.flops for one in passes),
        )


def _within(size: Size, side: int) -> Size:
    """A (height, width) reduced until no side is longer than `side` pixels."""
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _tiles(image_size: Size, count: int) -> list[Box | None]:
    """`count` x `count` parts of an image in whole pixels, row by row; None for the whole."""
    if count == 1:
        return [None]
    height, width = image_size
    rows, cols = min(count, height), min(count, width)
    ys, xs = [at * height // rows for at in range(rows + 1)], [at * width // cols for at in range(cols + 1)]
    return [
        (float(xs[col]), float(ys[row]), float(xs[col + 1]), float(ys[row + 1]))
        for row in range(rows)
        for col in range(cols)
    ]
