from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from storage import JobNotFound, NotStorable, Pane
from storage.jobs import CANCELLED, ORPHANED
from tests.factories import make_comparison


def test_a_job_is_queued_with_what_was_asked(store):
    job = store.add_job({"question": "wo?", "strategies": ["identity@1.0"]}, "ann", comparison="c1", message="Waiting.")
    assert store.job(job.id) == job
    assert (job.state, job.progress, job.worker, job.heartbeat_utc) == ("queued", 0.0, "", None)
    assert (job.owner, job.comparison, job.message) == ("ann", "c1", "Waiting.")
    assert job.request == {"question": "wo?", "strategies": ["identity@1.0"]}
    assert not job.is_over


def test_the_oldest_job_is_claimed_first_and_only_once(store):
    first, second = store.add_job({"n": 1}), store.add_job({"n": 2})
    assert store.queue_position(second.id) == 1
    claimed = store.claim_job("worker 1")
    assert (claimed.id, claimed.state, claimed.worker) == (first.id, "running", "worker 1")
    assert claimed.heartbeat_utc is not None
    assert store.queue_position(second.id) == 0
    assert store.claim_job("worker 2").id == second.id
    assert store.claim_job("worker 1") is None


def test_no_two_workers_get_the_same_job(store):
    jobs = {store.add_job({"n": number}).id for number in range(24)}
    taken: list[str] = []

    def work(name):
        while (job := store.claim_job(name)) is not None:
            taken.append(job.id)

    threads = [threading.Thread(target=work, args=(f"worker {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(jobs)


def test_a_job_goes_from_queued_to_done(store):
    job = store.add_job({})
    store.claim_job("w")
    assert store.update_job(job.id, progress=0.5, message="encoding").progress == 0.5
    done = store.update_job(job.id, state="done", progress=1.0)
    assert (done.state, done.message, done.is_over) == ("done", "encoding", True)


def test_a_job_that_is_over_stays_as_it_ended(store):
    job = store.add_job({})
    store.claim_job("w")
    done = store.update_job(job.id, state="failed", message="no")
    assert store.update_job(job.id, state="running", progress=0.9, message="late") == done
    assert not store.cancel_job(job.id).is_cancel_requested


@pytest.mark.parametrize(("given", "kept"), [(-1.0, 0.0), (0.25, 0.25), (7.0, 1.0)])
def test_progress_stays_between_nothing_and_all(store, given, kept):
    assert store.update_job(store.add_job({}).id, progress=given).progress == kept


def test_a_state_or_progress_without_meaning_is_refused(store):
    job = store.add_job({})
    with pytest.raises(NotStorable, match="one of queued, running, done, failed, cancelled, got 'paused'"):
        store.update_job(job.id, state="paused")
    with pytest.raises(NotStorable, match="a share from 0 to 1, got nan"):
        store.update_job(job.id, progress=float("nan"))
    assert store.job(job.id) == job


def test_a_running_job_is_asked_to_stop(store):
    job = store.add_job({})
    store.claim_job("w")
    assert not store.is_cancelled(job.id)
    asked = store.cancel_job(job.id)
    assert (asked.state, asked.is_cancel_requested) == ("running", True)
    assert store.is_cancelled(job.id)


def test_a_queued_job_is_cancelled_at_once_with_its_panes(store):
    comparison, _ = make_comparison()
    store.add_comparison(replace(comparison, panes=(Pane("identity@1.0"), Pane("fastv@0.5"))))
    job = store.add_job({}, comparison=comparison.id)
    cancelled = store.cancel_job(job.id)
    assert (cancelled.state, cancelled.message) == ("cancelled", CANCELLED)
    assert {(pane.state, pane.reason) for pane in store.comparison(comparison.id).panes} == {("cancelled", CANCELLED)}
    assert store.claim_job("w") is None


def test_a_job_of_another_owner_is_not_found(store):
    job = store.add_job({}, "bob")
    for verb in (store.job, store.cancel_job):
        with pytest.raises(JobNotFound, match=job.id):
            verb(job.id, owner="ann")
    assert store.jobs("ann") == []
    assert store.jobs("bob") == [job]
    with pytest.raises(JobNotFound, match="no job 'nothing'"):
        store.update_job("nothing", progress=0.5)


def test_a_job_that_is_gone_counts_as_stopped(store):
    assert store.is_cancelled("nothing")


def test_jobs_are_listed_as_the_queue_goes(store):
    first, second = store.add_job({}, comparison="a"), store.add_job({}, comparison="b")
    store.claim_job("w")
    assert [job.id for job in store.jobs()] == [first.id, second.id]
    assert [job.id for job in store.jobs(state="queued")] == [second.id]
    assert [job.id for job in store.jobs(comparison="a")] == [first.id]
    assert [job.id for job in store.jobs(limit=1)] == [first.id]


def test_jobs_without_a_sign_of_life_fail_and_their_panes_say_so(store):
    comparison, runs = make_comparison()
    store.add(runs[0])
    unfinished = (comparison.panes[0], Pane("dualcomp@0.25", state="running"), Pane("fastv@0.5"))
    store.add_comparison(replace(comparison, panes=unfinished))
    dead = store.add_job({}, comparison=comparison.id)
    queued = store.add_job({})
    store.claim_job("w")
    assert store.fail_orphans(older_than_seconds=60) == []
    failed = store.fail_orphans(older_than_seconds=-1)
    assert [(job.id, job.state, job.message) for job in failed] == [(dead.id, "failed", ORPHANED)]
    assert store.job(queued.id).state == "queued"
    assert [pane.state for pane in store.comparison(comparison.id).panes] == ["done", "failed", "failed"]
    assert store.fail_orphans(older_than_seconds=-1) == []


def test_a_heartbeat_keeps_a_running_job_alive(store):
    job = store.add_job({})
    store.heartbeat(job.id)
    assert store.job(job.id).heartbeat_utc is None
    claimed = store.claim_job("w")
    store.heartbeat(job.id)
    assert store.job(job.id).heartbeat_utc > claimed.heartbeat_utc
