"""DivPrune against loops over the whole distance matrix."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.strategies.divprune import DivPrune
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_divprune(features: list[list[float]], budget: int) -> list[int]:
    """Max-min diversity with D = 1 - cos: the loneliest token first, then always the farthest from those chosen."""

    def distance(a: list[float], b: list[float]) -> float:
        return 1 - sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    tokens = range(len(features))
    lonely = [min(distance(features[i], features[j]) for j in tokens if j != i) for i in tokens]
    chosen = [max(tokens, key=lambda i: lonely[i])]
    while len(chosen) < budget:
        rest = [j for j in tokens if j not in chosen]
        chosen.append(max(rest, key=lambda j: min(distance(features[j], features[s]) for s in chosen)))
    return sorted(chosen)


@pytest.mark.parametrize("budget", [1, 2, 9, 23, 24])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_keeps_what_the_slow_reference_keeps(seed: int, budget: int) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), seed=seed, dtype=torch.float64)
    expected = slow_divprune(tokens.signals[Signal.PROJECTED].tolist(), budget)
    assert DivPrune().compress(tokens, budget, Context()).anchor.tolist() == expected


def four(*angles: float) -> VisualTokens:
    """Unit vectors at these angles in degrees."""
    points = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles])
    return VisualTokens.whole(points, TokenGrid.single(1, len(angles), (1, 4)), {Signal.PROJECTED: points})


def test_it_chooses_by_hand_on_a_circle() -> None:
    # 90 is the loneliest (60 from 30); then 0 is farthest from it; then 30, 60 from 90 and 30 from 0, beats 10.
    selection = DivPrune().compress(four(0, 10, 30, 90), 3, Context())
    assert selection.anchor.tolist() == [0, 2, 3]
    expected = [1 - math.cos(math.radians(angle)) for angle in (90, 10, 30, 60)]
    np.testing.assert_allclose(selection.scores, expected, atol=1e-6)
    assert selection.diagnostics["first"] == 3


def test_duplicates_are_never_kept_twice_over() -> None:
    tokens = four(0, 0, 0, 90)
    assert DivPrune().compress(tokens, 2, Context()).anchor.tolist() == [0, 3]
    assert DivPrune().compress(tokens, 4, Context()).anchor.tolist() == [0, 1, 2, 3]


def test_scaling_single_tokens_changes_nothing(tokens_4x6: VisualTokens) -> None:
    scale = torch.arange(1.0, 25.0)[:, None]
    scaled = {**tokens_4x6.signals, Signal.PROJECTED: tokens_4x6.signals[Signal.PROJECTED] * scale}
    here = DivPrune().compress(tokens_4x6, 8, Context())
    there = DivPrune().compress(replace(tokens_4x6, signals=scaled), 8, Context())
    assert here.anchor.tolist() == there.anchor.tolist()
