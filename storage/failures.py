"""Failures in the store: runs that started and did not finish, with the reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, insert, select, true

from analysis.run import new_id, utc_now
from storage import schema
from storage.database import Database
from storage.errors import FailureNotFound
from storage.records import Failure
from storage.rows import page, request_text


class Failures:
    """The part of a store that holds failures. What is refused before it starts is stored nowhere."""

    database: Database

    def fail(self, request_json: Mapping[str, Any], stage: str, reason: str, owner: str = "") -> str:
        """Store that a run started and failed, and return the failure's id.

        Args:
            request_json: What was asked, plain values.
            stage: Where it failed.
            reason: Why, in a sentence.
        """
        with self.database.writing() as connection:
            return add_failure(connection, request_json, stage, reason, owner)

    def failure(self, failure_id: str, owner: str | None = None) -> Failure:
        """A stored failure.

        Raises:
            FailureNotFound: there is none, or it is not the owner's.
        """
        query = select(schema.failures).where(schema.failures.c.id == failure_id, _mine(owner))
        with self.database.reading() as connection:
            row = connection.execute(query).one_or_none()
        if row is None:
            raise FailureNotFound(f"there is no failure {failure_id[:40]!r}; it may have been deleted")
        return _failure_of(row)

    def failures(self, owner: str | None = None, limit: int = 50, offset: int = 0) -> list[Failure]:
        """Stored failures, newest first: this owner's, all for None."""
        query = select(schema.failures).where(_mine(owner)).order_by(schema.failures.c.number.desc())
        with self.database.reading() as connection:
            return [_failure_of(row) for row in connection.execute(page(query, limit, offset))]


def add_failure(
    connection: Connection, request_json: Mapping[str, Any], stage: str, reason: str, owner: str = ""
) -> str:
    """Write a failure inside a transaction that is open for writing, and return its id; see `Failures.fail`."""
    failure = {
        "id": new_id(),
        "owner": owner,
        "created_utc": utc_now(),
        "request_json": request_text(request_json),
        "stage": stage,
        "reason": reason,
    }
    connection.execute(insert(schema.failures).values(failure))
    return failure["id"]


def _mine(owner: str | None) -> ColumnElement[bool]:
    return true() if owner is None else schema.failures.c.owner == owner


def _failure_of(row: Row[Any]) -> Failure:
    return Failure(row.id, row.created_utc, json.loads(row.request_json), row.stage, row.reason, row.owner)
