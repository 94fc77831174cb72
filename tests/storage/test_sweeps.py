"""Sweeps in the store: an outcome and its run together or not at all, counted, and found again by what was asked."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import delete, func, inspect, select, text

from storage import NotStorable, SweepNotFound, SweptRequest, open_store, schema
from storage.database import Database
from storage.migrations import STEPS, backup_path
from tests.factories import make_run


def swept(run, **changes):
    """The request that a run answers, as a sweep plans it."""
    asked = SweptRequest(run.request.digest, run.request.model.name, run.request.strategy, run.request.seed, run.family)
    return replace(asked, **changes)


def count(store, table):
    with store.database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(table))


def test_a_sweep_counts_what_its_requests_became(store):
    runs = [make_run(seed) for seed in range(4)]
    sweep = store.start_sweep("paper", [run.request.digest for run in runs])
    store.add_swept_run(sweep, swept(runs[0]), runs[0])
    store.add_swept_failure(sweep, swept(runs[1], reason="out of memory"), {"strategy": "x"}, "answer")
    store.add_refused(sweep, [swept(runs[2], state="unreachable", reason="too small", lowest=44)])
    found = store.find_sweep("paper")
    assert found == store.sweep(sweep)
    assert (found.planned, found.done, found.failed, found.refused) == (4, 1, 1, 1)
    assert found.finished_utc is None
    outcomes = {one.request: one for one in store.swept_requests(sweep)}
    done, failed, refused = (outcomes[run.request.digest] for run in runs[:3])
    assert (done.state, done.run, done.is_correct) == ("done", runs[0].id, runs[0].answer.is_correct)
    assert done.retention_ratio == pytest.approx(runs[0].retention_ratio)
    assert store.failure(failed.failure).reason == failed.reason == "out of memory"
    assert (refused.state, refused.lowest, refused.run, refused.failure) == ("unreachable", 44, None, None)
    assert store.get(runs[0].id) == runs[0]


def test_the_public_view_shows_the_same_counts(store):
    run = make_run()
    sweep = store.start_sweep("paper", [run.request.digest])
    store.add_swept_run(sweep, swept(run), run)
    store.finish_sweep(sweep)
    with store.database.reading() as connection:
        (row,) = connection.execute(text("SELECT * FROM v_sweeps")).mappings().all()
    assert {name: row[name] for name in ("sweep", "name", "planned", "done", "failed", "refused")} == {
        "sweep": sweep, "name": "paper", "planned": 1, "done": 1, "failed": 0, "refused": 0,
    }  # fmt: skip
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["finished_utc"])
    assert row["started_utc"] <= row["finished_utc"]


def test_a_sweep_with_something_left_is_not_finished(store):
    run = make_run()
    sweep = store.start_sweep("paper", [run.request.digest, "another"])
    store.add_swept_run(sweep, swept(run), run)
    store.finish_sweep(sweep)
    assert store.sweep(sweep).finished_utc is None


def test_starting_again_goes_on_with_the_sweep_and_lets_it_grow(store):
    run = make_run()
    first = store.start_sweep("paper", [run.request.digest])
    store.add_swept_run(first, swept(run), run)
    store.finish_sweep(first)
    again = store.start_sweep("paper", [run.request.digest, "more"])
    assert again == first
    found = store.sweep(first)
    assert (found.planned, found.done, found.finished_utc) == (2, 1, None)


def test_a_sweep_with_nothing_left_keeps_the_moment_of_its_end(store):
    run = make_run()
    sweep = store.start_sweep("paper", [run.request.digest])
    store.add_swept_run(sweep, swept(run), run)
    with store.database.writing() as connection:
        connection.execute(schema.sweeps.update().values(finished_utc="2026-01-01T00:00:00Z"))
    store.start_sweep("paper", [run.request.digest])
    store.finish_sweep(sweep)
    assert store.sweep(sweep).finished_utc == "2026-01-01T00:00:00Z"


def test_a_name_belongs_to_its_owner(store):
    mine, theirs = store.start_sweep("paper", [], owner="me"), store.start_sweep("paper", [], owner="they")
    assert mine != theirs
    assert store.find_sweep("paper", "me").sweep == mine
    assert store.find_sweep("paper") is None


def test_the_outcome_of_another_try_replaces_the_failure(store):
    run = make_run()
    sweep = store.start_sweep("paper", [run.request.digest])
    store.add_swept_failure(sweep, swept(run, reason="out of memory"), {"strategy": "x"}, "answer")
    store.add_swept_run(sweep, swept(run), run)
    assert [(one.state, one.reason) for one in store.swept_requests(sweep)] == [("done", "")]
    assert [one.reason for one in store.failures()] == ["out of memory"]


def test_a_run_and_its_place_in_the_sweep_are_stored_both_or_neither(store):
    run = make_run()
    for write in (
        lambda: store.add_swept_run("gone", swept(run), run),
        lambda: store.add_swept_failure("gone", swept(run, reason="why"), {}, "answer"),
        lambda: store.add_refused("gone", [swept(run, state="refused")]),
        lambda: store.finish_sweep("gone"),
        lambda: store.swept_requests("gone"),
    ):
        with pytest.raises(SweepNotFound, match="there is no sweep 'gone'"):
            write()
    assert [count(store, table) for table in (schema.runs, schema.failures, schema.arrays)] == [0, 0, 0]


def test_a_run_is_not_taken_for_the_answer_to_another_request(store):
    run = make_run()
    sweep = store.start_sweep("paper", ["other"])
    with pytest.raises(NotStorable, match="answers another request"):
        store.add_swept_run(sweep, swept(run, request="other"), run)
    assert count(store, schema.runs) == 0


def test_what_ran_cannot_be_stored_as_refused(store):
    run = make_run()
    sweep = store.start_sweep("paper", [run.request.digest])
    with pytest.raises(NotStorable, match="unreachable or refused, got 'done'"):
        store.add_refused(sweep, [swept(run)])


def test_a_deleted_run_leaves_the_sweep_and_can_run_again(store):
    run = make_run()
    sweep = store.start_sweep("paper", [run.request.digest])
    store.add_swept_run(sweep, swept(run), run)
    store.delete(run.id)
    assert store.swept_requests(sweep) == []
    assert store.sweep(sweep).done == 0


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_store_gets_the_tables_and_keeps_its_runs(url, tmp_path, version):
    run = make_run()
    with open_store(url) as store:
        store.add(run)
    with closing(Database(url)) as database, database.writing() as connection:
        later = ("sweep_runs", "sweeps", "spectrum_arrays", "spectra")[: 4 if version == 1 else 2]
        for view in ("v_runs", "v_sweeps", "v_pid")[: 3 if version == 1 else 2]:
            connection.execute(text(f"DROP VIEW {view}"))
        connection.execute(text("ALTER TABLE runs DROP COLUMN tokens_encoded"))
        for table in later:
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(delete(schema.schema_steps).where(schema.schema_steps.c.position > version))
    with open_store(url) as store:
        assert store.get(run.id) == run
        sweep = store.start_sweep("paper", [run.request.digest])
        assert store.sweep(sweep).planned == 1
        with store.database.reading() as connection:
            names = connection.scalars(select(schema.schema_steps.c.name)).all()
            assert {"v_pid", "v_sweeps"} <= set(inspect(connection).get_view_names())
    assert names == [step.name for step in STEPS]
    assert backup_path(tmp_path / "keepmap.db", version).exists()
