"""CDPruner against determinants, its scaling by hand, and what happens at the end of the rank."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.strategies.cdpruner import CDPruner
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_relevance(tokens: VisualTokens, sign: int) -> list[float]:
    """The signed similarity, scaled as released."""
    if Signal.TEXT_SIMILARITY in tokens.signals:
        raw = tokens.signals[Signal.TEXT_SIMILARITY].tolist()
    else:
        words, rows = tokens.signals[Signal.TEXT].tolist(), tokens.signals[Signal.PROJECTED].tolist()
        raw = [sum(cosine(row, word) for word in words) / len(words) for row in rows]
    signed = [sign * value for value in raw]
    low, high = min(signed), max(signed)
    return [(value - low + 1e-6) / (high - low) for value in signed]


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def slow_cdpruner(features: list[list[float]], relevance: list[float], budget: int) -> list[int]:
    """Greedy MAP from its definition: always the token whose addition gives the kernel the largest determinant."""
    tokens = range(len(features))
    like = [[cosine(features[i], features[j]) for j in tokens] for i in tokens]
    kernel = np.array([[relevance[i] * like[i][j] * relevance[j] for j in tokens] for i in tokens])
    chosen: list[int] = []
    while len(chosen) < budget:
        rest = [j for j in tokens if j not in chosen]
        chosen.append(max(rest, key=lambda j: np.linalg.det(kernel[np.ix_([*chosen, j], [*chosen, j])])))
    return sorted(chosen)


@pytest.mark.parametrize("with_text", [True, False], ids=["joint space", "language model"])
@pytest.mark.parametrize("budget", [1, 2, 5, 9])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_keeps_what_the_determinants_say(seed: int, budget: int, with_text: bool) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), seed=seed, dtype=torch.float64, with_text=with_text)
    relevance = slow_relevance(tokens, -1 if with_text else 1)
    expected = slow_cdpruner(tokens.signals[Signal.PROJECTED].tolist(), relevance, budget)
    selection = CDPruner().compress(tokens, budget, Context())
    assert selection.anchor.tolist() == expected
    np.testing.assert_allclose(selection.scores, relevance, atol=1e-5)


@pytest.mark.parametrize(("sign", "factor"), [("positive", 1), ("negative", -1)])
def test_the_sign_turns_the_relevance(sign: str, factor: int) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), dtype=torch.float64)
    expected = slow_cdpruner(tokens.signals[Signal.PROJECTED].tolist(), slow_relevance(tokens, factor), 6)
    assert CDPruner(sign=sign).compress(tokens, 6, Context()).anchor.tolist() == expected


@pytest.mark.parametrize("theta", [0.3, 0.5, 0.9])
def test_theta_weighs_relevance_against_diversity(theta: float) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), dtype=torch.float64)
    weighed = [math.exp(theta / (2 * (1 - theta)) * value) for value in slow_relevance(tokens, -1)]
    expected = slow_cdpruner(tokens.signals[Signal.PROJECTED].tolist(), weighed, 6)
    assert CDPruner(theta=theta).compress(tokens, 6, Context()).anchor.tolist() == expected


def circle(angles: list[float], likeness: list[float]) -> VisualTokens:
    """Unit vectors at these angles in degrees, with this similarity to the question in a joint space."""
    points = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in angles])
    signals = {Signal.PROJECTED: points, Signal.TEXT_SIMILARITY: torch.tensor(likeness)}
    return VisualTokens.whole(points, toy_grid((1, len(angles))), signals)


def test_relevance_against_diversity_by_hand() -> None:
    # r = 0, .5, .9, 1 (plus 1e-6): 3 is first. The others gain r^2 sin^2 of their angle to it: 1 has .25, 2 has .09.
    tokens = circle([45, 90, 20, 0], [0.0, 0.5, 0.9, 1.0])
    selection = CDPruner(sign="positive").compress(tokens, 2, Context())
    assert selection.anchor.tolist() == [1, 3]
    assert selection.scores is not None
    assert selection.scores.tolist() == pytest.approx([1e-6, 0.5, 0.9, 1.0], abs=2e-6)
    assert CDPruner().compress(tokens, 1, Context()).anchor.tolist() == [0]


def test_beyond_the_rank_the_most_relevant_are_kept() -> None:
    # two dimensions: 3 and 1 span them; then 2 by relevance before 0
    selection = CDPruner(sign="positive").compress(circle([45, 90, 20, 0], [0.0, 0.5, 0.9, 1.0]), 3, Context())
    assert selection.anchor.tolist() == [1, 2, 3]
    assert selection.diagnostics["by diversity"] == 2
    assert "beyond 2 tokens the choice is by relevance alone" in selection.diagnostics["notes"][0]


def test_duplicates_are_kept_last() -> None:
    tokens = circle([0, 0, 0, 90], [0.9, 1.0, 0.9, 0.0])
    assert CDPruner(sign="positive").compress(tokens, 2, Context()).anchor.tolist() == [1, 3]
    assert CDPruner(sign="positive").compress(tokens, 3, Context()).anchor.tolist() == [0, 1, 3]


def test_equal_relevance_leaves_diversity_and_the_lower_index() -> None:
    tokens = circle([0, 10, 90, 80], [0.3, 0.3, 0.3, 0.3])
    selection = CDPruner().compress(tokens, 2, Context())
    assert selection.anchor.tolist() == [0, 2]
    assert selection.scores is not None
    assert selection.scores.tolist() == [1.0] * 4


def test_with_theta_at_zero_the_most_relevant_is_first_and_the_rest_diverse() -> None:
    tokens = circle([0, 10, 90, 80], [0.1, 0.9, 0.2, 0.3])
    assert CDPruner(sign="positive", theta=0.0).compress(tokens, 2, Context()).anchor.tolist() == [1, 2]


def test_tokens_of_length_zero_come_by_relevance_when_nothing_else_is_left() -> None:
    tokens = circle([0, 90, 0, 0], [0.0, 0.1, 0.5, 1.0])
    empty = tokens.signals[Signal.PROJECTED].clone()
    empty[2:] = 0
    tokens = replace(tokens, signals={**tokens.signals, Signal.PROJECTED: empty})
    assert CDPruner(sign="positive").compress(tokens, 2, Context()).anchor.tolist() == [0, 1]
    assert CDPruner(sign="positive").compress(tokens, 3, Context()).anchor.tolist() == [0, 1, 3]


def test_views_share_the_budget_and_the_scale_of_relevance() -> None:
    tokens = toy_tokens(toy_grid((2, 4), (2, 4)), dtype=torch.float64)
    relevance = slow_relevance(tokens, -1)
    features = tokens.signals[Signal.PROJECTED].tolist()
    first, second = (slow_cdpruner(features[part], relevance[part], 3) for part in (slice(0, 8), slice(8, 16)))
    assert CDPruner().compress(tokens, 6, Context()).anchor.tolist() == first + [8 + i for i in second]
    assert CDPruner(per="image").compress(tokens, 6, Context()).anchor.tolist() == slow_cdpruner(features, relevance, 6)
