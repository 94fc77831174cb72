from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.pipeline import Inquiry, Outcome, open_image
from compression.strategies import CATALOGUE
from dashboard.context import Context
from dashboard.errors import QueueFull, TooManyJobs
from dashboard.jobs import Asked
from storage import JobNotFound
from tests.dashboard.page import cancelled_compare, opened, quick_compare, stubborn_compare

STRATEGIES = ("identity@1.0", "divprune@0.25", "uniform_grid@0.25")


def asked(ours: Context, *strategies: str) -> Asked:
    path = ours.samples.file(0)
    question = ours.samples[0].questions[0]
    inquiry = Inquiry(path, open_image(path, name="Forest river"), question.text, question.choices, question.answer)
    plans = tuple(CATALOGUE.plan(strategy) for strategy in strategies or STRATEGIES)
    return Asked(inquiry, plans, "embedded", 7, ("Said of all.",))


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Context]:
    with opened(tmp_path) as ours:
        yield ours


def states(ours: Context, comparison: str) -> list[str]:
    return [pane.state for pane in ours.store.comparison(comparison).panes]


def test_a_job_waits_with_its_image_kept_and_its_panes_waiting(ours: Context) -> None:
    job = ours.jobs.submit(asked(ours), "")
    comparison = ours.store.comparison(job.comparison)
    assert job.state == "queued"
    assert states(ours, job.comparison) == ["waiting"] * 3
    assert comparison.notices == ("Said of all.",)
    assert ours.store.image_path(comparison.image.digest).exists()


def test_a_job_fills_its_panes_and_is_done(ours: Context) -> None:
    job = ours.jobs.submit(asked(ours), "someone")
    assert ours.jobs.run_next()
    comparison = ours.store.comparison(job.comparison)
    assert states(ours, job.comparison) == ["done"] * 3
    assert ours.store.job(job.id).state == "done"
    for pane in comparison.panes:
        assert ours.store.summary(str(pane.run)).owner == "someone", "runs belong to whoever asked"
    assert not ours.jobs.run_next(), "nothing else waits"


def test_the_seed_and_the_repeats_reach_the_model(tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    def listening(inquiry: Inquiry, plans: Any, vlm: Any, **told: Any) -> Iterator[Outcome]:
        seen.update(told)
        return quick_compare(inquiry, plans, vlm, **told)

    with opened(tmp_path, compare=listening, repeats=5) as ours:
        ours.jobs.submit(asked(ours))
        ours.jobs.run_next()
    assert (seen["seed"], seen["repeats"]) == (7, 5)


def test_a_strategy_that_is_refused_or_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    def mixed(inquiry: Inquiry, plans: Any, vlm: Any, **told: Any) -> Iterator[Outcome]:
        outcomes = list(quick_compare(inquiry, plans, vlm, **told))
        yield Outcome(str(plans[0]), None, "refused", "at least 44 are left", lowest=44)
        yield Outcome(str(plans[1]), None, "answer", "the kernel refused")
        yield outcomes[2]

    with opened(tmp_path, compare=mixed) as ours:
        job = ours.jobs.submit(asked(ours))
        ours.jobs.run_next()
        refused, failed, done = ours.store.comparison(job.comparison).panes
        assert (refused.state, refused.lowest, refused.reason) == ("refused", 44, "At least 44 are left.")
        assert failed.state == "failed"
        assert ours.store.failure(str(failed.failure)).reason == "the kernel refused"
        assert done.run is not None
        assert len(ours.store.failures()) == 1, "what was refused before it started is stored nowhere"


def test_an_unexpected_error_fails_the_job_and_not_the_worker(tmp_path: Path) -> None:
    with opened(tmp_path, compare=stubborn_compare) as ours:
        job = ours.jobs.submit(asked(ours))
        assert ours.jobs.run_next()
        after = ours.store.job(job.id)
        assert after.state == "failed"
        assert "secret detail" not in after.message
        assert "reference" in after.message
        assert states(ours, job.comparison) == ["failed"] * 3


def test_a_waiting_job_is_cancelled_at_once(ours: Context) -> None:
    job = ours.jobs.submit(asked(ours))
    ours.jobs.cancel(job.id)
    assert ours.store.job(job.id).state == "cancelled"
    assert states(ours, job.comparison) == ["cancelled"] * 3
    assert not ours.jobs.run_next()


def test_a_running_job_stops_where_it_is_and_keeps_what_is_ready(tmp_path: Path) -> None:
    def stopped_after_one(inquiry: Inquiry, plans: Any, vlm: Any, **told: Any) -> Iterator[Outcome]:
        for number, outcome in enumerate(quick_compare(inquiry, plans, vlm, **told)):
            yield outcome
            if number == 0:
                jobs = ours.store.jobs(state="running")
                ours.jobs.cancel(jobs[0].id)

    with opened(tmp_path, compare=stopped_after_one) as ours:
        job = ours.jobs.submit(asked(ours))
        ours.jobs.run_next()
        assert ours.store.job(job.id).state == "cancelled"
        assert states(ours, job.comparison) == ["done", "cancelled", "cancelled"]


def test_a_comparison_that_is_cancelled_from_within_says_so(tmp_path: Path) -> None:
    with opened(tmp_path, compare=cancelled_compare) as ours:
        job = ours.jobs.submit(asked(ours))
        ours.jobs.run_next()
        assert ours.store.job(job.id).state == "cancelled"
        assert not ours.store.failures()


def test_nobody_cancels_another_visitors_job(tmp_path: Path) -> None:
    with opened(tmp_path, public=True) as ours:
        job = ours.jobs.submit(asked(ours), "a" * 32)
        with pytest.raises(JobNotFound):
            ours.jobs.cancel(job.id, "b" * 32)


def test_the_queue_has_an_end(tmp_path: Path) -> None:
    with opened(tmp_path, queue=2) as ours:
        for _ in range(2):
            ours.jobs.submit(asked(ours))
        with pytest.raises(QueueFull, match="2 comparisons are waiting and the server takes 2"):
            ours.jobs.submit(asked(ours))


def test_one_visitor_does_not_fill_the_queue(tmp_path: Path) -> None:
    with opened(tmp_path, public=True, jobs_per_visitor=1) as ours:
        ours.jobs.submit(asked(ours), "a" * 32)
        with pytest.raises(TooManyJobs, match="you have 1 comparisons waiting and may have 1"):
            ours.jobs.submit(asked(ours), "a" * 32)
        ours.jobs.submit(asked(ours), "b" * 32)


def test_what_a_dead_server_left_running_is_failed_at_start(ours: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ours.jobs.submit(asked(ours))
    ours.store.claim_job("a server that died")
    monkeypatch.setattr("dashboard.jobs._BEAT_SECONDS", -1.0)
    ours.jobs.start()
    ours.jobs.stop()
    assert ours.store.job(job.id).state == "failed"
    assert states(ours, job.comparison) == ["failed"] * 3


def test_the_worker_takes_what_is_submitted_and_ends_when_told(tmp_path: Path) -> None:
    last = threading.Event()

    def telling(inquiry: Inquiry, plans: Any, vlm: Any, **told: Any) -> Iterator[Outcome]:
        *first, final = quick_compare(inquiry, plans, vlm, **told)
        yield from first
        last.set()
        yield final

    with opened(tmp_path, compare=telling) as ours:
        ours.jobs.start()
        job = ours.jobs.submit(asked(ours))
        assert last.wait(60), "the worker took it without being asked"
        ours.jobs.stop()
        assert ours.store.job(job.id).state == "done", "what was being finished is finished"
