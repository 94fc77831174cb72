"""Decompositions in the store: of one request together, replaced whole, deleted with what only they used."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import func, select, text

from storage import NotStorable, SpectrumNotFound, StoreCorrupt, open_store, schema
from storage.database import Database
from storage.migrations import STEPS, backup_path
from tests.factories import make_run, make_spectrum


def beliefs(seed: int = 0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {"full": draw.normal(size=(1, 6, 4)).astype(np.float32), "right": draw.integers(0, 4, 6)}


def count(store, table) -> int:
    with store.database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(table))


def test_a_spectrum_comes_back_equal_with_its_beliefs(store):
    answer, layer = make_spectrum(), replace(make_spectrum(1), layer=2)
    layer = replace(layer, request=answer.request)
    store.add_spectra([answer, layer], beliefs())
    assert store.find_spectra() == [answer, layer]
    found = store.spectrum_arrays(answer.id)
    assert {name: array.dtype for name, array in found.items()} == {"full": np.float32, "right": np.int64}
    np.testing.assert_array_equal(found["full"], beliefs()["full"])
    assert store.spectrum_arrays(layer.id) == {}


def test_the_same_request_again_takes_the_place_of_the_earlier(store):
    first, again = make_spectrum(), replace(make_spectrum(1), request=make_spectrum().request)
    store.add_spectra([first], beliefs())
    store.add_spectra([again], beliefs(1))
    assert store.find_spectra() == [again]
    assert count(store, schema.arrays) == 2


def test_spectra_are_found_by_request_model_and_owner(store):
    mine, theirs = make_spectrum(0), replace(make_spectrum(1), model=replace(make_spectrum().model, name="other"))
    sample = make_spectrum(2)
    store.add_spectra([mine], {}, owner="me")
    store.add_spectra([theirs], {}, owner="they")
    store.add_spectra([sample], {}, is_sample=True)
    assert store.find_spectra(owner="me") == [mine, sample]
    assert store.find_spectra(model="other") == [theirs]
    assert store.find_spectra(request=mine.request) == [mine]
    assert store.find_spectra(limit=1, offset=1) == [theirs]


def test_spectra_of_two_requests_are_not_stored_together(store):
    with pytest.raises(NotStorable, match="got 2 requests"):
        store.add_spectra([make_spectrum(0), make_spectrum(1)], {})
    assert store.find_spectra() == []


def test_a_failure_in_the_middle_stores_nothing(store):
    twice = make_spectrum()
    with pytest.raises(Exception, match="UNIQUE|unique"):
        store.add_spectra([twice, twice], beliefs())
    assert store.find_spectra() == []
    assert count(store, schema.arrays) == 0


def test_deleting_keeps_arrays_that_a_run_shares(store):
    run, spectrum = make_run(), make_spectrum()
    store.add(run)
    shared = next(iter(run.arrays().values()))
    before = count(store, schema.arrays)
    store.add_spectra([spectrum], {"full": shared, "own": np.arange(5.0)})
    store.delete_spectra(spectrum.request)
    assert count(store, schema.arrays) == before
    assert store.get(run.id) == run


def test_deleting_a_run_keeps_arrays_that_a_spectrum_shares(store):
    run, spectrum = make_run(), make_spectrum()
    store.add(run)
    shared = next(iter(run.arrays().values()))
    store.add_spectra([spectrum], {"full": shared})
    store.delete(run.id)
    np.testing.assert_array_equal(store.spectrum_arrays(spectrum.id)["full"], shared)


def test_only_the_owner_deletes_and_nobody_a_sample(store):
    mine, sample = make_spectrum(0), make_spectrum(1)
    store.add_spectra([mine], {}, owner="me")
    store.add_spectra([sample], {}, owner="me", is_sample=True)
    for request, owner in ((mine.request, "they"), (sample.request, "me"), ("nothing", None)):
        with pytest.raises(SpectrumNotFound, match="there is no decomposition"):
            store.delete_spectra(request, owner)
    store.delete_spectra(mine.request, "me")
    assert store.find_spectra() == [sample]


def test_the_view_has_one_row_per_decomposition(store):
    spectrum = make_spectrum()
    store.add_spectra([spectrum, replace(make_spectrum(1), request=spectrum.request, layer=0)], {})
    with store.database.reading() as connection:
        first, second = connection.execute(text("SELECT * FROM v_pid ORDER BY layer IS NOT NULL")).mappings().all()
    assert (first["pid"], first["layer"], second["layer"]) == (spectrum.id, None, 0)
    assert first["synergy_bits"] == spectrum.atoms["synergy"].value
    assert first["budget"] == 0.25


def test_a_damaged_record_is_named(store):
    store.add_spectra([make_spectrum()], {})
    with store.database.writing() as connection:
        connection.execute(schema.spectra.update().values(record_json="{}"))
    with pytest.raises(StoreCorrupt, match="a stored decomposition cannot be read"):
        store.find_spectra()


def test_a_store_of_the_first_version_gets_the_tables_and_keeps_its_runs(url, tmp_path):
    run = make_run()
    with open_store(url) as store:
        store.add(run)
    with closing(Database(url)) as database, database.writing() as connection:
        for statement in (
            "DROP VIEW v_runs",
            "ALTER TABLE runs DROP COLUMN tokens_encoded",
            "DROP VIEW v_pid",
            "DROP VIEW v_sweeps",
            *(f"DROP TABLE {name}" for name in ("sweep_runs", "sweeps", "spectrum_arrays", "spectra")),
        ):
            connection.execute(text(statement))
        connection.execute(text("DELETE FROM schema_steps WHERE position > 1"))
    with open_store(url) as store:
        assert store.get(run.id) == run
        store.add_spectra([make_spectrum()], beliefs())
        assert store.find_spectra() == [make_spectrum()]
        with store.database.reading() as connection:
            names = connection.scalars(select(schema.schema_steps.c.name)).all()
    assert names == [step.name for step in STEPS]
    assert backup_path(tmp_path / "keepmap.db", 1).exists()
