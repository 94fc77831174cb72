"""The first stage of a zoom: asking a model, or its attention, where to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compression.grid import Box, TokenGrid
from compression.tokens import VisualTokens
from compression.zooming.boxes import Finding, bounds
from compression.zooming.fusion import fuse
from compression.zooming.lens import Lens, Reply, joined
from compression.zooming.regions import regions
from compression.zooming.written import Coordinates, read_boxes

REQUEST = (
    "Do not answer the question below. Say where in the picture one has to look to answer it: reply only with a JSON "
    'list of objects {{"bbox_2d": [left, top, right, bottom], "label": "what is there"}}, with {coordinates}. '
    "Question: {question}"
)
"""What a model that writes boxes is told; the wording is our own."""
MEANING = {
    Coordinates.PIXELS: "coordinates in pixels of the picture",
    Coordinates.UNIT: "coordinates as shares of its width and height, from 0 to 1",
    Coordinates.THOUSAND: "coordinates in thousandths of its width and height, from 0 to 1000",
}
"""How the request names a convention."""
FROM_ATTENTION = "Boxes come from the model's attention to the overview; it did not write them."
UNWRITTEN = "This model cannot write boxes: they come from its attention to the overview instead."


@dataclass(frozen=True)
class Search:
    """How to look for places.

    Args:
        boxes: "written", "attention", or "auto" for written where the model can write boxes.
        rollouts: How often a writing model is asked.
        temperature: Of its sampling.
        share: Of the attention that the strongest tokens hold.
        threshold: Overlap above which two boxes are one.
    """

    boxes: str
    rollouts: int
    temperature: float
    share: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found.

    Args:
        findings: The most promising first.
        notices: Sentences for the user.
        reply: What the model answered on the way, where it was asked.
    """

    findings: list[Finding]
    notices: list[str]
    reply: Reply | None = None


def search(lens: Lens, pictures: Sequence[VisualTokens], how: Search, question: str, seed: int) -> Found:
    """Where to look in pictures of an image.

    Args:
        lens: The image and the model.
        pictures: What the model is shown.
        how: By which means.
        question: The user's words.
        seed: Of the sampling.
    """
    if writes(lens, how):
        return written(lens, pictures, how, question, seed)
    shown = joined(pictures)
    return attended(lens, lens.ask(shown), shown.grid, how)


def writes(lens: Lens, how: Search) -> bool:
    """Whether boxes are written; else they come from attention."""
    return lens.coordinates is not None and how.boxes != "attention"


def attended(lens: Lens, reply: Reply, grid: TokenGrid, how: Search) -> Found:
    """The regions of a grid at which the question looked most."""
    wanted = how.boxes == "written" and lens.coordinates is None
    return Found(regions(reply.looked, grid, how.share), [UNWRITTEN if wanted else FROM_ATTENTION], reply)


def written(lens: Lens, pictures: Sequence[VisualTokens], how: Search, question: str, seed: int) -> Found:
    """The boxes that a model writes on each picture, those of all attempts fused."""
    coordinates = lens.coordinates
    if coordinates is None:
        return Found([], [UNWRITTEN])
    rollouts: list[list[Finding]] = [[] for _ in range(how.rollouts)]
    notices = []
    for picture in pictures:
        texts = lens.write(
            picture,
            REQUEST.format(coordinates=MEANING[coordinates], question=question),
            count=how.rollouts,
            temperature=how.temperature if how.rollouts > 1 else 0.0,
            seed=seed,
        )
        for rollout, text in zip(rollouts, texts, strict=True):
            found, said = read_boxes(text, coordinates, around(picture.grid), picture.grid.shown_size)
            rollout += found
            notices += said
    return Found(fuse(rollouts, how.threshold), list(dict.fromkeys(notices)))


def around(grid: TokenGrid) -> Box:
    """The part of the image that the views of a grid show; a model that writes boxes reads pictures without padding."""
    return bounds([view.box for view in grid.views])
