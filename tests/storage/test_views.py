from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import inspect, text

from compression.sight import Turn
from storage.views import TOKEN_COLUMNS, VIEWS
from tests.factories import make_run

# As published; a later version may append columns and views, and never takes one away or renames it.
PUBLISHED = {
    "v_runs": (
        "run, request, created_utc, model, model_family, model_revision, strategy, strategy_name, strategy_stage, "
        "strategy_params_json, budget_requested, budget_realised, tokens_total, tokens_kept, retention_ratio, image, "
        "image_name, image_width, image_height, crs, question, question_family, task, answer, answer_expected, "
        "is_correct, confidence, choice_mass, seed, device, dtype, encode_seconds, compress_seconds, prefill_seconds, "
        "decode_seconds, prefill_flops, kv_cache_bytes, peak_memory_bytes, evidence_recall, labels_json, "
        "keepmap_version, code_commit"
    ),
    "v_choices": "run, choice, text, probability, is_expected",
    "v_router": "run, stage, layer, stream, share, lambda, rho, score, threshold",
    "v_turns": (
        "run, turn, left, top, right, bottom, confidence, tokens_spent, answer_before, answer_after, accepted, reason"
    ),
    "v_failures": "failure, request_json, stage, reason, created_utc",
    "v_pid": (
        "pid, model, strategy, budget, question_family, task, layer, checkpoint, n, measure, estimator, intervention, "
        "gate, redundancy_bits, unique_vision_bits, unique_language_bits, synergy_bits, total_bits, lower_bits, "
        "upper_bits, ci_low_json, ci_high_json, gated_fraction_json, incoherence_bits, seed"
    ),
    "v_sweeps": "sweep, name, planned, done, failed, started_utc, finished_utc",
}
PUBLISHED_TOKENS = "run, token, row, col, view, left, top, right, bottom, fate, target, score, attention"


def rows_of(store, query):
    with store.database.reading() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_view_has_its_published_columns_first_and_in_order(store, name):
    published = PUBLISHED[name].split(", ")
    with store.database.reading() as connection:
        columns = [column["name"] for column in inspect(connection).get_columns(name)]
    assert columns[: len(published)] == published


def test_the_table_of_tokens_has_its_published_columns_first_and_in_order():
    published = PUBLISHED_TOKENS.split(", ")
    assert list(TOKEN_COLUMNS)[: len(published)] == published


def test_views_whose_content_does_not_exist_yet_do_not_appear(store):
    with store.database.reading() as connection:
        assert sorted(inspect(connection).get_view_names()) == sorted(VIEWS) == sorted(PUBLISHED)


def test_choices_are_listed_with_their_probabilities(store):
    run = make_run()
    store.add(run)
    rows = rows_of(store, "SELECT * FROM v_choices ORDER BY choice")
    assert [row["text"] for row in rows] == list(run.answer.choices)
    assert [row["probability"] for row in rows] == list(run.answer.probabilities)
    assert [row["text"] for row in rows if row["is_expected"]] == ["red"]
    assert sum(row["probability"] for row in rows) == pytest.approx(1)


def test_it_is_not_known_which_choice_is_expected_where_none_was_given(store):
    store.add(make_run(expected=None))
    assert {row["is_expected"] for row in rows_of(store, "SELECT * FROM v_choices")} == {None}


def test_a_route_decision_has_one_row_per_stream(store):
    run = make_run(strategy="dualcomp@0.25")
    store.add(run)
    store.add(make_run(strategy="divprune@0.25"))
    rows = {row["stream"]: row for row in rows_of(store, "SELECT * FROM v_router")}
    assert set(rows) == {"semantic", "geometric"}
    assert {stream: row["threshold"] for stream, row in rows.items()} == {"semantic": 0.85, "geometric": None}
    assert {stream: row["share"] for stream, row in rows.items()} == dict(run.selection.router.shares)
    assert {(row["run"], row["stage"], row["lambda"], row["rho"]) for row in rows.values()} == {
        (run.id, "encoder", 0.5, 0.25)
    }


def test_a_zoom_has_one_row_per_turn(store):
    turns = (
        Turn(1, (0.0, 0.0, 256.0, 256.0), tokens=256, after="red", reason="overview"),
        Turn(2, (10.0, 20.0, 60.0, 90.0), "a1", 0.25, 100, "red", "blue"),
        Turn(3, (0.0, 0.0, 300.0, 10.0), "", 0.125, 0, "blue", "", is_accepted=False, reason="over \ud800"),
    )
    run = replace(make_run(), turns=turns)
    store.add(run)
    store.add(make_run(1))
    rows = rows_of(store, "SELECT * FROM v_turns ORDER BY turn")
    assert [row.pop("run") for row in rows] == [run.id] * 3
    boxes = [tuple(row.pop(edge) for edge in ("left", "top", "right", "bottom")) for row in rows]
    assert boxes == [turn.box for turn in turns]
    assert [tuple(row.values()) for row in rows] == [
        (1, None, 256, "", "red", 1, "overview"),
        (2, 0.25, 100, "red", "blue", 1, ""),
        (3, 0.125, 0, "blue", "", 0, "over ?"),
    ]
    assert store.get(run.id).turns == turns
    store.delete(run.id)
    assert rows_of(store, "SELECT * FROM v_turns") == []


def test_failures_are_listed_and_are_no_runs(store):
    failure = store.fail({"strategy": "fastv@0.5"}, "encode", "out of memory")
    (row,) = rows_of(store, "SELECT * FROM v_failures")
    assert (row["failure"], row["stage"], row["reason"]) == (failure, "encode", "out of memory")
    assert row["request_json"] == '{"strategy":"fastv@0.5"}'
    assert rows_of(store, "SELECT * FROM v_runs") == []


def test_aggregates_over_the_view_work(store):
    for seed in range(4):
        store.add(make_run(seed, strategy="fastv@0.5", correct=seed != 0))
    (row,) = rows_of(store, "SELECT strategy_name, avg(is_correct) AS accuracy, count(*) AS n FROM v_runs GROUP BY 1")
    assert row == {"strategy_name": "fastv", "accuracy": 0.75, "n": 4}
