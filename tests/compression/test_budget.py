"""Budgets shared out over views."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.budget import split_evenly, split_over, split_proportionally
from compression.errors import InvalidBudget

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@given(SIZES, st.data())
@pytest.mark.parametrize("split", [split_evenly, split_proportionally])
def test_shares_sum_to_the_budget_and_fit(split, sizes: list[int], data: st.DataObject) -> None:  # type: ignore[no-untyped-def]
    budget = data.draw(st.integers(0, sum(sizes)))
    shares = split(budget, sizes)
    assert sum(shares) == budget
    assert all(0 <= share <= size for share, size in zip(shares, sizes, strict=True))


@given(st.integers(1, 30), st.integers(1, 12), st.data())
def test_equal_views_get_shares_that_differ_by_at_most_one(size: int, views: int, data: st.DataObject) -> None:
    budget = data.draw(st.integers(0, size * views))
    for split in (split_evenly, split_proportionally):
        shares = split(budget, [size] * views)
        assert max(shares) - min(shares) <= 1


def test_fewer_tokens_than_views_are_spread_over_the_image() -> None:
    assert split_evenly(3, [4] * 9) == [1, 0, 0, 1, 0, 0, 1, 0, 0]


def test_parts_without_a_share_are_left_out() -> None:
    parts = [slice(0, 4), slice(4, 4), slice(4, 9)]
    assert split_over(7, parts) == [(slice(0, 4), 4), (slice(4, 9), 3)]


def test_a_small_view_leaves_its_share_to_the_others() -> None:
    assert split_evenly(12, [1, 24, 24]) == [1, 6, 5]


def test_more_than_there_is_cannot_be_shared_out() -> None:
    with pytest.raises(InvalidBudget, match=r"lies in 0\.\.8 visual tokens, got 9"):
        split_evenly(9, [4, 4])
