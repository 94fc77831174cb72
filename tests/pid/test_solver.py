"""The interior point and its enclosure."""

from __future__ import annotations

import numpy as np
import pytest

import pid.solver
from pid.certificate import feasible, lower_bound, upper_bound
from pid.errors import SolverStalled
from pid.joint import entropy, mutual_information
from pid.solver import LIMIT, solve
from tests.pid.conic import union_information
from tests.pid.tables import KINDS, SHAPES, mixed_with_noise, random_table


@pytest.mark.parametrize("kind", KINDS)
def test_no_enclosure_is_wider_than_promised_and_none_is_empty(kind: str) -> None:
    rng = np.random.default_rng(1)
    for shape in SHAPES:
        tables = np.stack([random_table(rng, shape, kind) for _ in range(20)])
        union = solve(tables.sum(2), tables.sum(1))
        assert (union.upper - union.lower <= LIMIT).all()
        assert (union.upper >= union.lower).all()


@pytest.mark.parametrize("floor", [1e-5, 1e-7, 1e-9, 1e-12, 1e-15, 1e-40, 1e-300])
def test_cells_of_any_small_mass_make_no_system_singular(floor: float) -> None:
    rng = np.random.default_rng(2)
    tables = np.stack([np.maximum(random_table(rng, (4, 3, 3), "peaked"), floor) for _ in range(40)])
    tables /= tables.sum((1, 2, 3), keepdims=True)
    union = solve(tables.sum(2), tables.sum(1))
    assert (union.upper - union.lower).max() <= LIMIT


def test_the_coupling_has_the_pair_marginals_and_attains_the_upper_bound() -> None:
    rng = np.random.default_rng(3)
    tables = np.stack([random_table(rng, (4, 5, 3), "sparse") for _ in range(10)])
    union = solve(tables.sum(2), tables.sum(1))
    np.testing.assert_allclose(union.coupling.sum(2), tables.sum(2), atol=1e-14)
    np.testing.assert_allclose(union.coupling.sum(1), tables.sum(1), atol=1e-14)
    np.testing.assert_allclose(mutual_information(union.coupling.reshape(10, -1, 3)), union.upper, atol=1e-12)


def test_a_table_alone_and_in_a_batch_are_enclosed_alike() -> None:
    rng = np.random.default_rng(4)
    tables = np.stack([random_table(rng, (3, 3, 3), kind) for kind in KINDS for _ in range(3)])
    together = solve(tables.sum(2), tables.sum(1))
    for place, table in enumerate(tables):
        alone = solve(table.sum(1)[None], table.sum(0)[None])
        assert alone.lower[0] <= together.upper[place]
        assert together.lower[place] <= alone.upper[0]


def test_any_multipliers_give_a_lower_and_any_coupling_an_upper_bound() -> None:
    """The proof does not depend on the solver: random duals and primals never cross the optimum."""
    rng = np.random.default_rng(5)
    for _ in range(50):
        p = random_table(rng, (3, 4, 3), "sparse")[None]
        a, b = p.sum(2), p.sum(1)
        union = solve(a, b)
        lam, mu = rng.normal(0, 3, a.shape), rng.normal(0, 3, b.shape)
        g = np.log(np.exp(lam[:, :, None] + mu[:, None]).sum(-1))
        base = entropy(a.sum(1))
        assert base + lower_bound(a, b, lam, mu, g) / np.log(2) <= union.upper
        q = feasible(a, b, rng.random(p.shape))
        np.testing.assert_allclose(q.sum(2), a, atol=1e-14)
        assert base + upper_bound(q) / np.log(2) >= union.lower


def test_and_is_solved_by_hand() -> None:
    """AND: Q* puts all of y = 0 where the sources agree as often as they can; I∪ = h(1/4) − 1/2."""
    p = np.zeros((2, 2, 2))
    for x1, x2 in ((0, 0), (0, 1), (1, 0), (1, 1)):
        p[x1, x2, x1 & x2] = 0.25
    union = solve(p.sum(1)[None], p.sum(0)[None])
    assert union.upper[0] == pytest.approx(2 - 0.75 * np.log2(3) - 0.5, abs=1e-8)
    np.testing.assert_allclose(union.coupling[0, :, :, 0], [[0.5, 0], [0, 0.25]], atol=1e-7)


def test_a_solver_that_is_not_done_says_so_and_gives_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pid.solver, "STEPS", 1)
    p = mixed_with_noise(random_table(np.random.default_rng(6), (5, 5, 3)), 0.1)
    with pytest.raises(SolverStalled, match="only known to lie in .* enclosures are at most 1e-06 wide: merge"):
        solve(p.sum(1)[None], p.sum(0)[None])


def conic_cases() -> list[tuple[tuple[int, int, int], int]]:
    return [((2, 2, 2), 60), ((3, 3, 3), 60), ((4, 5, 3), 50), ((8, 8, 4), 20), ((10, 10, 5), 8), ((20, 20, 10), 2)]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "count"), conic_cases(), ids=str)
def test_a_conic_solver_finds_the_same_optimum(shape: tuple[int, int, int], count: int) -> None:
    rng = np.random.default_rng(7)
    kinds = ("spread", "sparse", "zeros") if max(shape) < 20 else ("spread",)
    for place in range(count):
        p = random_table(rng, shape, kinds[place % len(kinds)])
        union = solve(p.sum(1)[None], p.sum(0)[None])
        found = union_information(p)
        assert union.lower[0] - 1e-6 <= found <= union.upper[0] + 1e-6


def test_the_conic_comparison_covers_two_hundred_tables() -> None:
    assert sum(count for _, count in conic_cases()) >= 200
