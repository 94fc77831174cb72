"""What the command line does beyond printing: runs into the store, scenes into files, declarations as JSON."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.annotations import FILE_NAME, Annotation, write_annotations
from analysis.imagery import write_geotiff
from analysis.pipeline import SYNTHETIC_TAG, Inquiry, Outcome, compare
from analysis.run import new_id, utc_now
from compression.backends.base import VLM
from compression.backends.embedded.questions import FAMILIES, Question, ask
from compression.backends.embedded.scenes import Scene, make_scene
from compression.compressor import Plan, Strategy
from dashboard.jobs import beating
from dashboard.settings import Settings
from storage import Comparison, Pane, StorageError, Store, open_store

WORKER = "keepmap run"
DRAWN = 4  # questions drawn for each one that may be asked, so that every family is among them


def run_and_store(
    inquiry: Inquiry, plans: Sequence[Plan], vlm: VLM, settings: Settings, *, seed: int, record: Sequence[str]
) -> tuple[list[Outcome], str]:
    """Run each strategy once and store it as soon as it is there; returns the outcomes and the comparison's id.

    The comparison has a job with a heartbeat, as one that was asked on the page has: a run that dies is found, and its
    panes fail instead of waiting for ever.

    Raises:
        StorageError: the store cannot be written; the runs that it already holds stay.
    """
    identity = new_id()
    outcomes: list[Outcome] = []
    with open_store(settings.db, assets=settings.assets_path) as store:
        store.put_image(inquiry.path)
        prompt = vlm.prompt(inquiry.question, inquiry.choices)
        request = {"seed": seed, "repeats": settings.repeats, "strategies": [str(plan) for plan in plans]}
        job = store.add_job(request, comparison=identity, message="Running on the command line", worker=WORKER)
        store.add_comparison(
            Comparison(
                id=identity,
                created_utc=utc_now(),
                image=inquiry.image,
                question=inquiry.question,
                choices=prompt.choices,
                expected=inquiry.expected,
                evidence=inquiry.evidence,
                family=inquiry.family or prompt.family,
                task=inquiry.task or prompt.task,
                model=vlm.card.name,
                panes=tuple(Pane(strategy=str(plan)) for plan in plans),
            )
        )
        try:
            with beating(store, job.id):
                for position, outcome in enumerate(
                    compare(
                        inquiry, plans, vlm, seed=seed, record=record, repeats=settings.repeats, comparison=identity
                    )
                ):
                    outcomes.append(outcome)
                    _put(store, identity, position, outcome, inquiry, vlm)
        except BaseException as error:
            with suppress(StorageError):  # the first error is the one to be told
                _give_up(
                    store, job.id, identity, f"The run stopped before its end: {str(error) or type(error).__name__}"
                )
            raise
        store.update_job(job.id, state="done", progress=1.0, message="Done")
    return outcomes, identity


def _put(store: Store, comparison: str, position: int, outcome: Outcome, inquiry: Inquiry, vlm: VLM) -> None:
    """Store a run and link it, or say in the pane why there is none; what was refused is no failure."""
    if outcome.run:
        store.add(outcome.run)
        pane = Pane(strategy=outcome.strategy, run=outcome.run.id, state="done")
    elif outcome.stage == "refused":
        pane = Pane(strategy=outcome.strategy, reason=outcome.reason, lowest=outcome.lowest, state="refused")
    else:
        request = {
            "strategy": outcome.strategy,
            "question": inquiry.question,
            "image": inquiry.image.digest,
            "model": vlm.card.name,
        }
        failure = store.fail(request, outcome.stage, outcome.reason)
        pane = Pane(strategy=outcome.strategy, failure=failure, reason=outcome.reason, state="failed")
    store.set_pane(comparison, position, pane)


def _give_up(store: Store, job: str, comparison: str, reason: str) -> None:
    """Close a comparison that did not get to its end: panes without a run say why."""
    for position, pane in enumerate(store.comparison(comparison).panes):
        if pane.state in ("waiting", "running"):
            failure = store.fail({"comparison": comparison, "strategy": pane.strategy}, "answer", reason)
            store.set_pane(comparison, position, replace(pane, state="failed", reason=reason, failure=failure))
    store.update_job(job, state="failed", message=reason)


def write_scenes(folder: Path, count: int, seed: int, size: int, questions: int) -> int:
    """Write `count` scenes from `seed` on as GeoTIFFs and their questions; returns the number of questions.

    Raises:
        OSError: the folder cannot be made or written.
        ImageNotWritten: a file could not be completed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    annotations: list[Annotation] = []
    for number in range(seed, seed + count):
        scene = make_scene(number, size)
        name = _write_scene(folder, scene)
        annotations += [_annotation(name, one) for one in ask(scene, np.random.default_rng(number), questions)]
    write_annotations(folder / FILE_NAME, annotations)
    return len(annotations)


def write_balanced_scenes(folder: Path, per_family: int, seed: int, size: int, questions: int) -> int:
    """Write scenes from `seed` on until each family has `per_family` questions; returns the number of questions.

    Args:
        folder: Made where it is not there.
        per_family: Questions of each family.
        seed: Of the first scene.
        size: Edge of a scene in pixels.
        questions: For each scene at most; no family has more than a third of them, but at least one.

    Raises:
        OSError: the folder cannot be made or written.
        ImageNotWritten: a file could not be completed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    left = dict.fromkeys(FAMILIES, per_family)
    share = max(1, questions // len(FAMILIES))
    annotations: list[Annotation] = []
    for number in itertools.count(seed):
        if not any(left.values()):
            break
        scene = make_scene(number, size)
        chosen: list[Question] = []
        for question in ask(scene, np.random.default_rng(number), DRAWN * questions):
            of_family = sum(one.family == question.family for one in chosen)
            if of_family < min(share, left[question.family]):
                chosen.append(question)
        for question in chosen:
            left[question.family] -= 1
        if chosen:
            name = _write_scene(folder, scene)
            annotations += [_annotation(name, one) for one in chosen]
    write_annotations(folder / FILE_NAME, annotations)
    return len(annotations)


def _write_scene(folder: Path, scene: Scene) -> str:
    """Write a scene as a GeoTIFF that declares itself synthetic; returns the file's name."""
    size = len(scene.image)
    name = f"scene-{size}-{scene.seed:05d}.tif"
    write_geotiff(
        folder / name,
        scene.image,
        scene.crs,
        scene.transform,
        overviews=size > 1024,
        tags={SYNTHETIC_TAG: f"seed {scene.seed}"},
    )
    return name


def _annotation(image: str, question: Question) -> Annotation:
    return Annotation(
        image=image,
        question=question.text,
        choices=question.choices,
        answer=question.answer,
        family=question.family,
        task=question.task,
        evidence=question.evidence,
    )


def strategy_json(strategy: type[Strategy]) -> dict[str, Any]:
    """What a strategy declares, as plain values."""
    info = strategy.info
    return {
        "name": info.name,
        "title": info.title,
        "paper": info.paper,
        "stage": info.stage.value,
        "needs": sorted(signal.value for signal in info.needs),
        "instead": {signal.value: other and other.value for signal, other in info.instead.items()},
        "reduces": info.reduces,
        "adaptive": info.adaptive,
        "version": info.version,
        "labels": list(info.labels),
        "deviations": list(info.deviations),
        "parameters": [
            {
                "name": parameter.name,
                "default": parameter.default,
                "allowed": parameter.allowed(),
                "meaning": parameter.meaning,
                "reconstructed": parameter.reconstructed,
            }
            for parameter in info.parameters
        ],
        "description": strategy.description(),
    }
