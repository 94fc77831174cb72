"""What is left of the evidence, and how two selections overlap."""

from __future__ import annotations

import pytest

from analysis.retention import evidence_recall, jaccard, without_area
from compression.grid import TokenGrid
from compression.selection import Selection

GRID = TokenGrid.single(2, 2, (32, 32))


def test_recall_counts_kept_tokens_and_those_merged_into_kept_ones():
    merged = Selection.merge(4, [0], [([0, 1], [0.5, 0.5])])
    assert evidence_recall(merged, GRID, [(0, 0, 32, 16)]) == 1.0
    assert evidence_recall(merged, GRID, [(0, 0, 32, 32)]) == 0.5
    assert evidence_recall(merged, GRID, [(0, 16, 32, 32)]) == 0.0


def test_a_token_merged_into_an_output_without_area_is_lost():
    nowhere = Selection.merge(4, [-1], [([0, 1, 2, 3], [0.25] * 4)])
    assert evidence_recall(nowhere, GRID, [(0, 0, 32, 32)]) == 0.0


def test_only_outputs_of_sources_without_area_have_none():
    assert without_area(Selection.prune(4, [0, 3])) == 0
    assert without_area(Selection.merge(4, [-1], [([0, 1, 2, 3], [0.25] * 4)])) == 0
    assert without_area(Selection.merge(4, [-1, 2, -1], [([4], [1.0]), ([2], [1.0]), ([5], [1.0])], extra=2)) == 2


def test_a_box_smaller_than_a_token_marks_the_token_that_holds_it():
    assert evidence_recall(Selection.prune(4, [3]), GRID, [(20, 20, 22, 22)]) == 1.0


def test_without_an_evidence_region_there_is_no_recall():
    assert evidence_recall(Selection.prune(4, [0]), GRID, []) is None
    assert evidence_recall(Selection.prune(4, [0]), GRID, [(100, 100, 120, 120)]) is None


@pytest.mark.parametrize(
    ("first", "second", "overlap"), [([0, 1], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([0, 1], [1, 2], 1 / 3)]
)
def test_jaccard_is_intersection_over_union(first, second, overlap):
    assert jaccard(Selection.prune(4, first), Selection.prune(4, second)) == pytest.approx(overlap)
