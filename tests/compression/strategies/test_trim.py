"""TRIM against loops, and its outliers and its mean by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.strategies.trim import TRIM
from compression.tokens import Signal, VisualTokens
from tests.compression.strategies.test_prumerge import slow_outliers
from tests.contracts.toys import toy_grid, toy_tokens


def slow_trim(features: list[list[float]], scores: list[float], count: int) -> list[list[float]]:
    """The tokens of largest score in raster order, and the mean of the others."""
    tokens = range(len(features))
    kept = sorted(sorted(tokens, key=lambda i: (-scores[i], i))[:count])
    rest = [i for i in tokens if i not in kept]
    mean = [sum(features[i][d] for i in rest) / len(rest) for d in range(len(features[0]))]
    return [features[i] for i in kept] + [mean]


def softmax(values: list[float]) -> list[float]:
    raised = [math.exp(value - max(values)) for value in values]
    return [value / sum(raised) for value in raised]


@pytest.mark.parametrize("budget", [2, 3, 12, 23])
@pytest.mark.parametrize(("sign", "factor"), [("auto", -1), ("negative", -1), ("positive", 1)])
@pytest.mark.parametrize("seed", [0, 1])
def test_with_a_budget_outputs_are_those_of_the_slow_reference(seed: int, sign: str, factor: int, budget: int) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), seed=seed, dtype=torch.float64)
    scores = [factor * value for value in tokens.signals[Signal.TEXT_SIMILARITY].tolist()]
    selection = TRIM(sign=sign).compress(tokens, budget, Context())
    expected = slow_trim(tokens.features.tolist(), scores, budget - 1)
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(selection.scores, scores, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
@pytest.mark.parametrize("seed", range(3))
def test_without_a_budget_the_outliers_of_the_softmax_are_kept(seed: int, scale: float) -> None:
    tokens = toy_tokens(toy_grid((8, 8)), seed=seed, dtype=torch.float64)
    scores = [-value for value in tokens.signals[Signal.TEXT_SIMILARITY].tolist()]
    found = slow_outliers(softmax([scale * score for score in scores]))
    selection = TRIM(scale=scale).compress(tokens, None, Context())
    assert selection.diagnostics["outliers"] == found
    expected = slow_trim(tokens.features.tolist(), scores, max(1, found))
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), expected, atol=1e-6)


def by_hand(likeness: Sequence[float], *shapes: tuple[int, int]) -> VisualTokens:
    """Tokens 1, 2, 4, 8, ... with this similarity to the question in a joint space."""
    signals = {Signal.TEXT_SIMILARITY: torch.tensor(likeness)}
    features = 2.0 ** torch.arange(len(likeness))[:, None]
    return VisualTokens.whole(features, toy_grid(*(shapes or ((1, len(likeness)),))), signals)


def test_three_outputs_by_hand() -> None:
    # turned: 3 with .1 and 1 with 0 are the most relevant; the mean is that of 1, 4 and 16
    tokens = by_hand([0.3, 0.0, 0.2, -0.1, 0.1])
    selection = TRIM().compress(tokens, 3, Context())
    assert selection.anchor.tolist() == [1, 3, -1]
    assert selection.apply(tokens.features)[:, 0].tolist() == [2, 8, 7]
    assert selection.counts() == {"kept": 2, "merged": 3, "dropped": 0}
    assert TRIM(sign="positive").compress(tokens, 3, Context()).anchor.tolist() == [0, 2, -1]


def test_one_outlier_by_hand() -> None:
    # softmax of 0 0 0 0 ln 4: .125 four times and .5, above the fence at .125
    tokens = by_hand([0.0, 0.0, 0.0, 0.0, -math.log(4)])
    selection = TRIM(scale=1.0).compress(tokens, None, Context())
    assert selection.anchor.tolist() == [4, -1]
    assert selection.diagnostics["outliers"] == 1


def test_without_the_rest_the_budget_is_kept_tokens_only() -> None:
    tokens = by_hand([0.3, 0.0, 0.2, -0.1, 0.1])
    selection = TRIM(rest=False).compress(tokens, 3, Context())
    assert selection.anchor.tolist() == [1, 3, 4]
    assert selection.counts() == {"kept": 3, "merged": 0, "dropped": 2}


def test_equal_similarity_has_no_outlier_and_keeps_the_first_token() -> None:
    selection = TRIM().compress(by_hand([0.2] * 5), None, Context())
    assert selection.anchor.tolist() == [0, -1]
    assert selection.diagnostics["outliers"] == 0


def test_a_budget_of_one_is_the_most_relevant_token_and_all_tokens_stay_as_they_are() -> None:
    tokens = by_hand([0.3, 0.0, 0.2, -0.1, 0.1])
    assert TRIM().compress(tokens, 1, Context()).anchor.tolist() == [3]
    assert TRIM().compress(tokens, 5, Context()).anchor.tolist() == [0, 1, 2, 3, 4]


def test_each_view_keeps_its_own_and_ends_with_its_own_mean() -> None:
    tokens = by_hand([0.3, 0.0, 0.2, 0.1, -0.9, -0.8, -0.7], (2, 2), (1, 3))
    assert TRIM().compress(tokens, 5, Context()).anchor.tolist() == [1, 3, -1, 4, -1]
    assert TRIM(per="image").compress(tokens, 4, Context()).anchor.tolist() == [4, 5, 6, -1]


def test_without_a_text_tower_the_words_of_the_question_decide_and_it_is_said() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    tokens = VisualTokens.whole(points, toy_grid((1, 3)), {Signal.PROJECTED: points})
    selection = TRIM().compress(tokens, 2, Context(text=torch.tensor([[0.0, 2.0]])))
    assert selection.anchor.tolist() == [1, -1]
    assert (selection.diagnostics["similarity"], selection.diagnostics["sign"]) == ("language", "positive")
    assert selection.diagnostics["notes"]
