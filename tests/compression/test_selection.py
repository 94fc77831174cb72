"""The algebra of selections: apply, expand, distribute and then."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression.errors import InvalidSelection
from compression.selection import Fate, RouterDecision, Selection

TOKENS = st.integers(1, 12)


@st.composite
def prunings(draw: st.DrawFn, tokens: int) -> Selection:
    kept = draw(st.lists(st.integers(0, tokens - 1), min_size=1, max_size=tokens, unique=True))
    return Selection.prune(tokens, kept)


@st.composite
def averages(draw: st.DrawFn, tokens: int) -> Selection:
    """Each token joins one of a few outputs or is dropped; outputs are means, anchored at one of their members."""
    groups = draw(st.lists(st.integers(-1, 3), min_size=tokens, max_size=tokens))
    clusters = [[token for token in range(tokens) if groups[token] == group] for group in range(4)]
    clusters = [members for members in clusters if members] or [[0]]
    anchors = [draw(st.sampled_from(members)) for members in clusters]
    return Selection.merge(tokens, anchors, [(m, [1 / len(m)] * len(m)) for m in clusters])


@st.composite
def mixtures(draw: st.DrawFn, tokens: int) -> Selection:
    """Any positive weights: tokens in several outputs, repeated anchors, other than unit sums."""
    outputs = draw(st.integers(1, 5))
    weights, anchors = [], []
    for _ in range(outputs):
        sources = draw(st.lists(st.integers(0, tokens - 1), min_size=1, max_size=4, unique=True))
        weights.append((sources, [draw(st.sampled_from([0.25, 0.5, 1.0, 2.0])) for _ in sources]))
        anchors.append(draw(st.sampled_from(sources)))
    return Selection.merge(tokens, anchors, weights)


def any_selection(tokens: int) -> st.SearchStrategy[Selection]:
    return st.one_of(prunings(tokens), averages(tokens), mixtures(tokens))


@given(st.data(), TOKENS)
def test_applying_a_pruning_is_indexing(data: st.DataObject, tokens: int) -> None:
    selection = data.draw(prunings(tokens))
    features = torch.randn(tokens, 3, generator=torch.Generator().manual_seed(0))
    assert selection.is_pruning
    assert torch.equal(selection.apply(features), features[torch.from_numpy(selection.anchor)])


@given(st.data(), TOKENS)
def test_fates_partition_the_tokens(data: st.DataObject, tokens: int) -> None:
    selection = data.draw(any_selection(tokens))
    assert sum(selection.counts().values()) == tokens
    assert set(np.flatnonzero(selection.fate == Fate.KEPT)) == set(selection.anchor)


@given(st.data(), TOKENS)
def test_averaging_ones_and_spreading_them_back_gives_ones_or_nan(data: st.DataObject, tokens: int) -> None:
    selection = data.draw(averages(tokens))
    back = selection.expand(selection.apply(torch.ones(tokens, 1)).numpy()[:, 0])
    np.testing.assert_allclose(back[selection.fate != Fate.DROPPED], 1, rtol=1e-6)
    assert np.isnan(back[selection.fate == Fate.DROPPED]).all()


@given(st.data(), TOKENS)
def test_distributing_loses_and_doubles_nothing(data: st.DataObject, tokens: int) -> None:
    selection = data.draw(any_selection(tokens))
    amounts = np.arange(1.0, 2 * len(selection) + 1).reshape(2, -1)
    spread = selection.distribute(amounts)
    np.testing.assert_allclose(np.nansum(spread, axis=1), amounts.sum(axis=1))
    assert (np.isnan(spread[0]) == (selection.fate == Fate.DROPPED)).all()


@given(st.data(), TOKENS)
def test_expanding_a_constant_gives_the_constant(data: st.DataObject, tokens: int) -> None:
    selection = data.draw(any_selection(tokens))
    back = selection.expand(np.full(len(selection), 7.0))
    np.testing.assert_allclose(back[selection.fate != Fate.DROPPED], 7)


@given(st.data(), TOKENS)
def test_composition_is_application_one_after_the_other(data: st.DataObject, tokens: int) -> None:
    first = data.draw(any_selection(tokens))
    second = data.draw(any_selection(len(first)))
    features = torch.randn(tokens, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = first.then(second)
    torch.testing.assert_close(both.apply(features), second.apply(first.apply(features)), atol=1e-5, rtol=0)
    assert set(both.anchor) <= set(first.anchor)


@given(st.data(), TOKENS)
def test_composition_is_associative(data: st.DataObject, tokens: int) -> None:
    first = data.draw(any_selection(tokens))
    second = data.draw(any_selection(len(first)))
    third = data.draw(any_selection(len(second)))
    left, right = first.then(second).then(third), first.then(second.then(third))
    assert left.anchor.tolist() == right.anchor.tolist()
    np.testing.assert_allclose(dense(left), dense(right), rtol=1e-6)


@given(st.data(), TOKENS)
def test_the_identity_is_neutral_in_composition(data: st.DataObject, tokens: int) -> None:
    selection = data.draw(any_selection(tokens))
    before = Selection.prune(tokens, range(tokens)).then(selection)
    after = selection.then(Selection.prune(len(selection), range(len(selection))))
    for composed in (before, after):
        assert composed.anchor.tolist() == selection.anchor.tolist()
        np.testing.assert_array_equal(dense(composed), dense(selection))


@given(st.data(), TOKENS)
def test_storage_gives_the_selection_back(data: st.DataObject, tokens: int) -> None:
    selection = data.draw(any_selection(tokens))
    again = Selection.from_json(json.loads(json.dumps(selection.to_json())), selection.arrays())
    assert again == selection
    assert hash(again) == hash(selection)


def dense(selection: Selection) -> np.ndarray:
    matrix = np.zeros((len(selection), selection.tokens + selection.extra))
    np.add.at(matrix, (selection.weight_output, selection.weight_token), selection.weight_value)
    return matrix


def test_a_merged_token_points_at_the_anchor_that_took_most_of_it() -> None:
    selection = Selection.merge(5, [0, 4], [([0, 1, 2], [1.0, 0.2, 0.6]), ([4, 1], [1.0, 0.8])])
    assert selection.fate.tolist() == [Fate.KEPT, Fate.MERGED, Fate.MERGED, Fate.DROPPED, Fate.KEPT]
    assert selection.target.tolist() == [0, 4, 0, -1, 4]


def test_merged_tokens_are_not_shown_as_dropped() -> None:
    selection = Selection.merge(3, [0], [([0, 1], [0.5, 0.5])])
    assert selection.counts() == {"kept": 1, "merged": 1, "dropped": 1}


def test_a_weight_of_zero_leaves_no_trace() -> None:
    selection = Selection.merge(2, [0], [([0, 1], [1.0, 0.0])])
    assert selection.fate.tolist() == [Fate.KEPT, Fate.DROPPED]
    assert np.isnan(selection.expand(np.ones(1))[1])
    assert np.isnan(selection.distribute(np.ones(1))[1])


def test_an_area_less_source_is_read_from_the_extra_features() -> None:
    selection = Selection.merge(2, [-1, 1], [([2], [1.0]), ([1], [1.0])], extra=1)
    outputs = selection.apply(torch.tensor([[1.0], [2.0]]), torch.tensor([[9.0]]))
    assert outputs.tolist() == [[9.0], [2.0]]
    assert selection.counts() == {"kept": 1, "merged": 0, "dropped": 1}


def test_composition_after_an_area_less_source_keeps_it() -> None:
    first = Selection.merge(3, [-1, 1, 2], [([3], [1.0]), ([1], [1.0]), ([2], [1.0])], extra=1)
    both = first.then(Selection.prune(3, [0, 2]))
    assert both.anchor.tolist() == [-1, 2]
    features, extra = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[9.0]])
    assert both.apply(features, extra).tolist() == [[9.0], [3.0]]


def test_half_precision_sums_are_made_in_float32() -> None:
    many = 4096
    selection = Selection.merge(many, [0], [(range(many), [1.0] * many)])
    outputs = selection.apply(torch.ones(many, 1, dtype=torch.float16))
    assert outputs.dtype == torch.float16
    assert outputs.item() == many  # a float16 running sum would stop at 2,048


def test_gradients_flow_through_apply() -> None:
    features = torch.ones(3, 2, requires_grad=True)
    Selection.merge(3, [0, 2], [([0, 1], [0.25, 0.75]), ([2], [1.0])]).apply(features).sum().backward()
    assert features.grad is not None
    assert features.grad[:, 0].tolist() == [0.25, 0.75, 1.0]


def test_scores_of_a_later_stage_are_spread_back() -> None:
    first = Selection.merge(4, [0, 3], [([0, 1], [0.5, 0.5]), ([3], [1.0])])
    both = first.then(Selection.prune(2, [1], scores=[0.2, 0.8]))
    np.testing.assert_allclose(both.scores, [0.2, 0.2, np.nan, 0.8])


def test_a_token_that_one_of_its_outputs_still_holds_is_not_shown_as_dropped() -> None:
    both = Selection.merge(3, [0, 2], [([0, 1], [0.5, 0.5]), ([1, 2], [0.5, 0.5])])
    np.testing.assert_allclose(both.distribute(np.array([np.nan, 0.4])), [np.nan, 0.2, 0.2])


def test_notes_of_both_stages_stay_and_are_said_once() -> None:
    first = Selection.prune(3, [0, 2], diagnostics={"notes": ["a", "b"], "layer": 1})
    later = Selection.prune(2, [1], diagnostics={"notes": ["b", "c"], "layer": 2})
    assert first.then(later).diagnostics == {"notes": ["a", "b", "c"], "layer": 2}


def test_a_router_decision_survives_storage() -> None:
    decision = RouterDecision(0.2, 0.1, {"semantic": 0.8, "geometric": 0.2}, thresholds={"tau": 0.79}, reason="words")
    selection = Selection.prune(2, [0], router=decision, diagnostics={"clusters": 3})
    again = Selection.from_json(json.loads(json.dumps(selection.to_json())), selection.arrays())
    assert again.router == decision
    assert again.diagnostics == {"clusters": 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchor": [], "weights": []}, "at least one output, got none"),
        ({"anchor": [4], "weights": [([0], [1.0])]}, r"anchors must lie in -1\.\.3, got 4\.\.4"),
        ({"anchor": [-2], "weights": [([0], [1.0])]}, r"anchors must lie in -1\.\.3, got -2"),
        ({"anchor": [0], "weights": [([4], [1.0])]}, r"weights must name sources in 0\.\.3"),
        ({"anchor": [0], "weights": [([0, 1], [1.0])]}, "must be equally long"),
        ({"anchor": [0], "weights": [([0], [float("nan")])]}, "weights must be finite"),
        ({"anchor": [0], "weights": [([0], [1.0])], "scores": [1.0]}, "one entry for each of 4 tokens, got 1"),
        ({"anchor": [0], "weights": [([0], [1.0])], "stream": [0, 1]}, "one entry for each of 1 outputs, got 2"),
    ],
    ids=["none", "anchor high", "anchor low", "source", "length", "nan", "scores", "stream"],
)
def test_contradictions_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidSelection, match=message):
        Selection.merge(4, **arguments)  # type: ignore[arg-type]


def test_features_of_another_image_are_refused() -> None:
    with pytest.raises(InvalidSelection, match="features must be 4 tokens and 0 extra sources, got 3"):
        Selection.prune(4, [0]).apply(torch.zeros(3, 1))
    with pytest.raises(InvalidSelection, match="must start from 1 tokens, got 2"):
        Selection.prune(4, [0]).then(Selection.prune(2, [0]))


def test_a_token_in_equally_heavy_outputs_belongs_to_the_first() -> None:
    made = Selection.merge(3, [0, 1], [([0, 2], [1.0, 0.5]), ([1, 2], [1.0, 0.5])])
    assert made.target.tolist() == [0, 1, 0]
