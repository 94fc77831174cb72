"""Parent maps: roots by jumping, and cycles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.pointers import count_cycles, jump

PARENTS = st.integers(1, 40).flatmap(lambda n: st.lists(st.integers(0, n - 1), min_size=n, max_size=n))


@given(PARENTS, st.integers(0, 6))
def test_jumping_t_rounds_follows_two_to_the_t_parents(parents: list[int], rounds: int) -> None:
    root = jump(np.array(parents), rounds)
    for token in range(len(parents)):
        here = token
        for _ in range(2**rounds):
            here = parents[here]
        if root[token] != here:
            # Stopping early is allowed only where nothing would have changed any more.
            assert (root[root] == root).all()
            assert root[token] == jump(np.array(parents), 30)[token]


@given(PARENTS)
def test_cycles_are_counted_as_by_walking(parents: list[int]) -> None:
    cycles = set()
    for token in range(len(parents)):
        here = token
        for _ in range(len(parents)):
            here = parents[here]
        cycle = {here}
        following = parents[here]
        while following != here:
            cycle.add(following)
            following = parents[following]
        if len(cycle) > 1:
            cycles.add(min(cycle))
    assert count_cycles(np.array(parents)) == len(cycles)


@pytest.mark.parametrize(
    ("parents", "roots"),
    [([1, 0, 1, 0], [0, 1, 0, 1]), ([0, 0, 1, 2, 3], [0, 0, 0, 0, 0])],
    ids=["a cycle of two separates by parity", "a chain ends at its root"],
)
def test_roots_by_hand(parents: list[int], roots: list[int]) -> None:
    assert jump(np.array(parents), 12).tolist() == roots


def test_a_cycle_of_three_never_settles_and_is_counted() -> None:
    parents = np.array([1, 2, 0, 0])
    root = jump(parents, 12)
    assert (root[root] != root).any()
    assert count_cycles(parents) == 1


def test_no_rounds_leave_the_parents() -> None:
    assert jump(np.array([0, 0, 1]), 0).tolist() == [0, 0, 1]
