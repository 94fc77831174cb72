from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import fields, replace

import numpy as np
import pytest
from sqlalchemy import event, select, text

from analysis.run import Recording
from compression.grid import TokenGrid
from compression.sight import Turn
from storage import ArrayNotFound, NotStorable, RunNotFound, RunSummary, StoreCorrupt, schema, tokens_table
from storage.views import RUN_COLUMNS
from tests.factories import make_image_ref, make_run

STRATEGIES = ("identity@1.0", "dualcomp@0.25", "fastv@0.5", "visionzip@64", "random_subset@0.1")

HOSTILE = (
    "'; DROP TABLE runs; --",
    '<script>alert("x")</script>',
    "../../etc/passwd",
    "Straße 道路 🛰️ \u202eoverride",
    "nul\x00inside",
    "line\nbreak\ttab\r",
    "lone surrogate \ud800",
    "%_\\",
    "",
    "x" * 100_000,
)


def rows_in(store, table):
    with store.database.reading() as connection:
        return len(connection.execute(select(table)).all())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_comes_back_equal(store, strategy):
    run = make_run(3, strategy=strategy)
    assert store.add(run) == run.id
    assert store.get(run.id) == run


def test_a_run_without_recording_comes_back_without_it(store):
    run = replace(make_run(), recording=Recording())
    assert store.get(store.add(run)).recording.arrays() == {}


def test_a_run_of_many_views_comes_back_equal(store):
    run = make_run(tokens=(8, 8), strategy="dualcomp@0.25", views=64, image_size=(2048, 2048))
    assert run.tokens_total == 4096
    assert store.get(store.add(run)) == run


def test_adding_a_run_twice_stores_it_once(store):
    run = make_run()
    assert store.add(run) == store.add(run)
    assert store.count() == 1
    assert rows_in(store, schema.run_arrays) == len(run.arrays())


def test_another_run_under_the_same_id_is_refused(store):
    run = make_run()
    store.add(run)
    with pytest.raises(NotStorable, match="is taken by another run; stored runs never change"):
        store.add(replace(run, labels=("changed",)))
    assert store.get(run.id) == run


def test_arrays_shared_between_runs_are_stored_once(store):
    run = make_run()
    store.add(run)
    before = rows_in(store, schema.arrays)
    store.add(replace(run, id="f" * 32))
    assert rows_in(store, schema.arrays) == before


def test_deleting_a_run_keeps_the_arrays_that_another_uses(store):
    run, twin, other = make_run(), replace(make_run(), id="f" * 32), make_run(1)
    for each in (run, twin, other):
        store.add(each)
    store.delete(run.id)
    assert store.get(twin.id) == twin
    store.delete(twin.id)
    assert store.get(other.id) == other
    store.delete(other.id)
    tables = (schema.runs, schema.run_records, schema.run_arrays, schema.arrays, schema.choices, schema.router)
    assert [rows_in(store, table) for table in tables] == [0] * 6


def test_one_array_is_read_without_the_rest(store):
    run = make_run()
    store.add(run)
    assert np.array_equal(store.array(run.id, "scores"), run.selection.scores)
    with pytest.raises(ArrayNotFound, match=r"has no array 'colours'; it has: anchor, answer_mass, .*, weight_value"):
        store.array(run.id, "colours")
    with pytest.raises(ArrayNotFound, match="has no array ''"):
        store.array(run.id, "")
    with pytest.raises(RunNotFound, match="there is no run 'elsewhere'"):
        store.array("elsewhere", "scores")


@pytest.mark.parametrize("verb", ["get", "summary", "delete"])
@pytest.mark.parametrize("identity", ["nothing", "", "' OR 1=1", "a\x00", "\ud800", "x" * 100_000], ids=range(6))
def test_a_run_that_is_not_there_is_not_found(store, verb, identity):
    store.add(make_run())
    with pytest.raises(RunNotFound, match="^there is no run .{0,60}; it may have been deleted"):
        getattr(store, verb)(identity)


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_any_text_comes_back_unchanged(store, hostile):
    run = make_run(
        question=hostile,
        choices=(hostile or "empty", "other"),
        expected=hostile or "empty",
        image=replace(make_image_ref(), name=hostile),
        notices=(hostile,),
        labels=(hostile,),
        family=hostile,
        task=hostile,
    )
    store.add(run)
    assert store.get(run.id) == run
    summary = store.summary(run.id)
    assert summary.question == hostile.replace("\ud800", "?")
    assert summary.labels == ((hostile,) if hostile else ("",))
    assert [found.id for found in store.find(text=hostile)] == [run.id]


def test_a_run_that_was_read_can_be_added_again(store):
    run = make_run(strategy="dualcomp@0.25")
    assert store.add(store.get(store.add(run))) == run.id
    assert store.count() == 1


def test_a_number_that_no_column_can_hold_is_refused(store):
    run = make_run()
    with pytest.raises(NotStorable, match="cannot hold a value .*; use smaller numbers"):
        store.add(replace(run, request=replace(run.request, seed=2**70)))
    assert store.count() == 0


def test_numbers_of_numpy_in_diagnostics_are_stored_as_numbers(store):
    run = make_run(strategy="visionzip@0.25")
    selection = replace(run.selection, diagnostics={"mean": np.float64(0.5), "count": np.int64(3)})
    store.add(replace(run, selection=selection))
    assert store.get(run.id).selection.diagnostics == {"mean": 0.5, "count": 3}


def test_a_run_that_holds_more_than_plain_values_is_refused_and_leaves_nothing(store):
    run = make_run(strategy="visionzip@0.25")
    selection = replace(run.selection, diagnostics={"model": object()})
    with pytest.raises(NotStorable, match="only plain values can be stored: a value of type object"):
        store.add(replace(run, selection=selection))
    assert store.count() == 0
    assert rows_in(store, schema.arrays) == 0


def test_an_error_in_the_middle_leaves_nothing(store):
    def refuse(connection, cursor, statement, parameters, context, executemany):
        if statement.startswith("INSERT INTO choices"):
            raise RuntimeError("in the middle")

    event.listen(store.database.engine, "before_cursor_execute", refuse)
    with pytest.raises(RuntimeError, match="in the middle"):
        store.add(make_run())
    event.remove(store.database.engine, "before_cursor_execute", refuse)
    assert [rows_in(store, table) for table in (schema.runs, schema.arrays, schema.run_records)] == [0, 0, 0]
    store.add(make_run())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_summary_says_what_the_view_says(store, strategy):
    run = make_run(2, strategy=strategy, comparison="c1")
    store.add(run, "somebody")
    summary = store.summary(run.id)
    with store.database.reading() as connection:
        row = connection.execute(text("SELECT * FROM v_runs")).mappings().one()
    assert {name: getattr(summary, name) for name in RUN_COLUMNS} == dict(row)
    assert (summary.id, summary.comparison, summary.owner, summary.is_sample) == (run.id, "c1", "somebody", False)


def test_the_fields_of_a_summary_are_the_columns_of_the_view_and_where_the_run_belongs():
    names = [field.name for field in fields(RunSummary)]
    assert names == [*RUN_COLUMNS, "comparison", "owner", "is_sample"]


def test_a_summary_agrees_with_its_run(store):
    run = make_run(4, strategy="dualcomp@0.25")
    store.add(run)
    summary = store.summary(run.id)
    assert summary.request == run.request.digest
    assert (summary.strategy_name, summary.budget_requested, summary.budget_realised) == ("dualcomp", 64, 64.0)
    assert (summary.tokens_total, summary.tokens_kept, summary.retention_ratio) == (256, 64, 0.25)
    assert (summary.is_correct, summary.confidence) == (True, run.answer.confidence)
    assert (summary.prefill_seconds, summary.decode_seconds) == (run.cost.prefill.median, None)
    assert (summary.keepmap_version, summary.code_commit) == ("0.1.0", "0" * 40)


def test_what_is_not_known_is_none_and_not_zero(store):
    run = make_run(expected=None, evidence=())
    run = replace(run, answer=replace(run.answer, text="something else"), tokens_requested=None)
    summary = store.summary(store.add(run))
    unknown = (summary.is_correct, summary.confidence, summary.evidence_recall, summary.answer_expected)
    assert (*unknown, summary.budget_requested) == (None, None, None, None, None)


def test_stage_and_parameters_come_from_the_catalogue(store):
    known = store.summary(store.add(make_run(strategy="fastv:layer=2@0.75")))
    assert known.strategy_stage == "decoder"
    assert known.parameters["layer"] == 2
    unknown = store.summary(store.add(make_run(strategy="house:level=3@0.5")))
    assert unknown.strategy_stage is None
    assert unknown.parameters == {"level": "3"}


def test_a_plan_of_several_steps_names_all_of_its_stages(store):
    text = "visiondrop@0.5+visiondrop_stages:mask=none@0.25"
    summary = store.summary(store.add(make_run(strategy=text)))
    assert (summary.strategy, summary.strategy_name) == (text, "visiondrop+visiondrop_stages")
    assert summary.strategy_stage == "encoder+decoder"
    first, second = summary.parameters["steps"]
    assert (first["strategy"], first["budget"], first["parameters"]["merge"]) == ("visiondrop", "0.5", "sum")
    assert (second["strategy"], second["budget"], second["parameters"]["mask"]) == ("visiondrop_stages", "0.25", "none")
    assert [one.run for one in store.find(strategy="visiondrop+visiondrop_stages")] == [summary.run]
    inside = store.summary(store.add(make_run(strategy="fastv@0.5+fastkv@0.25")))
    assert inside.strategy_stage == "decoder"


def test_lists_load_no_array_and_no_record(file_store):
    file_store.add(make_run())
    statements = []
    event.listen(
        file_store.database.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])
    )
    file_store.find(text="building")
    file_store.summary(make_run().id)
    assert statements
    assert not [line for line in statements if "arrays" in line or "run_records" in line]


def test_a_changed_array_is_noticed_when_the_run_is_read(file_store):
    run = make_run()
    file_store.add(run)
    with closing(sqlite3.connect(file_store.database.path)) as connection:
        connection.execute(
            "UPDATE arrays SET data = zeroblob(length(data)) "
            "WHERE digest = (SELECT digest FROM run_arrays WHERE name = 'scores')"
        )
        connection.commit()
    with pytest.raises(StoreCorrupt, match="does not match its digest"):
        file_store.get(run.id)
    assert np.array_equal(file_store.array(run.id, "anchor"), run.selection.anchor)


@pytest.mark.parametrize("record", ["", "{}", '{"id": 1}', "[]"])
def test_a_changed_record_is_noticed(file_store, record):
    run = make_run()
    file_store.add(run)
    with closing(sqlite3.connect(file_store.database.path)) as connection:
        connection.execute("UPDATE run_records SET record_json = ?", [record])
        connection.commit()
    with pytest.raises(StoreCorrupt, match=f"the stored run {run.id} cannot be read"):
        file_store.get(run.id)


def test_a_run_with_an_encoding_of_its_own_is_counted_of_the_whole_image(store):
    made = make_run(tokens=(8, 8), strategy="downsample@64")
    turn = Turn(1, (0.0, 0.0, 128.0, 128.0), "a1", 0.75, 64, "red", "blue", False, "the answer changed")
    grid = TokenGrid.single(8, 8, (128, 128)).placed((0.0, 0.0, 256.0, 256.0), (256, 256))
    run = replace(made, grid=grid, tokens_original=256, turns=(turn,))
    store.add(run)
    summary = store.summary(run.id)
    assert (summary.tokens_total, summary.tokens_encoded, summary.tokens_kept) == (256, 64, 64)
    assert summary.retention_ratio == 0.25
    assert summary.strategy_stage == "encoding"
    assert store.get(run.id) == run
    assert len(tokens_table(store, run.id)) == 64
