"""HiRED's allocation against loops, both ways to read the thumbnail, and what is lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.compressor import Context
from compression.errors import InvalidGrid
from compression.grid import TokenGrid, View
from compression.strategies.hired import HiRED, share_by_marks
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def mosaic(down: int, across: int, rows: int, cols: int) -> TokenGrid:
    """A thumbnail of rows x cols tokens, and down x across sub-images of as many, each token 8 pixels wide and high."""
    height, width = 8 * rows, 8 * cols
    views = [View(rows, cols, (0.0, 0.0, float(across * width), float(down * height)), "thumbnail")]
    views += [
        View(rows, cols, (float(x * width), float(y * height), float((x + 1) * width), float((y + 1) * height)))
        for y in range(down)
        for x in range(across)
    ]
    return TokenGrid(tuple(views), (down * height, across * width))


def slow_hired(
    tokens: VisualTokens, down: int, across: int, budget: int, alpha: float, *, spatial: bool
) -> tuple[list[int], list[int]]:
    """The published steps on a thumbnail and down x across equal sub-images: kept tokens, and how many of each view."""
    rows, cols = tokens.grid.views[0].rows, tokens.grid.views[0].cols
    size, views = rows * cols, 1 + down * across
    late = tokens.signals[Signal.CLS_ATTENTION].tolist()
    early = tokens.signals[Signal.EARLY_CLS_ATTENTION].tolist()
    late_sum = [sum(head[i] for head in late) for i in range(views * size)]
    early_sum = [sum(head[i] for head in early) for i in range(size)]

    def best(scores: list[float], count: int) -> list[int]:
        return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]

    full = min(int(budget * alpha), size)
    rest = min(budget - full, (views - 1) * size)
    marks = [0] * (views - 1)
    for i in best(early_sum, int(size * (1 - alpha))):
        y, x = divmod(i, cols)
        run = i // (size // (views - 1))
        marks[(y * down // rows) * across + x * across // cols if spatial else run] += 1
    counts = [full]
    for mark in marks:
        share = np.float32(mark) / np.float32(sum(marks)) * np.float32(rest)
        counts.append(min(int(share), size))
    kept = sorted(best(late_sum[:size], full))
    stitched = []
    for view in range(1, views):
        for i in best(late_sum[view * size : (view + 1) * size], counts[view]):
            tile_y, tile_x = divmod(view - 1, across)
            stitched.append((tile_y * rows + i // cols, tile_x * cols + i % cols, view * size + i))
    return kept + [token for _, _, token in sorted(stitched)], counts


@pytest.mark.parametrize("spatial", [False, True], ids=["released", "spatial"])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize(("down", "across"), [(2, 2), (1, 3), (3, 1), (2, 3)])
@pytest.mark.parametrize("budget", [20, 61, 144])
def test_it_keeps_what_the_slow_reference_keeps(
    down: int, across: int, budget: int, alpha: float, spatial: bool
) -> None:
    tokens = toy_tokens(mosaic(down, across, 6, 6), dtype=torch.float64)
    strategy = HiRED(alpha=alpha, allocation="spatial" if spatial else "released")
    selection = strategy.compress(tokens, budget, Context())
    kept, counts = slow_hired(tokens, down, across, budget, alpha, spatial=spatial)
    assert selection.anchor.tolist() == kept
    assert selection.diagnostics["quotas"] == counts
    assert len(selection) <= budget


def by_hand(early: list[float]) -> VisualTokens:
    """A 4 x 4 thumbnail over 2 x 2 sub-images; late attention rises with the index in each view."""
    grid = mosaic(2, 2, 4, 4)
    late = (torch.arange(80.0) % 16)[None]
    first = torch.cat([torch.tensor(early), torch.zeros(64)])[None]
    return VisualTokens.whole(torch.zeros(80, 2), grid, {Signal.CLS_ATTENTION: late, Signal.EARLY_CLS_ATTENTION: first})


def test_bands_and_quarters_share_out_differently_by_hand() -> None:
    # Eight marks fall on the right half of the thumbnail: as bands two on each sub-image, in truth on the right ones.
    tokens = by_hand([0, 0, 1, 1] * 4)
    released = HiRED().compress(tokens, 16, Context())
    assert released.diagnostics["marks"] == [0, 2, 2, 2, 2]
    assert released.diagnostics["quotas"] == [8, 2, 2, 2, 2]
    spatial = HiRED(allocation="spatial").compress(tokens, 16, Context())
    assert spatial.diagnostics["marks"] == [0, 0, 4, 0, 4]
    assert spatial.diagnostics["quotas"] == [8, 0, 4, 0, 4]
    assert spatial.anchor.tolist() == [*range(8, 16), 44, 45, 46, 47, 76, 77, 78, 79]
    assert (spatial.scores == np.arange(80) % 16).all()


def test_the_mosaic_is_read_row_by_row_across_sub_images() -> None:
    selection = HiRED(allocation="spatial", alpha=0.0).compress(by_hand([1.0] * 16), 24, Context())
    assert selection.diagnostics["quotas"] == [0, 6, 6, 6, 6]
    # row 2 of the upper two tiles (cells 10, 11), then their row 3 (cells 12 to 15), then the lower two
    upper = [16 + 10, 16 + 11, 32 + 10, 32 + 11, *range(16 + 12, 32), *range(32 + 12, 48)]
    assert selection.anchor.tolist() == upper + [token + 32 for token in upper]


def test_rounding_down_loses_tokens_and_the_run_says_so() -> None:
    tokens = by_hand([1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0])  # 4 + 3 + 1 of eight marks
    lost = HiRED().compress(tokens, 10, Context())
    assert lost.diagnostics["quotas"] == [5, 2, 1, 0, 0]
    assert lost.diagnostics["shortfall"] == 2
    assert "2 fewer tokens than the budget" in lost.diagnostics["notes"][0]
    given_out = HiRED(remainder="given").compress(tokens, 10, Context())
    assert given_out.diagnostics["quotas"] == [5, 2, 2, 1, 0]
    assert given_out.diagnostics["notes"] == []


def test_full_views_pass_on_only_where_asked() -> None:
    tokens = by_hand([1] * 4 + [0] * 12)
    lost = HiRED(alpha=0.75).compress(tokens, 72, Context())
    assert lost.diagnostics["quotas"] == [16, 16, 0, 0, 0]
    given_out = HiRED(alpha=0.75, remainder="given").compress(tokens, 72, Context())
    assert len(given_out) == 72
    assert given_out.diagnostics["quotas"] == [16, 16, 14, 13, 13]
    none = HiRED(alpha=0.0, remainder="given").compress(tokens, 66, Context())
    assert none.diagnostics["quotas"] == [2, 16, 16, 16, 16]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=6), st.data())
def test_what_is_given_out_sums_to_the_budget(views: list[tuple[int, int]], data: st.DataObject) -> None:
    marks, room = np.array([mark for mark, _ in views]), [size for _, size in views]
    wanted = data.draw(st.integers(0, sum(room)))
    shares = share_by_marks(wanted, marks, room, give=True)
    assert sum(shares) == wanted
    assert all(0 <= share <= size for share, size in zip(shares, room, strict=True))
    assert all(a <= b for a, b in zip(share_by_marks(wanted, marks, room, give=False), shares, strict=True))


def test_one_view_keeps_its_best_late_tokens(tokens_4x6: VisualTokens) -> None:
    selection = HiRED().compress(tokens_4x6, 7, Context())
    late = tokens_4x6.signals[Signal.CLS_ATTENTION].sum(0).tolist()
    assert selection.anchor.tolist() == sorted(sorted(range(24), key=lambda i: -late[i])[:7])


def test_heads_may_change_places() -> None:
    tokens = toy_tokens(mosaic(2, 2, 6, 6), dtype=torch.float64)
    turned = {name: tokens.signals[name].flip(0) for name in (Signal.CLS_ATTENTION, Signal.EARLY_CLS_ATTENTION)}
    other = replace(tokens, signals=turned)
    assert HiRED().compress(tokens, 40, Context()).anchor.tolist() == (
        HiRED().compress(other, 40, Context()).anchor.tolist()
    )


def test_both_ways_agree_where_early_attention_is_uniform_and_alpha_is_zero() -> None:
    tokens = by_hand([1.0] * 16)
    released = HiRED(alpha=0.0).compress(tokens, 37, Context())
    assert released == HiRED(alpha=0.0, allocation="spatial").compress(tokens, 37, Context())


def test_without_a_thumbnail_the_views_own_early_attention_shares_out() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3)))
    early = torch.cat([torch.zeros(1, 24), torch.ones(1, 9)], dim=1)
    hot = replace(tokens, signals={**tokens.signals, Signal.EARLY_CLS_ATTENTION: early})
    selection = HiRED().compress(hot, 8, Context())  # 16 marks: the nine of the second view, then seven of the first
    assert selection.diagnostics["marks"] == [7, 9]
    assert selection.diagnostics["quotas"] == [3, 4]
    assert "no view is a thumbnail" in selection.diagnostics["notes"][0]


def test_a_thumbnail_that_comes_last_is_found_and_read_first() -> None:
    grid = mosaic(1, 2, 4, 4)
    last = TokenGrid((*grid.views[1:], grid.views[0]), grid.image_size)
    selection = HiRED().compress(toy_tokens(last), 12, Context())
    assert selection.diagnostics["thumbnail"] == 2
    assert (selection.anchor[:6] >= 32).all()
    assert (selection.anchor[6:] < 32).all()


def test_views_of_other_sizes_and_cells_on_no_view_are_defined() -> None:
    views = (
        View(3, 5, (0.0, 0.0, 100.0, 60.0), "thumbnail"),
        View(4, 4, (0.0, 0.0, 40.0, 40.0)),
        View(2, 3, (40.0, 0.0, 80.0, 40.0)),
    )
    tokens = toy_tokens(TokenGrid(views, (60, 100)))
    for allocation in ("released", "spatial"):
        selection = HiRED(alpha=0.0, allocation=allocation).compress(tokens, 20, Context())
        assert len(selection) <= 20
        # centres at x = 10, 30 | 50, 70 | 90 and y = 10, 30 | 50: four cells on each view, the other seven on none
        assert selection.diagnostics["marks"] == ([0, 8, 7] if allocation == "released" else [0, 4, 4])


def test_a_budget_that_rounds_to_nothing_keeps_the_best_of_the_most_marked_view() -> None:
    tokens = by_hand([0, 0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 0])
    selection = HiRED().compress(tokens, 1, Context())
    assert selection.anchor.tolist() == [3 * 16 + 15]


def test_without_marks_the_views_count_alike() -> None:
    selection = HiRED(alpha=1.0).compress(by_hand([1.0] * 16), 24, Context())
    assert selection.diagnostics["marks"] == [0, 0, 0, 0, 0]
    assert selection.diagnostics["quotas"] == [16, 2, 2, 2, 2]


def test_survivors_of_an_earlier_stage_are_refused(tokens_4x6: VisualTokens) -> None:
    signals = {name: tokens_4x6.signals[name][:, :5] for name in HiRED.info.needs}
    survivors = VisualTokens(tokens_4x6.features[:5], tokens_4x6.grid, np.arange(5), signals)
    with pytest.raises(InvalidGrid, match="all 24 visual tokens, got 5 survivors; make it the first step"):
        HiRED().compress(survivors, 2, Context())


@pytest.mark.parametrize("allocation", ["released", "spatial"])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_every_budget_is_kept_and_met_where_leftovers_are_given_out(alpha: float, allocation: str) -> None:
    tokens = toy_tokens(mosaic(2, 2, 3, 5))
    for budget in range(1, 76):
        lost = HiRED(alpha=alpha, allocation=allocation).compress(tokens, budget, Context())
        assert 1 <= len(set(lost.anchor.tolist())) == len(lost) <= budget
        met = HiRED(alpha=alpha, allocation=allocation, remainder="given").compress(tokens, budget, Context())
        assert len(set(met.anchor.tolist())) == len(met) == budget


def test_equal_attention_keeps_the_lower_index() -> None:
    tokens = by_hand([1.0] * 16)
    flat = replace(tokens, signals={name: torch.ones(1, 80) for name in HiRED.info.needs})
    selection = HiRED().compress(flat, 8, Context())  # the marks are the first eight: two bands, the upper sub-images
    assert selection.diagnostics["marks"] == [0, 4, 4, 0, 0]
    assert selection.anchor.tolist() == [0, 1, 2, 3, 16, 17, 32, 33]
