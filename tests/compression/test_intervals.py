"""Wilson's interval holds exactly the shares that a score test does not reject."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.intervals import Z_95, wilson_interval


@given(st.integers(1, 500).flatmap(lambda asked: st.tuples(st.integers(0, asked), st.just(asked))))
def test_the_bounds_are_the_shares_whose_score_is_the_quantile(counted: tuple[int, int]) -> None:
    right, asked = counted
    for bound in wilson_interval(right, asked):
        gap, spread = abs(right / asked - bound), math.sqrt(bound * (1 - bound) / asked)
        assert gap == pytest.approx(Z_95 * spread, abs=1e-7)


def test_a_textbook_case() -> None:
    # 81 of 263: Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_without_a_question_nothing_is_known() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_none_right_and_all_right_mirror_each_other() -> None:
    low, high = wilson_interval(0, 20)
    assert low == 0.0
    assert wilson_interval(20, 20) == pytest.approx((1 - high, 1.0))
