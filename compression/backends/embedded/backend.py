"""The embedded model: the LLaVA backend with images cut into cells, and a closed vocabulary in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from compression.backends.base import Prompt
from compression.backends.embedded import questions
from compression.backends.embedded.cells import MOST_CELLS, THUMBNAIL, cell_name, layout_for
from compression.backends.embedded.model import IMAGE_MEAN
from compression.backends.embedded.textures import PATCH, VIEW
from compression.backends.llava import LlavaBackend
from compression.backends.sequence import PLACEHOLDER
from compression.backends.wording import check_wording
from compression.compressor import Route
from compression.errors import InvalidQuestion
from compression.grid import Box, TokenGrid, View
from compression.strategies.dualcomp.router import LearnedRouter, rule_ratio, rule_router
from compression.tokens import VisualTokens
from compression.zooming.boxes import area, common

ROUTER = "router.safetensors"
CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The weights that come with the repository."""


@dataclass(frozen=True)
class Fit:
    """How an image of any size lies on cells of 256 pixels.

    Args:
        scale: Pixels of the cells per pixel of the image, the same along both edges.
        rows, cols: Of cells; each holds a part of the image.
        height, width: Of the scaled image in pixels; the rest of the last cells is padding.
    """

    scale: float
    rows: int
    cols: int
    height: int
    width: int

    @classmethod
    def of(cls, image_size: tuple[int, int]) -> Fit:
        """The fit of an image of (height, width): the layout nearest in shape, nothing stretched."""
        layout = layout_for(image_size)
        scale = min(layout.rows * VIEW / image_size[0], layout.cols * VIEW / image_size[1])
        height, width = (max(1, round(edge * scale)) for edge in image_size)
        return cls(scale, -(-height // VIEW), -(-width // VIEW), height, width)

    @classmethod
    def at(cls, size: tuple[int, int]) -> Fit:
        """The fit of an image that was brought to its (height, width) before: on as many cells as it needs, as it is.

        What the largest layout cannot hold is reduced to it.
        """
        scale = min(1.0, MOST_CELLS * VIEW / max(size))
        height, width = (max(1, round(edge * scale)) for edge in size)
        return cls(scale, -(-height // VIEW), -(-width // VIEW), height, width)

    @property
    def tokens(self) -> int:
        """The patches that hold a part of the image."""
        return -(-self.height // PATCH) * -(-self.width // PATCH)

    def views(self) -> tuple[View, ...]:
        """The cells in reading order; patches without any part of the image belong to none."""
        made = []
        for row in range(self.rows):
            for col in range(self.cols):
                top, left = row * VIEW, col * VIEW
                lines = min(VIEW // PATCH, -(-(self.height - top) // PATCH))
                across = min(VIEW // PATCH, -(-(self.width - left) // PATCH))
                edges = (left, top, left + across * PATCH, top + lines * PATCH)
                left_, top_, right_, bottom_ = (edge / self.scale for edge in edges)
                name = "image" if self.rows == self.cols == 1 else cell_name(row, col)
                made.append(View(lines, across, (left_, top_, right_, bottom_), name))
        return tuple(made)


class EmbeddedBackend(LlavaBackend):
    """The small model of this repository, loaded like any other LLaVA directory.

    An image is read as one view of 256 pixels or as up to 4 x 4 such cells, each behind its name ("a1" is the
    north-west one, the letter tells the column).
    Free text is brought onto the templates that it was taught; a question outside them is asked as it stands, with a
    notice.
    """

    family = "embedded"
    domain = "synthetic scenes"

    def __init__(
        self, source: str | Path = CHECKPOINT, *, name: str = "embedded", device: str = "auto", dtype: str = "auto"
    ) -> None:
        super().__init__(source, name=name, device=device, dtype=dtype)
        weights = Path(source) / ROUTER
        if weights.exists():
            self.router = LearnedRouter.of(load_file(weights))

    def route(self, question: str) -> Route:
        """Lambda and rho that DualComp uses for a question: by the trained router, or by rule where there is none."""
        if self.router is not None:
            return self.router.route(self.embed_question(self.prompt(question)))
        lam, _ = rule_router(question)
        return Route(lam, rule_ratio(lam), {})

    # ------------------------------------------------------------------ image
    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Twice what the cells hold at most: enough for an exact reduction."""
        shrink = min(1.0, 2 * Fit.of(image_size).scale)
        return max(1, round(image_size[0] * shrink)), max(1, round(image_size[1] * shrink))

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """That the image is resized before it is cut into cells, and what that costs."""
        fit = Fit.of(image_size)
        height, width = image_size
        reach = MOST_CELLS * VIEW
        if max(height, width) > reach:
            said = (
                f"The model reads {reach:,} × {reach:,} pixels at most: {width:,} × {height:,} were resized to "
                f"{fit.width:,} × {fit.height:,}, {1 / fit.scale:.1f} pixels of the image became one, and smaller "
                "things vanish."
            )
            return (said,)
        if abs(fit.scale - 1) < 0.01:
            return ()
        cells = "one view" if fit.rows == fit.cols == 1 else f"{fit.rows} × {fit.cols} cells"
        return (
            f"The image was resized from {width:,} × {height:,} to {fit.width:,} × {fit.height:,} pixels: {cells}.",
        )

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The patches that hold a part of the image."""
        return Fit.of(image_size).tokens

    def count_reduced(self, size: tuple[int, int]) -> int:
        """The patches of an image that is not enlarged to fill its cells."""
        return Fit.at(size).tokens

    def view_lengths(self, image_size: tuple[int, int]) -> tuple[int, ...]:
        """The patches of each cell that hold a part of the image."""
        return tuple(len(view) for view in Fit.of(image_size).views())

    def encode_reduced(self, image: NDArray[np.uint8]) -> VisualTokens:
        """Visual tokens of an image at its own size, on cells that it need not fill."""
        size = image.shape[0], image.shape[1]
        return self._encoded(*self._on_cells(image, Fit.at(size)), size)

    framing = "Boxes were brought onto the cells that the model knows by name."
    coordinates = None  # its vocabulary has no numbers
    beside = VIEW
    most_reduced = 2.0  # the things that it is asked about have 16 pixels, and at 4 it is blind to them

    def overview_tiles(self, side: int, tiles: int) -> tuple[int, int]:
        """One larger picture: its own cells are the tiles."""
        return min(side * tiles, MOST_CELLS * VIEW), 1

    def encode_overview(self, image: NDArray[np.uint8]) -> VisualTokens:
        """A single view behind the name of the map, as it was taught; a larger one on cells."""
        tokens = self.encode_reduced(image)
        if len(tokens.grid.views) > 1:
            return tokens
        return _renamed(tokens, THUMBNAIL)

    def frames(self, box: Box, image_size: tuple[int, int]) -> tuple[Box, ...]:
        """The cells of which a box covers at least half, and the one under its centre; that one first.

        None of an image that is one view: its overview shows all that the model can see.
        """
        cells = [_on_image(view.box, image_size) for view in Fit.of(image_size).views()]
        if len(cells) == 1:
            return ()
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        middle = [cell for cell in cells if cell[0] <= x < cell[2] and cell[1] <= y < cell[3]]
        covered = [cell for cell in cells if area(common(cell, box)) >= area(cell) / 2]
        return tuple(dict.fromkeys([*middle, *covered]))

    def crop_size(self, frame: Box, image_size: tuple[int, int]) -> tuple[int, int]:
        """The pixels of the cell that hold a part of the image."""
        fit = Fit.of(image_size)
        return max(1, round((frame[3] - frame[1]) * fit.scale)), max(1, round((frame[2] - frame[0]) * fit.scale))

    def count_crop(self, frame: Box, image_size: tuple[int, int]) -> int:
        """The patches of the cell that hold a part of the image."""
        return len(_cell(frame, image_size))

    def encode_crop(self, image: NDArray[np.uint8], frame: Box, image_size: tuple[int, int]) -> VisualTokens:
        """The cell behind its name, as when the image is read whole."""
        view = _cell(frame, image_size)
        tokens = self.encode_reduced(image)
        return replace(tokens, grid=TokenGrid((view,), image_size))

    def cut(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> tuple[Tensor, tuple[View, ...]]:
        """Cells of 256 pixels; see `LlavaBackend.cut`."""
        return self._on_cells(image, Fit.of(image_size))

    def _on_cells(self, image: NDArray[np.uint8], fit: Fit) -> tuple[Tensor, tuple[View, ...]]:
        if image.shape[:2] != (fit.height, fit.width):
            resized = Image.fromarray(image).resize((fit.width, fit.height), Image.Resampling.BICUBIC)
            image = np.asarray(resized)
        sheet = np.full((fit.rows * VIEW, fit.cols * VIEW, 3), round(255 * IMAGE_MEAN), np.uint8)
        sheet[: fit.height, : fit.width] = image
        cells = sheet.reshape(fit.rows, VIEW, fit.cols, VIEW, 3).swapaxes(1, 2).reshape(-1, VIEW, VIEW, 3)
        return self.pixels(list(cells)), fit.views()

    def picture_text(self, grid: TokenGrid) -> str:
        """A placeholder behind the name of each view; an image on a single view has none."""
        if len(grid.views) == 1 and grid.views[0].name != THUMBNAIL:
            return PLACEHOLDER
        return " ".join(f"{view.name} {PLACEHOLDER}" for view in grid.views)

    # ------------------------------------------------------------------ question
    def prompt(self, question: str, choices: Sequence[str] = ()) -> Prompt:
        """The question in the model's words; the template's answers are the choices unless others are given.

        Raises:
            InvalidQuestion: empty, no word of it is known, a choice is not one word that the model knows, or as
                `check_wording` says.
        """
        question = question.strip()
        check_wording(question, [_word(choice) or choice for choice in choices])
        if not question:
            raise InvalidQuestion("the question is empty; write one, for example: How many ships are there?")
        unknown = questions.unknown_words(question)
        found = questions.match(question)
        notices = []
        if unknown:
            notices.append(f"Unknown to this model and left out: {', '.join(unknown)}.")
        if found:
            asked, answers, family, task = found.text, found.choices, found.family, found.task
            if found.text.rstrip("?").lower() != question.rstrip("? ").lower():
                notices.append(f"Read as: {found.text}")
        else:
            words = [word for word in questions.tokenise_text(question) if word not in unknown and word != "?"]
            if not words:
                raise InvalidQuestion(
                    f"the embedded model knows no word of {question!r}; it has {len(questions.VOCABULARY)} words: "
                    "ask, for example, "
                    f"{questions.TEMPLATES[0].example}"
                )
            asked, answers, family, task = " ".join(words), (), "", ""
            notices.append("This question is none of those that the model was taught; its answer means little.")
        for choice in choices:
            if _word(choice) is None:
                raise InvalidQuestion(
                    f"the choice {choice!r} is not a word that the embedded model knows; choices for this question: "
                    f"{', '.join(answers) or 'yes, no, a colour, a number from zero to six'}"
                )
        text = "<image> " + questions.prompt(asked)
        start, stop = text.index("question : ") + len("question : "), text.rindex(" answer :")
        listed = text.find(" options : ", start, stop)
        return Prompt(
            question=question,
            choices=tuple(_word(choice) or choice for choice in choices) or answers,
            text=text,
            family=family,
            task=task,
            notices=tuple(notices),
            span=(start, stop),
            options=(listed + 1, stop) if listed >= 0 else None,
        )


def _on_image(box: Box, image_size: tuple[int, int]) -> Box:
    """A cell without its padding."""
    height, width = image_size
    return common(box, (0.0, 0.0, float(width), float(height)))


def _cell(frame: Box, image_size: tuple[int, int]) -> View:
    """The cell that a frame of `frames` is."""
    return next(view for view in Fit.of(image_size).views() if _on_image(view.box, image_size) == frame)


def _renamed(tokens: VisualTokens, name: str) -> VisualTokens:
    """The tokens of a single view under another name."""
    grid = replace(tokens.grid, views=(replace(tokens.grid.views[0], name=name),))
    return replace(tokens, grid=grid)


def _word(choice: str) -> str | None:
    """The word of the vocabulary that a choice stands for, letters A to D as they are."""
    for word in (choice.strip(), choice.strip().lower()):
        if word in questions.VOCABULARY:
            return word
    return None
