"""FlashVLM against loops, and its two maps by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.strategies.flashvlm import FlashVLM
from compression.tokens import Signal, VisualTokens
from tests.compression.strategies.test_vispruner import cosine, slow_least_alike
from tests.contracts.toys import toy_grid, toy_tokens

CONSTANTS = {
    "eta": 0.5,
    "word_temperature": 0.05,
    "temperature": 0.01,
    "gamma": 2.5,
    "quantile": 0.995,
    "damping": 0.1,
    "important": 0.5,
    "step": 8,
}


def softmax(values: list[float]) -> list[float]:
    raised = [math.exp(value - max(values)) for value in values]
    return [value / sum(raised) for value in raised]


def scaled(values: list[float]) -> list[float]:
    return [(value - min(values)) / (max(values) - min(values) + 1e-6) for value in values]


def interpolated(values: list[float], share: float) -> float:
    ranked, place = sorted(values), share * (len(values) - 1)
    low, high = ranked[math.floor(place)], ranked[math.ceil(place)]
    return low + (place - math.floor(place)) * (high - low)


def slow_scores(tokens: VisualTokens, constants: dict[str, Any]) -> list[float]:
    """The released score of one view, step by step."""
    projected = tokens.signals[Signal.PROJECTED].tolist()
    words = tokens.signals[Signal.TEXT].tolist()
    alike = []
    for row in projected:
        cosines = [cosine(row, word) for word in words]
        weights = softmax([value / constants["word_temperature"] for value in cosines])
        alike.append(sum(value * weight for value, weight in zip(cosines, weights, strict=True)))
    sharp = softmax([value / constants["temperature"] for value in alike])
    sharp = scaled([value ** constants["gamma"] for value in sharp])
    edge = interpolated(sharp, constants["quantile"])
    question = scaled([value if value >= edge else value * constants["damping"] for value in sharp])
    heads = tokens.signals[Signal.CLS_ATTENTION].tolist()
    seen = scaled([sum(head[i] for head in heads) / len(heads) for i in range(len(projected))])
    eta = constants["eta"]
    return scaled([max(a, 1e-6) ** (1 - eta) * max(q, 1e-6) ** eta for a, q in zip(seen, question, strict=True)])


def slow_flashvlm(tokens: VisualTokens, budget: int, constants: dict[str, Any]) -> list[int]:
    scores = slow_scores(tokens, constants)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    first = int(budget * constants["important"])
    others = slow_least_alike(tokens.features.tolist(), order[first:], budget - first, constants["step"])
    return sorted(order[:first] + others)


@pytest.mark.parametrize("budget", [1, 2, 7, 16, 24])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_keeps_what_the_slow_reference_keeps(seed: int, budget: int) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), seed=seed, dtype=torch.float64)
    selection = FlashVLM().compress(tokens, budget, Context())
    assert selection.anchor.tolist() == slow_flashvlm(tokens, budget, CONSTANTS)
    np.testing.assert_allclose(selection.scores, slow_scores(tokens, CONSTANTS), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("eta", 0.0),
        ("eta", 0.9),
        ("word_temperature", 1.0),
        ("temperature", 0.5),
        ("gamma", 1.0),
        ("quantile", 0.5),
        ("damping", 0.6),
        ("important", 0.8),
        ("step", 2),
    ],
)
def test_each_constant_does_what_the_slow_reference_does_with_it(name: str, value: float) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), seed=3, dtype=torch.float64)
    constants = {**CONSTANTS, name: value}
    selection = FlashVLM(**{name: value}).compress(tokens, 11, Context())
    assert selection.anchor.tolist() == slow_flashvlm(tokens, 11, constants)
    np.testing.assert_allclose(selection.scores, slow_scores(tokens, constants), atol=1e-5)


def pair(*attention: float) -> VisualTokens:
    """Four tokens at right angles, of which 2 lies on the question's one word."""
    signals = {
        Signal.CLS_ATTENTION: torch.tensor([attention]),
        Signal.PROJECTED: torch.eye(4),
        Signal.TEXT: torch.tensor([[0.0, 0.0, 3.0, 0.0]]),
    }
    return VisualTokens.whole(torch.eye(4), toy_grid((1, 4)), signals)


def test_the_score_by_hand() -> None:
    # The question's map is 1 at 2 and 0 elsewhere, the attention's is 1, 1/3, 2/3, 0: products under the root with
    # the floor 1e-6 are 1e-3, 5.8e-4, .816 and 1e-6; scaled by the largest, less the smallest.
    selection = FlashVLM(important=1.0).compress(pair(0.4, 0.2, 0.3, 0.1), 2, Context())
    assert selection.anchor.tolist() == [0, 2]
    assert selection.scores is not None
    root = math.sqrt(2 / 3)
    assert selection.scores.tolist() == pytest.approx([1e-3 / root, math.sqrt(1e-6 / 3) / root, 1, 0], abs=5e-6)


def test_without_words_attention_alone_decides() -> None:
    tokens = pair(0.4, 0.2, 0.3, 0.1)
    wordless = Context(text=torch.empty(0, 4))
    assert FlashVLM(important=1.0).compress(tokens, 2, wordless).anchor.tolist() == [0, 2]
    assert FlashVLM(important=1.0).compress(tokens, 3, wordless).anchor.tolist() == [0, 1, 2]


def test_equal_attention_leaves_the_question_and_the_lower_index() -> None:
    assert FlashVLM(important=1.0).compress(pair(0.2, 0.2, 0.2, 0.2), 2, Context()).anchor.tolist() == [0, 2]


def test_each_view_is_scored_by_itself_or_all_together() -> None:
    tokens = toy_tokens(toy_grid((3, 4), (3, 4)), dtype=torch.float64)
    whole = VisualTokens.whole(tokens.features, toy_grid((4, 6)), tokens.signals)
    assert FlashVLM(per="image").compress(tokens, 9, Context()) == FlashVLM().compress(whole, 9, Context())
    kept = []
    for part in tokens.view_slices():
        signals = {
            name: value if name is Signal.TEXT else value[:, part] if name is Signal.CLS_ATTENTION else value[part]
            for name, value in tokens.signals.items()
            if name in FlashVLM.info.needs
        }
        alone = replace(VisualTokens.whole(tokens.features[part], toy_grid((3, 4))), signals=signals)
        kept += (FlashVLM().compress(alone, 4, Context()).anchor + part.start).tolist()
    assert FlashVLM().compress(tokens, 8, Context()).anchor.tolist() == kept
