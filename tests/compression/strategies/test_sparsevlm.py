"""SparseVLM against loops, its released lists against the published averages, and its recycling by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.decoder import mean_over_layers, tokens_per_layer
from compression.layer import LayerState
from compression.selection import Fate
from compression.similarity import density_peaks
from compression.strategies import CATALOGUE
from compression.strategies.sparsevlm import LISTS, SparseVLM, rating_words, rotary_weight
from compression.tokens import VisualTokens
from tests.compression.strategies.test_pyramiddrop import slow_row
from tests.contracts.toys import toy_context, toy_grid, toy_state, toy_tokens


def slow_raters(state: LayerState) -> list[int]:
    """P = softmax_text(V T^t); m_j = mean_i P_ij; raters = {j : m_j > mean(m)}, as positions in the sequence."""
    first = int(max(state.entered_visual)) + 1
    words = range(first, len(state.entered))
    relevance = [0.0] * len(words)
    for token in state.entered_visual:
        logits = [float(state.entered[token].double() @ state.entered[word].double()) for word in words]
        shifted = [math.exp(logit - max(logits)) for logit in logits]
        for at, value in enumerate(shifted):
            relevance[at] += value / sum(shifted) / len(state.entered_visual)
    mean = sum(relevance) / len(relevance)
    return [int(max(state.visual)) + 1 + at for at, value in enumerate(relevance) if value > mean]


def slow_scores(state: LayerState) -> list[float]:
    """r_i = mean over raters j of the head mean of A[j, i] in the layer before."""
    raters = slow_raters(state)
    rows = [slow_row(state.previous, rater) for rater in raters]
    return [
        sum(sum(head[token] for head in row) / len(row) for row in rows) / len(rows) for token in state.visual.tolist()
    ]


def slow_clusters(points: list[list[float]], clusters: int) -> tuple[list[int], list[int]]:
    """Density peaks as the specification writes them, ties by index."""
    count = len(points)
    distance = [[math.dist(a, b) / math.sqrt(len(a)) for b in points] for a in points]
    density = [math.exp(-sum(d * d for d in sorted(row)[:clusters]) / clusters) for row in distance]
    peak = []
    for i in range(count):
        denser = [j for j in range(count) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        delta = min((distance[i][j] for j in denser), default=max(max(row) for row in distance))
        peak.append(density[i] * delta)
    centres = sorted(range(count), key=lambda i: (-peak[i], i))[:clusters]
    owner = [min(range(clusters), key=lambda c: (distance[i][centres[c]], c)) for i in range(count)]
    for number, centre in enumerate(centres):
        owner[centre] = number
    return centres, owner


@pytest.mark.parametrize("budget", [3, 20, 40, 59])
def test_it_keeps_and_recycles_what_the_slow_reference_does(budget: int) -> None:
    tokens = toy_tokens(toy_grid((6, 10)))
    context = toy_context(tokens)
    assert context.state is not None
    scores = slow_scores(context.state)
    ranked = sorted(range(60), key=lambda token: (-scores[token], token))
    for kept in range(budget, 0, -1):  # the most that leave room for what is recycled
        candidates = sorted(ranked[kept : kept + int(0.3 * (60 - kept)) + 1])
        clusters = int((int(0.3 * (60 - kept)) + 1) / 10) + 1
        if kept + clusters <= budget:
            break
    centres, owner = slow_clusters([tokens.features[token].double().tolist() for token in candidates], clusters)
    selection = SparseVLM().compress(tokens, budget, context)
    assert selection.anchor.tolist() == sorted(ranked[:kept]) + [candidates[centre] for centre in centres]
    np.testing.assert_allclose(selection.scores, scores, atol=1e-6)
    outputs = selection.apply(tokens.features)
    for number in range(clusters):
        members = [token for token, own in zip(candidates, owner, strict=True) if own == number]
        np.testing.assert_allclose(outputs[kept + number], tokens.features[members].mean(0), atol=1e-5)
    assert (selection.fate == Fate.DROPPED).sum() == 60 - kept - len(candidates)


def test_raters_are_the_words_that_the_image_answers_to_by_hand() -> None:
    state = toy_state(toy_tokens(toy_grid((1, 2)), dim=2), behind=3)
    entered = torch.tensor([[0.0, 0.0]] * 3 + [[1.0, 0.0], [2.0, 0.0]] + [[0.0, 5.0], [1.0, 0.0], [3.0, 0.0]])
    # Logits of the two tokens with the three words: 0, 1, 3 and 0, 2, 6: only the last word is above a third.
    assert rating_words(replace(state, entered=entered)).tolist() == [7]
    alike = torch.ones_like(entered)
    assert rating_words(replace(state, entered=alike)).tolist() == [5, 6, 7]


def test_density_peaks_find_two_heaps_by_hand() -> None:
    # Heap around 0 with its middle at index 1, heap around 10 with its middle at index 4.
    points = torch.tensor([[-1.0], [0.0], [1.0], [9.0], [10.0], [11.0]])
    centres, owner = density_peaks(points, 2)
    assert owner.tolist() in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    assert sorted(centres.tolist())[0] < 3 <= sorted(centres.tolist())[1]
    assert [c.tolist() for c in density_peaks(points, 2)] == list(slow_clusters(points.tolist(), 2))


def test_the_released_192_is_192_03_by_what_leaves_and_206_5_by_what_enters() -> None:
    strategy = SparseVLM()
    sizes = strategy.keeps(576, 192 / 576, (3, 7, 16), 32)
    assert list(sizes) == [309, 204, 113]  # 300, 200 and 110 kept, 9, 4 and 3 recycled
    acts = strategy.schedule(576, 207, 32)
    assert [act.keep for act in acts] == [309, 204, 113]
    entering = tokens_per_layer(acts, 576, 32)
    assert sum(entering) / 32 == 206.5
    assert sum((*entering[1:], entering[-1])) / 32 == 192.03125


@pytest.mark.parametrize("release", ["v1.5", "plus"])
@pytest.mark.parametrize("mean", [192, 128, 96, 64])
def test_a_released_list_is_taken_where_its_mean_is_asked_for(release: str, mean: int) -> None:
    strategy = SparseVLM(release=release)  # type: ignore[arg-type]
    acts = strategy._acts(576, mean / 576, (3, 7, 16), 32)
    average = math.ceil(mean_over_layers(acts, 576, 32))
    assert strategy.schedule(576, average, 32) == acts
    present = 576
    for act, listed in zip(acts, LISTS[release][mean], strict=True):
        tokens = toy_tokens(toy_grid((1, present)))
        decided = strategy.compress(tokens, act.keep, toy_context(tokens))
        assert act.keep - decided.diagnostics["recycled"] == listed
        present = act.keep


@pytest.mark.parametrize(
    ("text", "left", "leaving"),
    [
        ("sparsevlm@207", [309, 204, 113], 192.03125),
        ("sparsevlm@146", [312, 117, 39], 128.625),
        ("sparsevlm@115", [249, 55, 27], 96.9375),
        ("sparsevlm@83", [82, 32, 18], 64.8125),
        ("sparsevlm:release=plus@207", [300, 200, 118], 192.4375),
        ("sparsevlm:release=plus@145", [238, 108, 60], 128.0),
        ("sparsevlm:release=plus@114", [246, 54, 28], 96.8125),
        ("sparsevlm:release=plus@82", [66, 34, 20], 64.4375),
    ],
)
def test_the_budgets_named_in_the_text_give_the_released_lists(text: str, left: list[int], leaving: float) -> None:
    [step] = CATALOGUE.plan(text).steps
    assert isinstance(step.compressor, SparseVLM)
    acts = step.compressor.schedule(576, step.budget.count or 0, 32)
    assert [act.keep for act in acts] == left
    entering = tokens_per_layer(acts, 576, 32)
    assert sum((*entering[1:], entering[-1])) / 32 == leaving
    assert f"@{step.budget}" in SparseVLM.description()


def test_plus_divides_by_the_rotary_weight_and_keeps_the_heads_that_look_most() -> None:
    tokens = toy_tokens(toy_grid((4, 6)))
    context = toy_context(tokens)
    state = context.state
    assert state is not None
    cos, sin = state.rotary
    raters = slow_raters(state)

    def turned(position: int) -> list[float]:
        dims = cos.shape[1]
        back = [-1.0] * (dims // 2) + [1.0] * (dims // 2)  # rotate_half of ones
        return [float(cos[position, i]) + back[i] * float(sin[position, i]) for i in range(dims)]

    def weight(query: int, key: int) -> float:
        product = sum(a * b for a, b in zip(turned(query), turned(key), strict=True))
        return max(product / math.sqrt(cos.shape[1]), 0.01 * math.sqrt(cos.shape[1]))

    rows = {rater: slow_row(state.previous, rater) for rater in raters}
    visual = state.visual.tolist()
    freed = [[[rows[r][head][t] / weight(r, t) for t in visual] for r in raters] for head in range(4)]
    masses = [sum(sum(row) for row in head) for head in freed]
    heads = sorted(range(4), key=lambda head: (-masses[head], head))[: round(14 / 32 * 4)]
    scores = [
        sum(freed[head][r][t] for head in heads for r in range(len(raters))) / len(heads) / len(raters)
        for t in range(24)
    ]
    selection = SparseVLM(release="plus").compress(tokens, 7, context)
    np.testing.assert_allclose(selection.scores, scores, rtol=1e-4)
    assert selection.anchor.tolist() == sorted(sorted(range(24), key=lambda t: (-scores[t], t))[:7])
    assert selection.is_pruning


def test_the_rotary_weight_is_largest_at_distance_nought() -> None:
    tokens = toy_tokens(toy_grid((1, 8)))
    state = toy_state(tokens)
    weight = rotary_weight(state.rotary, torch.tensor([5]), torch.arange(6))
    assert weight.argmax() == 5
    assert weight[0, 5] == pytest.approx(math.sqrt(state.rotary[0].shape[1]))


def test_positions_are_those_of_the_release_unless_asked_otherwise() -> None:
    assert SparseVLM().convention == "renumbered"
    assert SparseVLM(release="plus").convention == "original"
    assert SparseVLM(release="plus", positions="renumbered").convention == "renumbered"


def test_stages_scale_with_depth_and_can_be_asked_for(tokens_4x6: VisualTokens) -> None:
    assert SparseVLM().cut_layers(32) == (3, 7, 16)
    assert SparseVLM().cut_layers(6) == (1, 2, 3)
    assert SparseVLM(stages="2/4").cut_layers(6) == (2, 4)
    assert len(SparseVLM(stages="1/2/3/4").schedule(24, 18, 6)) == 4
