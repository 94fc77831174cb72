from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.run import Recording
from compression.selection import Selection
from storage import RunNotFound, tokens_table
from storage.views import TOKEN_COLUMNS
from tests.factories import make_grid, make_run


@pytest.fixture
def small():
    """Four tokens in one view of 2 x 2: 0 kept, 1 merged into 0, 2 dropped, 3 kept."""
    run = make_run(tokens=(2, 2), strategy="visionzip@0.5", image_size=(20, 40))
    selection = Selection.merge(4, [0, 3], [([0, 1], [0.5, 0.5]), ([3], [1.0])], scores=[4.0, 3.0, 2.0, 1.0])
    attention = np.array([[0.2, 0.1, np.nan, 0.3], [0.4, 0.1, np.nan, np.nan]], dtype=np.float16)
    return replace(run, selection=selection, recording=Recording(answer=attention))


def test_each_visual_token_has_a_row_with_its_place_and_fate(store, small):
    store.add(small)
    table = tokens_table(store, small.id)
    assert list(table.columns) == list(TOKEN_COLUMNS)
    assert table["token"].tolist() == [0, 1, 2, 3]
    assert list(zip(table["row"], table["col"], strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert table.loc[1, ["left", "top", "right", "bottom"]].tolist() == [20, 0, 40, 10]
    assert table["fate"].tolist() == ["kept", "merged", "dropped", "kept"]
    assert table["target"].tolist() == [0, 0, -1, 3]
    assert table["score"].tolist() == [4, 3, 2, 1]
    assert set(table["run"]) == {small.id}


def test_attention_is_the_mean_over_the_layers_where_a_token_was_there(store, small):
    store.add(small)
    assert tokens_table(store, small.id)["attention"].tolist() == pytest.approx(
        [0.3, 0.1, np.nan, 0.3], abs=1e-3, nan_ok=True
    )


def test_what_was_not_recorded_is_not_a_number(store, small):
    store.add(replace(small, selection=Selection.prune(4, [1]), recording=Recording()))
    table = tokens_table(store, small.id)
    assert table[["score", "attention"]].isna().all(axis=None)


def test_tokens_of_many_views_carry_the_name_of_their_view(store):
    run = make_run(tokens=(2, 3), strategy="dualcomp@0.25", views=4)
    store.add(run)
    table = tokens_table(store, run.id)
    assert len(table) == 24
    assert table["view"].unique().tolist() == [view.name for view in make_grid((2, 3), 4).views]
    assert table.groupby("view", sort=False)["token"].count().tolist() == [6, 6, 6, 6]


def test_tokens_of_a_run_that_is_not_there_are_not_found(store):
    with pytest.raises(RunNotFound):
        tokens_table(store, "nothing")
