"""Small visual tokens with every signal, drawn from a seed, and the awkward ones that real images produce."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from compression.compressor import Context
from compression.grid import TokenGrid, View
from compression.layer import Heads, LayerState
from compression.tokens import Signal, VisualTokens

HEADS = 3
PER_HEAD = frozenset({Signal.CLS_ATTENTION, Signal.EARLY_CLS_ATTENTION})
"""Signals that are [heads, tokens]; the tokens come first in all others that have them."""
QUESTION = "How many cars are parked along the road?"


def toy_grid(*shapes: tuple[int, int]) -> TokenGrid:
    """Views of these (rows, cols), all over the same image."""
    return TokenGrid(tuple(View(rows, cols, (0.0, 0.0, 60.0, 40.0)) for rows, cols in shapes), (40, 60))


def toy_tokens(
    grid: TokenGrid, *, seed: int = 0, dim: int = 8, dtype: torch.dtype = torch.float32, with_text: bool = True
) -> VisualTokens:
    """Random tokens with every signal; attention is a softmax over [CLS] and the patches of its view."""
    draw = torch.Generator().manual_seed(seed)
    tokens, views = len(grid), len(grid.views)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    rows = [torch.softmax(torch.randn(HEADS, len(view) + 1, generator=draw), dim=1)[:, 1:] for view in grid.views]
    signals = {
        Signal.PROJECTED: normal(tokens, dim + 4),
        Signal.CLS_ATTENTION: torch.cat(rows, dim=1).to(dtype),
        Signal.KEYS: normal(tokens, 4),
        Signal.CLS_FEATURE: normal(views, dim),
        Signal.CLS_QUERY: normal(views, dim),
        Signal.VALUES: normal(tokens, dim),
        Signal.TEXT: normal(5, dim + 4),
    }
    late = torch.Generator().manual_seed(seed + 1)  # of its own, so that the signals above stay as they were
    early = [torch.softmax(torch.randn(HEADS, len(view) + 1, generator=late), dim=1)[:, 1:] for view in grid.views]
    received = [torch.softmax(torch.randn(len(view) + 1, generator=late), dim=0)[1:] for view in grid.views]
    signals[Signal.EARLY_CLS_ATTENTION] = torch.cat(early, dim=1).to(dtype)
    signals[Signal.RECEIVED_ATTENTION] = torch.cat(received).to(dtype)
    if with_text:
        signals[Signal.TEXT_SIMILARITY] = torch.rand(tokens, generator=draw).to(dtype)
    features = normal(tokens, dim)
    signals[Signal.LAST_CLS_ATTENTION] = torch.cat(
        [torch.softmax(torch.randn(len(view) + 1, generator=draw), dim=0)[1:] for view in grid.views]
    ).to(dtype)
    signals[Signal.LAST_KEYS] = normal(tokens, dim)
    signals[Signal.DEEPSTACK] = normal(tokens, 2 * (dim + 4))
    return VisualTokens.whole(features, grid, signals)


def toy_context(tokens: VisualTokens, *, seed: int = 0) -> Context:
    """A question, random attention rows of a language-model layer over these tokens, and the layer's state."""
    draw = torch.Generator().manual_seed(seed + 1)
    rows = torch.softmax(torch.randn(HEADS, 2, len(tokens), generator=draw), dim=2)
    return Context(
        question=QUESTION,
        seed=seed,
        layer=2,
        layers=8,
        attention=rows,
        state=toy_state(tokens, seed=seed),
        teacher=torch.rand(len(tokens), generator=draw),
    )


def toy_state(tokens: VisualTokens, *, seed: int = 0, in_front: int = 3, behind: int = 6) -> LayerState:
    """A layer of a language model that holds these tokens between words: random heads, two of three sharing a key."""
    draw = torch.Generator().manual_seed(seed + 2)
    dtype, length = tokens.features.dtype, in_front + len(tokens) + behind
    visual = in_front + np.arange(len(tokens))
    hidden = torch.randn(length, tokens.features.shape[1], generator=draw).to(dtype)
    hidden[visual] = tokens.features.detach()
    entered = hidden.flip(1)

    def heads() -> Heads:
        query, key = torch.randn(4, length, 4, generator=draw), torch.randn(2, length, 4, generator=draw)
        return Heads(query.to(dtype), key.to(dtype), 0.5)

    coming, angles = heads(), torch.arange(length)[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
    return LayerState(
        hidden=hidden,
        visual=visual,
        question=np.arange(length - behind, length - 2),
        previous=heads(),
        upcoming=lambda: coming,
        norm=torch.nn.functional.normalize,
        entered=entered,
        entered_visual=visual,
        rotary=(angles.cos(), angles.sin()),
    )


def smooth_tokens(grid: TokenGrid) -> VisualTokens:
    """Tokens whose neighbours are alike, as in fields and water, so that methods that merge have something to merge."""
    tokens = toy_tokens(grid)
    rows, cols = (torch.from_numpy(part).float() for part in grid.rows_cols())
    patch = torch.stack([torch.ones(len(grid)), (rows // 2) * 3, (cols // 3) * 3], dim=1)
    return replace(tokens, features=torch.cat([patch, 0.05 * tokens.features[:, 3:]], dim=1))


def awkward_tokens() -> Iterator[tuple[str, VisualTokens]]:
    """Named inputs that break careless code: flat, repeated, empty, single and odd ones."""
    grid = toy_grid((3, 5))
    tokens = toy_tokens(grid)
    same = {name: value[:1].expand_as(value).clone() for name, value in tokens.signals.items()}
    yield "constant features", replace(tokens, features=torch.ones_like(tokens.features), signals=same)
    even = {
        **dict.fromkeys(PER_HEAD, torch.full((HEADS, 15), 1 / 16)),
        Signal.RECEIVED_ATTENTION: torch.full((15,), 1 / 16),
        Signal.LAST_CLS_ATTENTION: torch.full((15,), 1 / 16),
    }
    flat = {**tokens.signals, **even}
    yield "equal attention", replace(tokens, signals=flat)
    none = {**tokens.signals, **{name: torch.zeros_like(value) for name, value in even.items()}}
    yield "no attention", replace(tokens, signals=none)
    pairs = torch.arange(15) // 2
    doubled = {
        name: value[pairs] if value.shape[0] == 15 else value[:, pairs] if name in PER_HEAD else value
        for name, value in tokens.signals.items()
    }
    yield "duplicates", replace(tokens, features=tokens.features[pairs], signals=doubled)
    holes = torch.ones(15, 1)
    holes[::3] = 0
    empty = {
        name: value * holes if name in (Signal.PROJECTED, Signal.KEYS, Signal.VALUES, Signal.LAST_KEYS) else value
        for name, value in tokens.signals.items()
    }
    yield "zero rows", replace(tokens, features=tokens.features * holes, signals=empty)
    yield "one token", toy_tokens(toy_grid((1, 1)))
    # As many equal tokens as a matrix product rounds differently in its last columns.
    many = toy_tokens(toy_grid((13, 13)))
    alike = {
        name: value[:1].expand_as(value).clone()
        if value.shape[0] == 169
        else value[:, :1].expand_as(value).clone()
        if name in PER_HEAD
        else value
        for name, value in many.signals.items()
    }
    yield "equal tokens", replace(many, features=many.features[:1].expand_as(many.features).clone(), signals=alike)
    yield "one row", toy_tokens(toy_grid((1, 7)))
    yield "one column", toy_tokens(toy_grid((7, 1)))
    yield "smooth", smooth_tokens(toy_grid((6, 9)))
    yield "views of different shapes", toy_tokens(toy_grid((4, 6), (3, 3), (1, 5), (1, 1)))
