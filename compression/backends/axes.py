"""Position ids of several axes: a language model that reads a visual token at a time, a row and a column (mRoPE).

Words have the same id on every axis, one more for each word; a picture's tokens have ids of their row and column, and
what follows the picture begins behind the longer of its edges. Leaving tokens out has two conventions here as well:

* `original`: each token keeps its ids, and so do the words behind. This is also what holds before the language model:
  ids are those of the whole picture's grid, of which the kept tokens keep theirs.
* `renumbered`: rows and columns of which no token is left close up, and the words behind move up to where they would
  stand behind a picture of as many rows and columns. With one row of tokens that is the renumbering of an ordinary
  model, where the ids that are left are 0, 1, 2, … again. (Cutting off the last ids, as code written for one axis does,
  would give words the ids of a grid.) No released code renumbers such ids: the definition is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.grid import TokenGrid
from compression.selection import Selection


@dataclass(frozen=True)
class Axes:
    """The ids of a sequence.

    Args:
        ids: int64 [axes, length].
        following: The id, on every axis, of the token that comes next.
    """

    ids: Tensor
    following: int

    def for_library(self) -> Tensor:
        """As the language model takes them, int64 [1 + axes, 1, length]: first the order, of which its mask is made."""
        order = torch.arange(self.ids.shape[1], device=self.ids.device)
        return torch.cat([order[None], self.ids])[:, None]

    def taken(self, source: Tensor) -> Axes:
        """The ids of some positions int64 [taken]; what comes next stays where it is."""
        return Axes(self.ids[:, source], self.following)

    def closed_up(self, visual: NDArray[np.int64]) -> Axes:
        """Without gaps among the visual tokens at some positions, all of one picture; see the module's text."""
        places = torch.from_numpy(visual).to(self.ids.device)
        picture, behind = self.ids[:, places], int(visual.max()) + 1
        ids, extent = self.ids.clone(), 0
        for axis, line in enumerate(picture):
            left, rank = line.unique(return_inverse=True)
            ids[axis, places] = picture.min() + rank
            extent = max(extent, len(left))
        began = int(self.ids[0, behind]) if behind < self.ids.shape[1] else self.following
        moved = began - int(picture.min()) - extent
        ids[:, behind:] -= moved
        return Axes(ids, self.following - moved)


def places_on(grid: TokenGrid, selection: Selection) -> NDArray[np.int64]:
    """The token of a grid of one view whose ids each output gets, int64 [outputs].

    That is its anchor; an output without a place, such as a sum over what was left out, stands at the centre of its
    sources.
    """
    places = selection.anchor.copy()
    rows, cols = grid.rows_cols()
    for output in np.flatnonzero(places < 0):
        mine = (selection.weight_output == output) & (selection.weight_token < selection.tokens)
        weight, source = np.abs(selection.weight_value[mine]).astype(np.float64), selection.weight_token[mine]
        row, col = (int(np.floor(np.average(line[source], weights=weight) + 0.5)) for line in (rows, cols))
        places[output] = row * grid.views[0].cols + col
    return places
