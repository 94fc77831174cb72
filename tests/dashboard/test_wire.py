from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.run import ImageRef
from compression.grid import TokenGrid, View
from compression.selection import Selection
from dashboard.opened import Opened
from dashboard.panes import level_indices
from dashboard.placement import place_image
from dashboard.rasters import levels_of
from dashboard.wire import attention_bytes, facts_json, token_boxes, tokens_in, tokens_json
from tests.dashboard.painted import four_by_four, one_of_each, run_of
from tests.factories import make_grid, make_run

PLAIN = place_image(ImageRef("0" * 64, "paper.png", 256, 256), None)


def unpacked(value: dict[str, str]) -> NDArray[Any]:
    return np.frombuffer(base64.b64decode(value["data"]), dtype=np.dtype(f"<{value['dtype']}"))


def test_the_page_gets_the_fates_and_targets_of_all_tokens() -> None:
    value = tokens_json(four_by_four(one_of_each()))
    assert unpacked(value["fate"]).tolist() == [2, 2, 2, 2, 2, 0, 1, 2, 2, 2, 0, 2, 2, 2, 2, 2]
    assert unpacked(value["target"])[[5, 6, 10, 0]].tolist() == [5, 5, 10, -1]
    assert unpacked(value["category"])[[5, 6, 10]].tolist() == [1, 1, 0]
    assert value["scores"] is None
    assert value["path"] is None


def test_views_are_written_once_and_not_per_token() -> None:
    small, large = (tokens_json(Opened.of(make_run(0, (side, side), "divprune@0.25", views=16))) for side in (2, 8))
    assert len(str(small["levels"])) == pytest.approx(len(str(large["levels"])), abs=40)


def test_streams_are_the_geometric_tokens_in_reading_order_and_the_members_of_semantic_ones() -> None:
    selection = Selection.merge(
        16, [3, 9, 8, 9], [([3, 2], [0.7, 0.3]), ([9], [1.0]), ([8], [1.0]), ([9], [1.0])], stream=[0, 0, 1, 1],
        diagnostics={"anchors": [9, 77, "no"]},
    )  # fmt: skip
    value = tokens_json(four_by_four(selection, strategy="dualcomp@0.25"))
    assert unpacked(value["path"]).tolist() == [8, 9]
    assert unpacked(value["anchors"]).tolist() == [9]
    semantic = unpacked(value["semantic"])
    assert semantic[[2, 3, 9]].tolist() == [3, 3, 9]
    assert (semantic == -1).sum() == 13


def test_attention_travels_as_it_is_stored() -> None:
    values = [np.nan if token == 3 else token / 64 for token in range(16)]
    run = four_by_four(one_of_each(), attention=values)
    content = attention_bytes(run, "answer", 0)
    assert content is not None
    assert np.array_equal(np.frombuffer(content, dtype="<f2"), np.array(values, dtype=np.float16), equal_nan=True)
    assert attention_bytes(run, "answer", 1) is None
    assert attention_bytes(run, "question", 0) is None


@pytest.mark.parametrize(
    ("box", "tokens"),
    [
        ((0, 0, 1, 1), [0]),
        ((70, 70, 70, 70), [5]),
        ((64, 64, 64, 64), [5]),
        ((63, 63, 65, 65), [0, 1, 4, 5]),
        ((0, 0, 64, 64), [0]),
        ((-99, -99, 999, 999), list(range(16))),
        ((300, 300, 400, 400), []),
    ],
)
def test_a_box_finds_the_tokens_that_it_touches(box: tuple[float, float, float, float], tokens: list[int]) -> None:
    (level,) = four_by_four(one_of_each()).levels
    assert tokens_in(level, box).tolist() == tokens


def test_facts_say_what_became_of_a_token_and_where_it_lies() -> None:
    run = four_by_four(one_of_each(), attention=[np.nan] * 5 + [0.25] + [np.nan] * 10)
    kept, merged, dropped = facts_json(run, np.array([5, 6, 0]), PLAIN, "answer", 0)
    assert kept["fate"] == "kept"
    assert kept["members"] == 2
    assert kept["target"] is None
    assert kept["attention"] == 0.25
    assert kept["box"] == [64, 64, 128, 128]
    assert (kept["row"], kept["col"]) == (1, 1)
    assert kept["lonlat"] is None
    assert merged["fate"] == "merged"
    assert merged["target"] == {"token": 5, "view": 0, "view_name": "image", "row": 1, "col": 1}
    assert dropped["fate"] == "dropped"
    assert dropped["attention"] is None


def test_facts_leave_out_what_was_not_recorded() -> None:
    (facts,) = facts_json(four_by_four(one_of_each()), np.array([0]), PLAIN, "answer", 0)
    assert "attention" not in facts


def test_scores_that_are_not_numbers_are_null() -> None:
    run = four_by_four(Selection.prune(16, [0], scores=[np.nan, *range(15)]))
    assert [facts["score"] for facts in facts_json(run, np.array([0, 1]), PLAIN, "answer", None)] == [None, 0.0]


def test_boxes_of_tokens_are_those_of_the_grid() -> None:
    grid = make_grid((3, 5), views=4, image_size=(300, 500))
    run = Opened.of(make_run(0, (3, 5), "divprune@0.25", views=4))
    run = replace(run, grid=grid, levels=levels_of(grid))
    assert np.allclose(token_boxes(run, np.arange(len(grid))), grid.boxes())


def test_strong_values_are_few_and_the_strongest_come_first() -> None:
    run = Opened.of(run_of(one_of_each(), attention=[0.04, 0.06, 0.3] + [0.0] * 13))
    assert run.attention["answer"].strong(0).tolist() == [2, 1]


def test_every_token_knows_its_level_of_views() -> None:
    views = (View(2, 2, (0, 0, 256, 256), "thumbnail"), *(View(2, 2, (x, 0, x + 128, 256), f"{x}") for x in (0, 128)))
    run = Opened.of(replace(make_run(0, (2, 6), "divprune@0.25"), grid=TokenGrid(views, (256, 256))))
    assert level_indices(run).tolist() == [0] * 4 + [1] * 8
    assert run.level == 1
