"""Visual tokens: features that know their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidGrid
from compression.grid import TokenGrid
from compression.tokens import SIGNALS, Signal, VisualTokens, unit_rows
from tests.contracts.toys import toy_context, toy_grid, toy_tokens


def test_whole_images_have_one_feature_per_token(grid_4x6: TokenGrid) -> None:
    assert VisualTokens.whole(torch.zeros(24, 2), grid_4x6).index.tolist() == list(range(24))
    with pytest.raises(InvalidGrid, match="one row for each of 24 tokens, got 23"):
        VisualTokens.whole(torch.zeros(23, 2), grid_4x6)


def test_features_are_a_matrix_with_a_row_per_index(grid_4x6: TokenGrid) -> None:
    with pytest.raises(InvalidGrid, match=r"one row for each of 3 indices, got \(2, 5\)"):
        VisualTokens(torch.zeros(2, 5), grid_4x6, np.array([0, 1, 2]))
    with pytest.raises(InvalidGrid, match=r"got \(3,\)"):
        VisualTokens(torch.zeros(3), grid_4x6, np.array([0, 1, 2]))


def test_view_slices_find_survivors_and_are_empty_where_there_are_none() -> None:
    grid = toy_grid((2, 2), (2, 2), (2, 2))
    tokens = VisualTokens(torch.zeros(3, 1), grid, np.array([1, 3, 9]))
    assert [tokens.index[part].tolist() for part in tokens.view_slices()] == [[1, 3], [], [9]]
    assert tokens.parts("view") == tokens.view_slices()
    assert tokens.parts("image") == [slice(0, 3)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_unit_rows_have_length_one_and_zero_rows_stay_zero(dtype: torch.dtype) -> None:
    unit = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [6e-5, 0.0]], dtype=dtype))
    assert unit.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(unit.norm(dim=1), torch.tensor([1.0, 0.0, 1.0], dtype=unit.dtype))


def test_every_signal_is_described_once_and_lies_where_its_description_says() -> None:
    tokens = toy_tokens(toy_grid((3, 5), (2, 2)))
    homes = {"features": tokens, "signals": tokens} | dict.fromkeys(Context.__dataclass_fields__, toy_context(tokens))
    assert list(SIGNALS) == list(Signal)
    assert len({info.title for info in SIGNALS.values()}) == len(SIGNALS)
    for info in SIGNALS.values():
        if info.given == "sight":  # no array: something that a sight can do
            assert info.shape == ""
            continue
        assert getattr(homes[info.given], info.given) is not None


def test_signals_have_the_axes_that_their_descriptions_state() -> None:
    tokens = toy_tokens(toy_grid((3, 5), (2, 2)))
    context = toy_context(tokens)
    sizes = {"N": 19, "V": 2}
    given = {Signal.FEATURES: tokens.features, **tokens.signals}
    given |= {Signal.LAYER_ATTENTION: context.attention, Signal.TEACHER_ATTENTION: context.teacher}
    assert given.keys() == {signal for signal, info in SIGNALS.items() if info.shape}
    for signal, values in given.items():
        axes = SIGNALS[signal].shape.strip("[]").split(", ")
        assert len(axes) == values.ndim, signal
        assert [size for axis, size in zip(axes, values.shape, strict=True) if axis in sizes] == [
            sizes[axis] for axis in axes if axis in sizes
        ], signal
