"""Cosine, stable top-k, best match, farthest point, and neighbours on a grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression import similarity
from compression.similarity import (
    best_match,
    cosine,
    density_peaks,
    farthest_first,
    farthest_point,
    first_largest,
    greedy_determinant,
    min_max,
    nearest_distance,
    nearest_neighbours,
    neighbour_cosine,
    neighbours,
    over_heads,
    stable_topk,
)
from tests.contracts.toys import toy_grid


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equal_scores_keep_the_lower_index_first() -> None:
    assert stable_topk(torch.zeros(1000), 5).tolist() == [0, 1, 2, 3, 4]
    assert stable_topk(torch.tensor([2.0, 1.0, 2.0, 3.0]), 3).tolist() == [3, 0, 2]


def test_half_precision_scores_are_compared_as_they_are() -> None:
    assert stable_topk(torch.tensor([1.0, 2.0, 2.0], dtype=torch.float16), 2).tolist() == [1, 2]


def test_cosine_is_zero_where_a_row_is_zero() -> None:
    found = cosine(torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0]]))
    torch.testing.assert_close(found, torch.tensor([[2**-0.5], [0.0]]))


def test_best_match_is_the_argmax_of_all_cosines(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, targets = normal(50, 4), normal(7, 4, seed=1)
    expected = cosine(rows, targets).argmax(dim=1)
    monkeypatch.setattr(similarity, "ROWS_AT_ONCE", 8)
    assert torch.equal(best_match(rows, targets), expected)
    assert best_match(rows[:0], targets).tolist() == []


def test_the_first_of_equal_targets_matches() -> None:
    assert best_match(torch.ones(2, 3), torch.ones(4, 3)).tolist() == [0, 0]


def test_nearest_distance_is_that_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    features = normal(30, 4)
    whole = 1 - cosine(features, features)
    whole.fill_diagonal_(torch.inf)
    monkeypatch.setattr(similarity, "ROWS_AT_ONCE", 7)
    torch.testing.assert_close(nearest_distance(features), whole.amin(dim=1))
    assert nearest_distance(features[:1]).tolist() == [0.0]


def test_farthest_points_never_repeat_even_among_duplicates() -> None:
    chosen, distance = farthest_point(torch.ones(6, 2), 6, 3)
    assert sorted(chosen.tolist()) == [0, 1, 2, 3, 4, 5]
    assert chosen[0] == 3
    assert distance[3].isinf()


def test_farthest_first_takes_any_distance() -> None:
    places = torch.tensor([0.0, 1.0, 4.0, 10.0])
    chosen, distance = farthest_first(lambda pick: (places - places[pick]).abs(), 4, 3, torch.tensor(1))
    assert chosen.tolist() == [1, 3, 2]  # from 1 the farthest is 10; then 4 is 3 from 1, and 0 only 1
    assert distance[[0, 2, 3]].tolist() == [1, 3, 9]


def test_min_max_of_a_constant_is_zero() -> None:
    assert min_max(torch.full((3,), 7.0)).tolist() == [0.0, 0.0, 0.0]
    assert min_max(torch.tensor([1.0, 2.0, 3.0])).tolist() == [0.0, 0.5, 1.0]


def test_neighbours_stay_inside_their_view() -> None:
    grid = toy_grid((2, 2), (1, 3))
    right_and_up = neighbours(grid, [(0, 1), (-1, 0)])
    assert right_and_up.tolist() == [[1, -1], [-1, -1], [3, 0], [-1, 1], [5, -1], [6, -1], [-1, -1]]
    clamped = neighbours(grid, [(0, 1), (-1, 0)], clamp=True)
    assert clamped.tolist() == [[1, 0], [1, 1], [3, 0], [3, 1], [5, 4], [6, 5], [6, 6]]


def test_neighbour_cosine_is_the_cosine_or_minus_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = toy_grid((4, 5))
    features = normal(20, 3)
    table = neighbours(grid, [(0, -1), (1, 1)])
    monkeypatch.setattr(similarity, "ROWS_AT_ONCE", 6)
    found = neighbour_cosine(features, table).numpy()
    whole = cosine(features, features).numpy()
    for token in range(20):
        for slot in range(2):
            place = table[token, slot]
            expected = whole[token, place] if place >= 0 else -np.inf
            np.testing.assert_allclose(found[token, slot], expected, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 5, 29, 40])
def test_nearest_neighbours_are_those_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    features, rows = normal(30, 4), torch.tensor([3, 0, 29, 7, 8])
    whole = cosine(features, features).fill_diagonal_(-torch.inf)
    expected = [sorted(stable_topk(whole[row], min(count, 29)).tolist()) for row in rows]
    monkeypatch.setattr(similarity, "ROWS_AT_ONCE", 2)
    assert nearest_neighbours(features, rows, count).tolist() == expected


def test_of_equally_near_neighbours_the_first_are_taken() -> None:
    found = nearest_neighbours(
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]), torch.arange(5), 2
    )
    assert found.tolist() == [[2, 3], [0, 2], [0, 3], [0, 2], [0, 2]]


def test_the_greedy_determinant_stops_at_the_rank() -> None:
    features, quality = normal(20, 5), torch.rand(20, generator=torch.Generator().manual_seed(1)) + 0.1
    chosen = greedy_determinant(features, quality, 12)
    assert len(set(chosen.tolist())) == len(chosen) == 5
    assert torch.equal(greedy_determinant(features, 1000 * quality, 3), chosen[:3])


def test_tokens_of_length_zero_add_nothing_to_a_determinant() -> None:
    assert greedy_determinant(torch.zeros(3, 2), torch.ones(3), 2).tolist() == []


def test_density_peaks_are_found_a_part_of_the_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features = normal(40, 6)
    features[25:] = features[:15]  # equal tokens are ranked by their place
    whole = density_peaks(features, 5)
    monkeypatch.setattr(similarity, "ROWS_AT_ONCE", 7)
    assert [part.tolist() for part in density_peaks(features, 5)] == [part.tolist() for part in whole]


def test_of_equal_targets_the_first_matches_however_a_product_rounds_them() -> None:
    targets = normal(3, 1024).repeat(2, 1)
    assert int(best_match(normal(500, 1024, seed=1), targets).max()) < 3


def test_of_equal_tokens_the_first_is_the_farthest_however_a_product_rounds_them() -> None:
    for seed in range(5):
        tokens = normal(243, 64, seed=seed).repeat(3, 1)
        chosen = farthest_point(tokens, 242, 0)[0].tolist()
        assert len({token % 243 for token in chosen}) == 242
        assert max(chosen) < 243


def test_equal_columns_have_equal_sums_over_heads() -> None:
    for tokens in (49, 169, 577, 729, 1369):
        assert len(over_heads(normal(16, 1).expand(16, tokens).clone()).unique()) == 1


def test_values_outside_the_slack_are_not_equal() -> None:
    assert int(first_largest(torch.tensor([0.1, 0.5, 0.4]))) == 1
    assert first_largest(torch.tensor([[1.0, 1.0 + 5e-7], [1.0, 1.0 + 5e-6]])).tolist() == [0, 1]
