"""Runs in the store: written whole, read back equal, listed without their arrays, deleted with what only they used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from analysis.run import Run
from storage import schema
from storage.arrays import PackedArray, pack, unpack
from storage.assets import ImageFolder
from storage.database import Database
from storage.errors import ArrayNotFound, NotStorable, RunNotFound
from storage.records import RunSummary
from storage.rows import (
    SUMMARY_FIELDS,
    choice_rows,
    json_text,
    page,
    rebuilt,
    router_rows,
    run_row,
    summarise,
    summary_of,
    turn_rows,
)

SUMMARY_COLUMNS = [schema.runs.c["id" if name == "run" else name] for name in SUMMARY_FIELDS]

SEARCH_LENGTH = 1000
"""Characters of a searched text that count: a database refuses patterns of more than some ten thousand."""


def visible(table: Table, owner: str | None) -> ColumnElement[bool]:
    """The rows that an owner may see: their own and the samples; all for None."""
    return true() if owner is None else or_(table.c.owner == owner, table.c.is_sample)


class Runs:
    """The part of a store that holds runs."""

    database: Database
    images: ImageFolder

    def add(self, run: Run, owner: str = "", *, is_sample: bool = False) -> str:
        """Store a run, complete or not at all, and return its id. Adding the same run twice stores it once.

        Raises:
            NotStorable: it holds something that is not a plain value, or its id is taken by another run.
        """
        with self.database.writing() as connection:
            add_run(connection, self.images, run, owner, is_sample=is_sample)
        return run.id

    def get(self, run_id: str, owner: str | None = None) -> Run:
        """A stored run with its arrays, equal to the one that was added.

        Args:
            run_id: Its id. Whoever knows it may read the run: that is what a link shares.
            owner: Where given, only this owner's runs and the samples are found.

        Raises:
            RunNotFound: there is none.
            StoreCorrupt: an array does not match its digest.
        """
        with self.database.reading() as connection:
            query = (
                select(schema.run_records.c.record_json)
                .join(schema.runs, schema.runs.c.id == schema.run_records.c.run)
                .where(schema.runs.c.id == run_id, visible(schema.runs, owner))
            )
            record = connection.scalar(query)
            if record is None:
                raise _no_run(run_id)
            packed = _packed_arrays(connection, run_id)
        return rebuilt(run_id, record, {name: unpack(array) for name, array in packed.items()})

    def summary(self, run_id: str) -> RunSummary:
        """The summary of a run; no array is loaded.

        Raises:
            RunNotFound: there is none.
        """
        with self.database.reading() as connection:
            row = connection.execute(select(*SUMMARY_COLUMNS).where(schema.runs.c.id == run_id)).one_or_none()
        if row is None:
            raise _no_run(run_id)
        return summary_of(row)

    def array(self, run_id: str, name: str) -> NDArray[Any]:
        """One array of a run without the rest: "scores", "attention_answer" and so on, as `Run.arrays` names them.

        Raises:
            RunNotFound: there is no such run.
            ArrayNotFound: the run has no array of that name.
            StoreCorrupt: the array does not match its digest.
        """
        with self.database.reading() as connection:
            packed = _packed_arrays(connection, run_id, name)
            if not packed:
                if connection.scalar(select(schema.runs.c.id).where(schema.runs.c.id == run_id)) is None:
                    raise _no_run(run_id)
                names = connection.scalars(
                    select(schema.run_arrays.c.name).where(schema.run_arrays.c.run == run_id).order_by("name")
                )
                raise ArrayNotFound(f"the run {run_id} has no array {name!r}; it has: {', '.join(names)}")
        return unpack(packed[name])

    def find(
        self,
        *,
        text: str = "",
        strategy: str = "",
        model: str = "",
        task: str = "",
        correct: bool | None = None,
        image: str = "",
        comparison: str = "",
        request: str = "",
        owner: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> list[RunSummary]:
        """Stored runs, newest first.

        Args:
            text: Occurs in the question, answer, image name or strategy, in upper or lower case; the first
                `SEARCH_LENGTH` characters count.
            strategy: A strategy's name, or its canonical text.
            correct: Right, wrong, or None for both and for those where it is not known.
            image: Digest of the image.
            request: Digest of what was asked.
            owner: Only this owner's runs and the samples; None for all.
        """
        where = _filters(text, strategy, model, task, correct, image, comparison, request, owner)
        order = (schema.runs.c.created_utc.desc(), schema.runs.c.number.desc())
        query = select(*SUMMARY_COLUMNS).where(where).order_by(*order)
        with self.database.reading() as connection:
            return [summary_of(row) for row in connection.execute(page(query, limit, offset))]

    def count(
        self,
        *,
        text: str = "",
        strategy: str = "",
        model: str = "",
        task: str = "",
        correct: bool | None = None,
        image: str = "",
        comparison: str = "",
        request: str = "",
        owner: str | None = None,
    ) -> int:
        """How many runs `find` would return without a limit."""
        where = _filters(text, strategy, model, task, correct, image, comparison, request, owner)
        with self.database.reading() as connection:
            return int(connection.scalar(select(func.count()).select_from(schema.runs).where(where)) or 0)

    def delete(self, run_id: str, owner: str | None = None) -> None:
        """Delete a run, the arrays and image that only it used, and its comparison where nothing is left of that.

        Args:
            owner: Where given, the run must be this owner's; a sample is nobody's to delete.

        Raises:
            RunNotFound: there is none, or it is another owner's.
        """
        with self.database.writing() as connection:
            mine = true() if owner is None else and_(schema.runs.c.owner == owner, ~schema.runs.c.is_sample)
            row = connection.execute(select(schema.runs.c.image).where(schema.runs.c.id == run_id, mine)).one_or_none()
            if row is None:
                raise _no_run(run_id)
            released = {row.image, *delete_runs(connection, [run_id])}
            self.images.release(connection, released)
        self.images.sweep(released)


def add_run(connection: Connection, images: ImageFolder, run: Run, owner: str = "", *, is_sample: bool = False) -> None:
    """Write a run inside a transaction that is open for writing; see `Runs.add`."""
    summary, record = summarise(run, owner, is_sample), json_text(run.to_json())
    packed = {name: pack(array) for name, array in run.arrays().items()}
    images.mark_used(connection, run.request.image.digest)
    stored = connection.scalar(select(schema.run_records.c.record_json).where(schema.run_records.c.run == run.id))
    if stored is not None:
        if stored != record:
            raise NotStorable(f"the id {run.id} is taken by another run; stored runs never change, so make a new id")
        return
    add_arrays(connection, packed)
    connection.execute(insert(schema.runs).values(run_row(summary)))
    connection.execute(insert(schema.run_records).values(run=run.id, record_json=record))
    for table, rows in (
        (
            schema.run_arrays,
            [{"run": run.id, "name": name, "digest": array.digest} for name, array in packed.items()],
        ),
        (schema.choices, choice_rows(run)),
        (schema.turns, turn_rows(run)),
        (schema.router, router_rows(run)),
    ):
        if rows:
            connection.execute(insert(table), rows)


def delete_runs(connection: Connection, run_ids: list[str]) -> set[str]:
    """Delete runs with what only they used, and the comparisons that this empties; returns the images of the latter."""
    panes, comparisons = schema.panes, schema.comparisons
    touched = list(connection.scalars(select(panes.c.comparison).where(panes.c.run.in_(run_ids)).distinct()))
    gone = {"run": None, "state": "deleted", "reason": "The run of this pane was deleted."}
    connection.execute(update(panes).where(panes.c.run.in_(run_ids)).values(gone))
    drop_arrays(connection, schema.run_arrays, schema.run_arrays.c.run, run_ids)
    connection.execute(delete(schema.runs).where(schema.runs.c.id.in_(run_ids)))
    alive = exists().where(
        panes.c.comparison == comparisons.c.id, or_(panes.c.run.is_not(None), panes.c.state.in_(("waiting", "running")))
    )
    emptied = connection.execute(
        select(comparisons.c.id, comparisons.c.image).where(comparisons.c.id.in_(touched), ~alive)
    ).all()
    connection.execute(delete(comparisons).where(comparisons.c.id.in_([row.id for row in emptied])))
    return {row.image for row in emptied}


def _filters(
    text: str,
    strategy: str,
    model: str,
    task: str,
    correct: bool | None,
    image: str,
    comparison: str,
    request: str,
    owner: str | None,
) -> ColumnElement[bool]:
    runs = schema.runs.c
    chosen = [visible(schema.runs, owner)]
    if text:
        searched = (runs.question, runs.answer, runs.image_name, runs.strategy)
        chosen.append(or_(*(column.icontains(text[:SEARCH_LENGTH], autoescape=True) for column in searched)))
    if strategy:
        chosen.append(or_(runs.strategy_name == strategy, runs.strategy == strategy))
    if correct is not None:
        chosen.append(runs.is_correct == correct)
    equal = {"model": model, "task": task, "image": image, "comparison": comparison, "request": request}
    chosen.extend(runs[name] == value for name, value in equal.items() if value)
    return and_(*chosen)


def add_arrays(connection: Connection, packed: Mapping[str, PackedArray]) -> None:
    """Store arrays that are not there yet."""
    by_digest = {array.digest: array for array in packed.values()}
    known = set(connection.scalars(select(schema.arrays.c.digest).where(schema.arrays.c.digest.in_(by_digest))))
    rows = [
        {"digest": array.digest, "dtype": array.dtype, "shape_json": json.dumps(array.shape), "data": array.data}
        for array in by_digest.values()
        if array.digest not in known
    ]
    if rows:
        connection.execute(insert(schema.arrays), rows)


def drop_arrays(connection: Connection, table: Table, key: Column[Any], ids: list[str]) -> None:
    """Delete the names that runs or decompositions gave to arrays, and the arrays that then have none."""
    digests = list(connection.scalars(select(table.c.digest).where(key.in_(ids))))
    connection.execute(delete(table).where(key.in_(ids)))
    unused = [
        ~exists().where(names.c.digest == schema.arrays.c.digest)
        for names in (schema.run_arrays, schema.spectrum_arrays)
    ]
    connection.execute(delete(schema.arrays).where(schema.arrays.c.digest.in_(digests), *unused))


def _packed_arrays(connection: Connection, run_id: str, name: str | None = None) -> dict[str, PackedArray]:
    arrays, names = schema.arrays.c, schema.run_arrays.c
    query = select(names.name, arrays.digest, arrays.dtype, arrays.shape_json, arrays.data).join_from(
        schema.run_arrays, schema.arrays
    )
    query = query.where(names.run == run_id, true() if name is None else names.name == name)
    return {
        row.name: PackedArray(row.digest, row.dtype, tuple(json.loads(row.shape_json)), row.data)
        for row in connection.execute(query)
    }


def _no_run(run_id: str) -> RunNotFound:
    return RunNotFound(f"there is no run {run_id[:40]!r}; it may have been deleted, or it is in another store")
