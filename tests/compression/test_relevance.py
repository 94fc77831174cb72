"""Similarity with the question: which space, which sign, and what is said about it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from compression.compressor import Context
from compression.errors import MissingSignal
from compression.relevance import relevance
from compression.strategies.cdpruner import CDPruner
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid

ASKER = CDPruner()


def tokens(**signals: list[float] | list[list[float]]) -> VisualTokens:
    """Two tokens in a row that carry these signals."""
    told = {Signal(name): torch.tensor(value) for name, value in signals.items()}
    return VisualTokens.whole(torch.ones(2, 2), toy_grid((1, 2)), told)


PLAIN = tokens(projected=[[2.0, 0.0], [1.0, 1.0]], text=[[3.0, 0.0], [0.0, 0.5]])


def test_without_a_text_tower_it_is_the_mean_cosine_with_the_words_by_hand() -> None:
    found = relevance(ASKER, PLAIN, Context(), "auto")
    assert (found.space, found.sign) == ("language", "positive")
    torch.testing.assert_close(found.values, torch.tensor([0.5, 2**-0.5]))


def test_a_similarity_in_a_joint_space_comes_first_and_is_turned() -> None:
    joint = tokens(text_similarity=[0.25, -0.5])
    found = relevance(ASKER, joint, Context(), "auto")
    assert (found.space, found.sign) == ("joint", "negative")
    assert found.values.tolist() == [-0.25, 0.5]
    assert found.diagnostics()["notes"] == []


@pytest.mark.parametrize(("sign", "factor"), [("positive", 1), ("negative", -1)])
def test_the_sign_can_be_asked_for_in_either_space(sign: str, factor: int) -> None:
    assert relevance(ASKER, tokens(text_similarity=[0.25, -0.5]), Context(), sign).values.tolist() == [
        factor * 0.25,
        factor * -0.5,
    ]
    assert relevance(ASKER, PLAIN, Context(), sign).values[0] == factor * 0.5


def test_the_fallback_is_said_with_its_sign() -> None:
    for sign, word in (("auto", "positive"), ("negative", "negative")):
        (note,) = relevance(ASKER, PLAIN, Context(), sign).diagnostics()["notes"]
        assert f"language model's embedding space, with {word} sign" in note


def test_the_words_of_the_context_come_before_those_of_the_tokens() -> None:
    found = relevance(ASKER, PLAIN, Context(text=torch.tensor([[0.0, 1.0]])), "auto")
    torch.testing.assert_close(found.values, torch.tensor([0.0, 2**-0.5]))


def test_a_question_without_words_is_alike_to_nothing() -> None:
    assert relevance(ASKER, PLAIN, Context(text=torch.empty(0, 2)), "auto").values.tolist() == [0.0, 0.0]


def test_without_words_and_without_a_similarity_the_signal_is_named() -> None:
    wordless = replace(PLAIN, signals={Signal.PROJECTED: PLAIN.signals[Signal.PROJECTED]})
    with pytest.raises(MissingSignal, match="cdpruner needs the signal 'text'"):
        relevance(ASKER, wordless, Context(), "auto")
