"""VisPruner against loops, and a round of it by hand."""

from __future__ import annotations

import math

import pytest
import torch

from compression.compressor import Context
from compression.strategies.vispruner import VisPruner, least_alike
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def slow_least_alike(features: list[list[float]], order: list[int], count: int, step: int) -> list[int]:
    """Rounds over a list: even against odd places; the even ones most like any odd one leave."""
    left = list(order)
    while left and len(left) > count:
        leave = min(step, len(left) - count)
        even, odd = left[0::2], left[1::2]
        likeness = {i: max(cosine(features[i], features[j]) for j in odd) for i in even} if odd else {}
        ranked = sorted(even, key=lambda i: (-likeness.get(i, 0.0), even.index(i)))
        left = ranked[leave:] + odd
    return left


def slow_vispruner(tokens: VisualTokens, budget: int, important: float, step: int) -> list[int]:
    attention = tokens.signals[Signal.CLS_ATTENTION].tolist()
    mean = [sum(head[i] for head in attention) / len(attention) for i in range(len(tokens))]
    order = sorted(range(len(tokens)), key=lambda i: (-mean[i], i))
    first = int(budget * important)
    return sorted(order[:first] + slow_least_alike(tokens.features.tolist(), order[first:], budget - first, step))


@pytest.mark.parametrize("budget", [1, 2, 3, 10, 17, 48, 49])
@pytest.mark.parametrize(("important", "step"), [(0.5, 8), (0.5, 1), (0.25, 3), (0.0, 8), (1.0, 8), (0.9, 100)])
@pytest.mark.parametrize("seed", [0, 1])
def test_it_keeps_what_the_slow_reference_keeps(seed: int, important: float, step: int, budget: int) -> None:
    tokens = toy_tokens(toy_grid((7, 7)), seed=seed, dtype=torch.float64)
    expected = slow_vispruner(tokens, budget, important, step)
    assert VisPruner(important=important, step=step).compress(tokens, budget, Context()).anchor.tolist() == expected


@pytest.mark.parametrize("step", [1, 8])
def test_long_lists_leave_what_the_slow_reference_leaves(step: int) -> None:
    # Long enough for several searches for neighbours; in clusters, so that all neighbours of some tokens have left.
    draw = torch.Generator().manual_seed(3)
    centres = torch.randn(6, 5, generator=draw, dtype=torch.float64)
    features = centres[torch.arange(300) % 6] + 0.2 * torch.randn(300, 5, generator=draw, dtype=torch.float64)
    order = torch.randperm(300, generator=draw)
    left = least_alike(features, order, 20, step)
    assert left.tolist() == slow_least_alike(features.tolist(), order.tolist(), 20, step)


def circle(*angles: float) -> torch.Tensor:
    """Unit vectors at these angles in degrees."""
    return torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles])


def test_rounds_by_hand() -> None:
    # even places 0, 20, 90 against odd 5, 80, 300: cosines of 5, 15 and 10 degrees; 0 leaves, then 90 before 20.
    features = circle(0, 5, 20, 80, 90, 300)
    assert least_alike(features, torch.arange(6), 5, 1).tolist() == [4, 2, 1, 3, 5]
    # again: places 90 (4), 5 (1), 300 (5) against 20 (2), 80 (3): 10, 15 and 80 degrees; 90 leaves.
    assert least_alike(features, torch.arange(6), 4, 1).tolist() == [1, 5, 2, 3]


@pytest.mark.parametrize(("step", "expected"), [(2, [0, 1, 3, 5]), (1, [0, 1, 2, 3])])
def test_half_of_the_budget_is_important_and_half_diverse_by_hand(step: int, expected: list[int]) -> None:
    # 0 and 1 are important; the rest lies at 1, 180, 181 and 90 degrees. The even places 1 and 181 meet 180 and 90:
    # with step 2 both leave. With step 1 181 leaves, and of 1, 180, 90 the even places 1 and 90 meet 180: 90 leaves.
    signals = {Signal.CLS_ATTENTION: torch.tensor([[0.30, 0.20, 0.15, 0.10, 0.05, 0.02]])}
    tokens = VisualTokens.whole(circle(40, 0, 1, 180, 181, 90), toy_grid((1, 6)), signals)
    assert VisPruner(step=step).compress(tokens, 4, Context()).anchor.tolist() == expected


def test_lists_of_odd_length_work() -> None:
    tokens = toy_tokens(toy_grid((5, 5)))
    assert len(VisPruner().compress(tokens, 3, Context())) == 3


def test_equal_features_leave_in_the_order_of_their_places() -> None:
    assert least_alike(torch.ones(6, 2), torch.arange(6), 4, 8).tolist() == [4, 1, 3, 5]
    assert least_alike(torch.zeros(6, 2), torch.arange(6), 3, 8).tolist() == [1, 3, 5]


def test_nothing_wanted_leaves_nothing() -> None:
    assert least_alike(torch.ones(3, 2), torch.arange(3), 0, 8).tolist() == []


def test_views_share_the_budget_or_compete() -> None:
    tokens = toy_tokens(toy_grid((2, 4), (2, 4)))
    hot = {**tokens.signals, Signal.CLS_ATTENTION: torch.cat([torch.zeros(1, 8), torch.ones(1, 8)], dim=1)}
    both = VisualTokens.whole(tokens.features, tokens.grid, hot)
    halves = VisPruner(important=1.0).compress(both, 4, Context()).anchor
    assert halves.tolist() == [0, 1, 8, 9]
    assert VisPruner(important=1.0, per="image").compress(both, 4, Context()).anchor.tolist() == [8, 9, 10, 11]
