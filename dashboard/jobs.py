"""Queued work: one worker per device takes comparisons out of the store, fills their panes, and can be stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from analysis.pipeline import Inquiry, Outcome
from analysis.pipeline import compare as run_strategies
from analysis.run import new_id, utc_now
from compression.compressor import Plan
from compression.errors import Cancelled
from compression.strategies import CATALOGUE
from dashboard.errors import QueueFull, TooManyJobs
from dashboard.messages import explain, sentence
from dashboard.models import Models
from dashboard.progress import Notes, inquiry_of
from dashboard.settings import Settings
from storage import Comparison, JobRow, NotFound, Pane, Store

log = logging.getLogger(__name__)

Compare = Callable[..., Iterator[Outcome]]
_ACTIVE = ("queued", "running")
_LOOK_SECONDS = 0.5  # between two looks into the store for a cancel flag set by another process
_BEAT_SECONDS = 5.0
_DEAD_BEATS = 4  # so many without a sign of life, and nobody works on a job any more


@dataclass(frozen=True)
class Asked:
    """A comparison to be made.

    Args:
        inquiry: Image, question, what is known about the answer.
        plans: Two to four strategies in the order of the panes.
        model: Name of the model.
        seed: For strategies that draw at random.
        notices: Sentences that hold for all panes.
    """

    inquiry: Inquiry
    plans: tuple[Plan, ...]
    model: str
    seed: int = 0
    notices: tuple[str, ...] = ()


@contextmanager
def beating(store: Store, job_id: str) -> Iterator[None]:
    """Give a running job a sign of life now and then, while the block runs."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            try:
                store.heartbeat(job_id)
            except Exception as error:  # the next beat may get through
                log.warning("no heartbeat for %s: %s", job_id, error)

    thread = threading.Thread(target=beat, name="keepmap-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class Jobs:
    """The queue of this server and its worker.

    Args:
        store: Where jobs, comparisons, runs and images are.
        models: Gives the model.
        settings: Bounds of the queue, repeats.
        compare: `analysis.pipeline.compare`; tests give their own.
    """

    def __init__(self, store: Store, models: Models, settings: Settings, compare: Compare = run_strategies) -> None:
        self.store, self.models, self.settings = store, models, settings
        self._compare = compare
        self._work = threading.Event()
        self._stop = threading.Event()
        self._cancels: dict[str, threading.Event] = {}
        self._started: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._healed = 0.0
        self.worker = f"worker-{new_id()[:8]}"

    # ------------------------------------------------------------------ asking
    def submit(self, asked: Asked, owner: str = "") -> JobRow:
        """Queue a comparison: its image is kept, its panes wait.

        Raises:
            QueueFull: more is waiting than the server takes.
            TooManyJobs: this visitor has too many waiting, with --public.
            StorageError: the image or the rows cannot be kept.
        """
        self._check_room(owner)
        digest = self.store.put_image(asked.inquiry.path)
        image = replace(asked.inquiry.image, digest=digest)
        comparison = Comparison(
            id=new_id(),
            created_utc=utc_now(),
            image=image,
            question=asked.inquiry.question,
            choices=asked.inquiry.choices,
            expected=asked.inquiry.expected,
            evidence=asked.inquiry.evidence,
            family=asked.inquiry.family,
            task=asked.inquiry.task,
            model=asked.model,
            panes=tuple(Pane(strategy=str(plan)) for plan in asked.plans),
            notices=asked.notices,
            owner=owner,
        )
        self.store.add_comparison(comparison, owner)
        request = {
            "seed": asked.seed,
            "repeats": self.settings.repeats,
            "strategies": [str(plan) for plan in asked.plans],
        }
        job = self.store.add_job(request, owner, comparison=comparison.id, message="Waiting for its turn")
        self._work.set()
        return job

    def _check_room(self, owner: str) -> None:
        waiting = [job for state in _ACTIVE for job in self.store.jobs(state=state, limit=self.settings.queue + 1)]
        if len(waiting) >= self.settings.queue:
            raise QueueFull(
                f"{len(waiting)} comparisons are waiting and the server takes {self.settings.queue}; try again in a "
                f"minute"
            )
        mine = sum(job.owner == owner for job in waiting)
        if self.settings.public and mine >= self.settings.jobs_per_visitor:
            raise TooManyJobs(
                f"you have {mine} comparisons waiting and may have {self.settings.jobs_per_visitor}; wait for one or "
                f"cancel it"
            )

    def cancel(self, job_id: str, owner: str | None = None) -> None:
        """Ask a job to stop; the worker looks between strategies, layers and decoding steps.

        Raises:
            JobNotFound: there is none, or it is another visitor's.
        """
        self.store.cancel_job(job_id, owner)
        if job_id in self._cancels:
            self._cancels[job_id].set()

    def of_comparison(self, comparison_id: str) -> JobRow | None:
        """The job that fills a comparison, while it is not over."""
        return next((job for job in self.store.jobs(comparison=comparison_id) if not job.is_over), None)

    def elapsed(self, job_id: str) -> float | None:
        """Seconds since this server began with the job; None before that, or when another one works on it."""
        started = self._started.get(job_id)
        return None if started is None else time.monotonic() - started

    # ------------------------------------------------------------------ working
    def start(self) -> None:
        """Mark what a dead server left behind, and begin to work in the background."""
        if self.store.is_read_only or self._thread is not None:
            return
        self._heal()
        self._thread = threading.Thread(target=self._loop, name="keepmap-worker", daemon=True)
        self._thread.start()

    def _heal(self) -> None:
        """Mark what a process left behind that died at work; what another one still works on has a heartbeat."""
        self._healed = time.monotonic()
        for job in self.store.fail_orphans(_DEAD_BEATS * _BEAT_SECONDS):
            log.warning("the job %s had no worker any more and was marked as failed", job.id)

    def stop(self) -> None:
        """Let the worker end after what it is doing; running work is cancelled."""
        self._stop.set()
        for event in list(self._cancels.values()):
            event.set()
        self._work.set()
        if self._thread is not None:
            self._thread.join(timeout=10)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self.run_next()
                if time.monotonic() - self._healed > _DEAD_BEATS * _BEAT_SECONDS:
                    self._heal()
            except Exception as error:  # the worker outlives whatever a store or a model does
                explain(error)
                busy = False
            if not busy:
                self._work.wait(timeout=1.0)
                self._work.clear()

    def run_next(self) -> bool:
        """Take the oldest waiting job and work on it to its end; False if nothing waits."""
        job = self.store.claim_job(self.worker)
        if job is None:
            return False
        stopped = self._cancels.setdefault(job.id, threading.Event())
        self._started[job.id] = time.monotonic()
        try:
            with beating(self.store, job.id):
                self._fill(job, stopped)
        except Cancelled:
            self._end(job, "cancelled", "Cancelled.")
        except NotFound as error:  # deleted while it waited
            self.store.update_job(job.id, state="failed", message=str(explain(error)))
        except Exception as error:
            message = explain(error)
            self._end(job, "failed", str(message), stage="start")
        finally:
            self._cancels.pop(job.id, None)
        return True

    def _fill(self, job: JobRow, stopped: threading.Event) -> None:
        """Run the strategies of a comparison one by one and put what comes out into its panes."""
        comparison = self.store.comparison(job.comparison)
        cancel = self._cancel_flag(job.id, stopped)
        if not self.models.is_ready(comparison.model):
            self.store.update_job(job.id, message="Loading the model")
        vlm = self.models.get(comparison.model)
        if cancel():
            raise Cancelled("cancelled")
        plans = [CATALOGUE.plan(pane.strategy) for pane in comparison.panes]
        inquiry = inquiry_of(comparison, self.store.image_path(comparison.image.digest))
        outcomes = self._compare(
            inquiry,
            plans,
            vlm,
            seed=int(job.request["seed"]),
            repeats=int(job.request["repeats"]),
            comparison=comparison.id,
            cancel=cancel,
            progress=Notes(self.store, job.id),
        )
        self._mark(comparison, 0)
        for position, outcome in enumerate(outcomes):
            self._put(comparison, position, outcome, job)
            is_last = position + 1 == len(plans)
            if outcome.stage == "cancelled" or (cancel() and not is_last):
                raise Cancelled("cancelled")
            if not is_last:
                self._mark(comparison, position + 1)
        self.store.update_job(job.id, state="done", progress=1.0, message="Done")

    def _cancel_flag(self, job_id: str, stopped: threading.Event) -> Callable[[], bool]:
        """Asked between layers: this server's flag at once, the store's now and then."""
        looked = time.monotonic()

        def cancel() -> bool:
            nonlocal looked
            if not stopped.is_set() and time.monotonic() - looked > _LOOK_SECONDS:
                looked = time.monotonic()
                if self.store.is_cancelled(job_id):
                    stopped.set()
            return stopped.is_set()

        if self.store.is_cancelled(job_id):
            stopped.set()
        return cancel

    def _mark(self, comparison: Comparison, position: int) -> None:
        self.store.set_pane(
            comparison.id, position, Pane(strategy=comparison.panes[position].strategy, state="running")
        )

    def _put(self, comparison: Comparison, position: int, outcome: Outcome, job: JobRow) -> None:
        """Store a run and link it, or say in the pane why there is none."""
        if outcome.run is not None:
            self.store.add(outcome.run, comparison.owner)
            pane = Pane(strategy=outcome.run.request.strategy, run=outcome.run.id, state="done")
        elif outcome.stage in ("refused", "cancelled"):
            pane = Pane(
                strategy=outcome.strategy, reason=sentence(outcome.reason), lowest=outcome.lowest, state=outcome.stage
            )
        else:
            request = {
                "comparison": comparison.id,
                "strategy": outcome.strategy,
                "image": comparison.image.digest,
                "question": comparison.question,
                "model": comparison.model,
                **job.request,
            }
            failure = self.store.fail(request, outcome.stage, outcome.reason, comparison.owner)
            pane = Pane(strategy=outcome.strategy, failure=failure, reason=sentence(outcome.reason), state="failed")
        self.store.set_pane(comparison.id, position, pane)

    def _end(self, job: JobRow, state: str, reason: str, stage: str = "") -> None:
        """Close a job that did not get to its end: panes without a run say why."""
        comparison = self.store.comparison(job.comparison)
        for position, pane in enumerate(comparison.panes):
            if pane.state in ("waiting", "running"):
                failure = None
                if state == "failed":
                    failure = self.store.fail(
                        {"comparison": comparison.id, "strategy": pane.strategy, **job.request},
                        stage,
                        reason,
                        comparison.owner,
                    )
                self.store.set_pane(comparison.id, position, replace(pane, state=state, reason=reason, failure=failure))
        self.store.update_job(job.id, state=state, message=reason)
