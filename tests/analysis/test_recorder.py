"""Attention rows become maps on the original grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.errors import NothingRecorded
from analysis.recorder import Recorder
from compression.backends.base import SequenceLayout
from compression.selection import Selection


def layout(visual: list[int], outputs: list[int], length: int = 6) -> SequenceLayout:
    return SequenceLayout(length, np.array(visual), np.array(outputs), np.array([length - 2]), length - 1)


def test_attention_to_a_merged_token_is_shared_by_its_members_and_nothing_is_lost():
    recorder = Recorder()
    recorder.attention(
        0, torch.tensor([[0.1, 0.4, 0.2, 0.1, 0.1, 0.1], [0.0, 0.2, 0.6, 0.1, 0.1, 0.0]]), layout([1, 2], [0, 1])
    )
    merged = Selection.merge(4, [0, 3], [([0, 1], [0.75, 0.25]), ([3], [1.0])])
    recording = recorder.finish(merged)
    assert np.allclose(recording.answer[0], [0.3, 0.1, np.nan, 0.2], atol=1e-3, equal_nan=True)
    assert recording.answer_mass[0] == pytest.approx(0.6)
    assert recording.question_mass[0] == pytest.approx(0.8)
    assert np.nansum(recording.answer[0].astype(float)) == pytest.approx(0.6, abs=1e-3)


def test_a_token_that_left_between_layers_has_no_attention_after_it():
    recorder = Recorder()
    rows = torch.full((2, 6), 1 / 6)
    recorder.attention(0, rows, layout([1, 2, 3], [0, 1, 2]))
    recorder.attention(1, rows[:, :5], layout([1, 2], [0, 2], length=5))
    recording = recorder.finish(Selection.prune(3, [0, 1, 2]))
    assert np.isfinite(recording.answer[0]).all()
    assert np.isnan(recording.answer[1]).tolist() == [False, True, False]


def test_a_recorder_that_heard_nothing_says_so():
    with pytest.raises(NothingRecorded, match="no attention was recorded"):
        Recorder().finish(Selection.prune(1, [0]))


def test_a_question_without_words_leaves_its_row_empty():
    recorder = Recorder()
    recorder.attention(
        0,
        torch.tensor([[0.5, 0.25, 0.25]]),
        SequenceLayout(3, np.array([1]), np.array([0]), np.array([], dtype=int), 2),
    )
    assert np.isnan(recorder.finish(Selection.prune(1, [0])).question).all()
