"""Questions packed behind an image, so that one pass over its visual tokens answers many."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compression.backends.embedded.nouns import (
    ANY_OBJECT,
    CELL_IDS,
    COLOUR_IDS,
    FIRST_CELL,
    FIRST_CORNER,
    NAMES,
    PLURALS,
    QUARTER_IDS,
)
from compression.backends.embedded.questions import LETTERS, Question, prompt
from compression.backends.embedded.vocabulary import VOCABULARY

TEXT_TOKENS = 256
"""Length of the packed text behind one image."""


@dataclass(frozen=True)
class TextBatch:
    """Questions packed behind each view; a question sees the view and itself.

    Attributes:
        ids: word ids [views, text].
        segment: number of the question a token belongs to, -1 for padding [views, text].
        offset: place within its question [views, text].
        named, colour, plural: what the grounding loss asks [views, text].
        answer_view, answer_place, answer_id: one entry per question: where its prompt ends and what comes next.
        tasks: task per question; lettered ones carry a star.
    """

    ids: Tensor
    segment: Tensor
    offset: Tensor
    named: Tensor
    colour: Tensor
    plural: Tensor
    answer_view: Tensor
    answer_place: Tensor
    answer_id: Tensor
    tasks: tuple[str, ...]

    def to(self, device: torch.device) -> TextBatch:
        """Copy the tensors to a device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if name != "tasks"}
        return replace(self, **moved)


def pack(questions: list[list[Question]], length: int = TEXT_TOKENS) -> TextBatch:
    """Pack as many questions per view as fit into `length` tokens."""
    shape = (len(questions), length)
    ids, offset = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    segment, named, colour = (np.full(shape, -1, np.int64) for _ in range(3))
    plural = np.zeros(shape, bool)
    ends: list[tuple[int, int, int]] = []
    tasks: list[str] = []
    for view, asked in enumerate(questions):
        start = 0
        for number, question in enumerate(asked):
            words = [VOCABULARY[word] for word in prompt(question.text).split()]
            stop = start + len(words)
            if stop > length:
                continue
            ids[view, start:stop] = words
            segment[view, start:stop] = number
            offset[view, start:stop] = np.arange(len(words))
            if question.task != "knowledge":
                _name_targets(words, named[view, start:stop], colour[view, start:stop], plural[view, start:stop])
            ends.append((view, stop - 1, VOCABULARY[question.answer]))
            tasks.append(question.task + ("*" if question.answer in LETTERS else ""))
            start = stop
    place = torch.as_tensor(np.array(ends, np.int64).reshape(-1, 3))
    return TextBatch(
        ids=torch.as_tensor(ids),
        segment=torch.as_tensor(segment),
        offset=torch.as_tensor(offset),
        named=torch.as_tensor(named),
        colour=torch.as_tensor(colour),
        plural=torch.as_tensor(plural),
        answer_view=place[:, 0],
        answer_place=place[:, 1],
        answer_id=place[:, 2],
        tasks=tuple(tasks),
    )


def _name_targets(words: list[int], named: np.ndarray, colour: np.ndarray, plural: np.ndarray) -> None:
    """Note what each noun of a question names; options are not grounded."""
    before = -1
    for place, word in enumerate(words):
        if word == VOCABULARY["options"]:
            return
        if word in NAMES:
            named[place] = NAMES[word]
            colour[place] = COLOUR_IDS.get(before, -1) if NAMES[word] <= ANY_OBJECT else -1
            plural[place] = word in PLURALS
        elif word == VOCABULARY["corner"] and before in QUARTER_IDS:
            named[place] = FIRST_CORNER + QUARTER_IDS[before]
        elif word in CELL_IDS:
            named[place] = FIRST_CELL + CELL_IDS[word]
        before = word
