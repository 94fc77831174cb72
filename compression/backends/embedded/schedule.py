"""How long training takes, in steps, how many visual tokens each step reads, and how it is going."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np

from compression.backends.embedded.cells import MOST_CELLS, TOKENS, Layout
from compression.backends.embedded.packing import TEXT_TOKENS

MOMENTS = 8
"""How many moments of the language stage are kept for the information analysis."""


@dataclass(frozen=True)
class Schedule:
    """How many optimisation steps each stage takes."""

    vision: int
    align: int
    language: int
    polish: int

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read "vision,align,language,polish", as a training log gives them.

        >>> Schedule.parse("1000,500,4000,2200")
        Schedule(vision=1000, align=500, language=4000, polish=2200)

        Raises:
            ValueError: if the text is not four whole numbers.
        """
        try:
            vision, align, language, polish = (int(part) for part in text.split(","))
        except ValueError as error:
            raise ValueError(
                f"steps must be four whole numbers for vision, align, language and polish, got {text!r}; "
                "for example 1000,500,4600,2200"
            ) from error
        return cls(vision, align, language, polish)

    def moments(self) -> tuple[int, ...]:
        """Steps with answers, polish included, after which the weights are kept: log-spaced, and the last one.

        >>> Schedule(1000, 500, 4600, 900).moments()
        (48, 92, 177, 339, 650, 1249, 2396, 5500)
        """
        spaced = np.geomspace(max(1, self.language / 96), self.language, MOMENTS)[:-1]
        return tuple(dict.fromkeys([*(round(step) for step in spaced), self.language + self.polish]))

    def __post_init__(self) -> None:
        """Refuse stages without a step."""
        if min(self.vision, self.align, self.language, self.polish) < 1:
            raise ValueError(f"every stage needs at least one step, got {self}; raise --minutes or the steps")


@dataclass(frozen=True)
class Reading:
    """What one language step looks at.

    Args:
        source: "single" scenes of one view, "coherent" windows of large scenes, or "remixed" cells.
        layout: Their views.
        images: How many.
        count: Visual tokens read of each view.
        policy: How they are chosen, see `choose_tokens`.
        text: Length of the packed questions behind each image.
    """

    source: str
    layout: Layout
    images: int
    count: int
    policy: str
    text: int = TEXT_TOKENS


IMAGES = 8
_SINGLE = Layout()
_WHOLE = Layout(MOST_CELLS, MOST_CELLS)
_WINDOWS = tuple(
    Layout(rows, cols)
    for rows in range(1, MOST_CELLS + 1)
    for cols in range(1, MOST_CELLS + 1)
    if (rows, cols) not in ((1, 1), (MOST_CELLS, MOST_CELLS))
)
_CELL_POLICIES = {"mixture": 0.35, "saliency": 0.20, "global": 0.15, "uniform": 0.12, "oracle": 0.12, "random": 0.06}
_CELL_COUNTS = {8: 0.12, 16: 0.20, 24: 0.43, 64: 0.25}


def reading_at(done: float, rng: np.random.Generator) -> Reading:
    """What a step reads: one view with few tokens first, then all of its tokens, then cells beside single views.

    Args:
        done: Share of the language stage that is over, 0..1; above it the polish stage, with more single views.
        rng: Source of chance.
    """
    if done < 0.10:
        return Reading("single", _SINGLE, IMAGES, 48, "oracle")
    if done < 0.25 or rng.random() < (0.4 if done < 1 else 0.55):
        return _single_reading(done, rng)
    layout = _WHOLE if rng.random() < 0.6 else _WINDOWS[int(rng.integers(len(_WINDOWS)))]
    source = "remixed" if rng.random() < 0.55 else "coherent"
    if layout == _WHOLE and source == "coherent":
        draw = rng.random()
        if draw < 0.06:
            return Reading(source, Layout(*_shape(layout), thumbnail=True, cells=False), IMAGES, TOKENS, "full")
        if draw < 0.25:
            layout = Layout(*_shape(layout), thumbnail=True)
    if done < 0.35:
        return Reading(source, layout, IMAGES, 16, "oracle")
    if rng.random() < 0.06:
        # Without steps at full length attention thins out over 4,096 tokens, and dropping tokens seems to help.
        images = max(1, 16 // (layout.rows * layout.cols))
        return Reading(source, layout, min(images, 4), TOKENS, "full", 2 * TEXT_TOKENS)
    count = int(rng.choice(list(_CELL_COUNTS), p=list(_CELL_COUNTS.values())))
    policy = str(rng.choice(list(_CELL_POLICIES), p=list(_CELL_POLICIES.values())))
    return Reading(source, layout, IMAGES // 2 if count == 64 else IMAGES, count, policy)


def _shape(layout: Layout) -> tuple[int, int]:
    return layout.rows, layout.cols


def _single_reading(done: float, rng: np.random.Generator) -> Reading:
    draw = rng.random()
    if done < 0.25:
        count, policy = (96, "oracle") if draw < 0.75 else (TOKENS, "full")
    elif draw < 0.68:
        count, policy = TOKENS, "full"
    else:
        count = int(np.exp(rng.uniform(np.log(16), np.log(200))))
        policy = "random" if draw < 0.76 else "oracle" if draw < 0.82 else "uniform" if draw < 0.90 else "saliency"
    return Reading("single", _SINGLE, IMAGES, count, policy)


class Tally:
    """Running accuracy over the last questions, per task; tasks on cells carry a plus."""

    def __init__(self) -> None:
        self._right: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=400))
        self._losses: deque[float] = deque(maxlen=50)
        self._began = time.perf_counter()
        self._questions = 0

    @property
    def seconds(self) -> float:
        """Time since the tally began."""
        return time.perf_counter() - self._began

    def add(self, tasks: tuple[str, ...], right: list[bool], loss: float, *, cells: bool) -> None:
        """Count the questions of one step."""
        for task, is_right in zip(tasks, right, strict=True):
            name = "lettered" if task.endswith("*") else task
            self._right[name + "+" * cells].append(is_right)
        self._questions += len(tasks)
        self._losses.append(loss)

    def line(self) -> str:
        """Mean loss, questions so far and accuracy per task, for the log."""
        parts = " ".join(f"{task} {np.mean(values):.2f}" for task, values in sorted(self._right.items()))
        return f"loss {np.mean(self._losses):.3f} questions {self._questions} | {parts}"
