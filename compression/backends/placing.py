"""The position ids of a picture of which something was left out before the language model.

Without gaps (`renumbered`) the library counts. With `original` the ids are those of the prompt with the whole picture:
an output has the id of its place (`places_on`), the end of a row that of the row's end, and the words keep theirs.
Outputs in an order of their own may have ids that do not ascend; what may be attended goes by the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.backends.axes import Axes, places_on
from compression.backends.base import Prompt, SequenceLayout
from compression.grid import TokenGrid
from compression.selection import Selection


class Placing(Protocol):
    """What a family's backend tells about its sequences."""

    image_id: int

    def blocks(self, selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
        """Outputs that stand for each placeholder, in the order in which the model reads them."""

    def lay_out(
        self, prompt: Prompt, blocks: Sequence[NDArray[np.int64]], grid: TokenGrid
    ) -> tuple[Tensor, SequenceLayout]:
        """Input ids int64 [1, length] and their layout."""


def original_ids(
    family: Placing, prompt: Prompt, ids: Tensor, layout: SequenceLayout, entering: Selection, grid: TokenGrid
) -> Tensor | None:
    """The position ids int64 [length] that a sequence keeps of the one with the whole picture; None where it counts.

    Args:
        family: Its ids have one axis; where they have several, `Family.place` says all.
        prompt: What was laid out.
        ids: Input ids int64 [1, length] of the outputs that entered.
        layout: Where they lie.
        entering: Says in its diagnostics whether it keeps them.
        grid: Of the whole picture.
    """
    every = np.arange(entering.tokens)
    if entering.diagnostics.get("positions") != "original" or np.array_equal(entering.anchor, every):
        return None
    whole_ids, whole = family.lay_out(prompt, family.blocks(Selection.prune(len(every), every), grid), grid)
    place_of = np.empty(len(every), dtype=np.int64)
    place_of[whole.outputs] = whole.visual
    is_picture, was_picture = ((one[0] == family.image_id).cpu().numpy() for one in (ids, whole_ids))
    made = np.empty(layout.length, dtype=np.int64)
    made[~is_picture] = np.flatnonzero(~was_picture)
    made[layout.visual] = place_of[places_on(grid, entering)[layout.outputs]]
    ends = np.setdiff1d(np.flatnonzero(is_picture), layout.visual)
    if len(ends):  # each is that of the row in which the output in front of it lies
        rows = np.setdiff1d(np.flatnonzero(was_picture), whole.visual)
        made[ends] = rows[np.searchsorted(rows, made[ends - 1])]
    return torch.from_numpy(made).to(ids.device)


def told(axes: Axes | None, kept: Tensor | None) -> dict[str, Any]:
    """What the library is told of position ids of several axes, or of those int64 [length] that were kept."""
    if axes is not None:
        return {"position_ids": axes.for_library()}
    if kept is None:
        return {}
    # Without a mask the library would take gaps for the borders of several sequences.
    return {"position_ids": kept[None], "attention_mask": torch.ones_like(kept)[None]}
