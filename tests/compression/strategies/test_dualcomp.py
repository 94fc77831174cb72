"""DualComp: the router, both streams and their fusion, against loops written from the equations."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.compressor import Context
from compression.errors import InvalidGrid
from compression.grid import TokenGrid
from compression.selection import Fate, Stream
from compression.similarity import min_max
from compression.strategies.dualcomp import DualComp, LearnedRouter, rule_ratio, rule_router
from compression.strategies.dualcomp.dualcomp import split_streams
from compression.strategies.dualcomp.igsr import REGIONS, fill, regional_maxima, structure, trace, walk
from compression.strategies.dualcomp.scsa import cluster
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import smooth_tokens, toy_grid, toy_tokens

# --- router


@pytest.mark.parametrize(
    ("question", "lam", "reason"),
    [
        ("How many ships are there?", 0.2, "object words: how many, are there"),
        ("What COLOUR is the car?", 0.2, "object words: colour"),
        ("Plan a route along the river.", 0.8, "geometry words: route, along, plan"),
        ("Which boundaries are adjacent?", 0.8, "geometry words: boundary, adjacent"),
        ("What land cover is around the car?", 0.5, "geometry words: land cover; object words: around"),
        ("Can a plane fly?", 0.5, "no word of either kind"),
        ("Is the accountant inside?", 0.5, "no word of either kind"),
        ("", 0.5, "no word of either kind"),
    ],
)
def test_the_words_of_a_question_decide(question: str, lam: float, reason: str) -> None:
    assert rule_router(question) == (lam, reason)


def test_objects_get_a_tenth_and_everything_else_a_quarter() -> None:
    assert [rule_ratio(lam) for lam in (0.2, 0.5, 0.8)] == [0.10, 0.25, 0.25]


def test_the_models_own_router_decides_where_it_has_one() -> None:
    tokens = toy_tokens(toy_grid((10, 10)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        router, words = LearnedRouter(4, hidden=8), torch.randn(3, 4)
    context = Context(question="How many ships are there?", text=words, router=router)
    route = router.route(words)
    selection = DualComp().compress(tokens, None, context)
    decision = selection.router
    assert decision is not None
    assert (decision.lam, decision.rho, decision.source, decision.rho_source) == (
        route.lam,
        route.rho,
        "trained",
        "trained",
    )
    assert len(selection) == round(route.rho * len(tokens))
    assert decision.margins == route.margins
    asked = DualComp(lam=0.3).compress(tokens, 8, context).router
    assert asked is not None
    assert (asked.lam, asked.source, asked.rho_source) == (0.3, "asked", "asked")
    by_rule = DualComp(router="rule").compress(tokens, None, context).router
    assert by_rule is not None
    assert (by_rule.lam, by_rule.source) == (0.2, "rule")


def test_without_a_budget_the_router_chooses_and_says_why() -> None:
    tokens = toy_tokens(toy_grid((10, 10)))
    selection = DualComp().compress(tokens, None, Context(question="How many ships are there?"))
    decision = selection.router
    assert decision is not None
    assert (decision.lam, decision.rho, decision.source, decision.rho_source) == (0.2, 0.10, "rule", "rule")
    assert decision.shares == {"semantic": 0.8, "geometric": pytest.approx(0.2)}
    assert decision.thresholds == pytest.approx({"tau": 0.79, "theta_size": 4.8})
    assert len(selection) == 10


def test_a_budget_and_a_lambda_that_were_asked_for_are_said_to_be_asked_for() -> None:
    tokens = toy_tokens(toy_grid((10, 10)))
    decision = DualComp(lam=0.3).compress(tokens, 25, Context()).router
    assert decision is not None
    assert (decision.lam, decision.rho, decision.source, decision.rho_source) == (0.3, 0.25, "asked", "asked")


def test_the_router_keeps_at_least_rho_min() -> None:
    tokens = toy_tokens(toy_grid((10, 10)))
    selection = DualComp(rho_min=0.4).compress(tokens, None, Context(question="How many ships?"))
    assert len(selection) == 40


@given(st.integers(1, 500), st.floats(0, 1), st.integers(1, 500))
def test_streams_share_out_the_whole_budget_unless_one_is_closed(count: int, lam: float, clusters: int) -> None:
    semantic, geometric = split_streams(count, lam, clusters, 0.02)
    assert 0 <= semantic <= clusters
    assert geometric >= 0
    assert semantic + geometric == (min(count, clusters) if lam < 0.02 else count)
    if lam > 0.98:
        assert semantic == 0


def test_lambda_zero_gives_no_geometric_token_even_where_clusters_run_out() -> None:
    tokens = smooth_tokens(toy_grid((6, 9)))
    selection = DualComp(lam=0.0).compress(tokens, 40, Context())
    assert selection.stream is not None
    assert (selection.stream == Stream.SEMANTIC).all()
    assert len(selection) == selection.diagnostics["clusters"] < 40
    assert (
        f"{40 - len(selection)} fewer outputs than the budget: the open stream has too few clusters"
        in (selection.diagnostics["notes"])
    )


def test_lambda_one_gives_no_semantic_token() -> None:
    selection = DualComp(lam=1.0).compress(toy_tokens(toy_grid((6, 9))), 20, Context())
    assert selection.stream is not None
    assert (selection.stream == Stream.GEOMETRIC).all()
    assert len(selection) == 20


# --- semantic stream


def slow_clusters(features: list[list[float]], rows: int, cols: int, tau: float, eight: bool) -> list[int]:
    """root(i) = root(parent(i)) in index order; parent is the most similar predecessor strictly above tau."""

    def cosine(a: list[float], b: list[float]) -> float:
        length = math.hypot(*a) * math.hypot(*b)
        return sum(x * y for x, y in zip(a, b, strict=True)) / length if length else 0.0

    steps = [(-1, -1), (-1, 0), (-1, 1), (0, -1)] if eight else [(-1, 0), (0, -1)]
    root: list[int] = []
    for i in range(rows * cols):
        best, parent = tau, i
        for dy, dx in steps:
            y, x = i // cols + dy, i % cols + dx
            if 0 <= y < rows and 0 <= x < cols and cosine(features[i], features[y * cols + x]) > best:
                best, parent = cosine(features[i], features[y * cols + x]), y * cols + x
        root.append(i if parent == i else root[parent])
    ids = {r: position for position, r in enumerate(dict.fromkeys(root))}
    return [ids[r] for r in root]


@pytest.mark.parametrize("connectivity", ["8", "4"])
@pytest.mark.parametrize("tau", [0.3, 0.75, 0.95])
def test_clusters_are_those_of_the_slow_reference(tau: float, connectivity: str) -> None:
    tokens = smooth_tokens(toy_grid((6, 9)))
    attention = np.full(54, 1 / 54)
    found = cluster(tokens.features.double(), attention, tokens.grid, tau, connectivity)
    expected = slow_clusters(tokens.features.double().tolist(), 6, 9, tau, connectivity == "8")
    assert found.ids.tolist() == expected


def test_where_nothing_is_alike_nothing_is_merged_and_the_run_says_so() -> None:
    tokens = toy_tokens(toy_grid((4, 6)))
    selection = DualComp(lam=0.0, tau0=1.0).compress(tokens, 6, Context())
    assert "nothing was merged: no neighbours are more alike than tau = 1.00" in selection.diagnostics["notes"]
    assert selection.counts()["merged"] == 0


def test_clusters_hang_together_and_do_not_reach_over_views() -> None:
    grid = toy_grid((3, 4), (2, 5))
    found = cluster(torch.ones(len(grid), 2), np.full(len(grid), 0.1), grid, 0.75, "8")
    assert found.ids.tolist() == [0] * 12 + [1] * 10
    assert found.first.tolist() == [0, 12]


def test_a_zero_token_starts_its_own_cluster() -> None:
    features = torch.ones(6, 2)
    features[4] = 0
    found = cluster(features, np.full(6, 1 / 6), toy_grid((2, 3)), 0.0, "4")
    assert found.ids.tolist() == [0, 0, 0, 0, 1, 0]


def slow_semantic(tokens: VisualTokens, lam: float, count: int) -> list[list[float]]:
    """Cluster representatives by descending summed attention, scaled by 1 - lambda."""
    features = tokens.features.double().tolist()
    heads = tokens.signals[Signal.CLS_ATTENTION].double().tolist()
    view = tokens.grid.views[0]
    raw = [sum(head[i] for head in heads) / len(heads) for i in range(len(features))]
    a = [value / sum(raw) for value in raw]
    ids = slow_clusters(features, view.rows, view.cols, 0.75 + 0.20 * lam, True)
    members = {c: [i for i in range(len(ids)) if ids[i] == c] for c in dict.fromkeys(ids)}
    importance = {c: sum(a[i] for i in those) for c, those in members.items()}
    outputs = []
    for c in sorted(members, key=lambda c: (-importance[c], c))[:count]:
        those = members[c]
        if len(those) <= 4 * (1 + lam):
            mean = features[max(those, key=lambda i: a[i])]
        else:
            mean = [sum(a[i] * features[i][d] for i in those) / importance[c] for d in range(len(features[0]))]
        outputs.append([(1 - lam) * value for value in mean])
    return outputs


@pytest.mark.parametrize("lam", [0.0, 0.2, 0.5])
def test_semantic_outputs_are_those_of_the_slow_reference(lam: float) -> None:
    tokens = toy_tokens(toy_grid((8, 9)), dim=2, dtype=torch.float64)  # in two dimensions many neighbours are alike
    selection = DualComp(lam=lam).compress(tokens, 10, Context())
    even = np.full(len(tokens), 1 / len(tokens))
    assert max(cluster(tokens.features, even, tokens.grid, 0.75 + 0.2 * lam, "8").sizes) > 4 * (1 + lam)
    assert selection.stream is not None
    semantic = int((selection.stream == Stream.SEMANTIC).sum())
    assert semantic == 10 - round(10 * lam)
    outputs = selection.apply(tokens.features)[:semantic]
    np.testing.assert_allclose(outputs.numpy(), slow_semantic(tokens, lam, semantic), atol=1e-6)


def test_a_small_object_is_one_token_unchanged_and_a_large_area_an_average() -> None:
    # Left column: three equal tokens (small). The other six are alike: one large cluster.
    features = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]] * 3)
    attention = torch.tensor([[0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1]])
    tokens = VisualTokens.whole(features, toy_grid((3, 3)), {Signal.CLS_ATTENTION: attention})
    selection = DualComp(lam=0.0).compress(tokens, 2, Context())
    assert selection.anchor.tolist() == [1, 3]  # .6 of the attention in the large cluster, .4 in the small one
    assert selection.fate[[0, 3, 6]].tolist() == [Fate.DROPPED, Fate.KEPT, Fate.DROPPED]
    assert selection.fate[[2, 4, 5, 7, 8]].tolist() == [Fate.MERGED] * 5
    assert selection.apply(features).tolist() == [pytest.approx([1.0, 0.0]), [0.0, 1.0]]
    assert selection.diagnostics["clusters"] == 2


def test_a_cluster_without_attention_is_averaged_evenly() -> None:
    tokens = VisualTokens.whole(torch.ones(9, 2), toy_grid((3, 3)), {Signal.CLS_ATTENTION: torch.zeros(2, 9)})
    selection = DualComp(lam=0.0).compress(tokens, 1, Context())
    np.testing.assert_allclose(selection.weight_value, 1 / 9, rtol=1e-6)


# --- geometric stream


def slow_structure(features: list[list[float]], rows: int, cols: int) -> list[float]:
    """Eq. 4 with loops; the mean is over in-image cells."""
    found = []
    for y in range(rows):
        for x in range(cols):
            near = [
                features[v * cols + u]
                for v in range(max(0, y - 1), min(rows, y + 2))
                for u in range(max(0, x - 1), min(cols, x + 2))
            ]
            mean = [sum(column) / len(near) for column in zip(*near, strict=True)]
            found.append(sum((a - b) ** 2 for a, b in zip(features[y * cols + x], mean, strict=True)))
    return found


def test_structure_is_that_of_the_slow_reference() -> None:
    tokens = toy_tokens(toy_grid((4, 6)))
    expected = slow_structure(tokens.features.double().tolist(), 4, 6)
    np.testing.assert_allclose(structure(tokens.features, tokens.grid).numpy(), expected, rtol=1e-5)


def test_a_flat_picture_has_no_structure_not_even_at_its_border() -> None:
    assert structure(torch.full((12, 3), 0.1), toy_grid((3, 4))).tolist() == [0.0] * 12


def test_anchors_are_visited_there_and_back() -> None:
    score = np.zeros((4, 4), dtype=np.float32)
    score[0, 1] = score[1, 3] = score[2, 0] = score[3, 3] = 1
    assert regional_maxima(score, (2, 2)) == [1, 7, 15, 8]


def slow_walk(score: list[float], rows: int, cols: int, anchors: list[int]) -> list[int]:
    """Eq. 6 with loops, first visits only."""
    route = [anchors[0]]
    here = anchors[0]
    for goal in anchors[1:]:
        while here != goal:
            y, x = here // cols, here % cols
            far = max(abs(goal // cols - y), abs(goal % cols - x))
            best = None
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    v, u = y + dy, x + dx
                    if (dy, dx) == (0, 0) or not (0 <= v < rows and 0 <= u < cols):
                        continue
                    nearer = max(abs(goal // cols - v), abs(goal % cols - u)) < far
                    if nearer and (best is None or score[v * cols + u] > score[best]):
                        best = v * cols + u
            assert best is not None
            here = best
            route.append(here)
    return list(dict.fromkeys(route))


@pytest.mark.parametrize("seed", range(5))
def test_the_walk_is_that_of_the_slow_reference(seed: int) -> None:
    draw = np.random.default_rng(seed)
    score = draw.random((7, 9)).astype(np.float32)
    anchors = regional_maxima(score, (3, 3))
    steps = score.reshape(-1).tolist()
    assert walk(steps, (7, 9), anchors, 63) == slow_walk(steps, 7, 9, anchors)


def test_a_leg_has_exactly_its_chebyshev_length() -> None:
    score = np.random.default_rng(0).random(100).tolist()
    path = walk(score, (10, 10), [3, 96], 100)
    assert path is not None
    assert (path[0], path[-1], len(path) - 1) == (3, 96, 9)
    cells = [divmod(cell, 10) for cell in path]
    assert all(max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1 for a, b in pairwise(cells))


def test_the_walk_by_hand_prefers_the_strong_cell() -> None:
    # From top left to bottom left of 3 x 2: the middle row offers 2 (weak) and 3 (strong).
    assert walk([0.0, 0.0, 0.1, 0.9, 0.0, 0.0], (3, 2), [0, 4], 6) == [0, 3, 4]
    assert walk([0.0, 0.0, 0.5, 0.5, 0.0, 0.0], (3, 2), [0, 4], 6) == [0, 2, 4]  # a tie takes the first step: down


def test_a_walk_that_is_too_long_is_none() -> None:
    assert walk([0.0] * 9, (3, 3), [0, 8], 2) is None


def test_cells_that_fill_up_follow_their_nearest_cell_of_the_walk() -> None:
    # Walk 0 1 2 along the top of 3 x 3; then 5 (.9, next to 1 and 2: the earlier), 3 (.8, next to 0 and 1: the
    # earlier), 7 (.7, two from all: the earliest).
    score = np.array([0, 0, 0, 0.8, 0.1, 0.9, 0, 0.7, 0], dtype=np.float32)
    assert fill([0, 1, 2], score, 3, 6) == [0, 3, 7, 1, 5, 2]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000), st.data())
def test_a_route_has_exactly_its_cells_and_the_finest_regions_that_fit(
    rows: int, cols: int, seed: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(1, rows * cols))
    score = np.random.default_rng(seed).random((rows, cols)).astype(np.float32)
    route = trace(score, score, count)
    assert len(route.path) == len(set(route.path)) == count
    assert set(route.anchors) <= set(route.path)
    assert len(route.anchors) == route.regions[0] * route.regions[1]
    assert [cell for cell in route.path if cell in route.anchors] == sorted(route.anchors, key=route.path.index)
    for finer in REGIONS[: REGIONS.index(route.regions)]:
        if finer[0] <= rows and finer[1] <= cols:
            steps = score.reshape(-1).tolist()
            assert len(slow_walk(steps, rows, cols, regional_maxima(score, finer))) > count


def test_geometric_outputs_are_scaled_tokens_in_path_order() -> None:
    tokens = toy_tokens(toy_grid((6, 6)))
    selection = DualComp(lam=0.75).compress(tokens, 16, Context())
    assert selection.stream is not None
    path = selection.anchor[selection.stream == Stream.GEOMETRIC]
    assert selection.diagnostics["path"] == path.tolist()
    assert len(path) == 12
    torch.testing.assert_close(selection.apply(tokens.features)[4:], 0.75 * tokens.features[torch.from_numpy(path)])
    unscaled = DualComp(lam=0.75, scale=False).compress(tokens, 16, Context())
    assert unscaled.anchor.tolist() == selection.anchor.tolist()
    torch.testing.assert_close(unscaled.apply(tokens.features)[4:], tokens.features[torch.from_numpy(path)])


def test_text_bends_the_route_and_its_absence_is_noted() -> None:
    with_text = toy_tokens(toy_grid((6, 6)))
    signals = {name: value for name, value in with_text.signals.items() if name != Signal.TEXT_SIMILARITY}
    without = replace(with_text, signals=signals)
    note = "the text term of the structure map is off: the model gives no similarity to the text"
    seen = DualComp(lam=0.9, beta=50.0).compress(with_text, 12, Context())
    blind = DualComp(lam=0.9, beta=50.0).compress(without, 12, Context())
    off = DualComp(lam=0.9, beta=0.0).compress(with_text, 12, Context())
    assert note in blind.diagnostics["notes"]
    assert note not in seen.diagnostics["notes"]
    assert blind.diagnostics["path"] == off.diagnostics["path"] != seen.diagnostics["path"]


def test_at_lambda_one_the_score_is_equation_five_scaled() -> None:
    tokens = toy_tokens(toy_grid((5, 5)))
    geometry = structure(tokens.features, tokens.grid)
    text = tokens.signals[Signal.TEXT_SIMILARITY]
    expected = min_max(geometry) * (1 + 2.0 * min_max(text))
    found = DualComp(beta=2.0, lam=1.0).compress(tokens, 3, Context())
    np.testing.assert_allclose(found.scores, min_max(expected).numpy(), rtol=1e-5)


# --- fusion


def test_a_token_in_both_streams_gives_two_outputs() -> None:
    tokens = toy_tokens(toy_grid((4, 4)))
    selection = DualComp(lam=0.5).compress(tokens, 16, Context())
    assert len(selection) == 16
    assert selection.counts()["kept"] < 16
    assert sum(selection.counts().values()) == 16


def test_views_are_fused_one_after_the_other() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3), (2, 5)))
    selection = DualComp(lam=0.5).compress(tokens, 13, Context())
    views = tokens.grid.view_indices()[selection.anchor]
    assert (np.diff(views) >= 0).all()
    assert np.bincount(views).tolist() == [5, 4, 4]
    assert len(selection.diagnostics["regions"]) == 3


def test_over_the_image_the_semantic_stream_comes_first() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3)))
    selection = DualComp(lam=0.5, per="image").compress(tokens, 12, Context())
    assert selection.stream is not None
    assert selection.stream.tolist() == [Stream.SEMANTIC] * 6 + [Stream.GEOMETRIC] * 6


def test_survivors_of_an_earlier_stage_are_refused(grid_4x6: TokenGrid) -> None:
    survivors = VisualTokens(torch.zeros(3, 2), grid_4x6, np.array([0, 1, 2]))
    with pytest.raises(InvalidGrid, match="works on all 24 visual tokens, got 3 survivors; make it the first step"):
        DualComp().compress(survivors, 2, Context())


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_a_stream_of_weight_zero_is_closed_whatever_the_floor(lam: float) -> None:
    tokens = smooth_tokens(toy_grid((6, 9)))
    selection = DualComp(lam=lam, weight_floor=0.0).compress(tokens, 40, Context())
    assert selection.stream is not None
    assert len(set(selection.stream.tolist())) == 1
    assert (selection.apply(tokens.features).norm(dim=1) > 0).all()
    closed = "geometric" if lam == 0 else "semantic"
    assert any(note.startswith(f"the {closed} stream is closed") for note in selection.diagnostics["notes"])
