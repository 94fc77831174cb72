"""What a selection means on the image: what of the evidence is left, and how two selections differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compression.grid import Box, TokenGrid
from compression.selection import Fate, Selection


def evidence_recall(selection: Selection, grid: TokenGrid, evidence: Sequence[Box]) -> float | None:
    """Share of the evidence's tokens that were kept, or merged into kept ones.

    A token belongs to the evidence when at least half of it lies in one of the boxes; a box smaller than a token
    marks the token that holds its centre.

    Returns:
        In [0, 1], or None where the question has no evidence region.
    """
    if not evidence:
        return None
    inside = grid.overlapping(np.asarray(evidence, dtype=np.float64))
    if not inside.any():
        return None
    survives = (selection.fate == Fate.KEPT) | ((selection.fate == Fate.MERGED) & (selection.target >= 0))
    return float(survives[inside].mean())


def evidence_shown(crops: Sequence[Box], evidence: Sequence[Box]) -> float | None:
    """Share of the evidence that a zoom shows at full resolution: of each box's area, averaged over the boxes.

    Returns:
        In [0, 1], to the nearest 1/1024 of a box; None where the question has no evidence region.
    """
    if not evidence:
        return None
    steps = (np.arange(32) + 0.5) / 32
    shares = []
    for left, top, right, bottom in evidence:
        x, y = np.meshgrid(left + steps * (right - left), top + steps * (bottom - top))
        shown = np.zeros(x.shape, dtype=bool)
        for crop in crops:
            shown |= (crop[0] <= x) & (x < crop[2]) & (crop[1] <= y) & (y < crop[3])
        shares.append(shown.mean())
    return float(np.mean(shares))


def without_area(selection: Selection) -> int:
    """How many outputs are made of sources without area alone, such as the [CLS] of a view."""
    of_tokens = selection.weight_output[selection.weight_token < selection.tokens]
    return len(selection.anchor) - len(np.union1d(of_tokens, np.flatnonzero(selection.anchor >= 0)))


def jaccard(first: Selection, second: Selection) -> float:
    """Overlap of two sets of kept tokens: intersection over union, in [0, 1]."""
    a, b = first.fate == Fate.KEPT, second.fate == Fate.KEPT
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
