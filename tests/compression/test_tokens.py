"""Visual tokens: features that know their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression.errors import InvalidGrid
from compression.grid import TokenGrid
from compression.tokens import VisualTokens, unit_rows
from tests.contracts.toys import toy_grid


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
