from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import inspect, text

from storage import StoreFull, StoreReadOnly, StoreTooNew, migrations, open_store, schema
from storage.database import Database
from storage.migrations import STEPS, Step, applied_steps, backup_path, migrate
from tests.factories import make_run

# A later version, as far as a store is concerned: two more steps.
NOTES = Step("9998 notes", lambda connection: connection.execute(text("CREATE TABLE notes (id TEXT PRIMARY KEY)")))
STARS = Step("9999 stars", lambda connection: connection.execute(text("ALTER TABLE runs ADD COLUMN stars INTEGER")))
LATER = (*STEPS, NOTES, STARS)


@pytest.fixture
def old(url, tmp_path):
    """A closed store of this version with one run."""
    with open_store(url) as store:
        store.add(make_run())
    return tmp_path / "keepmap.db"


def opened(url, **options):
    return closing(Database(url, **options))


def test_a_fresh_store_has_had_every_step_and_no_backup(url, tmp_path):
    with open_store(url) as store, store.database.reading() as connection:
        assert applied_steps(connection) == [step.name for step in STEPS]
        recorded = connection.execute(schema.schema_steps.select()).mappings().all()
        assert [row["position"] for row in recorded] == list(range(1, len(STEPS) + 1))
        assert all(row["applied_utc"].endswith("Z") for row in recorded)
    assert [file.name for file in tmp_path.iterdir()] == ["keepmap.db"]


def test_the_steps_have_ordered_names():
    names = [step.name for step in STEPS]
    assert names == sorted(set(names))


def test_opening_again_applies_nothing(url, old, tmp_path):
    with opened(url) as database:
        assert migrate(database) == []
    assert [file.name for file in tmp_path.iterdir()] == ["keepmap.db"]


def test_an_old_store_gets_the_missing_steps_in_order_and_keeps_its_runs(url, old):
    with opened(url) as database:
        assert migrate(database, LATER) == [NOTES.name, STARS.name]
        assert migrate(database, LATER) == []
        with database.reading() as connection:
            assert inspect(connection).has_table("notes")
            assert connection.execute(text("SELECT stars FROM runs")).all() == [(None,)]


def test_an_old_store_is_copied_before_it_is_changed(url, old):
    before = make_run()
    with opened(url) as database:
        migrate(database, LATER)
    backup = backup_path(old, len(STEPS))
    assert backup.name == f"keepmap.db.backup-{len(STEPS)}"
    assert sorted(file.name for file in old.parent.iterdir()) == ["keepmap.db", backup.name]
    with open_store(f"sqlite:///{backup}") as store:
        assert store.get(before.id) == before
        with store.database.reading() as connection:
            assert not inspect(connection).has_table("notes")


def test_a_step_that_fails_leaves_the_store_as_the_step_before_left_it(url, old):
    def fail(connection):
        connection.execute(text("CREATE TABLE half (id TEXT)"))
        connection.execute(text("DELETE FROM runs"))
        raise RuntimeError("in the middle of the step")

    with opened(url) as database:
        with pytest.raises(RuntimeError, match="in the middle of the step"):
            migrate(database, (*STEPS, NOTES, Step("9999 broken", fail)))
        with database.reading() as connection:
            assert applied_steps(connection) == [*[step.name for step in STEPS], NOTES.name]
            assert not inspect(connection).has_table("half")
            assert len(connection.execute(schema.runs.select()).all()) == 1
        assert migrate(database, LATER) == [STARS.name]


def test_a_store_of_a_newer_version_is_refused_and_left_alone(url, old):
    with opened(url) as database:
        migrate(database, LATER)
    before = old.read_bytes()
    for read_only in (False, True):
        with pytest.raises(
            StoreTooNew, match="by a newer Keepmap .9998 notes, 9999 stars.; update this one, or name another"
        ):
            open_store(url, read_only=read_only)
    assert old.read_bytes() == before


def test_an_old_store_opened_for_reading_is_not_changed(url, old):
    message = "by an older Keepmap; open it once for writing"
    with opened(url, read_only=True) as database, pytest.raises(StoreReadOnly, match=message):
        migrate(database, LATER)
    assert not backup_path(old, len(STEPS)).exists()


def test_a_store_is_not_changed_where_the_backup_finds_no_room(url, old, monkeypatch):
    def full(path, version):
        raise StoreFull(f"{path} has no room left")

    monkeypatch.setattr(migrations, "back_up", full)
    with opened(url) as database:
        with pytest.raises(StoreFull):
            migrate(database, LATER)
        with database.reading() as connection:
            assert applied_steps(connection) == [step.name for step in STEPS]


def test_two_programs_that_open_an_old_store_at_once_migrate_it_once(url, old):
    with opened(url) as first, opened(url) as second:
        raced = []

        def overtaken(connection):
            NOTES.apply(connection)

        # The second has already seen that steps are pending when the first applies them.
        def slow_read(database, connection, steps, real=migrations.pending_steps):
            pending = real(database, connection, steps)
            if database is second and not raced:
                raced.append(migrate(first, LATER))
            return pending

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(migrations, "pending_steps", slow_read)
            assert migrate(second, (*STEPS, Step(NOTES.name, overtaken), STARS)) == []
        assert raced == [[NOTES.name, STARS.name]]


def test_a_store_in_memory_migrates_without_a_backup():
    with opened("sqlite:///:memory:") as database:
        migrate(database)
        assert migrate(database, LATER) == [NOTES.name, STARS.name]


def test_every_column_says_what_it_holds():
    silent = [
        str(column) for table in schema.metadata.tables.values() for column in table.columns if not column.comment
    ]
    assert silent == []


def shape_of(database):
    """Columns of each table, in any order, and of each view, in order; and the indices."""
    with database.reading() as connection:
        seen = inspect(connection)
        tables = {
            (name, column["name"], str(column["type"]), column["nullable"])
            for name in seen.get_table_names()
            for column in seen.get_columns(name)
        }
        indices = {(name, index["name"]) for name in seen.get_table_names() for index in seen.get_indexes(name)}
        views = {name: [column["name"] for column in seen.get_columns(name)] for name in seen.get_view_names()}
    return tables, indices, views


def test_a_migrated_store_has_the_shape_of_a_fresh_one(url, tmp_path, version_1):
    with closing(sqlite3.connect(tmp_path / "keepmap.db")) as connection:
        connection.executescript(version_1)
    with open_store(url) as migrated, open_store("sqlite://") as fresh:
        assert shape_of(migrated.database) == shape_of(fresh.database)


def test_a_store_written_by_version_1_opens_and_reads(url, tmp_path, version_1):
    with closing(sqlite3.connect(tmp_path / "keepmap.db")) as connection:
        connection.executescript(version_1)
    with open_store(url) as store:
        (summary,) = store.find()
        assert (summary.strategy, summary.tokens_total, summary.answer) == ("dualcomp@0.25", 16, "red")
        assert summary.tokens_encoded == 16  # no strategy encoded the image itself then
        run = store.get(summary.id)
        assert run.selection.router.source == "rule"
        assert run.recording.answer.shape == (6, 16)
        assert (run.tokens_original, run.turns) == (16, ())
        (comparison,) = store.comparisons()
        assert comparison.panes[0].run == run.id
        with store.database.reading() as connection:
            assert applied_steps(connection) == [step.name for step in STEPS]
