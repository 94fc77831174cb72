"""Jobs in the store: a queue that outlives the page that asked and the process that works."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, insert, select, true, update

from analysis.run import new_id, utc_now
from storage import schema
from storage.comparisons import abandon_panes
from storage.database import Database
from storage.errors import JobNotFound, NotStorable
from storage.records import JOB_STATES, JobRow
from storage.rows import page, request_text

ACTIVE = ("queued", "running")
ORPHANED = "The program stopped while this was being worked on; ask again."
CANCELLED = "Cancelled before it was started."


class Jobs:
    """The part of a store that holds jobs. One worker claims a job; a flag, which it looks at, asks it to stop."""

    database: Database

    def add_job(
        self, request: Mapping[str, Any], owner: str = "", *, comparison: str = "", message: str = "", worker: str = ""
    ) -> JobRow:
        """Queue a job.

        Args:
            request: What to do, plain values.
            comparison: Id of the comparison that it fills.
            worker: Who works on it already; the job is running then and never waits in the queue.
        """
        row = {
            "id": new_id(),
            "owner": owner,
            "created_utc": utc_now(),
            "state": "running" if worker else "queued",
            "progress": 0.0,
            "message": message,
            "request_json": request_text(request),
            "comparison": comparison,
            "worker": worker,
            "heartbeat_utc": _moment() if worker else None,
            "is_cancel_requested": False,
        }
        with self.database.writing() as connection:
            connection.execute(insert(schema.jobs).values(row))
        return self.job(str(row["id"]))

    def job(self, job_id: str, owner: str | None = None) -> JobRow:
        """A job as it is now.

        Raises:
            JobNotFound: there is none, or it is not the owner's.
        """
        mine = true() if owner is None else schema.jobs.c.owner == owner
        with self.database.reading() as connection:
            row = connection.execute(select(schema.jobs).where(schema.jobs.c.id == job_id, mine)).one_or_none()
        if row is None:
            raise _no_job(job_id)
        return _job_of(row)

    def jobs(self, owner: str | None = None, *, state: str = "", comparison: str = "", limit: int = 50) -> list[JobRow]:
        """Jobs, the oldest first, as the queue goes."""
        jobs = schema.jobs.c
        where = [true() if owner is None else jobs.owner == owner]
        where += [jobs.state == state] if state else []
        where += [jobs.comparison == comparison] if comparison else []
        with self.database.reading() as connection:
            query = select(schema.jobs).where(*where).order_by(jobs.number)
            return [_job_of(row) for row in connection.execute(page(query, limit, 0))]

    def queue_position(self, job_id: str) -> int:
        """How many jobs are before this one: 0 when it is next, running or over.

        Raises:
            JobNotFound: there is none.
        """
        jobs = schema.jobs.c
        if self.job(job_id).state != "queued":
            return 0
        with self.database.reading() as connection:
            number = select(jobs.number).where(jobs.id == job_id).scalar_subquery()
            return len(connection.scalars(select(jobs.id).where(jobs.state == "queued", jobs.number < number)).all())

    def update_job(
        self, job_id: str, *, state: str | None = None, progress: float | None = None, message: str | None = None
    ) -> JobRow:
        """Change what is given, and count it as a sign of life. A job that is over stays as it ended.

        Args:
            state: One of `JOB_STATES`.
            progress: Share that is done; kept within 0 to 1.

        Raises:
            JobNotFound: there is none.
            NotStorable: the state is not known, or the progress is not a number.
        """
        if state is not None and state not in JOB_STATES:
            raise NotStorable(f"a job's state is one of {', '.join(JOB_STATES)}, got {state!r}")
        if progress is not None and not math.isfinite(progress):
            raise NotStorable(f"a job's progress is a share from 0 to 1, got {progress}")
        values: dict[str, Any] = {"heartbeat_utc": _moment()}
        values |= {"state": state} if state is not None else {}
        values |= {"progress": min(max(progress, 0.0), 1.0)} if progress is not None else {}
        values |= {"message": message} if message is not None else {}
        jobs = schema.jobs
        with self.database.writing() as connection:
            connection.execute(update(jobs).where(jobs.c.id == job_id, jobs.c.state.in_(ACTIVE)).values(values))
        return self.job(job_id)

    def heartbeat(self, job_id: str) -> None:
        """A sign of life from the worker of a running job."""
        jobs = schema.jobs
        with self.database.writing() as connection:
            connection.execute(
                update(jobs).where(jobs.c.id == job_id, jobs.c.state == "running").values(heartbeat_utc=_moment())
            )

    def cancel_job(self, job_id: str, owner: str | None = None) -> JobRow:
        """Ask a job to stop. One that is queued is cancelled at once, one that is running when its worker looks.

        Raises:
            JobNotFound: there is none, or it is not the owner's.
        """
        self.job(job_id, owner)
        jobs = schema.jobs
        with self.database.writing() as connection:
            this = jobs.c.id == job_id
            connection.execute(update(jobs).where(this, jobs.c.state.in_(ACTIVE)).values(is_cancel_requested=True))
            queued = connection.scalars(select(jobs.c.comparison).where(this, jobs.c.state == "queued")).all()
            if queued:
                connection.execute(update(jobs).where(this).values(state="cancelled", message=CANCELLED))
                abandon_panes(connection, [name for name in queued if name], "cancelled", CANCELLED)
        return self.job(job_id)

    def is_cancelled(self, job_id: str) -> bool:
        """Whether someone asked the job to stop. A job that is gone counts as stopped."""
        with self.database.reading() as connection:
            asked = connection.scalar(select(schema.jobs.c.is_cancel_requested).where(schema.jobs.c.id == job_id))
        return True if asked is None else bool(asked)

    def claim_job(self, worker: str) -> JobRow | None:
        """Take the oldest queued job, which is running from now on, or None. No two workers get the same."""
        jobs = schema.jobs
        with self.database.writing() as connection:
            job_id = connection.scalar(
                select(jobs.c.id).where(jobs.c.state == "queued").order_by(jobs.c.number).limit(1)
            )
            if job_id is None:
                return None
            claim = {"state": "running", "worker": worker, "heartbeat_utc": _moment()}
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(claim))
        return self.job(job_id)

    def fail_orphans(self, older_than_seconds: float = 60.0) -> list[JobRow]:
        """Mark running jobs without a sign of life as failed, and the panes that they left, and return the jobs."""
        before = _moment(-older_than_seconds)
        jobs = schema.jobs
        with self.database.writing() as connection:
            dead = connection.execute(
                select(jobs.c.id, jobs.c.comparison).where(jobs.c.state == "running", jobs.c.heartbeat_utc < before)
            ).all()
            connection.execute(
                update(jobs).where(jobs.c.id.in_([row.id for row in dead])).values(state="failed", message=ORPHANED)
            )
            abandon_panes(connection, [row.comparison for row in dead if row.comparison], "failed", ORPHANED)
        return [self.job(row.id) for row in dead]


def _moment(shift_seconds: float = 0.0) -> str:
    """The time now, or shifted, ISO 8601 with microseconds, so that text order is time order."""
    return (datetime.now(UTC) + timedelta(seconds=shift_seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _job_of(row: Row[Any]) -> JobRow:
    return JobRow(
        id=row.id,
        created_utc=row.created_utc,
        owner=row.owner,
        state=row.state,
        progress=row.progress,
        message=row.message,
        request=json.loads(row.request_json),
        comparison=row.comparison,
        worker=row.worker,
        heartbeat_utc=row.heartbeat_utc,
        is_cancel_requested=row.is_cancel_requested,
    )


def _no_job(job_id: str) -> JobNotFound:
    return JobNotFound(f"there is no job {job_id[:40]!r}; it may have been deleted, or it is in another store")
