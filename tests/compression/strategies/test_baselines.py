"""identity, random_subset and uniform_grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.compressor import Context
from compression.errors import InvalidBudget, InvalidGrid
from compression.grid import TokenGrid, lattice
from compression.strategies.identity import Identity
from compression.strategies.random_subset import RandomSubset
from compression.strategies.uniform_grid import UniformGrid
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def test_identity_refuses_to_drop_and_names_what_it_keeps(tokens_4x6: VisualTokens) -> None:
    with pytest.raises(InvalidBudget, match="keeps all 24 visual tokens, got a budget of 23") as caught:
        Identity().compress(tokens_4x6, 23, Context())
    assert caught.value.lowest == 24


def test_identity_needs_no_budget(tokens_4x6: VisualTokens) -> None:
    assert len(Identity().compress(tokens_4x6, None, Context())) == 24


def test_random_subset_depends_on_the_seed_and_on_nothing_else(tokens_4x6: VisualTokens) -> None:
    first = RandomSubset().compress(tokens_4x6, 6, Context(seed=0))
    again = RandomSubset().compress(toy_tokens(tokens_4x6.grid, seed=9), 6, Context(seed=0, question="else"))
    other = RandomSubset().compress(tokens_4x6, 6, Context(seed=1))
    assert first == again
    assert first != other


def test_random_subset_draws_every_token_about_equally_often(tokens_4x6: VisualTokens) -> None:
    kept = [RandomSubset().compress(tokens_4x6, 6, Context(seed=seed)).anchor for seed in range(400)]
    counts = np.bincount(np.concatenate(kept), minlength=24)
    # 400 draws at 1/4: mean 100, standard deviation 8.7; four deviations on either side
    assert counts.min() > 65
    assert counts.max() < 135


def test_the_lattice_of_six_on_four_by_six_is_two_by_three() -> None:
    # . . . . . .
    # . x . x . x
    # . . . . . .
    # . x . x . x
    assert lattice(4, 6, 6).tolist() == [7, 9, 11, 19, 21, 23]


def test_a_lattice_of_one_is_the_centre() -> None:
    assert lattice(5, 5, 1).tolist() == [12]


@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_a_lattice_has_exactly_the_count_and_ascends(rows: int, cols: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, rows * cols))
    cells = lattice(rows, cols, count)
    assert len(cells) == count
    assert (np.diff(cells) > 0).all()
    assert cells[0] >= 0
    assert cells[-1] < rows * cols


@given(st.integers(2, 16), st.integers(2, 16), st.data())
def test_a_lattice_leaves_no_large_hole(rows: int, cols: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, rows * cols))
    y, x = np.divmod(lattice(rows, cols, count), cols)
    grid_y, grid_x = np.divmod(np.arange(rows * cols), cols)
    gap = np.maximum(abs(grid_y[:, None] - y), abs(grid_x[:, None] - x)).min(axis=1).max()
    # A square of the mean area per kept token has side sqrt(N/K); no token is farther than about that from a kept one.
    assert gap <= max(np.sqrt(rows * cols / count), max(rows, cols) / (2 * np.sqrt(count))) + 1


def test_the_stride_is_the_floor_of_j_n_over_k(tokens_4x6: VisualTokens) -> None:
    kept = UniformGrid(rule="stride").compress(tokens_4x6, 7, Context()).anchor
    assert kept.tolist() == [j * 24 // 7 for j in range(7)]


def test_views_share_the_lattice_by_their_sizes() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (2, 6)))
    kept = UniformGrid().compress(tokens, 6, Context()).anchor
    assert (kept < 24).sum() == 4
    assert (kept >= 24).sum() == 2


@pytest.mark.parametrize(
    ("count", "shares"), [(1, [1, 0, 0, 0]), (2, [1, 0, 1, 0]), (3, [1, 1, 1, 0]), (5, [2, 1, 1, 1])]
)
def test_fewer_tokens_than_views_reach_all_parts_of_the_image(count: int, shares: list[int]) -> None:
    tokens = toy_tokens(toy_grid((4, 4), (4, 4), (4, 4), (4, 4)))
    kept = UniformGrid().compress(tokens, count, Context()).anchor
    assert np.bincount(kept // 16, minlength=4).tolist() == shares


def test_a_lattice_over_survivors_is_refused_and_a_stride_is_not(grid_4x6: TokenGrid) -> None:
    survivors = VisualTokens(torch.zeros(5, 2), grid_4x6, np.array([0, 3, 8, 9, 20]))
    with pytest.raises(InvalidGrid, match="over all 24 visual tokens, got 5 survivors; write uniform_grid:rule=stride"):
        UniformGrid().compress(survivors, 2, Context())
    assert UniformGrid(rule="stride").compress(survivors, 2, Context()).anchor.tolist() == [0, 2]


def test_a_subset_of_survivors_counts_survivors(tokens_4x6: VisualTokens) -> None:
    survivors = replace(tokens_4x6, features=tokens_4x6.features[:5], index=tokens_4x6.index[:5], signals={})
    assert RandomSubset().compress(survivors, 5, Context()).anchor.tolist() == [0, 1, 2, 3, 4]
