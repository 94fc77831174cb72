"""GeoLLaVA-8K against a dense affinity matrix written with loops, and its corners by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidGrid
from compression.grid import THUMBNAIL, TokenGrid, View
from compression.similarity import neighbours
from compression.strategies.geollava8k import OFFSETS, GeoLLaVA8K, random_affinity, strongest_neighbour
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import smooth_tokens, toy_grid, toy_tokens


def slow_parents(tokens: VisualTokens, temperature: float, tau: float) -> list[int]:
    """argmax_j A[i, j] with A[i, j] summed over the clamped 3 x 3 offsets of one view."""
    features = tokens.features.double().tolist()
    rows, cols = tokens.grid.views[0].rows, tokens.grid.views[0].cols

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    parents = []
    for y in range(rows):
        for x in range(cols):
            places = [
                min(max(y + dy, 0), rows - 1) * cols + min(max(x + dx, 0), cols - 1)
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
            ]
            here = y * cols + x
            logits = [tau if j == here else cosine(features[here], features[j]) for j in places]
            shares = [math.exp(logit / temperature) for logit in logits]
            row = [0.0] * len(features)
            for place, share in zip(places, shares, strict=True):
                row[place] += share / sum(shares)
            parents.append(row.index(max(row)))
    return parents


def slow_clusters(parents: list[int], rounds: int) -> dict[int, list[int]]:
    """Members by root after pointer jumping."""
    root = list(parents)
    for _ in range(rounds):
        following = [root[root[i]] for i in range(len(root))]
        if following == root:
            break
        root = following
    return {r: [i for i in range(len(root)) if root[i] == r] for r in sorted(set(root))}


@pytest.mark.parametrize("budget", [1, 4, 9, 54])
@pytest.mark.parametrize("max_iters", [0, 1, 12])
def test_outputs_are_those_of_the_slow_reference(budget: int, max_iters: int) -> None:
    smooth = smooth_tokens(toy_grid((6, 9)))
    tokens = replace(smooth, features=smooth.features.double())
    clusters = slow_clusters(slow_parents(tokens, 0.1, 0.9), max_iters)
    query = tokens.signals[Signal.CLS_QUERY][0].double().tolist()
    values = tokens.signals[Signal.VALUES].double().tolist()

    def score(members: list[int]) -> float:
        mean = [sum(values[i][d] for i in members) / len(members) for d in range(len(query))]
        return sum(q * v for q, v in zip(query, mean, strict=True)) / math.sqrt(len(query))

    best = sorted(sorted(clusters, key=lambda root: (-score(clusters[root]), root))[:budget])
    selection = GeoLLaVA8K(max_iters=max_iters).compress(tokens, budget, Context())
    assert selection.anchor.tolist() == best
    expected = torch.stack([tokens.features[clusters[root]].mean(dim=0) for root in best])
    torch.testing.assert_close(selection.apply(tokens.features), expected, atol=1e-6, rtol=0)
    assert selection.diagnostics["clusters"] == len(clusters)
    for root, members in clusters.items():
        assert selection.scores is not None
        np.testing.assert_allclose(selection.scores[members], score(members), atol=1e-5, err_msg=str(root))


def test_a_corner_collects_four_offsets_on_itself() -> None:
    table = neighbours(TokenGrid.single(3, 4, (3, 4)), OFFSETS, clamp=True)
    assert (table[0] == 0).sum() == 4
    assert table[0].tolist() == [0, 0, 1, 0, 0, 1, 4, 4, 5]
    even = np.full((12, 9), 1 / 9, dtype=np.float32)
    # Inside all nine are equal and the lowest wins; in the corner the four offsets on itself win.
    assert strongest_neighbour(even, table)[[0, 5]].tolist() == [0, 0]


def test_affinity_to_itself_alone_gives_as_many_clusters_as_tokens(tokens_4x6: VisualTokens) -> None:
    selection = GeoLLaVA8K(tau=1.0, temperature=0.001).compress(tokens_4x6, 24, Context())
    assert selection.diagnostics["clusters"] == 24
    assert selection.anchor.tolist() == list(range(24))
    assert selection.diagnostics["notes"] == [
        "nothing was merged: no token is closer to a neighbour than to itself; a lower tau merges more"
    ]


def test_a_flat_image_ends_in_the_first_two_tokens_which_point_at_each_other() -> None:
    # With equal features the lowest neighbour wins: 0 -> 1 and 1 -> 0, a cycle that separates into two roots.
    grid = TokenGrid.single(3, 3, (3, 3))
    flat = {Signal.CLS_QUERY: torch.ones(1, 2), Signal.VALUES: torch.ones(9, 2)}
    selection = GeoLLaVA8K().compress(VisualTokens.whole(torch.ones(9, 2), grid, flat), 9, Context())
    assert selection.anchor.tolist() == [0, 1]
    assert selection.diagnostics["cycles"] == 1
    assert selection.diagnostics["shortfall"] == 7
    assert selection.diagnostics["notes"] == ["7 fewer outputs than the budget: there are not enough clusters"]


def test_cluster_sizes_sum_to_the_tokens() -> None:
    tokens = smooth_tokens(toy_grid((6, 9)))
    selection = GeoLLaVA8K().compress(tokens, 54, Context())
    assert selection.counts()["dropped"] == 0
    sums = np.bincount(selection.weight_output, weights=selection.weight_value)
    np.testing.assert_allclose(sums, 1, rtol=1e-6)


def test_each_view_is_as_if_it_were_alone() -> None:
    both = smooth_tokens(toy_grid((4, 6), (6, 9)))
    selection = GeoLLaVA8K().compress(both, 6, Context())
    assert (selection.anchor < 24).sum() == 3
    for view, part in enumerate(both.view_slices()):
        shape = both.grid.views[view]
        signals = {
            Signal.CLS_QUERY: both.signals[Signal.CLS_QUERY][view : view + 1],
            Signal.VALUES: both.signals[Signal.VALUES][part],
        }
        alone = VisualTokens.whole(both.features[part], toy_grid((shape.rows, shape.cols)), signals)
        anchors = GeoLLaVA8K().compress(alone, 3, Context()).anchor + part.start
        assert anchors.tolist() == [a for a in selection.anchor.tolist() if part.start <= a < part.stop]


def test_a_random_affinity_is_a_softmax_that_depends_on_the_seed() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3)))
    weights = random_affinity(tokens.features, tokens.grid, torch.Generator().manual_seed(1))
    assert weights.shape == (33, 9)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(33))
    random = GeoLLaVA8K(affinity="random")
    assert random.compress(tokens, 9, Context(seed=1)) == random.compress(tokens, 9, Context(seed=1))
    assert random.compress(tokens, 9, Context(seed=1)) != random.compress(tokens, 9, Context(seed=2))


def test_survivors_of_an_earlier_stage_are_refused(tokens_4x6: VisualTokens) -> None:
    survivors = replace(tokens_4x6, features=tokens_4x6.features[:5], index=tokens_4x6.index[:5])
    with pytest.raises(InvalidGrid, match="over all 24 visual tokens, got 5 survivors; make it the first step"):
        GeoLLaVA8K().compress(survivors, 2, Context())


def with_a_thumbnail() -> VisualTokens:
    box = (0.0, 0.0, 8.0, 4.0)
    views = (
        View(4, 4, box, THUMBNAIL),
        View(4, 4, (0.0, 0.0, 4.0, 4.0), "a1"),
        View(4, 4, (4.0, 0.0, 8.0, 4.0), "b1"),
    )
    return smooth_tokens(TokenGrid(views, (4, 8)))


@pytest.mark.parametrize("per", ["view", "image"])
def test_beside_other_views_the_thumbnail_is_dropped_as_released_or_kept(per: str) -> None:
    tokens = with_a_thumbnail()
    released = GeoLLaVA8K(per=per).compress(tokens, 6, Context())
    assert released.anchor.min() >= 16
    kept = GeoLLaVA8K(per=per, thumbnail="kept").compress(tokens, 6, Context())
    assert kept.anchor.min() < 16


def test_missing_clusters_are_filled_with_zero_vectors_where_that_is_asked_for() -> None:
    tokens = smooth_tokens(toy_grid((6, 9)))
    short = GeoLLaVA8K().compress(tokens, 54, Context())
    filled = GeoLLaVA8K(fill="zeros").compress(tokens, 54, Context())
    assert len(short) < 54 == len(filled)
    outputs = filled.apply(tokens.features)
    torch.testing.assert_close(outputs[: len(short)], short.apply(tokens.features))
    assert not outputs[len(short) :].any()
    assert filled.fate.tolist() == short.fate.tolist()


def test_only_the_largest_clusters_compete_where_their_number_is_given() -> None:
    tokens = smooth_tokens(toy_grid((6, 9)))
    clusters = slow_clusters(slow_parents(tokens, 0.1, 0.9), 12)
    largest = sorted(sorted(clusters, key=lambda root: (-len(clusters[root]), root))[:3])
    assert GeoLLaVA8K(clusters=3).compress(tokens, 54, Context()).anchor.tolist() == largest
