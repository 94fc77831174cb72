"""Which visual tokens a training step reads: what compressors will do at inference, cheap and in batches."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compression.backends.embedded.cells import SIDE, TOKENS, Layout
from compression.backends.embedded.pools import Pictures
from compression.grid import lattice

POLICIES = ("full", "oracle", "random", "uniform", "saliency", "mixture", "global")


def grid_tokens(count: int) -> np.ndarray:
    """Evenly spaced tokens of one view, ascending."""
    return lattice(SIDE, SIDE, count)


def choose_tokens(
    rng: np.random.Generator, pictures: Pictures, count: int, policy: str, *, thumbnail: int = 64
) -> Tensor:
    """Choose which visual tokens of each image are read.

    Args:
        rng: Source of chance.
        pictures: The images.
        count: Tokens kept of each view; of the thumbnail, `thumbnail` evenly spaced ones are.
        policy: One of POLICIES: oracle keeps objects first, saliency what [CLS] attends to, mixture a third as a grid
            and the rest by saliency, global as saliency over all views with four grid tokens for each.
        thumbnail: Tokens kept of the thumbnail.

    Returns:
        Ascending indices over all views, int64 [images, kept].
    """
    layout, device = pictures.layout, pictures.features.device
    images = len(pictures.features)
    views = [name for name in layout.names if name != "map"]
    first = TOKENS * (len(layout.names) - len(views))
    parts = []
    if first:
        parts.append(torch.as_tensor(grid_tokens(min(thumbnail, TOKENS)), device=device).expand(images, -1))
    if views:
        parts.append(first + _of_cells(rng, pictures, first, count, policy))
    return torch.cat(parts, 1)


def _of_cells(rng: np.random.Generator, pictures: Pictures, first: int, count: int, policy: str) -> Tensor:
    saliency = pictures.saliency[:, first:].unflatten(1, (-1, TOKENS))
    images, views, _ = saliency.shape
    device = saliency.device
    start = TOKENS * torch.arange(views, device=device).view(1, -1, 1)
    if policy == "full" or count >= TOKENS:
        return torch.arange(views * TOKENS, device=device).expand(images, -1)
    if policy == "uniform":
        even = torch.as_tensor(grid_tokens(count), device=device).expand(images, views, -1)
        return (even + start).flatten(1)
    if policy == "saliency":
        score = saliency
    elif policy == "mixture":
        score = saliency.clone()
        score[..., torch.as_tensor(grid_tokens(max(4, count // 3)), device=device)] += 10
    elif policy == "global":
        score = saliency.clone()
        score[..., torch.as_tensor(grid_tokens(4), device=device)] += 10
        most: Tensor = score.flatten(1).topk(count * views, 1).indices.sort(1).values
        return most
    else:
        score = torch.as_tensor(rng.random(saliency.shape, dtype=np.float32)).to(device)
        if policy == "oracle":
            labels = pictures.labels[:, first:].unflatten(1, (-1, TOKENS))
            score = score + 3.0 * (labels[..., 1] > 0) + 0.4 * (labels[..., 3] > 0)
    kept: Tensor = (score.topk(count, -1).indices + start).flatten(1).sort(1).values
    return kept


def places(layout: Layout, device: torch.device | str) -> dict[str, Tensor]:
    """Where each token of a layout lies, int64 [tokens] each: row, col, cell_row, cell_col, inner."""
    rows, cols = layout.rows_cols
    cell_rows, cell_cols = layout.cell_rows_cols
    inner = np.arange(len(rows)) % TOKENS
    named = {"row": rows, "col": cols, "cell_row": cell_rows, "cell_col": cell_cols, "inner": inner}
    return {name: torch.as_tensor(values, device=device) for name, values in named.items()}
