from __future__ import annotations

import pytest
from sqlalchemy import event

from storage import RunNotFound
from tests.factories import make_id, make_image_ref, make_run


@pytest.fixture
def filled(store):
    """Six runs of two days; one wrong, one unknown."""
    runs = [
        make_run(0, strategy="identity@1.0", comparison="a"),
        make_run(1, strategy="fastv@0.5", comparison="a", correct=False),
        make_run(2, strategy="fastv:layer=1@0.5", question="is there a river?", task="presence"),
        make_run(3, strategy="visionzip@64", image=make_image_ref(40)),
        make_run(4, strategy="dualcomp@0.25", expected=None),
        make_run(5, strategy="dualcomp@0.25", question="100% forest?"),
    ]
    for run in runs:
        store.add(run)
    return store


FILTERS = {
    "text of the question": ({"text": "RIVER"}, [2]),
    "text of the image": ({"text": "scene-040"}, [3]),
    "text that is no pattern": ({"text": "0%"}, [5]),
    "text with an underscore": ({"text": "_"}, []),
    "name of a strategy": ({"strategy": "fastv"}, [2, 1]),
    "whole strategy": ({"strategy": "fastv@0.5"}, [1]),
    "task": ({"task": "presence"}, [2]),
    "right": ({"correct": True}, [5, 3, 2, 0]),
    "wrong": ({"correct": False}, [1]),
    "comparison": ({"comparison": "a"}, [1, 0]),
    "image": ({"image": make_image_ref(40).digest}, [3]),
    "request": ({"request": make_run(4, strategy="dualcomp@0.25", expected=None).request.digest}, [4]),
    "model": ({"model": "embedded"}, [5, 4, 3, 2, 1, 0]),
    "another model": ({"model": "other"}, []),
    "two at once": ({"strategy": "dualcomp", "text": "forest"}, [5]),
    "injection": ({"strategy": "' OR 1=1 --"}, []),
}


@pytest.mark.parametrize(("filters", "seeds"), FILTERS.values(), ids=FILTERS)
def test_runs_are_found_by(filled, filters, seeds):
    assert [found.seed for found in filled.find(**filters)] == seeds
    assert filled.count(**filters) == len(seeds)


def test_pages_of_a_list_follow_each_other(filled):
    assert [found.seed for found in filled.find(limit=2)] == [5, 4]
    assert [found.seed for found in filled.find(limit=2, offset=4)] == [1, 0]
    assert filled.find(limit=0) == []
    assert filled.find(limit=-1, offset=-3) == []
    assert len(filled.find(limit=10**30)) == 6
    assert filled.find(offset=10**30) == []


def test_runs_of_the_same_second_are_listed_last_stored_first(store):
    runs = [make_run(seed, created_utc="2026-05-01T12:00:00Z") for seed in range(4)]
    for run in runs:
        store.add(run)
    assert [found.seed for found in store.find()] == [3, 2, 1, 0]


@pytest.fixture
def owned(store):
    """One run of each of two owners, one of nobody, and a sample."""
    for seed, owner in enumerate(("ann", "bob", "")):
        store.add(make_run(seed), owner)
    store.add(make_run(3), is_sample=True)
    return store


def test_a_list_holds_the_owners_runs_and_the_samples(owned):
    assert [found.seed for found in owned.find(owner="ann")] == [3, 0]
    assert owned.count(owner="ann") == 2
    assert [found.seed for found in owned.find(owner="")] == [3, 2]
    assert owned.count() == 4


def test_who_knows_the_id_may_read_a_run_and_an_owner_narrows_it(owned):
    ann, bob, sample = make_run(0), make_run(1), make_run(3)
    assert owned.get(bob.id) == bob
    assert owned.get(ann.id, owner="ann") == ann
    assert owned.get(sample.id, owner="ann") == sample
    with pytest.raises(RunNotFound, match=bob.id):
        owned.get(bob.id, owner="ann")


@pytest.mark.parametrize("seed", [1, 2, 3], ids=["another owner's", "nobody's", "sample"])
def test_only_the_owner_deletes_a_run_and_not(owned, seed):
    with pytest.raises(RunNotFound):
        owned.delete(make_run(seed).id, owner="ann")
    assert owned.count() == 4
    owned.delete(make_run(0).id, owner="ann")
    owned.delete(make_run(seed).id)
    assert owned.count() == 2


LISTS = {
    "all": ({}, "ix_runs_created"),
    "an owner's": ({"owner": "ann"}, "ix_runs_created"),
    "a text": ({"text": "river"}, "ix_runs_created"),
    "a comparison": ({"comparison": make_id("c")}, "ix_runs_comparison"),
    "an image": ({"image": make_id("i")}, "ix_runs_image"),
    "a request": ({"request": make_id("r")}, "ix_runs_request"),
}


@pytest.mark.parametrize(("filters", "index"), LISTS.values(), ids=LISTS)
def test_lists_use_an_index(file_store, filters, index):
    asked = []
    event.listen(file_store.database.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2:4]))
    file_store.find(**filters)
    statement, parameters = asked[-1]
    with file_store.database.reading() as connection:
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert any(index in line for line in plan), plan
    if index == "ix_runs_created":
        assert not any("TEMP B-TREE" in line for line in plan), plan
