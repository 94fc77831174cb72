"""Sweeps in the store: what each planned request became, written together with its run or its failure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select, update

from analysis.run import Run, new_id, utc_now
from storage import schema
from storage.assets import ImageFolder
from storage.database import Database
from storage.errors import NotStorable, SweepNotFound
from storage.failures import add_failure
from storage.records import SWEPT_STATES, Sweep, SweptRequest
from storage.runs import add_run
from storage.views import VIEWS


class Sweeps:
    """The part of a store that holds sweeps.

    A request of a sweep is known by its digest. Its outcome is written in the transaction that writes the run, so a
    sweep that was killed knows exactly what is left.
    """

    database: Database
    images: ImageFolder

    def start_sweep(self, name: str, requests: Collection[str], owner: str = "") -> str:
        """Start a sweep, or go on with the one of that name, and return its id.

        What an earlier start planned and stored stays part of the sweep, so a sweep can grow. It counts as finished no
        more where one of the requests has no outcome, or failed.

        Args:
            name: As its file names it; unique for an owner.
            requests: Digests of what is to be asked.
            owner: Whose sweep it is.
        """
        kept, swept = schema.sweeps.c, schema.sweep_runs.c
        with self.database.writing() as connection:
            found = connection.scalar(select(kept.id).where(kept.name == name, kept.owner == owner))
            if found is None:
                identity, moment = new_id(), utc_now()
                connection.execute(
                    insert(schema.sweeps).values(
                        id=identity, owner=owner, name=name, planned=len(set(requests)), started_utc=moment
                    )
                )
                return identity
            query = select(swept.request, swept.state).where(swept.sweep == found)
            states = {row.request: row.state for row in connection.execute(query)}
            changes: dict[str, Any] = {"planned": len(states.keys() | set(requests))}
            if any(states.get(request, "failed") == "failed" for request in requests):
                changes["finished_utc"] = None
            connection.execute(update(schema.sweeps).where(kept.id == found).values(changes))
            return str(found)

    def find_sweep(self, name: str, owner: str = "") -> Sweep | None:
        """The sweep of that name, with its counts, or None."""
        kept = schema.sweeps.c
        with self.database.reading() as connection:
            found = connection.scalar(select(kept.id).where(kept.name == name, kept.owner == owner))
            return _sweep(connection, found) if found else None

    def sweep(self, sweep_id: str) -> Sweep:
        """A sweep with its counts.

        Raises:
            SweepNotFound: there is none.
        """
        with self.database.reading() as connection:
            return _sweep(connection, sweep_id)

    def add_swept_run(self, sweep_id: str, swept: SweptRequest, run: Run, owner: str = "") -> None:
        """Store a run and that it is the answer to its request in this sweep, both or neither.

        Raises:
            SweepNotFound: there is no such sweep.
            NotStorable: the run answers another request, or cannot be stored.
        """
        if run.request.digest != swept.request:
            raise NotStorable(f"the run {run.id} answers another request than {swept.request[:12]}; name its own")
        with self.database.writing() as connection:
            add_run(connection, self.images, run, owner)
            done = replace(swept, state="done", reason="", run=run.id, failure=None, lowest=None)
            _put(connection, sweep_id, [done])

    def add_swept_failure(
        self, sweep_id: str, swept: SweptRequest, request_json: Mapping[str, Any], stage: str, owner: str = ""
    ) -> None:
        """Store that a request of a sweep was started and failed, as a failure and in the sweep, both or neither.

        Args:
            sweep_id: The sweep.
            swept: The request, with the reason.
            request_json: What was asked, plain values.
            stage: Where it failed.
            owner: Whose failure it is.

        Raises:
            SweepNotFound: there is no such sweep.
        """
        with self.database.writing() as connection:
            failure = add_failure(connection, request_json, stage, swept.reason, owner)
            _put(connection, sweep_id, [replace(swept, state="failed", run=None, failure=failure)])

    def add_refused(self, sweep_id: str, refused: Sequence[SweptRequest]) -> None:
        """Store which requests of a sweep cannot be asked at all; no failure is stored for what never started.

        Raises:
            SweepNotFound: there is no such sweep.
            NotStorable: a state that is not "unreachable" or "refused".
        """
        for one in refused:
            if one.state not in SWEPT_STATES[2:]:
                raise NotStorable(f"what was not asked is {' or '.join(SWEPT_STATES[2:])}, got {one.state!r}")
        with self.database.writing() as connection:
            _put(connection, sweep_id, [replace(one, run=None, failure=None) for one in refused])

    def finish_sweep(self, sweep_id: str) -> None:
        """Note that nothing is left to run, where that is so; every planned request has an outcome then.

        Raises:
            SweepNotFound: there is no such sweep.
        """
        kept = schema.sweeps.c
        with self.database.writing() as connection:
            known = _sweep(connection, sweep_id)
            is_over = known.done + known.failed + known.refused >= known.planned
            if is_over and known.finished_utc is None:
                connection.execute(update(schema.sweeps).where(kept.id == sweep_id).values(finished_utc=utc_now()))

    def swept_requests(self, sweep_id: str) -> list[SweptRequest]:
        """What became of the requests of a sweep so far, in no particular order.

        Raises:
            SweepNotFound: there is no such sweep.
        """
        kept, runs = schema.sweep_runs.c, schema.runs.c
        names = ("request", "model", "strategy", "seed", "task", "state", "reason", "lowest", "run", "failure")
        columns = [kept[name] for name in names]
        query = select(*columns, kept.question_family.label("family"), runs.is_correct, runs.retention_ratio)
        query = query.join_from(schema.sweep_runs, schema.runs, runs.id == kept.run, isouter=True)
        with self.database.reading() as connection:
            _sweep(connection, sweep_id)
            return [SweptRequest(**row._mapping) for row in connection.execute(query.where(kept.sweep == sweep_id))]


def _sweep(connection: Connection, sweep_id: str) -> Sweep:
    row = connection.execute(VIEWS["v_sweeps"].where(schema.sweeps.c.id == sweep_id)).one_or_none()
    if row is None:
        raise SweepNotFound(f"there is no sweep {sweep_id[:40]!r}; it may be in another store")
    return Sweep(**row._mapping)


def _put(connection: Connection, sweep_id: str, outcomes: Sequence[SweptRequest]) -> None:
    """Write what became of requests; earlier outcomes of them are replaced."""
    kept = schema.sweep_runs.c
    if connection.scalar(select(func.count()).where(schema.sweeps.c.id == sweep_id)) == 0:
        raise SweepNotFound(f"there is no sweep {sweep_id[:40]!r}; it may be in another store")
    if not outcomes:
        return
    same = and_(kept.sweep == sweep_id, kept.request == bindparam("asked"))
    connection.execute(delete(schema.sweep_runs).where(same), [{"asked": one.request} for one in outcomes])
    connection.execute(
        insert(schema.sweep_runs),
        [
            {
                "sweep": sweep_id,
                "request": one.request,
                "model": one.model,
                "strategy": one.strategy,
                "seed": one.seed,
                "question_family": one.family,
                "task": one.task,
                "state": one.state,
                "reason": one.reason,
                "lowest": one.lowest,
                "run": one.run,
                "failure": one.failure,
            }
            for one in outcomes
        ],
    )
