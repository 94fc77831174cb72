"""Comparisons in the store: what was asked of several strategies, and which pane has which run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, func, insert, select, true, update

from analysis.run import ImageRef
from storage import schema
from storage.assets import ImageFolder
from storage.database import Database
from storage.errors import ComparisonNotFound, NotStorable
from storage.records import PANE_STATES, Comparison, Pane
from storage.rows import json_text, page
from storage.runs import delete_runs, visible


class Comparisons:
    """The part of a store that holds comparisons."""

    database: Database
    images: ImageFolder

    def add_comparison(self, comparison: Comparison, owner: str = "") -> str:
        """Store a comparison with its panes and return its id. Adding the same id twice keeps the first.

        Args:
            comparison: The runs and failures that its panes name must be stored.
            owner: Whose it is; the comparison's own owner where empty.

        Raises:
            NotStorable: a pane is in no known state, or names a run that is not stored.
        """
        for pane in comparison.panes:
            _check_pane(pane)
        with self.database.writing() as connection:
            self.images.mark_used(connection, comparison.image.digest)
            if connection.scalar(select(schema.comparisons.c.id).where(schema.comparisons.c.id == comparison.id)):
                return comparison.id
            for pane in comparison.panes:
                _check_links(connection, pane)
            connection.execute(
                insert(schema.comparisons).values(_comparison_row(comparison, owner or comparison.owner))
            )
            if comparison.panes:
                rows = [_pane_row(comparison.id, position, pane) for position, pane in enumerate(comparison.panes)]
                connection.execute(insert(schema.panes), rows)
        return comparison.id

    def set_pane(self, comparison_id: str, position: int, pane: Pane) -> None:
        """Replace one pane: it gets its run, its failure or its state.

        Raises:
            ComparisonNotFound: there is no such comparison, or it has no such pane.
            NotStorable: the pane is in no known state, or names a run that is not stored.
        """
        _check_pane(pane)
        row = _pane_row(comparison_id, position, pane)
        panes = schema.panes
        with self.database.writing() as connection:
            _check_links(connection, pane)
            where = (panes.c.comparison == comparison_id, panes.c.position == position)
            if connection.execute(update(panes).where(*where).values(row)).rowcount == 0:
                raise ComparisonNotFound(
                    f"there is no comparison {comparison_id[:40]!r} with a pane {position}; it may have been deleted"
                )

    def comparison(self, comparison_id: str, owner: str | None = None) -> Comparison:
        """A stored comparison.

        Args:
            comparison_id: Its id. Whoever knows it may read it: that is what a link shares.
            owner: Where given, only this owner's comparisons and the samples are found.

        Raises:
            ComparisonNotFound: there is none.
        """
        with self.database.reading() as connection:
            found = _load(
                connection,
                schema.comparisons.c.id == comparison_id,
                visible(schema.comparisons, owner),
                limit=1,
                offset=0,
            )
        if not found:
            raise _no_comparison(comparison_id)
        return found[0]

    def comparisons(self, owner: str | None = None, limit: int = 50, offset: int = 0) -> list[Comparison]:
        """Stored comparisons, newest first: this owner's and the samples, all for None."""
        with self.database.reading() as connection:
            return _load(connection, visible(schema.comparisons, owner), limit=limit, offset=offset)

    def count_comparisons(self, owner: str | None = None) -> int:
        """How many comparisons there are for this owner."""
        query = select(func.count()).select_from(schema.comparisons).where(visible(schema.comparisons, owner))
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def delete_comparison(self, comparison_id: str, owner: str | None = None) -> None:
        """Delete a comparison, those of its runs that no other comparison shows, and the image if nothing else uses it.

        Raises:
            ComparisonNotFound: there is none, or it is another owner's.
        """
        comparisons, runs, panes = schema.comparisons, schema.runs, schema.panes
        with self.database.writing() as connection:
            mine = true() if owner is None else and_(comparisons.c.owner == owner, ~comparisons.c.is_sample)
            image = connection.scalar(select(comparisons.c.image).where(comparisons.c.id == comparison_id, mine))
            if image is None:
                raise _no_comparison(comparison_id)
            connection.execute(delete(comparisons).where(comparisons.c.id == comparison_id))
            shown = exists().where(panes.c.run == runs.c.id)
            own = list(connection.scalars(select(runs.c.id).where(runs.c.comparison == comparison_id, ~shown)))
            released = {image, *delete_runs(connection, own)}
            self.images.release(connection, released)
        self.images.sweep(released)


def abandon_panes(connection: Connection, comparison_ids: list[str], state: str, reason: str) -> None:
    """Panes that nobody will fill any more say so."""
    panes = schema.panes
    unfinished = and_(panes.c.comparison.in_(comparison_ids), panes.c.state.in_(("waiting", "running")))
    connection.execute(update(panes).where(unfinished).values(state=state, reason=reason))


def _load(connection: Connection, *where: Any, limit: int, offset: int) -> list[Comparison]:
    comparisons, panes = schema.comparisons, schema.panes
    query = select(comparisons).where(*where).order_by(comparisons.c.created_utc.desc(), comparisons.c.number.desc())
    rows = connection.execute(page(query, limit, offset)).all()
    by_id: dict[str, list[Pane]] = {row.id: [] for row in rows}
    for pane in connection.execute(
        select(panes).where(panes.c.comparison.in_(by_id)).order_by(panes.c.comparison, panes.c.position)
    ):
        by_id[pane.comparison].append(Pane(pane.strategy, pane.run, pane.failure, pane.reason, pane.lowest, pane.state))
    return [_comparison_of(row, tuple(by_id[row.id])) for row in rows]


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values; `comparison_from_json` rebuilds an equal one."""
    value: dict[str, Any] = json.loads(json_text(asdict(comparison)))
    return value


def comparison_from_json(value: dict[str, Any]) -> Comparison:
    """The comparison that `comparison_json` described."""
    return Comparison(
        **{
            **value,
            "image": _image_of(value["image"]),
            "choices": tuple(value["choices"]),
            "evidence": tuple((box[0], box[1], box[2], box[3]) for box in value["evidence"]),
            "panes": tuple(Pane(**pane) for pane in value["panes"]),
            "notices": tuple(value["notices"]),
        }
    )


def _image_of(value: dict[str, Any]) -> ImageRef:
    shapes = {name: tuple(value[name]) if value[name] is not None else None for name in ("transform", "window")}
    return ImageRef(**{**value, **shapes})


def _comparison_row(comparison: Comparison, owner: str) -> dict[str, Any]:
    return {
        "id": comparison.id,
        "owner": owner,
        "is_sample": comparison.is_sample,
        "created_utc": comparison.created_utc,
        "image": comparison.image.digest,
        "image_json": json_text(asdict(comparison.image)),
        "question": comparison.question,
        "choices_json": json_text(list(comparison.choices)),
        "expected": comparison.expected,
        "evidence_json": json_text([list(box) for box in comparison.evidence]),
        "family": comparison.family,
        "task": comparison.task,
        "model": comparison.model,
        "notices_json": json_text(list(comparison.notices)),
    }


def _comparison_of(row: Row[Any], panes: tuple[Pane, ...]) -> Comparison:
    return Comparison(
        id=row.id,
        created_utc=row.created_utc,
        image=_image_of(json.loads(row.image_json)),
        question=row.question,
        choices=tuple(json.loads(row.choices_json)),
        expected=row.expected,
        evidence=tuple((box[0], box[1], box[2], box[3]) for box in json.loads(row.evidence_json)),
        family=row.family,
        task=row.task,
        model=row.model,
        panes=panes,
        notices=tuple(json.loads(row.notices_json)),
        owner=row.owner,
        is_sample=row.is_sample,
    )


def _pane_row(comparison_id: str, position: int, pane: Pane) -> dict[str, Any]:
    return {"comparison": comparison_id, "position": position, **asdict(pane)}


def _check_pane(pane: Pane) -> None:
    if pane.state not in PANE_STATES:
        raise NotStorable(f"a pane's state is one of {', '.join(PANE_STATES)}, got {pane.state!r}")


def _check_links(connection: Connection, pane: Pane) -> None:
    for name, table in (("run", schema.runs), ("failure", schema.failures)):
        linked = getattr(pane, name)
        if linked is not None and connection.scalar(select(table.c.id).where(table.c.id == linked)) is None:
            raise NotStorable(f"a pane names the {name} {linked!r}, which is not stored; store the {name} first")


def _no_comparison(comparison_id: str) -> ComparisonNotFound:
    return ComparisonNotFound(
        f"there is no comparison {comparison_id[:40]!r}; it may have been deleted, or it is in another store"
    )
