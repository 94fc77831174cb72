"""HiRED: share the budget out over views by early [CLS] attention, and spend it by late [CLS] attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compression.compressor import Context, Parameter, Stage, Strategy, StrategyInfo
from compression.errors import InvalidGrid
from compression.grid import TokenGrid
from compression.positions import Positions, positions_entering
from compression.selection import Selection
from compression.similarity import as_numpy, over_heads, scores_numpy, stable_topk
from compression.tokens import Signal, VisualTokens

"""Name of the view that shows the whole image."""


@dataclass(frozen=True)
class HiRED(Strategy):
    """Share the budget out over the views by early [CLS] attention, and keep the best of each by late [CLS] attention.

    Score: attention[CLS, token] in the feature layer, summed over heads, not renormalised ("late"). Of a budget T the
    thumbnail gets floor(alpha*T) tokens. The floor((1 - alpha)*N) of its N tokens that [CLS] attends most in the
    encoder's first layer ("early") are marked, and the rest of the budget goes to the sub-images by the marks that
    fall on each, rounded down in float32. Which part of the thumbnail stands for a sub-image: as released, the flat
    thumbnail is cut into as many runs as there are sub-images, which are horizontal bands; allocation=spatial takes
    the thumbnail's cells that lie on the sub-image, as the paper says. Kept tokens are read thumbnail first, then row
    by row over the mosaic of sub-images. What rounding down and full views leave over is lost, as released;
    remainder=given hands it out by the largest shortfalls. One view keeps its T best tokens.
    Differs from the paper: where no view is named "thumbnail", the marks are made on the views themselves, the
    floor((1 - alpha)*N) best of all early attention, and all of the budget is shared out. Without any mark all views
    count alike. Ties break by token index.
    Source: HiRED, arXiv 2408.10945, and its released code.
    """

    alpha: float = 0.5
    allocation: str = "released"
    remainder: str = "lost"
    positions: Positions | None = None

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="hired",
        title="HiRED",
        paper="HiRED, arXiv 2408.10945, 2024",
        stage=Stage.ENCODER,
        needs=frozenset({Signal.CLS_ATTENTION, Signal.EARLY_CLS_ATTENTION}),
        reduces="prunes",
        identity_at_full=False,
        own_order=True,
        score="attention from [CLS] in the feature layer, summed over heads",
        parameters=(
            Parameter(
                "alpha", 0.5, "Share of the budget that the thumbnail gets; 1 - alpha of it is marked.", 0.0, 1.0
            ),
            Parameter(
                "allocation",
                "released",
                "A sub-image's part of the thumbnail: a run of the flat tokens, as released, or the area it shows.",
                choices=("released", "spatial"),
            ),
            Parameter(
                "remainder",
                "lost",
                "Whether tokens left over by rounding and by full views are lost, as released, or given out.",
                choices=("lost", "given"),
            ),
            positions_entering(),
        ),
        deviations=(
            "Without a thumbnail each view's own early attention is marked, over all views, and alpha gives no share.",
            "A thumbnail that does not divide by the sub-images is cut into nearly equal runs; released, it fails.",
            "With allocation=spatial a cell of the thumbnail belongs to the sub-image that holds its centre.",
            "Without any mark the sub-images count alike; a budget that rounds to nothing keeps one token.",
            "N and the quotas count the tokens that lie on the image; released: those on the padding too.",
            "The language model reads a model's newline tokens at the ends of rows; released: none.",
            "The late layer is the feature layer; released: layer 22 of 24, which is the same on LLaVA.",
            "A model that reads its views one after the other keeps their order; the mosaic's holds within each.",
            "A tower without [CLS] is refused: the budget is shared out by its row in the first layer.",
            "Ties break by token index.",
        ),
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Up to `budget` tokens: those of the thumbnail, then those of the mosaic, each in raster order.

        Raises:
            MissingSignal: late or early [CLS] attention is missing.
            InvalidGrid: an earlier stage dropped tokens.
        """
        count = self.checked_budget(tokens, budget)
        late = over_heads(self.signal(tokens, Signal.CLS_ATTENTION))
        early = over_heads(self.signal(tokens, Signal.EARLY_CLS_ATTENTION))
        if len(tokens) != len(tokens.grid):
            raise InvalidGrid(
                f"hired shares its budget out over views of all {len(tokens.grid)} visual tokens, "
                f"got {len(tokens)} survivors; make it the first step"
            )
        thumbnail = tokens.grid.thumbnail
        quotas, marks = self._allocate(tokens.grid, early, thumbnail, count)
        views = zip(tokens.view_slices(), quotas, strict=True)
        kept = [np.sort(as_numpy(stable_topk(late[part], quota))) + part.start for part, quota in views]
        first = [] if thumbnail is None else [kept.pop(thumbnail)]
        return Selection.prune(
            len(tokens),
            np.concatenate([*first, in_mosaic_order(tokens.grid, np.concatenate(kept))]),
            scores=scores_numpy(late),
            diagnostics=_diagnostics(count, quotas, marks, thumbnail),
        )

    def _allocate(
        self, grid: TokenGrid, early: Tensor, thumbnail: int | None, count: int
    ) -> tuple[list[int], list[int]]:
        """How many tokens each view keeps, and how many marks fell on it."""
        sizes = [len(view) for view in grid.views]
        if len(sizes) == 1:
            return [count], [0]
        if thumbnail is None:
            seen, home = early, grid.view_indices()
        else:
            seen = early[grid.tokens_of(thumbnail)]
            home = (band_homes if self.allocation == "released" else spatial_homes)(grid, thumbnail)
        marked = home[as_numpy(stable_topk(seen, int(len(seen) * (1 - self.alpha))))]
        marks = np.bincount(marked[marked >= 0], minlength=len(sizes))
        subs = [view for view in range(len(sizes)) if view != thumbnail]
        quotas = [0] * len(sizes)
        if thumbnail is not None:
            quotas[thumbnail] = min(int(count * self.alpha), sizes[thumbnail])
        room = [sizes[view] for view in subs]
        wanted = min(count - sum(quotas), sum(room))
        shares = share_by_marks(wanted, marks[subs], room, give=self.remainder == "given")
        for view, share in zip(subs, shares, strict=True):
            quotas[view] = share
        if thumbnail is not None and self.remainder == "given":
            quotas[thumbnail] += count - sum(quotas)  # the sub-images are full
        if not sum(quotas):
            quotas[subs[int(marks[subs].argmax())]] = 1
        return quotas, marks.tolist()


def band_homes(grid: TokenGrid, thumbnail: int) -> NDArray[np.int64]:
    """The view whose run of the flat thumbnail each of its tokens is in, int64 [thumbnail tokens]: horizontal bands."""
    subs = np.array([view for view in range(len(grid.views)) if view != thumbnail])
    size = len(grid.views[thumbnail])
    homes: NDArray[np.int64] = subs[np.arange(size) * len(subs) // size]
    return homes


def spatial_homes(grid: TokenGrid, thumbnail: int) -> NDArray[np.int64]:
    """The view that holds the centre of each of the thumbnail's cells, int64 [thumbnail tokens]; -1 where none does."""
    cells = grid.boxes()[grid.tokens_of(thumbnail)]
    x, y = cells[:, [0, 2]].mean(axis=1), cells[:, [1, 3]].mean(axis=1)
    homes = np.full(len(cells), -1, dtype=np.int64)
    for place, view in reversed(list(enumerate(grid.views))):  # where views overlap, the first is written last
        left, top, right, bottom = view.box
        if place != thumbnail:
            homes[(left <= x) & (x < right) & (top <= y) & (y < bottom)] = place
    return homes


def share_by_marks(wanted: int, marks: NDArray[np.int64], room: Sequence[int], *, give: bool) -> list[int]:
    """min(floor(marks / sum of marks * wanted), room) of each view, in float32 as released.

    Args:
        wanted: Tokens to share out, at most the sum of `room`.
        marks: int64 [views]; without any, all count one.
        room: Tokens of each view.
        give: Whether what is left over goes out too, to the views farthest below their share, on ties the first.

    >>> share_by_marks(10, np.array([2, 1]), [4, 9], give=False)
    [4, 3]
    >>> share_by_marks(10, np.array([2, 1]), [4, 9], give=True)
    [4, 6]
    """
    marks = marks if marks.sum() else np.ones_like(marks)
    exact = marks.astype(np.float32) / np.float32(marks.sum()) * np.float32(wanted)
    shares = [min(int(share), size) for share, size in zip(exact, room, strict=True)]
    while give and (left := wanted - sum(shares)):
        open_ = [view for view, size in enumerate(room) if shares[view] < size]
        open_.sort(key=lambda view: shares[view] - float(exact[view]))
        for view in open_[:left]:
            shares[view] += 1
    return shares


def in_mosaic_order(grid: TokenGrid, kept: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens sorted by the upper, then by the left edge of their boxes; equal ones by index."""
    boxes = grid.boxes()[np.sort(kept)]
    ordered: NDArray[np.int64] = np.sort(kept)[np.lexsort((boxes[:, 0], boxes[:, 1]))]
    return ordered


def _diagnostics(count: int, quotas: list[int], marks: list[int], thumbnail: int | None) -> dict[str, Any]:
    notes = []
    if len(quotas) > 1 and thumbnail is None:
        notes.append("no view is a thumbnail: the views' own early attention shares the budget out")
    if short := count - sum(quotas):
        notes.append(f"{short} fewer tokens than the budget: shares are rounded down and full views give nothing on")
    return {"quotas": quotas, "marks": marks, "thumbnail": thumbnail, "shortfall": short, "notes": notes}
