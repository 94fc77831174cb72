"""Decompositions in the store: those of one request are written together, and found again by it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import Select, column, delete, insert, select, table, text, true
from sqlalchemy.exc import SQLAlchemyError

from analysis.spectrum import ATOMS, Spectrum
from storage import schema
from storage.arrays import PackedArray, pack, unpack
from storage.database import Database
from storage.errors import InvalidCondition, NotStorable, SpectrumNotFound, StoreCorrupt
from storage.rows import json_text, page
from storage.runs import add_arrays, drop_arrays, visible


@dataclass(frozen=True)
class AskedRun:
    """What a stored run was asked, as far as its question can be asked again.

    Args:
        image: SHA-256 of the image's bytes, hex.
        choices: The answers to choose among, in order.
        expected: The right one, None where it is not known.
    """

    run: str
    model_revision: str
    image: str
    question: str
    strategy: str
    choices: tuple[str, ...]
    expected: str | None


class Spectra:
    """The part of a store that holds decompositions."""

    database: Database

    def asked(self, where: str = "") -> list[AskedRun]:
        """What the stored runs that fit a condition were asked, oldest first.

        Args:
            where: A condition in SQL over the columns of `v_runs`. It is the operator's own: whoever writes it may read
                the whole store. Nothing can be changed by it.

        Raises:
            InvalidCondition: the database cannot read it.
        """
        names = ("run", "model_revision", "image", "question", "strategy")
        query: Select[Any] = select(*(column(name) for name in names)).select_from(table("v_runs"))
        query = query.order_by(text("created_utc, run"))
        if where.strip():
            query = query.where(text("(" + where.replace(":", r"\:") + ")"))
        listed = schema.choices.c
        try:
            with self.database.reading() as connection:
                runs = connection.execute(query).all()
                choices: dict[str, list[Any]] = {}
                for row in connection.execute(
                    select(listed.run, listed.text, listed.is_expected).order_by(listed.run, listed.position)
                ):
                    choices.setdefault(row.run, []).append(row)
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise InvalidCondition(
                f"the condition is not one over the columns of v_runs ({reason}); write for example task = 'count'"
            ) from error
        return [
            AskedRun(
                **row._mapping,
                choices=tuple(one.text for one in choices.get(row.run, [])),
                expected=next((one.text for one in choices.get(row.run, []) if one.is_expected), None),
            )
            for row in runs
        ]

    def add_spectra(
        self,
        spectra: Sequence[Spectrum],
        arrays: Mapping[str, NDArray[Any]],
        owner: str = "",
        *,
        is_sample: bool = False,
    ) -> None:
        """Store the spectra of one request with the beliefs behind them, all or none; earlier ones of it are replaced.

        Args:
            spectra: The answer's and, where they were read, the layers'; all with one request.
            arrays: Beliefs, by name.
            owner: Whose they are.
            is_sample: Whether everyone may see them.

        Raises:
            NotStorable: they are of several requests, or hold something that is not a plain value.
        """
        requests = {one.request for one in spectra}
        if len(requests) != 1:
            raise NotStorable(f"spectra of one request are stored together, got {len(requests)} requests; add each")
        rows = [_row(one, owner, is_sample) for one in spectra]
        packed = {name: pack(array) for name, array in arrays.items()}
        (request,) = requests
        with self.database.writing() as connection:
            kept = schema.spectra.c
            earlier = list(connection.scalars(select(kept.id).where(kept.request == request, kept.owner == owner)))
            drop_arrays(connection, schema.spectrum_arrays, schema.spectrum_arrays.c.spectrum, earlier)
            connection.execute(delete(schema.spectra).where(kept.id.in_(earlier)))
            add_arrays(connection, packed)
            connection.execute(insert(schema.spectra), rows)
            if packed:
                connection.execute(
                    insert(schema.spectrum_arrays),
                    [{"spectrum": spectra[0].id, "name": name, "digest": one.digest} for name, one in packed.items()],
                )

    def find_spectra(
        self, *, request: str = "", model: str = "", owner: str | None = None, limit: int = 1000, offset: int = 0
    ) -> list[Spectrum]:
        """Stored spectra in the order in which they were stored.

        Args:
            request: Of this request only.
            model: Of this model only.
            owner: Only this owner's and the samples; None for all.

        Raises:
            StoreCorrupt: one of them cannot be read.
        """
        kept = schema.spectra.c
        query = select(kept.record_json).where(
            visible(schema.spectra, owner),
            kept.request == request if request else true(),
            kept.model == model if model else true(),
        )
        with self.database.reading() as connection:
            records = list(connection.scalars(page(query.order_by(kept.number), limit, offset)))
        try:
            return [Spectrum.from_json(json.loads(record)) for record in records]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreCorrupt(
                f"a stored decomposition cannot be read ({error!r}); restore the store from a backup"
            ) from error

    def spectrum_arrays(self, spectrum_id: str) -> dict[str, NDArray[Any]]:
        """The beliefs behind a spectrum, by name; empty for the spectrum of a layer.

        Raises:
            StoreCorrupt: an array does not match its digest.
        """
        arrays, names = schema.arrays.c, schema.spectrum_arrays.c
        query = (
            select(names.name, arrays.digest, arrays.dtype, arrays.shape_json, arrays.data)
            .join_from(schema.spectrum_arrays, schema.arrays)
            .where(names.spectrum == spectrum_id)
        )
        with self.database.reading() as connection:
            return {
                row.name: unpack(PackedArray(row.digest, row.dtype, tuple(json.loads(row.shape_json)), row.data))
                for row in connection.execute(query)
            }

    def delete_spectra(self, request: str, owner: str | None = None) -> None:
        """Delete the spectra of a request, and the arrays that only they used.

        Raises:
            SpectrumNotFound: there are none of it, or they are another owner's or samples.
        """
        kept = schema.spectra.c
        mine = true() if owner is None else (kept.owner == owner) & ~kept.is_sample
        with self.database.writing() as connection:
            found = list(connection.scalars(select(kept.id).where(kept.request == request, mine)))
            if not found:
                raise SpectrumNotFound(
                    f"there is no decomposition of the request {request[:40]!r}; it may have been deleted"
                )
            drop_arrays(connection, schema.spectrum_arrays, schema.spectrum_arrays.c.spectrum, found)
            connection.execute(delete(schema.spectra).where(kept.id.in_(found)))


def _row(one: Spectrum, owner: str, is_sample: bool) -> dict[str, Any]:
    """The row of the table `spectra`."""
    return {
        "id": one.id,
        "owner": owner,
        "is_sample": is_sample,
        "request": one.request,
        "created_utc": one.created_utc,
        "model": one.model.name,
        "model_revision": one.model.revision,
        "strategy": one.strategy,
        "strategy_name": one.strategy_name,
        "budget": one.budget,
        "question_family": one.family,
        "task": one.task,
        "layer": one.layer,
        "checkpoint": one.checkpoint,
        "n": one.n,
        "samples": one.samples,
        "measure": one.method.measure,
        "estimator": one.method.estimator,
        "intervention": one.method.intervention,
        "selection": one.method.selection,
        "gate": one.method.gate,
        **{f"{atom}_bits": one.atoms[atom].value for atom in ATOMS},
        "total_bits": one.total.value,
        "lower_bits": one.lower,
        "upper_bits": one.upper,
        "ci_low_json": json_text({atom: one.atoms[atom].low for atom in ATOMS}),
        "ci_high_json": json_text({atom: one.atoms[atom].high for atom in ATOMS}),
        "gated_fraction_json": json_text(dict(one.gated)),
        "incoherence_bits": one.incoherence,
        "seed": one.method.seed,
        "retention_ratio": one.retention,
        "accuracy": one.accuracy,
        "accuracy_blind": one.accuracy_blind,
        "choice_mass": one.choice_mass,
        "labels_json": json_text(list(one.labels)),
        "record_json": json_text(one.to_json()),
    }
