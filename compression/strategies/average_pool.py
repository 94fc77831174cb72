"""Average pooling of the grid: the image at a lower resolution, after the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from compression.budget import split_by_resolution, split_evenly
from compression.calibration import Attention, attention_parameter
from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.errors import InvalidGrid
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.tokens import VisualTokens
from compression.windows import adaptive_windows, even_windows, laid_out, pooled_size


@dataclass(frozen=True)
class AveragePool(Strategy):
    """Pool each view's grid of visual tokens to fewer cells, each the plain mean of the tokens under it.

    Score: none. A view of H x W tokens with budget K becomes h x w cells, h*w <= K, in its proportions: of the sizes
    with sqrt(K*H/W) rows or sqrt(K*W/H) columns, rounded down or up, and as many of the other as K allows, the one
    nearest to the exact proportions. Where K is no such product there are fewer outputs than asked for: 192 of 24 x 24
    gives 13 x 14 = 182. Cell i of h covers the rows
    floor(i*H/h) to ceil((i+1)*H/h), as adaptive pooling does, so that neighbouring cells share a row or column where
    h does not divide H (cells=disjoint rounds both ends down instead). An output is anchored at its central token.
    With fewer outputs than views, evenly spaced views get one each; a view whose share rounds to nothing has none.
    Differs from the paper: there is none. Its sibling, the maximum over each cell, is no weighted sum of tokens and is
    left out.
    Source: baseline.
    """

    cells: str = "adaptive"
    per: str = "image"
    attention: Attention = "plain"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="average_pool",
        title="Average pooling",
        paper="",
        stage=Stage.ENCODER,
        needs=frozenset(),
        reduces="merges",
        ignores_image=True,
        parameters=(
            Parameter(
                "cells",
                "adaptive",
                "Whether cells that do not divide the grid overlap, as in adaptive pooling, or are disjoint.",
                choices=("adaptive", "disjoint"),
            ),
            Parameter(
                "per",
                "image",
                "Whether views share the budget by their sizes, at one resolution, or each gets an equal share.",
                choices=("image", "view"),
            ),
            attention_parameter(),
            positions_entering(),
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """At most `budget` means of cells, view by view and row by row.

        Raises:
            InvalidGrid: an earlier stage dropped tokens.
        """
        count = self.checked_budget(tokens, budget)
        if len(tokens) != len(tokens.grid):
            raise InvalidGrid(
                f"average_pool pools the grid of all {len(tokens.grid)} visual tokens, "
                f"got {len(tokens)} survivors; make it the first step"
            )
        cut = adaptive_windows if self.cells == "adaptive" else even_windows
        views = tokens.grid.views
        quotas = (split_by_resolution if self.per == "image" else split_evenly)(count, [len(view) for view in views])
        windows = [
            cut(view.rows, view.cols, *pooled_size(view.rows, view.cols, quota)) if quota else None
            for view, quota in zip(views, quotas, strict=True)
        ]
        anchor, cells = laid_out(tokens.grid, windows)
        short = count - len(anchor)
        return Selection.merge(
            len(tokens),
            anchor,
            [(cell, np.full(len(cell), 1 / len(cell))) for cell in cells],
            diagnostics={
                "sizes": [one.size if one else [0, 0] for one in windows],
                "shortfall": short,
                "notes": [f"{short} fewer outputs than the budget: no cells in proportion are as many"]
                if short
                else [],
            },
        )
