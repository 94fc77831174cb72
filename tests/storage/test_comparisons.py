from __future__ import annotations

from dataclasses import replace

import pytest

from storage import Comparison, ComparisonNotFound, NotStorable, Pane, RunNotFound, schema
from tests.factories import make_comparison, make_image_ref, make_run


def stored(store, seed=0, owner="", **changes):
    """A comparison whose runs are stored with it."""
    comparison, runs = make_comparison(seed)
    for run in runs:
        store.add(run, owner)
    comparison = replace(comparison, owner=owner, **changes)
    store.add_comparison(comparison, owner)
    return comparison, runs


def test_a_comparison_comes_back_equal(store):
    comparison, _ = stored(store, notices=("The question has an unknown word: zeppelin.",))
    assert store.comparison(comparison.id) == comparison


def test_a_comparison_of_plain_pixels_and_a_window_comes_back_equal(store):
    image = replace(
        make_image_ref(georeferenced=False), window=(1, 2, 30, 40), name="Ünïcode 道.png", is_synthetic=False
    )
    comparison = Comparison(
        id="c" * 32,
        created_utc="2026-01-01T00:00:00Z",
        image=image,
        question="'; --",
        choices=(),
        expected=None,
        evidence=(),
        family="",
        task="",
        model="embedded",
        panes=(),
    )
    store.add_comparison(comparison)
    assert store.comparison(comparison.id) == comparison


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE panes; --", "<script>", "道 🛰️\u202e", "nul\x00", "x" * 50_000], ids=range(5)
)
def test_any_text_comes_back_unchanged(store, text):
    comparison, _ = make_comparison()
    panes = (Pane("identity@1.0", reason=text, state="refused"),)
    comparison = replace(
        comparison, question=text, choices=(text,), expected=text, family=text, task=text, notices=(text,), panes=panes
    )
    store.add_comparison(comparison)
    assert store.comparison(comparison.id) == comparison


def test_adding_a_comparison_twice_keeps_the_first(store):
    comparison, _ = stored(store)
    store.add_comparison(replace(comparison, question="another?"))
    assert store.comparison(comparison.id) == comparison
    assert store.count_comparisons() == 1


def test_panes_get_their_run_or_their_reason(store):
    finished, runs = make_comparison()
    waiting = replace(finished, panes=tuple(Pane(pane.strategy) for pane in finished.panes))
    store.add_comparison(waiting)
    assert [pane.state for pane in store.comparison(finished.id).panes] == ["waiting"] * 3
    store.add(runs[0])
    failure = store.fail({"strategy": "fastv@0.5"}, "encode", "out of memory")
    panes = (
        finished.panes[0],
        Pane(finished.panes[1].strategy, reason="The lowest reachable budget is 43.", lowest=43, state="refused"),
        Pane(finished.panes[2].strategy, failure=failure, reason="out of memory", state="failed"),
    )
    for position, pane in enumerate(panes):
        store.set_pane(finished.id, position, pane)
    assert store.comparison(finished.id).panes == panes


def test_a_pane_that_is_not_there_cannot_be_set(store):
    comparison, _ = stored(store)
    with pytest.raises(ComparisonNotFound, match="with a pane 3"):
        store.set_pane(comparison.id, 3, Pane("identity@1.0"))
    with pytest.raises(ComparisonNotFound, match="no comparison 'nothing' with a pane 0"):
        store.set_pane("nothing", 0, Pane("identity@1.0"))


def test_a_pane_in_no_known_state_is_refused(store):
    comparison, _ = make_comparison()
    with pytest.raises(
        NotStorable, match="one of waiting, running, done, refused, failed, cancelled, deleted, got 'odd'"
    ):
        store.add_comparison(replace(comparison, panes=(Pane("identity@1.0", state="odd"),)))


@pytest.mark.parametrize("link", ["run", "failure"])
def test_a_pane_names_only_what_is_stored(store, link):
    comparison, _ = stored(store)
    pane = replace(Pane("identity@1.0", state="done"), **{link: "missing"})
    with pytest.raises(NotStorable, match=f"a pane names the {link} 'missing', which is not stored"):
        store.set_pane(comparison.id, 0, pane)
    with pytest.raises(NotStorable, match="store the"):
        store.add_comparison(replace(comparison, id="other", panes=(pane,)))
    assert store.comparison(comparison.id) == comparison
    assert store.count_comparisons() == 1


def test_comparisons_are_listed_newest_first_for_their_owner_with_the_samples(store):
    ann = stored(store, 0, "ann")[0]
    stored(store, 1, "bob")
    sample = stored(store, 2, is_sample=True)[0]
    assert [found.id for found in store.comparisons("ann")] == [sample.id, ann.id]
    assert store.count_comparisons("ann") == 2
    assert len(store.comparisons()) == 3
    assert [found.id for found in store.comparisons("ann", limit=1, offset=1)] == [ann.id]


def test_who_knows_the_id_may_read_a_comparison_and_an_owner_narrows_it(store):
    bob = stored(store, 1, "bob")[0]
    assert store.comparison(bob.id) == bob
    assert store.comparison(bob.id, owner="bob") == bob
    with pytest.raises(ComparisonNotFound, match="may have been deleted"):
        store.comparison(bob.id, owner="ann")


def test_a_comparison_remembers_an_owner_that_it_brings(store):
    comparison, _ = make_comparison()
    store.add_comparison(replace(comparison, owner="ann", panes=()))
    assert store.comparison(comparison.id).owner == "ann"


def test_deleting_a_run_empties_its_pane_and_says_so(store):
    comparison, runs = stored(store)
    store.delete(runs[1].id)
    pane = store.comparison(comparison.id).panes[1]
    assert (pane.run, pane.state, pane.reason) == (None, "deleted", "The run of this pane was deleted.")


def test_a_comparison_goes_with_its_last_run(store):
    comparison, runs = stored(store)
    for run in runs:
        store.delete(run.id)
    with pytest.raises(ComparisonNotFound):
        store.comparison(comparison.id)


def test_a_comparison_whose_panes_still_wait_stays(store):
    comparison, runs = stored(store)
    store.set_pane(comparison.id, 1, Pane("dualcomp@0.25", state="running"))
    for run in (runs[0], runs[2]):
        store.delete(run.id)
    assert store.comparison(comparison.id).panes[1].state == "running"


def test_deleting_a_comparison_deletes_its_runs_and_no_others(store):
    comparison, runs = stored(store)
    borrowed = replace(comparison, id="d" * 32, panes=(comparison.panes[0],))
    store.add_comparison(borrowed)
    unrelated = make_run(9)
    store.add(unrelated)
    store.delete_comparison(comparison.id)
    assert {found.id for found in store.find()} == {runs[0].id, unrelated.id}
    assert store.comparison(borrowed.id).panes[0].run == runs[0].id
    with store.database.reading() as connection:
        assert {row.comparison for row in connection.execute(schema.panes.select())} == {borrowed.id}


def test_only_the_owner_deletes_a_comparison(store):
    bob = stored(store, 1, "bob")[0]
    sample = stored(store, 2, "ann", is_sample=True)[0]
    for other in (bob, sample):
        with pytest.raises(ComparisonNotFound):
            store.delete_comparison(other.id, owner="ann")
    store.delete_comparison(bob.id, owner="bob")
    store.delete_comparison(sample.id)
    assert store.count_comparisons() == 0
    with pytest.raises(RunNotFound):
        store.get(bob.panes[0].run)
