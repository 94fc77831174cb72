"""Average pooling against loops, its size when the budget is no product, and views."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidGrid
from compression.grid import TokenGrid
from compression.strategies.average_pool import AveragePool
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_pool(picture: list[list[list[float]]], height: int, width: int, *, overlap: bool) -> list[list[float]]:
    """Means over the cells of adaptive pooling, or over cells whose ends are both rounded down."""
    rows, cols, dims = len(picture), len(picture[0]), len(picture[0][0])
    end = math.ceil if overlap else math.floor
    pooled = []
    for i in range(height):
        for j in range(width):
            cell = [
                picture[y][x]
                for y in range(math.floor(i * rows / height), end((i + 1) * rows / height))
                for x in range(math.floor(j * cols / width), end((j + 1) * cols / width))
            ]
            pooled.append([sum(token[d] for token in cell) / len(cell) for d in range(dims)])
    return pooled


@pytest.mark.parametrize("cells", ["adaptive", "disjoint"])
@pytest.mark.parametrize(("budget", "size"), [(1, (1, 1)), (6, (2, 3)), (11, (3, 3)), (20, (4, 5)), (35, (5, 7))])
def test_outputs_are_those_of_the_slow_reference(budget: int, size: tuple[int, int], cells: str) -> None:
    tokens = toy_tokens(toy_grid((5, 7)), dtype=torch.float64)
    selection = AveragePool(cells=cells).compress(tokens, budget, Context())
    picture = tokens.features.reshape(5, 7, -1).tolist()
    expected = slow_pool(picture, *size, overlap=cells == "adaptive")
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), expected, atol=1e-6)
    assert selection.diagnostics["sizes"] == [list(size)]
    assert selection.diagnostics["shortfall"] == budget - size[0] * size[1]


def test_three_columns_to_two_share_the_middle_one_by_hand() -> None:
    tokens = VisualTokens.whole(torch.tensor([[1.0], [2.0], [6.0]]), TokenGrid.single(1, 3, (1, 3)))
    adaptive = AveragePool().compress(tokens, 2, Context())
    assert adaptive.apply(tokens.features)[:, 0].tolist() == [1.5, 4.0]
    assert adaptive.anchor.tolist() == [1, 2]
    disjoint = AveragePool(cells="disjoint").compress(tokens, 2, Context())
    assert disjoint.apply(tokens.features)[:, 0].tolist() == [1.0, 4.0]
    assert disjoint.anchor.tolist() == [0, 2]


@pytest.mark.parametrize(("budget", "outputs"), [(576, 576), (192, 182), (128, 121), (64, 64), (7, 6)])
def test_a_budget_that_is_no_product_leaves_a_rest_and_says_so(budget: int, outputs: int) -> None:
    selection = AveragePool().compress(toy_tokens(toy_grid((24, 24))), budget, Context())
    assert len(selection) == outputs
    assert len(selection.diagnostics["notes"]) == (outputs < budget)


def test_nothing_is_dropped_of_a_view_that_has_an_output(tokens_4x6: VisualTokens) -> None:
    for budget in range(1, 25):
        assert AveragePool().compress(tokens_4x6, budget, Context()).counts()["dropped"] == 0


def test_views_share_by_their_sizes_or_equally() -> None:
    tokens = toy_tokens(toy_grid((6, 6), (3, 3)))
    assert AveragePool().compress(tokens, 20, Context()).diagnostics["sizes"] == [[4, 4], [2, 2]]
    assert AveragePool(per="view").compress(tokens, 18, Context()).diagnostics["sizes"] == [[3, 3], [3, 3]]


@pytest.mark.parametrize("per", ["image", "view"])
def test_fewer_outputs_than_views_are_spread_over_the_image(per: str) -> None:
    tokens = toy_tokens(toy_grid((2, 2), (2, 2), (2, 2), (2, 2)))
    selection = AveragePool(per=per).compress(tokens, 2, Context())
    assert selection.diagnostics["sizes"] == [[1, 1], [0, 0], [1, 1], [0, 0]]
    assert selection.fate.reshape(4, 4).tolist()[1] == [2, 2, 2, 2]


def test_survivors_of_an_earlier_stage_are_refused(grid_4x6: TokenGrid) -> None:
    survivors = VisualTokens(torch.zeros(5, 2), grid_4x6, np.array([0, 3, 8, 9, 20]))
    with pytest.raises(InvalidGrid, match="grid of all 24 visual tokens, got 5 survivors; make it the first step"):
        AveragePool().compress(survivors, 2, Context())
