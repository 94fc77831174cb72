"""ApET against loops, its slots by hand, and small budgets."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.selection import Fate
from compression.strategies.apet import ApET, approximation_errors
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_basis(features: list[list[float]], count: int, first: int) -> list[int]:
    """Farthest points in the squared Euclidean distance."""
    chosen = [first]
    while len(chosen) < count:
        rest = [j for j in range(len(features)) if j not in chosen]
        chosen.append(max(rest, key=lambda j: min(math.dist(features[j], features[c]) ** 2 for c in chosen)))
    return chosen


def slow_errors(features: list[list[float]], basis: list[int], ridge: float) -> list[float]:
    """||x - a B|| with the ridge coefficients a of each token; 0 below a millionth of ||x||, the ridge's trace."""
    rows = np.array([features[b] for b in basis])
    errors = []
    for x in np.array(features):
        a = np.linalg.solve(rows @ rows.T + ridge * np.eye(len(basis)), rows @ x)
        error = float(np.linalg.norm(x - a @ rows))
        errors.append(error if error > 1e-6 * float(np.linalg.norm(x)) else 0.0)
    return errors


def slow_apet(
    features: list[list[float]], budget: int, basis: list[int], *, ridge: float, blend: float, scaling: float
) -> list[list[float]]:
    """The encoder stage: outputs in ascending order of their places."""
    tokens, dims = range(len(features)), range(len(features[0]))
    error = slow_errors(features, basis, ridge)
    order = sorted(tokens, key=lambda i: (-error[i], i))[:budget]
    filled = min(len(basis), budget - 1)
    worst, slots = order[: budget - filled], sorted(order[budget - filled :])

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    joined: dict[int, list[int]] = {token: [] for token in worst}
    for i in tokens:
        if i not in order:
            joined[max(worst, key=lambda w: cosine(features[i], features[w]))].append(i)
    outputs = []
    for place in sorted(order):
        own = features[place]
        if place in slots:
            new = features[basis[slots.index(place)]]
            outputs.append([(1 - blend) * new[d] + blend * own[d] for d in dims])
        elif joined[place]:
            count = len(joined[place])
            total = [sum(features[i][d] for i in joined[place]) for d in dims]
            outputs.append([(scaling * own[d] + total[d]) / (scaling + count) for d in dims])
        else:
            outputs.append(own)
    return outputs


@pytest.mark.parametrize("changed", [{}, {"blend": 0.5, "ridge": 0.1}, {"scaling": 0.0}, {"scaling": 3.0, "basis": 4}])
@pytest.mark.parametrize("budget", [1, 2, 10, 11, 20, 39])
def test_outputs_are_those_of_the_slow_reference(budget: int, changed: dict[str, float]) -> None:
    tokens = toy_tokens(toy_grid((5, 8)), dim=24, dtype=torch.float64)
    strategy = ApET(start="first", **changed)
    selection = strategy.compress(tokens, budget, Context())
    features = tokens.features.tolist()
    basis = slow_basis(features, strategy.basis, 0)
    expected = slow_apet(features, budget, basis, ridge=strategy.ridge, blend=strategy.blend, scaling=strategy.scaling)
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(selection.scores, slow_errors(features, basis, strategy.ridge), atol=1e-4)
    assert selection.diagnostics["basis"] == basis[: min(len(basis), budget - 1)]


def by_hand() -> VisualTokens:
    """Five tokens; with token 0 as the basis the errors are their second coordinates: 0, 1, 4, 2, 3."""
    features = torch.tensor([[10.0, 0.0], [5.0, 1.0], [0.0, 4.0], [1.0, 2.0], [6.0, 3.0]])
    return VisualTokens.whole(features, TokenGrid.single(1, 5, (1, 5)))


def test_a_slot_is_filled_with_the_basis_by_hand() -> None:
    # Of three outputs two are tokens of large error, 2 and 4, and one is a slot: 3, which the basis 0 fills.
    # 0 and 1 are outside the three and join 4, which is more like them than 2.
    tokens = by_hand()
    selection = ApET(basis=1, start="first").compress(tokens, 3, Context())
    np.testing.assert_allclose(selection.scores, [0, 1, 4, 2, 3], atol=1e-5)
    expected = torch.tensor([[0.0, 4.0], [10.0, 0.0], [(6 + 10 + 5) / 3, (3 + 0 + 1) / 3]])
    torch.testing.assert_close(selection.apply(tokens.features), expected)
    assert selection.anchor.tolist() == [2, 0, 4]
    assert selection.diagnostics["basis"] == [0]
    assert selection.diagnostics["slots"] == [3]
    assert selection.fate.tolist() == [Fate.KEPT, Fate.MERGED, Fate.KEPT, Fate.DROPPED, Fate.KEPT]


def test_a_blended_slot_keeps_part_of_its_own_feature() -> None:
    tokens = by_hand()
    selection = ApET(basis=1, start="first", blend=0.5).compress(tokens, 3, Context())
    assert selection.apply(tokens.features)[1].tolist() == [5.5, 1.0]
    assert selection.fate[3] == Fate.MERGED


def test_a_budget_of_one_is_all_in_the_token_of_largest_error() -> None:
    tokens = by_hand()
    selection = ApET(basis=1, start="first").compress(tokens, 1, Context())
    assert selection.anchor.tolist() == [2]
    torch.testing.assert_close(selection.apply(tokens.features)[0], tokens.features.mean(0))


def test_basis_tokens_have_no_error_and_kept_errors_are_the_largest() -> None:
    tokens = toy_tokens(toy_grid((5, 8)), dim=24)
    selection = ApET().compress(tokens, 16, Context())
    scores = selection.scores
    assert scores is not None
    assert scores[selection.diagnostics["basis"]].max() < 1e-4
    worst = [anchor for anchor in selection.anchor.tolist() if anchor not in selection.diagnostics["basis"]]
    assert len(worst) == 6
    others = np.setdiff1d(np.arange(40), worst)
    assert scores[worst].min() >= scores[others].max()


def test_scaling_all_features_changes_no_order() -> None:
    tokens = toy_tokens(toy_grid((5, 8)), dim=24)
    larger = replace(tokens, features=tokens.features * 7)
    here, there = ApET().compress(tokens, 16, Context()), ApET().compress(larger, 16, Context())
    assert here.anchor.tolist() == there.anchor.tolist()
    np.testing.assert_allclose(there.scores, 7 * here.scores, rtol=1e-4, atol=1e-4)


def test_the_start_is_random_by_seed_the_farthest_from_the_mean_or_the_first() -> None:
    tokens = by_hand()
    found = {ApET(basis=1).compress(tokens, 3, Context(seed=seed)).diagnostics["basis"][0] for seed in range(30)}
    assert found == {0, 1, 2, 3, 4}
    # the mean is (4.4, 2); the squared distances are 35.4, 1.4, 23.4, 11.6 and 3.6
    assert ApET(basis=1, start="mean").compress(tokens, 3, Context()).diagnostics["basis"] == [0]


def test_a_random_basis_is_drawn_from_the_seed() -> None:
    tokens = toy_tokens(toy_grid((5, 8)), dim=24)
    strategy = ApET(by="random")
    drawn = [strategy.compress(tokens, 16, Context(seed=seed)).diagnostics["basis"] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 10


def test_a_basis_of_density_peaks_has_one_token_of_each_heap() -> None:
    heaps = torch.tensor([[9.0, 0.0, 0.0, 1.0], [0.0, 9.0, 0.0, 1.0], [0.0, 0.0, 9.0, 1.0]]).repeat_interleave(4, 0)
    near = 0.1 * torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    tokens = VisualTokens.whole(heaps + near, toy_grid((3, 4)))
    basis = ApET(basis=3, by="density").compress(tokens, 6, Context()).diagnostics["basis"]
    assert {place // 4 for place in basis} == {0, 1, 2}


def test_a_basis_never_spans_the_whole_space() -> None:
    tokens = toy_tokens(toy_grid((4, 6)), dim=6)
    selection = ApET().compress(tokens, 12, Context())
    assert len(selection.diagnostics["basis"]) == 5
    assert selection.scores is not None
    assert (selection.scores > 1e-3).sum() == 24 - 5


def test_equal_tokens_have_no_error_and_keep_the_lower_index() -> None:
    tokens = VisualTokens.whole(torch.full((9, 4), 30.0), toy_grid((3, 3)))
    selection = ApET(basis=2, start="first").compress(tokens, 4, Context())
    assert selection.scores is not None
    assert selection.scores.tolist() == [0.0] * 9
    assert selection.diagnostics["basis"] == [0, 1]
    assert selection.diagnostics["slots"] == [2, 3]
    assert selection.counts() == {"kept": 2, "merged": 5, "dropped": 2}


def test_errors_are_found_a_part_of_the_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    features = toy_tokens(toy_grid((5, 8))).features
    whole = approximation_errors(features, torch.tensor([3, 17]), 1e-5)
    monkeypatch.setattr("compression.strategies.apet.ROWS_AT_ONCE", 7)
    np.testing.assert_allclose(approximation_errors(features, torch.tensor([3, 17]), 1e-5), whole)


def test_each_view_has_its_own_basis_or_all_have_one() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3)), dim=24)
    apart = ApET(basis=3).compress(tokens, 12, Context())
    assert (apart.anchor < 24).tolist() == [True] * 6 + [False] * 6
    assert (np.array(apart.diagnostics["basis"]) < 24).tolist() == [True] * 3 + [False] * 3
    together = ApET(basis=3, per="image").compress(tokens, 12, Context())
    assert len(together.diagnostics["basis"]) == 3
