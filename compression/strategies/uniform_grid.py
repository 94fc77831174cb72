"""Evenly spaced visual tokens: what remains of an image when nothing is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.budget import split_by_resolution
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.errors import InvalidGrid
from compression.grid import lattice
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.tokens import VisualTokens


@dataclass(frozen=True)
class UniformGrid(Strategy):
    """Keep an evenly spaced lattice of visual tokens, in the proportions of each view.

    Score: none. With rule=lattice a view of H x W tokens gets r = sqrt(K*H/W) rows, rounded, at (i + 1/2)*H/r; the K
    tokens are shared out evenly over the rows and lie in each at (j + 1/2)*W/k. Several views share the budget by
    their sizes; fewer tokens than views go to evenly spaced views. With rule=stride token floor(j*N/K) is kept for
    j = 0..K-1, over all views in one line.
    Differs from the paper: there is none; toolkits use the stride, which on a grid of tokens makes slanted or striped
    patterns.
    Source: baseline.
    """

    rule: str = "lattice"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="uniform_grid",
        title="Uniform grid",
        paper="",
        stage=Stage.ENCODER,
        needs=frozenset(),
        reduces="prunes",
        ignores_image=True,
        parameters=(
            Parameter(
                "rule",
                "lattice",
                "Two-dimensional lattice per view, or one-dimensional stride over all tokens.",
                choices=("lattice", "stride"),
            ),
            positions_entering(),
        ),
        version=2,
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Keep exactly `budget` evenly spaced tokens, ascending.

        Raises:
            InvalidGrid: the lattice was asked for after an earlier stage dropped tokens.
        """
        count = self.checked_budget(tokens, budget)
        if self.rule == "stride":
            return Selection.prune(len(tokens), np.arange(count) * len(tokens) // count)
        if len(tokens) != len(tokens.grid):
            raise InvalidGrid(
                f"uniform_grid lays its lattice over all {len(tokens.grid)} visual tokens, "
                f"got {len(tokens)} survivors; write uniform_grid:rule=stride"
            )
        shares = split_by_resolution(count, [len(view) for view in tokens.grid.views])
        views = zip(tokens.grid.views, tokens.grid.starts, shares, strict=False)
        kept = [start + lattice(view.rows, view.cols, share) for view, start, share in views if share]
        return Selection.prune(len(tokens), np.concatenate(kept))
