"""SeGPruner against loops, its two ends, and places over several views."""

from __future__ import annotations

import math

import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid, View
from compression.strategies.segpruner import SeGPruner
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_segpruner(tokens: VisualTokens, budget: int, r: float, lam: float) -> list[int]:
    """floor(T*r) most salient tokens, then farthest points among the rest in the fused distance."""
    features = tokens.features.double().tolist()
    saliency = tokens.signals[Signal.RECEIVED_ATTENTION].double().tolist()
    places = [((left + right) / 2, (top + bottom) / 2) for left, top, right, bottom in tokens.grid.boxes().tolist()]
    ranked = sorted(range(len(features)), key=lambda i: (-saliency[i], i))
    chosen, rest = ranked[: math.floor(budget * r)], ranked[math.floor(budget * r) :]
    diverse = rest[: min(1, budget - len(chosen))]
    reach = max((math.dist(places[i], places[rest[0]]) for i in rest), default=0.0)

    def distance(i: int, j: int) -> float:
        a, b = features[i], features[j]
        cosine = sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)
        return lam * (math.dist(places[i], places[j]) / reach if reach else 0.0) + (1 - lam) * (1 - cosine)

    while len(chosen) + len(diverse) < budget:
        left = [i for i in rest if i not in diverse]
        diverse.append(max(left, key=lambda i: min(distance(i, j) for j in diverse)))
    return sorted(chosen + diverse)


@pytest.mark.parametrize("r", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("lam", [0.0, 0.5])
@pytest.mark.parametrize("budget", [1, 2, 9, 23, 24])
def test_it_keeps_what_the_slow_reference_keeps(budget: int, lam: float, r: float) -> None:
    tokens = toy_tokens(toy_grid((4, 6)), dtype=torch.float64)
    selection = SeGPruner(r=r, lam=lam).compress(tokens, budget, Context())
    assert selection.anchor.tolist() == slow_segpruner(tokens, budget, r, lam)


def line(saliency: list[float], features: list[list[float]]) -> VisualTokens:
    """Tokens in a row, one pixel wide."""
    grid = TokenGrid.single(1, len(saliency), (1, len(saliency)))
    return VisualTokens.whole(torch.tensor(features), grid, {Signal.RECEIVED_ATTENTION: torch.tensor(saliency)})


def test_place_and_content_choose_differently_by_hand() -> None:
    # 1 is the most salient. In place 4 is the farthest (3 of 3); in content 2 (1 - cos = 2). Half of each:
    # 0: 1/6, 2: 1/6 + 1, 3: 1/3 + 1/2, 4: 1/2. So 2 comes next; then 3 (5/6 from 1, 1/6 + 1/2 from 2), against
    # 4 (1/2 from 1) and 0 (1/6 from 1).
    tokens = line([0.1, 0.5, 0.2, 0.1, 0.1], [[1, 0], [1, 0], [-1, 0], [0, 1], [1, 0]])
    assert SeGPruner(lam=1.0).compress(tokens, 2, Context()).anchor.tolist() == [1, 4]
    assert SeGPruner(lam=0.0).compress(tokens, 2, Context()).anchor.tolist() == [1, 2]
    assert SeGPruner().compress(tokens, 2, Context()).anchor.tolist() == [1, 2]
    assert SeGPruner().compress(tokens, 3, Context()).anchor.tolist() == [1, 2, 3]


def test_the_salient_come_first_and_the_diverse_start_at_the_best_of_the_rest() -> None:
    tokens = line([0.1, 0.5, 0.4, 0.3, 0.2], [[1, 0]] * 5)
    # r = .5 of 3: one salient token, 1; of the rest 2 is the most salient, and 0 and 4 are equally far from it (2):
    # the more salient of them is kept.
    assert SeGPruner(r=0.5).compress(tokens, 3, Context()).anchor.tolist() == [1, 2, 4]


def test_with_lam_one_the_features_do_not_matter_and_with_zero_the_places_do_not() -> None:
    grid = toy_grid((4, 6))
    first, second = toy_tokens(grid), toy_tokens(grid, seed=3)
    mixed = VisualTokens.whole(second.features, grid, first.signals)
    place = SeGPruner(lam=1.0)
    assert place.compress(first, 7, Context()) == place.compress(mixed, 7, Context())
    moved = VisualTokens.whole(first.features, toy_grid((6, 4)), first.signals)
    content = SeGPruner(lam=0.0)
    assert content.compress(first, 7, Context()) == content.compress(moved, 7, Context())


def test_with_r_one_the_most_salient_are_kept(tokens_4x6: VisualTokens) -> None:
    saliency = tokens_4x6.signals[Signal.RECEIVED_ATTENTION].tolist()
    selection = SeGPruner(r=1.0).compress(tokens_4x6, 9, Context())
    assert selection.anchor.tolist() == sorted(sorted(range(24), key=lambda i: -saliency[i])[:9])


def test_each_view_gets_its_share_or_places_reach_over_all() -> None:
    views = tuple(View(2, 2, (4.0 * at, 0.0, 4.0 * at + 4, 4.0)) for at in range(3))
    grid = TokenGrid(views, (4, 12))
    tokens = VisualTokens.whole(torch.ones(12, 2), grid, {Signal.RECEIVED_ATTENTION: torch.arange(12.0)})
    apart = SeGPruner(lam=1.0).compress(tokens, 3, Context())
    assert apart.anchor.tolist() == [3, 7, 11]
    # 11 at (11, 3) is the most salient, and of all places (1, 1) is the farthest from it.
    together = SeGPruner(lam=1.0, per="image").compress(tokens, 2, Context())
    assert together.anchor.tolist() == [0, 11]


def test_tokens_in_one_place_are_told_apart_by_content() -> None:
    view = View(1, 1, (0.0, 0.0, 4.0, 4.0))
    grid = TokenGrid((view, view, view), (4, 4))
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    tokens = VisualTokens.whole(features, grid, {Signal.RECEIVED_ATTENTION: torch.tensor([0.5, 0.3, 0.2])})
    assert SeGPruner(per="image").compress(tokens, 2, Context()).anchor.tolist() == [0, 2]


def test_survivors_of_an_earlier_stage_keep_their_places(grid_4x6: TokenGrid) -> None:
    index = torch.tensor([0, 1, 2, 23])
    survivors = VisualTokens(
        torch.ones(4, 2), grid_4x6, index.numpy(), {Signal.RECEIVED_ATTENTION: torch.tensor([0.4, 0.3, 0.2, 0.1])}
    )
    assert SeGPruner().compress(survivors, 2, Context()).anchor.tolist() == [0, 3]
