"""How long training takes, in steps, how many visual tokens each step reads, and how it is going."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from dataclasses import dataclass

import numpy as np

from compression.backends.embedded.model import TOKENS


@dataclass(frozen=True)
class Schedule:
    """How many optimisation steps each stage takes."""

    vision: int
    align: int
    language: int

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read "vision,align,language", as a training log gives them.

        >>> Schedule.parse("1000,500,4000")
        Schedule(vision=1000, align=500, language=4000)

        Raises:
            ValueError: if the text is not three whole numbers.
        """
        try:
            vision, align, language = (int(part) for part in text.split(","))
        except ValueError as error:
            raise ValueError(
                f"steps must be three whole numbers for vision, align and language, got {text!r}; "
                "for example 1000,500,4000"
            ) from error
        return cls(vision, align, language)

    def __post_init__(self) -> None:
        """Refuse stages without a step."""
        if min(self.vision, self.align, self.language) < 1:
            raise ValueError(f"every stage needs at least one step, got {self}; raise --minutes or the steps")


def budget_at(done: float, rng: np.random.Generator) -> tuple[int, str]:
    """How many visual tokens a step reads and how they are chosen: few first, later mostly all of them.

    Args:
        done: share of the language stage that is over, 0..1.
        rng: source of chance.

    Returns:
        Count and policy, see `choose_tokens`.
    """
    draw = rng.random()
    if done < 0.18:
        return 48, "oracle"
    if done < 0.5:
        return (96, "oracle") if draw < 0.75 else (TOKENS, "full")
    if draw < 0.72:
        return TOKENS, "full"
    count = int(np.exp(rng.uniform(np.log(16), np.log(200))))
    policy = "random" if draw < 0.80 else "oracle" if draw < 0.85 else "uniform" if draw < 0.91 else "saliency"
    return count, policy


class Tally:
    """Running accuracy per task over the last questions."""

    def __init__(self) -> None:
        self._right: dict[str, deque[bool]] = defaultdict(lambda: deque(maxlen=400))
        self._losses: deque[float] = deque(maxlen=50)
        self._began = time.perf_counter()
        self._questions = 0

    @property
    def seconds(self) -> float:
        """Time since the tally began."""
        return time.perf_counter() - self._began

    def add(self, tasks: tuple[str, ...], right: list[bool], loss: float) -> None:
        """Count the questions of one step."""
        for task, is_right in zip(tasks, right, strict=True):
            self._right["lettered" if task.endswith("*") else task].append(is_right)
        self._questions += len(tasks)
        self._losses.append(loss)

    def line(self) -> str:
        """Mean loss, questions so far and accuracy per task, for the log."""
        parts = " ".join(f"{task} {np.mean(values):.2f}" for task, values in sorted(self._right.items()))
        return f"loss {np.mean(self._losses):.3f} questions {self._questions} | {parts}"
