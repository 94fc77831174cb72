"""A small model that answers, attends and writes: what zooms are tested with, on the image and tower of `ToySight`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from compression.grid import Box
from compression.sight import Size
from compression.tokens import VisualTokens
from compression.zooming.lens import Reply
from compression.zooming.search import around
from compression.zooming.written import Coordinates

if TYPE_CHECKING:
    from tests.contracts.sights import ToySight


@dataclass
class ToyLens:
    """A `Lens` whose question is a fixed direction: tokens along it are attended, their mean is the answer.

    Args:
        sight: The image.
        coordinates: How it writes boxes, None where it does not.
        asked, wrote: Visual tokens of each pass.
    """

    sight: ToySight
    coordinates: Coordinates | None = None

    def __post_init__(self) -> None:
        self.asked: list[int] = []
        self.wrote: list[int] = []

    @property
    def framing(self) -> str:
        """In a sentence."""
        return "Crops are whole pixels."

    def overview(self, side: int, tiles: int = 1) -> list[VisualTokens]:
        """See `Lens.overview`."""
        height, width = self.sight.size
        if tiles == 1:
            return [self.sight.encode(size=_within((height, width), side))]
        made = []
        for row in range(min(tiles, height)):
            for col in range(min(tiles, width)):
                box = _part(row, col, min(tiles, height), min(tiles, width), (height, width))
                size = _within((int(box[3] - box[1]), int(box[2] - box[0])), side)
                made.append(self.sight.encode(box, size))
        return made

    def frames(self, box: Box) -> tuple[Box, ...]:
        """The whole pixels that a box touches."""
        left, top, right, bottom = box
        return ((float(math.floor(left)), float(math.floor(top)), float(math.ceil(right)), float(math.ceil(bottom))),)

    def count(self, frame: Box) -> int:
        """See `Lens.count`."""
        return self.sight.prospect.count((int(frame[3] - frame[1]), int(frame[2] - frame[0])))

    def crop(self, frame: Box) -> VisualTokens:
        """See `Lens.crop`."""
        return self.sight.encode(frame)

    def ask(self, tokens: VisualTokens) -> Reply:
        """Attend along the direction, and answer by the sign of what was attended."""
        self.asked.append(len(tokens))
        scores = self._scores(tokens)
        mean = float((scores.softmax(0) * scores).sum())
        looked = scores.softmax(0).double().numpy()
        return Reply("yes" if mean > 0 else "no", 1 / (1 + math.exp(-abs(mean))), looked)

    def write(self, tokens: VisualTokens, request: str, *, count: int, temperature: float, seed: int) -> list[str]:
        """The box of a token, drawn by how it is attended."""
        self.wrote.append(len(tokens))
        boxes, texts = tokens.grid.boxes(), []
        view = around(tokens.grid)
        for number in range(count):
            draw = torch.Generator().manual_seed(seed + number)
            scores = self._scores(tokens)
            chances = (scores / temperature).softmax(0) if temperature else (scores == scores.max()).float()
            left, top, right, bottom = boxes[int(torch.multinomial(chances, 1, generator=draw))]
            across, down = 1000 / (view[2] - view[0]), 1000 / (view[3] - view[1])
            edges = [(left - view[0]) * across, (top - view[1]) * down, (right - view[0]) * across]
            texts.append(f"Look here: {json.dumps({'bbox': [*edges, (bottom - view[1]) * down], 'label': 'it'})}")
        return texts

    @staticmethod
    def _scores(tokens: VisualTokens) -> torch.Tensor:
        direction = torch.randn(tokens.features.shape[1], generator=torch.Generator().manual_seed(11))
        return tokens.features.float() @ direction


def _within(size: Size, side: int) -> Size:
    scale = min(1.0, side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _part(row: int, col: int, rows: int, cols: int, size: Size) -> Box:
    height, width = size
    return (
        float(col * width // cols),
        float(row * height // rows),
        float((col + 1) * width // cols),
        float((row + 1) * height // rows),
    )
