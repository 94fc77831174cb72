from __future__ import annotations

import pytest

from storage import FailureNotFound, NotStorable


def test_a_failure_comes_back_with_what_was_asked(store):
    asked = {"strategy": "fastv@0.5", "question": "wie groß? 道", "choices": ["a", "b"], "seed": 3, "window": None}
    identity = store.fail(asked, "encode", "The device ran out of memory.", "ann")
    failure = store.failure(identity)
    assert (failure.request, failure.stage, failure.owner) == (asked, "encode", "ann")
    assert failure.reason == "The device ran out of memory."
    assert failure.created_utc.endswith("Z")


def test_failures_are_listed_last_first_for_their_owner(store):
    first, second = store.fail({}, "open", "one", "ann"), store.fail({}, "open", "two", "ann")
    store.fail({}, "open", "three", "bob")
    assert [failure.id for failure in store.failures("ann")] == [second, first]
    assert [failure.reason for failure in store.failures(limit=1, offset=1)] == ["two"]


def test_a_failure_of_another_owner_is_not_found(store):
    identity = store.fail({}, "open", "one", "bob")
    with pytest.raises(FailureNotFound, match=identity):
        store.failure(identity, owner="ann")
    with pytest.raises(FailureNotFound, match="no failure 'nothing'"):
        store.failure("nothing")


def test_what_was_asked_is_json_that_any_reader_takes(store):
    identity = store.fail({"ratio": float("nan"), "list": [float("inf"), {"deep": float("nan")}]}, "open", "one")
    assert store.failure(identity).request == {"ratio": None, "list": [None, {"deep": None}]}


def test_a_failure_holds_plain_values_only(store):
    with pytest.raises(NotStorable, match="only plain values"):
        store.fail({"image": b"bytes"}, "open", "one")
