"""Ordered named steps that bring a store to this version, each in one transaction with its own record.

A fresh store gets the tables as `schema` has them now, and counts as having had every step; an old one gets what it
lacks when it is opened. So a change of the schema is two: in `schema`, and as a step at the end of `STEPS`, which is
never changed once it was released. Whoever changes what a view shows calls `create_views` in the step.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, text, update

from analysis.run import utc_now
from storage.database import Database
from storage.errors import StoreCorrupt, StoreReadOnly, StoreTooNew
from storage.faults import translate_os
from storage.schema import metadata, runs, schema_steps, spectra, spectrum_arrays, sweep_runs, sweeps, turns
from storage.views import create_views


@dataclass(frozen=True)
class Step:
    """One change of the schema. `apply` runs inside a transaction that also records the step."""

    name: str
    apply: Callable[[Connection], None]


def create_all(connection: Connection) -> None:
    """The tables and views of this version, in an empty database."""
    metadata.create_all(connection)
    create_views(connection)


def add_spectra(connection: Connection) -> None:
    """The tables of decompositions, and their view."""
    metadata.create_all(connection, tables=[spectra, spectrum_arrays])
    create_views(connection)


def add_sweeps(connection: Connection) -> None:
    """The tables of sweeps, and their view."""
    metadata.create_all(connection, tables=[sweeps, sweep_runs])
    create_views(connection)


def add_tokens_encoded(connection: Connection) -> None:
    """How many tokens the encoder made for a run: all of the image's, as long as no strategy encoded it anew."""
    connection.execute(text("ALTER TABLE runs ADD COLUMN tokens_encoded INTEGER NOT NULL DEFAULT '0'"))
    connection.execute(update(runs).values(tokens_encoded=runs.c.tokens_total))
    create_views(connection)


def add_turns(connection: Connection) -> None:
    """The table of the turns in which a zoom looked, and its view."""
    metadata.create_all(connection, tables=[turns])
    create_views(connection)


STEPS = (
    Step("0001 first tables", create_all),
    Step("0002 decompositions", add_spectra),
    Step("0003 sweeps", add_sweeps),
    Step("0004 encodings of their own", add_tokens_encoded),
    Step("0005 turns", add_turns),
)


def applied_steps(connection: Connection) -> list[str]:
    """Names of the steps that a store has had, in order; empty for a fresh database."""
    if not inspect(connection).has_table(schema_steps.name):
        return []
    return list(connection.scalars(select(schema_steps.c.name).order_by(schema_steps.c.position)))


def pending_steps(database: Database, connection: Connection, steps: Sequence[Step]) -> list[Step]:
    """The steps that a store still needs.

    Raises:
        StoreTooNew: it has had a step that this version does not know.
        StoreCorrupt: it is another program's database.
    """
    done = applied_steps(connection)
    known = [step.name for step in steps]
    if done != known[: len(done)]:
        unknown = ", ".join(name for name in done if name not in known) or "its steps in another order"
        raise StoreTooNew(
            f"{database.place} was written by a newer Keepmap ({unknown}); update this one, or name another file"
        )
    if (
        not done
        and (others := inspect(connection).get_table_names())
        and (database.is_sqlite or set(others) & set(metadata.tables))
    ):
        raise StoreCorrupt(
            f"{database.place} is another program's database (it has the table {others[0]!r}); name another file"
        )
    return list(steps[len(done) :])


def migrate(database: Database, steps: Sequence[Step] = STEPS) -> list[str]:
    """Apply what is pending and return the names of it; an existing store is copied to a backup before it is changed.

    Raises:
        StoreTooNew, StoreCorrupt: see `pending_steps`.
        StoreReadOnly: steps are pending and the store was opened for reading.
    """
    with database.reading() as connection:
        pending = pending_steps(database, connection, steps)
    if pending and database.is_read_only:
        raise StoreReadOnly(
            f"{database.place} was written by an older Keepmap; open it once for writing to bring it up to date"
        )
    applied: list[str] = []
    while pending:
        with database.writing() as connection:
            # Asked again under the write lock: another process may have been faster.
            pending = pending_steps(database, connection, steps)
            if not pending:
                break
            fresh, position = pending == list(steps), len(steps) - len(pending) + 1
            if database.path and not fresh and not applied:
                back_up(database.path, position - 1)
            pending[0].apply(connection)
            done = pending if fresh else pending[:1]
            _record(connection, done, position)
            applied += [step.name for step in done]
            pending = pending[len(done) :]
    return applied


def _record(connection: Connection, steps: Sequence[Step], position: int) -> None:
    moment = utc_now()
    rows = [
        {"name": step.name, "position": position + offset, "applied_utc": moment} for offset, step in enumerate(steps)
    ]
    connection.execute(insert(schema_steps), rows)


def backup_path(path: Path, version: int) -> Path:
    """Where the copy of a store goes before it leaves a version."""
    return path.with_name(f"{path.name}.backup-{version}")


def back_up(path: Path, version: int) -> Path:
    """Copy an SQLite store as it is committed, whole or not at all.

    Raises:
        StoreFull, StoreReadOnly: the copy cannot be written.
    """
    target = backup_path(path, version)
    partial = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    except OSError as error:
        raise translate_os(error, target) from error
    finally:
        partial.unlink(missing_ok=True)
    return target
