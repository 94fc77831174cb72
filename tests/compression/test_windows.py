"""Windows cut a view up as they say, and a budget buys as many as fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.windows import Windows, adaptive_windows, even_windows, pooled_size, square_side, square_windows

SIDES = st.integers(1, 12)


def counted(windows: Windows, rows: int, cols: int) -> np.ndarray:
    """In how many windows each token is, int64 [rows, cols]."""
    return np.bincount(np.concatenate(windows.members()), minlength=rows * cols).reshape(rows, cols)


@given(SIDES, SIDES, SIDES)
def test_square_windows_hold_every_token_once(rows: int, cols: int, side: int) -> None:
    windows = square_windows(rows, cols, side)
    assert (counted(windows, rows, cols) == 1).all()
    assert len(windows) == len(windows.members()) == -(-rows // side) * -(-cols // side)


@given(SIDES, SIDES, st.data())
def test_even_windows_hold_every_token_once_and_are_nearly_equal(rows: int, cols: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    windows = even_windows(rows, cols, height, width)
    assert len(windows) == height * width
    assert (counted(windows, rows, cols) == 1).all()
    for spans in (windows.rows, windows.cols):
        lengths = [stop - start for start, stop in spans]
        assert max(lengths) - min(lengths) <= 1


@given(SIDES, SIDES, st.data())
def test_adaptive_windows_are_those_of_torch(rows: int, cols: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    values = torch.arange(rows * cols, dtype=torch.float64) ** 2
    expected = torch.nn.functional.adaptive_avg_pool2d(values.reshape(1, rows, cols), (height, width)).reshape(-1)
    means = [float(values[member].mean()) for member in adaptive_windows(rows, cols, height, width).members()]
    np.testing.assert_allclose(means, expected.numpy())


@given(SIDES, SIDES, st.data())
def test_centres_ascend_and_lie_in_their_windows(rows: int, cols: int, data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, rows)), data.draw(st.integers(1, cols))
    for windows in (adaptive_windows(rows, cols, height, width), square_windows(rows, cols, height)):
        assert (np.diff(windows.centres()) > 0).all()
        for centre, member in zip(windows.centres(), windows.members(), strict=True):
            assert centre in member


@given(SIDES, SIDES, st.data())
def test_a_pooled_size_fits_the_count_and_the_view(rows: int, cols: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, rows * cols))
    height, width = pooled_size(rows, cols, count)
    assert 1 <= height <= rows
    assert 1 <= width <= cols
    assert height * width <= count
    # A row and a column more would not fit, so that the budget is used as far as the proportions allow.
    assert min(rows, height + 1) * min(cols, width + 1) > count or (height, width) == (rows, cols)


@pytest.mark.parametrize(
    ("rows", "cols", "count", "size"),
    [
        (24, 24, 576, (24, 24)),
        (24, 24, 64, (8, 8)),
        (24, 24, 192, (13, 14)),
        (24, 24, 128, (11, 11)),
        (24, 24, 120, (10, 11)),  # 10 x 12 would use all of it, but 10.95 x 10.95 is proportional
        (4, 6, 5, (2, 2)),  # and not 1 x 5
        (16, 24, 96, (8, 12)),
        (1, 7, 5, (1, 5)),
        (2, 100, 150, (2, 75)),
        (5, 5, 1, (1, 1)),
        (5, 5, 2, (1, 2)),
    ],
)
def test_pooled_sizes_by_hand(rows: int, cols: int, count: int, size: tuple[int, int]) -> None:
    assert pooled_size(rows, cols, count) == size


@pytest.mark.parametrize("rows", [1, 5, 16, 27])
@pytest.mark.parametrize("cols", [1, 7, 24])
def test_the_square_side_is_the_smallest_that_fits(rows: int, cols: int) -> None:
    for count in range(1, rows * cols + 1):
        side = square_side(rows, cols, count)
        assert len(square_windows(rows, cols, side)) <= count
        assert side == 1 or len(square_windows(rows, cols, side - 1)) > count
