"""Position ids of several axes: a language model that reads a visual token at a time, a row and a column (mRoPE).

Words have the same id on every axis, one more for each word; a picture's tokens have ids of their row and column, and
what follows the picture begins behind the longer of its edges. Leaving tokens out has two conventions here as well:

* `original`: each token keeps its ids, and so do the words behind. This is also what usually holds before the language
  model: ids are those of the whole picture's grid, of which the kept tokens keep theirs.
* `renumbered`: rows and columns of which no token is left close up, and what is behind moves up to where it would
  stand behind a picture of as many rows and columns. With one row of tokens that is the renumbering of an ordinary
  model, where the ids that are left are 0, 1, 2, … again. (Cutting off the last ids, as code written for one axis does,
  would give words the ids of a grid.) No released code renumbers such ids: the definition is ours.
"""

from __future__ import annotations

import itertools
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
        """Without the gaps that tokens left; see the module's text.

        Args:
            visual: int64, positions of the visual tokens; pictures have words between them.
        """
        length = self.ids.shape[1]
        # What comes next is one more word.
        old = np.append(self.ids.cpu().numpy(), np.full((len(self.ids), 1), self.following), axis=1)
        new = old.copy()
        is_visual = np.isin(np.arange(length + 1), visual)
        edges = np.flatnonzero(np.diff(is_visual, prepend=not is_visual[0]))
        moved = coming = 0
        for start, stop in itertools.pairwise([*edges.tolist(), length + 1]):
            run = slice(start, stop)
            if is_visual[start]:
                coming = int(old[:, run].min()) - moved
                ranks = [np.unique(line, return_inverse=True)[1] for line in old[:, run]]
                new[:, run] = coming + np.stack(ranks)
                coming += 1 + int(np.max(ranks))
                continue
            # Words count up. Ids that jump ahead tell of a picture that is gone; those that fall back begin anew.
            jumps = np.diff(old[0, run], prepend=coming + moved - 1) - 1
            gone = np.maximum(jumps, 0).cumsum()
            new[:, run] -= moved + gone
            moved += int(gone[-1])
            coming = int(new[0, stop - 1]) + 1
        return Axes(torch.from_numpy(new[:, :length]).to(self.ids), int(new[0, length]))


def places_on(grid: TokenGrid, selection: Selection) -> NDArray[np.int64]:
    """The token of a grid whose ids each output gets, int64 [outputs].

    That is its anchor; an output without a place, such as a sum over what was left out, stands at the centre of its
    sources, those of the last view that has any. A [CLS] stands at the beginning of its view.
    """
    places = selection.anchor.copy()
    rows, cols = grid.rows_cols()
    views = grid.view_indices()
    for output in np.flatnonzero(places < 0):
        mine = (selection.weight_output == output) & (selection.weight_token < selection.tokens)
        weight, source = np.abs(selection.weight_value[mine]).astype(np.float64), selection.weight_token[mine]
        if not len(source):
            view = int(selection.weight_token[selection.weight_output == output][0]) - selection.tokens
            places[output] = grid.starts[view]
            continue
        home = int(views[source].max())
        weight, source = weight[views[source] == home], source[views[source] == home]
        row, col = (int(np.floor(np.average(line[source], weights=weight) + 0.5)) for line in (rows, cols))
        places[output] = grid.starts[home] + row * grid.views[home].cols + col
    return places
