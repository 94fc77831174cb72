"""The input sequence of a prompt: where its visual tokens, its question and its answer lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.backends.base import Prompt, SequenceLayout
from compression.errors import InvalidQuestion, InvalidSelection
from compression.grid import TokenGrid
from compression.selection import Selection

PLACEHOLDER = "<image>"
SEPARATOR = -1
"""In a block of outputs: a token without area that the model reads there, such as the end of a row."""


def blocks_of(selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
    """Outputs per view in the order in which the model reads them; area-less outputs go with their source's view.

    An output without a place that sums up tokens goes with the last view that has any of them.
    """
    if len(grid.views) == 1:
        return [np.arange(len(selection))]
    views = grid.view_indices()
    home = np.zeros(len(selection), dtype=np.int64)
    real = selection.weight_token < selection.tokens
    np.maximum.at(home, selection.weight_output[real], views[selection.weight_token[real]])
    area_less = selection.weight_token >= selection.tokens
    home[selection.weight_output[area_less]] = selection.weight_token[area_less] - selection.tokens
    placed = selection.anchor >= 0
    home[placed] = views[selection.anchor[placed]]
    return [np.flatnonzero(home == view) for view in range(len(grid.views))]


def question_span(prompt: Prompt) -> tuple[int, int]:
    """Where the question lies in the prompt's text, as characters; all after the picture where it is not found."""
    if prompt.span is not None:
        return prompt.span
    start = prompt.text.rfind(prompt.question)
    if start >= 0:
        return start, start + len(prompt.question)
    return prompt.text.find(PLACEHOLDER) + len(PLACEHOLDER), len(prompt.text)


def lay_out(
    tokenizer: Any, image_id: int, prompt: Prompt, blocks: Sequence[NDArray[np.int64]], picture: str = PLACEHOLDER
) -> tuple[list[int], SequenceLayout]:
    """Input ids with the i-th image placeholder repeated once for each entry of the i-th block, and their layout.

    Args:
        tokenizer: The model's.
        image_id: Token id of the placeholder.
        prompt: Has one placeholder for the whole picture.
        blocks: Outputs for each placeholder, and `SEPARATOR` between them.
        picture: What stands for the picture: a placeholder per view, and words between them.

    Raises:
        InvalidQuestion: the prompt does not have one placeholder per view.
    """
    text = prompt.text.replace(PLACEHOLDER, picture, 1)
    spans = {"question": question_span(prompt), "options": prompt.options or (0, 0)}
    opens = prompt.text.find(PLACEHOLDER)
    for name, (start, end) in spans.items():
        if 0 <= opens < start:
            longer = len(picture) - len(PLACEHOLDER)
            spans[name] = (start + longer, end + longer)
    coded = tokenizer(text, return_offsets_mapping=True)
    ids: list[int] = []
    visual: list[int] = []
    separators: list[int] = []
    words: dict[str, list[int]] = {name: [] for name in spans}
    view = 0
    for token, (left, right) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
        if token != image_id:
            for name, (start, end) in spans.items():
                if left < end and right > start:
                    words[name].append(len(ids))
            if left < opens + len(picture) and right > opens:
                separators.append(len(ids))
            ids.append(token)
            continue
        if view < len(blocks):
            visual += (len(ids) + np.flatnonzero(blocks[view] != SEPARATOR)).tolist()
            separators += (len(ids) + np.flatnonzero(blocks[view] == SEPARATOR)).tolist()
            ids += [image_id] * len(blocks[view])
        view += 1
    if view != len(blocks):
        raise InvalidQuestion(
            f"the prompt has {view} image placeholders for {len(blocks)} views; remove {PLACEHOLDER} from the question"
        )
    layout = SequenceLayout(
        length=len(ids),
        visual=np.array(visual, dtype=np.int64),
        outputs=np.concatenate([block[block != SEPARATOR] for block in blocks]),
        question=np.array(words["question"], dtype=np.int64),
        answer=len(ids) - 1,
        options=np.array(words["options"], dtype=np.int64),
        separators=np.array(separators, dtype=np.int64),
    )
    return ids, layout


def rearranged(layout: SequenceLayout, decision: Selection) -> tuple[NDArray[np.int64], SequenceLayout]:
    """The sequence after a decision about its visual tokens.

    Each output lies in the run of visual tokens in which its anchor lay, in the decision's order; all else stays where
    it is.

    Args:
        layout: Before.
        decision: Over the layout's visual tokens; each anchor is one of them and lends its place once.

    Returns:
        int64 [shorter], the position so far of each that stays, for an output that of its anchor; and the new layout.

    Raises:
        InvalidSelection: an output without a place of its own.
    """
    if (decision.anchor < 0).any() or len(np.unique(decision.anchor)) != len(decision):
        raise InvalidSelection(
            "inside the language model every output takes the place of another token, got one without area or a place "
            "taken twice; give each output an anchor of its own"
        )
    others = np.setdiff1d(np.arange(layout.length), layout.visual)
    places = layout.visual[decision.anchor]
    run = np.searchsorted(others, places)  # how many other positions lie in front
    order = np.argsort(np.concatenate([2 * run, 2 * np.arange(len(others)) + 1]), kind="stable")
    source = np.concatenate([places, others])[order]
    at = np.empty(len(order), dtype=np.int64)
    at[order] = np.arange(len(order))
    visual, moved = at[: len(decision)], dict(zip(others.tolist(), at[len(decision) :].tolist(), strict=True))

    def follow(positions: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.array([moved[int(one)] for one in positions], dtype=np.int64)

    shorter = SequenceLayout(
        length=len(source),
        visual=visual,
        outputs=layout.outputs[decision.anchor],
        question=follow(layout.question),
        answer=moved[layout.answer],
        options=follow(layout.options),
        separators=follow(layout.separators),
    )
    return source, shorter
