"""Strategies on the tokens of a tower without [CLS]: the attention that patches receive in place of its row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from compression.compressor import joined
from compression.strategies import CATALOGUE
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_context

READERS = tuple(kind.info.name for kind in CATALOGUE if Signal.CLS_ATTENTION in kind.info.instead)
OF_CLS = frozenset(signal for signal in Signal if "cls" in signal)


def without_cls(tokens: VisualTokens) -> VisualTokens:
    return replace(tokens, signals={name: value for name, value in tokens.signals.items() if name not in OF_CLS})


def test_these_read_attention_received() -> None:
    assert READERS == ("dualcomp", "visionzip", "visiondrop", "fastervlm", "vispruner", "flashvlm")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("budget", [1, 7, 20])
def test_attention_received_counts_as_one_head_of_cls(tokens_4x6: VisualTokens, name: str, budget: int) -> None:
    kind, context = CATALOGUE.get(name), toy_context(tokens_4x6)
    received = tokens_4x6.signals[Signal.RECEIVED_ATTENTION][None]
    row = replace(tokens_4x6, signals={**tokens_4x6.signals, Signal.CLS_ATTENTION: received})
    # Without a [CLS] that could be kept, its place goes to a patch.
    as_a_row = CATALOGUE.build(name, {"cls": False} if Signal.CLS_FEATURE in kind.info.needs else {})
    theirs = CATALOGUE.build(name).compress(without_cls(tokens_4x6), budget, context)
    assert theirs == as_a_row.compress(row, budget, context)
    assert not theirs.extra


@pytest.mark.parametrize("name", READERS)
def test_the_row_of_cls_is_read_where_there_is_one(tokens_4x6: VisualTokens, name: str) -> None:
    context, strategy = toy_context(tokens_4x6), CATALOGUE.build(name)
    other = {**tokens_4x6.signals, Signal.RECEIVED_ATTENTION: tokens_4x6.signals[Signal.RECEIVED_ATTENTION].flip(0)}
    assert strategy.compress(tokens_4x6, 6, context) == strategy.compress(
        replace(tokens_4x6, signals=other), 6, context
    )


def test_what_is_missing_counts_what_stands_in() -> None:
    info = CATALOGUE.get("visionzip").info
    without = frozenset(Signal) - OF_CLS
    assert info.missing(frozenset(Signal)) == info.missing(without) == frozenset()
    assert info.missing(without - {Signal.RECEIVED_ATTENTION}) == {Signal.CLS_ATTENTION}
    assert info.missing(without - {Signal.KEYS}) == {Signal.KEYS}
    assert info.stand_ins(without) == ("attention received in place of [CLS] attention",)
    assert info.stand_ins(frozenset(Signal)) == ()
    assert info.needs_words(str) == (
        "cls_attention or received_attention",
        "cls_feature, where there is one",
        "features",
        "keys",
    )


def test_nothing_stands_in_for_what_another_step_must_have() -> None:
    zip_info, hired = CATALOGUE.get("visionzip").info, CATALOGUE.get("hired").info
    assert joined([zip_info, hired]).missing(frozenset(Signal) - {Signal.CLS_ATTENTION}) == {Signal.CLS_ATTENTION}
    fastv = CATALOGUE.get("fastv").info
    assert not joined([zip_info, fastv]).missing(frozenset(Signal) - {Signal.CLS_ATTENTION})
