"""Budgets shared out over views, and translated into a cut inside the language model."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from compression.budget import (
    kept_after_cut,
    lowest_average,
    mean_after_cut,
    split_evenly,
    split_over,
    split_proportionally,
)
from compression.errors import InvalidBudget, InvalidParameter

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


@pytest.mark.parametrize(
    ("layer", "average", "kept"),
    [(2, 192, 166), (2, 128, 98), (2, 64, 29), (2, 171, 144), (3, 315, 288), (2, 576, 576)],
)
def test_published_averages_of_576_tokens_over_32_layers(layer: int, average: int, kept: int) -> None:
    # The averages 192, 128 and 64 leave 166.4, 98.1 and 29.9 tokens; 144 and 288 kept are averages of 171 and 315.
    assert kept_after_cut(average, 576, layer, 32) == kept


@given(st.integers(2, 64), st.integers(1, 5000), st.data())
def test_the_realised_mean_is_as_close_below_the_request_as_whole_tokens_allow(
    layers: int, total: int, data: st.DataObject
) -> None:
    layer = data.draw(st.integers(1, layers - 1))
    average = data.draw(st.integers(1, total))
    lowest = lowest_average(total, layer, layers)
    if average < lowest:
        with pytest.raises(InvalidBudget, match=f"at least {lowest} of {total} visual tokens") as caught:
            kept_after_cut(average, total, layer, layers)
        assert caught.value.lowest == lowest
        return
    kept = kept_after_cut(average, total, layer, layers)
    assert 1 <= kept <= total
    assert mean_after_cut(kept, total, layer, layers) <= average
    assume(kept < total)
    assert mean_after_cut(kept + 1, total, layer, layers) > average


@given(st.integers(2, 64), st.integers(1, 5000), st.data())
def test_the_lowest_average_is_reachable_and_all_tokens_are_the_identity(
    layers: int, total: int, data: st.DataObject
) -> None:
    layer = data.draw(st.integers(1, layers - 1))
    assert kept_after_cut(lowest_average(total, layer, layers), total, layer, layers) >= 1
    assert kept_after_cut(total, total, layer, layers) == total


@pytest.mark.parametrize("average", [0, -1, 577])
def test_averages_outside_the_tokens_are_refused(average: int) -> None:
    with pytest.raises(InvalidBudget, match=rf"budget must be 1\.\.576 visual tokens, got {average}"):
        kept_after_cut(average, 576, 2, 32)


@pytest.mark.parametrize("layer", [0, 32])
def test_a_cut_outside_the_layers_is_refused(layer: int) -> None:
    with pytest.raises(
        InvalidParameter, match=rf"layer in 1\.\.31 of a language model with 32 layers, got layer {layer}"
    ):
        kept_after_cut(192, 576, layer, 32)
