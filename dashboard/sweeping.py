"""A sweep, planned and run in this process: every request once, stored as soon as it is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from analysis.annotations import FILE_NAME, read_annotations
from analysis.errors import AnalysisError
from analysis.pipeline import Encoded, Inquiry, Outcome, Seen, compare, encode, open_image, request_for
from analysis.run import ImageRef
from compression.backends import load_model
from compression.backends.base import VLM
from compression.compressor import Plan
from compression.errors import CompressionError, InvalidBudget, InvalidParameter, InvalidStrategyText, MissingSignal
from compression.sight import looking
from dashboard.batch import write_balanced_scenes, write_scenes
from dashboard.errors import InvalidSweep
from dashboard.settings import Settings
from dashboard.sweep_file import Scenes, SweepFile
from storage import Store, Sweep, SweptRequest
from storage.records import SweptState

TOLD_SECONDS = 2.0
TOLD_SHARE = 0.05
"""Between two lines of progress lie at least so many seconds, and this share of the time so far."""


@dataclass(frozen=True)
class Cell:
    """One request of a sweep: a plan and a seed for one question about one image.

    Args:
        swept: What the store knows it by; where it is refused, with the reason.
        is_refused: Whether the model cannot be asked this at all.
    """

    inquiry: Inquiry
    plan: Plan
    swept: SweptRequest
    is_refused: bool = False


def find_questions(asked: SweepFile, store: Path, *, resume: bool = False) -> list[Inquiry]:
    """The questions of a sweep; scenes are drawn first where the file asks for them.

    Args:
        asked: The sweep's file.
        store: The store's file, beside which scenes are drawn.
        resume: Leave scenes alone that were written completely.

    Raises:
        InvalidSweep: there is no question, an image is missing, or scenes cannot be written.
        InvalidAnnotation: a line of the list is no question.
        ImageError: an image cannot be opened.
    """
    folder = asked.folder or _drawn(asked.name, asked.scenes, store, resume=resume)
    lines = read_annotations(folder / FILE_NAME)
    if not lines:
        raise InvalidSweep(f"there is no question in {folder / FILE_NAME}; keepmap scenes writes some")
    images: dict[str, ImageRef] = {}
    for line in lines:
        if not (folder / line.image).is_file():
            raise InvalidSweep(f"{FILE_NAME} asks about {line.image}, which is not in {folder}; put it there")
        if line.image not in images:
            images[line.image] = open_image(folder / line.image)
    return [
        Inquiry(
            path=folder / line.image,
            image=images[line.image],
            question=line.question,
            choices=line.choices,
            expected=line.answer,
            evidence=line.evidence,
            family=line.family,
            task=line.task,
        )
        for line in sorted(lines, key=lambda line: line.image)  # an image's questions together: it is encoded once
    ]


def _drawn(name: str, scenes: Scenes, store: Path, *, resume: bool) -> Path:
    folder = store.with_name(f"{store.name}.scenes") / f"{name}-{scenes.name}"
    if resume and (folder / FILE_NAME).is_file():  # it is written last
        return folder
    try:
        if scenes.per_family:
            write_balanced_scenes(folder, scenes.per_family, scenes.seed, scenes.size, scenes.questions)
        else:
            write_scenes(folder, scenes.count, scenes.seed, scenes.size, scenes.questions)
    except OSError as error:
        raise InvalidSweep(f"scenes cannot be written to {folder}: {error.strerror or error}; free it") from error
    return folder


def plan_cells(asked: SweepFile, inquiries: Sequence[Inquiry], vlm: VLM) -> list[Cell]:
    """Every request of one model in the order of running, the same request once; what it cannot be asked is marked.

    Raises:
        InvalidQuestion: the model cannot read one of the questions.
    """
    refusals: dict[tuple[str, tuple[int, int]], dict[str, Any]] = {}
    cells: dict[str, Cell] = {}
    for inquiry in inquiries:
        prompt = vlm.prompt(inquiry.question, inquiry.choices)
        size = inquiry.image.height, inquiry.image.width
        for plan in asked.plans:
            if (str(plan), size) not in refusals:
                refusals[str(plan), size] = _refusal(vlm, plan, size)
            refusal = refusals[str(plan), size]
            for seed in asked.seeds:
                request = request_for(inquiry, plan, vlm, prompt, seed=seed, record=asked.record).digest
                swept = SweptRequest(
                    request=request,
                    model=vlm.card.name,
                    strategy=str(plan),
                    seed=seed,
                    family=inquiry.family or prompt.family,
                    task=inquiry.task or prompt.task,
                    **refusal,
                )
                cells.setdefault(request, Cell(inquiry, plan, swept, is_refused=bool(refusal)))
    return list(cells.values())


def _refusal(vlm: VLM, plan: Plan, size: tuple[int, int]) -> dict[str, Any]:
    """State, reason and lowest budget where a plan cannot run on an image of (height, width); else nothing."""
    try:
        vlm.check(plan, vlm.count_tokens(size), size)
    except InvalidBudget as error:
        return {"state": "unreachable", "reason": str(error), "lowest": error.lowest}
    except (InvalidParameter, InvalidStrategyText, MissingSignal) as error:
        return {"state": "refused", "reason": str(error)}
    return {}


def sweep_and_store(
    asked: SweepFile,
    settings: Settings,
    store: Store,
    *,
    resume: bool = False,
    load: Callable[[str], VLM] | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Sweep:
    """Run what a sweep still lacks, and store each outcome as soon as it is there.

    Stopping it at any moment, by Ctrl+C or by kill -9, leaves a store from which `resume` goes on. A request that
    failed is tried again by `resume`; one that is done or cannot be asked is not.

    Args:
        asked: The sweep's file.
        settings: The default model, the device, and where the store is.
        store: Open for writing.
        resume: Go on with the sweep of this name, where there is one.
        load: Gives a model by name; by default from disk.
        tell: Told how far it is.

    Raises:
        InvalidSweep: a sweep of this name is stored and `resume` was not asked for.
        CompressionError, AnalysisError: a model, a question or an image cannot be used; nothing was run.
        StorageError: the store cannot be written; what it already holds stays.
    """
    if (known := store.find_sweep(asked.name)) and not resume:
        ended = known.done + known.failed + known.refused
        raise InvalidSweep(
            f"a sweep named {asked.name} is stored, {ended:,} of {known.planned:,} requests have ended; go on with "
            "--resume, or choose another name"
        )
    models = asked.models or (settings.model,)
    loaded = lru_cache(maxsize=1)(load or (lambda name: load_model(name, device=settings.device)))
    inquiries = find_questions(asked, store.database.path or Path("keepmap.db"), resume=resume)
    # Planned for all models first, so that a mistake in the last one is found before the first one runs.
    cells = {name: plan_cells(asked, inquiries, loaded(name)) for name in models}
    sweep = store.start_sweep(asked.name, [cell.swept.request for part in cells.values() for cell in part])
    has_ended = {one.request for one in store.swept_requests(sweep) if one.state != "failed"}
    left = {name: [cell for cell in part if cell.swept.request not in has_ended] for name, part in cells.items()}
    store.add_refused(sweep, [cell.swept for part in left.values() for cell in part if cell.is_refused])
    left = {name: [cell for cell in part if not cell.is_refused] for name, part in left.items()}
    progress = Progress(sum(map(len, left.values())), tell)
    for name, part in left.items():
        if part:
            _run_model(sweep, part, loaded(name), asked, store, progress)
    store.finish_sweep(sweep)
    return store.sweep(sweep)


def _run_model(sweep: str, cells: Sequence[Cell], vlm: VLM, asked: SweepFile, store: Store, progress: Progress) -> None:
    for cell, outcome in _outcomes(cells, vlm, asked, store):
        if outcome.run:
            store.add_swept_run(sweep, cell.swept, outcome.run)
        elif outcome.stage == "refused":
            state: SweptState = "refused" if outcome.lowest is None else "unreachable"
            store.add_refused(sweep, [replace(cell.swept, state=state, reason=outcome.reason, lowest=outcome.lowest)])
        else:
            request = {
                "strategy": cell.swept.strategy,
                "question": cell.inquiry.question,
                "image": cell.inquiry.image.digest,
                "model": vlm.card.name,
                "seed": cell.swept.seed,
                "sweep": asked.name,
            }
            store.add_swept_failure(sweep, replace(cell.swept, reason=outcome.reason), request, outcome.stage)
        progress.ended(failed=outcome.run is None and outcome.stage != "refused")


def _outcomes(cells: Sequence[Cell], vlm: VLM, asked: SweepFile, store: Store) -> Iterator[tuple[Cell, Outcome]]:
    """What each request became; an image is encoded once, and once by each strategy that encodes it itself."""
    for path, part in groupby(cells, key=lambda cell: cell.inquiry.path):
        of_image = list(part)
        store.put_image(path)
        encoded, seen = None, Seen()
        try:
            if not all(looking(cell.plan) for cell in of_image):
                encoded = encode(of_image[0].inquiry, vlm, repeats=asked.repeats, warmup=asked.warmup)
        except Exception as error:
            for cell in of_image:
                yield cell, Outcome(cell.swept.strategy, None, "encode", _reason(error))
            continue
        for cell in of_image:
            yield cell, _answered(cell, vlm, asked, encoded, seen)


def _answered(cell: Cell, vlm: VLM, asked: SweepFile, encoded: Encoded | None, seen: Seen) -> Outcome:
    try:
        [outcome] = compare(
            cell.inquiry,
            [cell.plan],
            vlm,
            seed=cell.swept.seed,
            record=asked.record,
            repeats=asked.repeats,
            warmup=asked.warmup,
            encoded=encoded,
            seen=seen,
        )
    except Exception as error:  # a fault of one strategy must not cost the night that the others need
        return Outcome(cell.swept.strategy, None, "answer", _reason(error))
    return outcome


def _reason(error: Exception) -> str:
    """An error in a sentence: ours speak for themselves, others are named."""
    words = str(error).splitlines()[0] if str(error) else "no message"
    return words if isinstance(error, AnalysisError | CompressionError) else f"{type(error).__name__}: {words}"


class Progress:
    """How far a sweep is, told now and then with the time that is left.

    Args:
        total: Requests to run.
        tell: Told a line.
        clock: Seconds from some moment on.
    """

    def __init__(self, total: int, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.tell, self.clock = total, tell, clock
        self.done = self.failures = 0
        self._began = self._told = clock()

    def ended(self, *, failed: bool) -> None:
        """Count one request that ended."""
        self.done += 1
        self.failures += failed
        now = self.clock()
        pause = max(TOLD_SECONDS, TOLD_SHARE * (now - self._began))
        if now - self._told < pause and self.done < self.total:
            return
        self._told = now
        self.tell(self.line(now - self._began))

    def line(self, seconds: float) -> str:
        """What is said after so many seconds."""
        rate = self.done / seconds if seconds > 0 else 0.0
        said = [f"{self.done:,} of {self.total:,} runs"]
        if self.failures:
            said.append(f"{self.failures:,} failed")
        if rate:
            said += [f"{rate:.1f} a second", f"{duration((self.total - self.done) / rate)} left"]
        return ", ".join(said)


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(42), duration(3_725)
    ('42 s', '1 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
