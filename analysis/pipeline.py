"""One image, one question, several strategies: from files and words to runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from analysis import imagery
from analysis.cost import measured_peak, prefill_flops
from analysis.environment import environment
from analysis.errors import AnalysisError
from analysis.recorder import Recorder
from analysis.retention import evidence_recall, without_area
from analysis.run import Answer, Cost, ImageRef, ModelRef, Recording, Request, Run, new_id, utc_now
from analysis.sight import ImageSight
from compression.backends.base import VLM, Generation, Progress, Prompt, Seconds
from compression.compressor import Cancel, Context, Plan
from compression.errors import Cancelled, CompressionError, InvalidBudget, InvalidStrategyText, MissingSignal
from compression.grid import Box
from compression.sight import Looked, looking
from compression.tokens import VisualTokens

RECORD_ALL = ("attention", "router", "scores")
"""What can be recorded. Scores and router decisions are part of a selection and cost nothing; attention costs a
pass."""
WARMUP = 1
REPEATS = 3
SYNTHETIC_TAG = "KEEPMAP_SYNTHETIC"
"""TIFF tag by which a generated scene declares itself."""
OUT_OF_DOMAIN = "out of domain"


@dataclass(frozen=True)
class Inquiry:
    """What is asked about one image, before any strategy.

    Args:
        path: The image file.
        image: What `open_image` said about it.
        question: The user's words.
        choices: Answers to choose among; empty to take the question's own template, or a free answer.
        expected: The right answer where it is known.
        evidence: Boxes in original pixels that the right answer depends on.
        family, task: The question's, "" to take the template's.
    """

    path: Path
    image: ImageRef
    question: str
    choices: tuple[str, ...] = ()
    expected: str | None = None
    evidence: tuple[Box, ...] = ()
    family: str = ""
    task: str = ""


@dataclass(frozen=True)
class Encoded:
    """An image as the model's encoder left it, with the measured time and the estimated operations."""

    tokens: VisualTokens
    seconds: Seconds
    notices: tuple[str, ...]
    flops: int


@dataclass(frozen=True)
class Outcome:
    """What became of one strategy: a run, or the stage and reason of its failure.

    Args:
        stage: "" for a run; "refused" before anything ran; else "encode", "answer" or "cancelled".
        lowest: The lowest reachable budget in visual tokens, where a budget was refused.
    """

    strategy: str
    run: Run | None
    stage: str = ""
    reason: str = ""
    lowest: int | None = None


def open_image(path: Path, *, name: str | None = None) -> ImageRef:
    """Judge an image file by its content and say how it will be shown.

    Raises:
        ImageError: it is none of the allowed formats, damaged, or too large.
    """
    info = imagery.describe(path, name=name)
    rendering = imagery.choose_rendering(path, info)
    return ImageRef(
        digest=info.sha256,
        name=info.name,
        width=info.width,
        height=info.height,
        crs=info.crs,
        transform=info.transform,
        rendering=str(rendering),
        is_synthetic=SYNTHETIC_TAG in info.tags,
    )


def encode(inquiry: Inquiry, vlm: VLM, *, repeats: int = REPEATS, warmup: int = WARMUP) -> Encoded:
    """Read the image as large as the model wants it, and encode it.

    Raises:
        ImageError: the file cannot be read.
    """
    sight = _sight(inquiry, vlm, repeats=repeats, warmup=warmup)
    return _encoded(sight, sight.encode(), inquiry)


def look(
    inquiry: Inquiry, plan: Plan, vlm: VLM, *, seed: int = 0, repeats: int = REPEATS, warmup: int = WARMUP
) -> tuple[Encoded, Looked]:
    """Let a plan whose first step reads the image itself encode what it wants.

    Raises:
        InvalidBudget, MissingSignal: it cannot; nothing was encoded.
        InvalidStrategyText: the plan does not look.
        ImageError: the file cannot be read.
    """
    strategy = looking(plan)
    if strategy is None:
        raise InvalidStrategyText(f"{plan} reads the shared encoding of the image; use encode()")
    total = vlm.count_tokens(_size(inquiry))
    vlm.check(plan, total, _size(inquiry))
    prompt = vlm.prompt(inquiry.question, inquiry.choices)
    context = Context(
        question=prompt.question, seed=seed, text=vlm.embed_question(prompt), layers=vlm.architecture.layers
    )
    sight = _sight(inquiry, vlm, repeats=repeats, warmup=warmup)
    looked = strategy.look(sight, plan.steps[0].budget.tokens(total), context)
    return _encoded(sight, looked.tokens, inquiry), looked


def _sight(inquiry: Inquiry, vlm: VLM, *, repeats: int, warmup: int) -> ImageSight:
    return ImageSight(inquiry.path, _size(inquiry), vlm, repeats=repeats, warmup=warmup)


def _encoded(sight: ImageSight, tokens: VisualTokens, inquiry: Inquiry) -> Encoded:
    info = imagery.describe(inquiry.path, name=inquiry.image.name)
    return Encoded(tokens, sight.seconds, (*info.notices, *sight.notices), sight.flops)


def _size(inquiry: Inquiry) -> tuple[int, int]:
    return inquiry.image.height, inquiry.image.width


def execute(
    inquiry: Inquiry,
    plan: Plan,
    vlm: VLM,
    *,
    seed: int = 0,
    record: Sequence[str] = RECORD_ALL,
    repeats: int = REPEATS,
    warmup: int = WARMUP,
    comparison: str = "",
    encoded: Encoded | None = None,
    cancel: Cancel | None = None,
) -> Run:
    """Run one strategy and return its record.

    Args:
        encoded: The image as `encode` left it, where that was done before; a strategy that looks at the image itself
            does not use it.

    Raises:
        CompressionError: the strategy, the budget or the question cannot be used, or `cancel` said stop.
        ImageError: the image cannot be read.
    """
    prompt = vlm.prompt(inquiry.question, inquiry.choices)
    total, given, looked = vlm.count_tokens(_size(inquiry)), plan, None
    if cancel is not None and cancel():
        raise Cancelled("the run was cancelled")
    with measured_peak(vlm.device) as peak:
        if looking(plan):
            encoded, looked = look(inquiry, plan, vlm, seed=seed, repeats=repeats, warmup=warmup)
            given = looked.rest(plan, total)
        encoded = encoded or encode(inquiry, vlm, repeats=repeats, warmup=warmup)
        recorder = Recorder() if "attention" in record else None
        generation = vlm.generate(
            encoded.tokens, prompt, given, seed=seed, probe=recorder, repeats=repeats, warmup=warmup, cancel=cancel
        )
    grid = encoded.tokens.grid
    recording = recorder.finish(generation.entering) if recorder else Recording()
    labels, notices = _said(inquiry, plan, vlm, prompt, encoded, generation)
    cost = Cost(
        encode=encoded.seconds,
        compress=generation.compress if _compresses(plan) else None,
        prefill=generation.prefill,
        decode=generation.decode,
        prefill_flops=prefill_flops(vlm.architecture, generation.sequence_per_layer),
        encode_flops=encoded.flops,
        kv_cache_bytes=generation.kv_cache_bytes,
        peak_memory_bytes=peak.value,
        device=vlm.device,
        dtype=vlm.dtype,
        threads=torch.get_num_threads(),
        warmup=warmup,
    )
    return Run(
        id=new_id(),
        created_utc=utc_now(),
        request=request_for(inquiry, plan, vlm, prompt, seed=seed, record=record),
        grid=grid,
        selection=generation.selection,
        answer=_answer(prompt, generation, inquiry.expected),
        recording=recording,
        cost=cost,
        tokens_requested=plan.budget.tokens(total),
        tokens_realised=float(np.mean(generation.tokens_per_layer)),
        tokens_per_layer=generation.tokens_per_layer,
        evidence=inquiry.evidence,
        evidence_recall=evidence_recall(generation.selection, grid, inquiry.evidence),
        family=inquiry.family or prompt.family,
        task=inquiry.task or prompt.task,
        labels=labels,
        notices=notices,
        environment=environment(vlm.device),
        comparison=comparison,
        tokens_original=total,
        turns=looked.turns if looked else (),
    )


def _compresses(plan: Plan) -> bool:
    """Whether tokens are reduced after the encoding: what a strategy does while it looks is in the encoder's time."""
    steps = plan.steps[1:] if looking(plan) else plan.steps
    return any(step.compressor.info.reduces != "nothing" for step in steps)


def compare(
    inquiry: Inquiry,
    plans: Sequence[Plan],
    vlm: VLM,
    *,
    seed: int = 0,
    record: Sequence[str] = RECORD_ALL,
    repeats: int = REPEATS,
    warmup: int = WARMUP,
    comparison: str = "",
    encoded: Encoded | None = None,
    cancel: Cancel | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Run several strategies on one encoding; one outcome per plan, in order, each as soon as it is there.

    A strategy that looks at the image itself gets an encoding of its own.

    A strategy that fails is an outcome and does not stop the others; a cancelled comparison ends with outcomes that
    say so.

    Args:
        encoded: The image as `encode` left it, where that was done before; else it is encoded here, once.

    Raises:
        InvalidQuestion: the question cannot be asked at all; nothing was run.
        ImageError: the image cannot be read; nothing was run.
    """
    tell = progress or (lambda _message, _share: None)
    vlm.prompt(inquiry.question, inquiry.choices)
    if encoded is None and not all(looking(plan) for plan in plans):
        tell("Encoding the image", 0.0)
        encoded = encode(inquiry, vlm, repeats=repeats, warmup=warmup)
    for position, plan in enumerate(plans):
        does = "answering" if plan.info.reduces == "nothing" else "compressing and answering"
        tell(f"{plan.info.title} is {does}", (position + 0.5) / (len(plans) + 0.5))
        try:
            run = execute(
                inquiry,
                plan,
                vlm,
                seed=seed,
                record=record,
                repeats=repeats,
                warmup=warmup,
                comparison=comparison,
                encoded=encoded,
                cancel=cancel,
            )
        except Cancelled as error:
            yield Outcome(str(plan), None, "cancelled", str(error))
        except (InvalidBudget, MissingSignal) as error:
            yield Outcome(str(plan), None, "refused", str(error), lowest=getattr(error, "lowest", None))
        except (CompressionError, AnalysisError) as error:
            yield Outcome(str(plan), None, "answer", str(error))
        except (RuntimeError, MemoryError) as error:  # out of memory, a kernel that refuses: the other strategies go on
            yield Outcome(
                str(plan),
                None,
                "answer",
                f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            )
        else:
            yield Outcome(str(plan), run)


def request_for(inquiry: Inquiry, plan: Plan, vlm: VLM, prompt: Prompt, *, seed: int, record: Sequence[str]) -> Request:
    """What is asked, in canonical form: its digest finds earlier runs of the same request."""
    return Request(
        image=inquiry.image,
        question=inquiry.question,
        choices=prompt.choices,
        model=ModelRef(
            name=vlm.card.name,
            family=vlm.card.family,
            revision=vlm.card.revision,
            layers=vlm.architecture.layers,
            parameters=vlm.card.parameters,
        ),
        strategy=str(plan),
        strategy_version=plan.info.version,
        seed=seed,
        dtype=vlm.dtype,
        record=tuple(sorted(record)),
    )


def _answer(prompt: Prompt, generation: Generation, expected: str | None) -> Answer:
    """Probabilities over the choices, renormalised where they were given, and the mass that the model puts on them."""
    probabilities = np.exp(np.array(generation.log_probabilities, dtype=np.float64))
    mass = float(probabilities.sum())
    if prompt.choices:
        # From the logarithms: the mass itself may underflow.
        shifted = np.exp(np.array(generation.log_probabilities) - max(generation.log_probabilities))
        probabilities = shifted / shifted.sum()
    return Answer(
        text=generation.text,
        choices=generation.choices,
        probabilities=tuple(float(value) for value in probabilities),
        choice_mass=min(1.0, mass),
        expected=expected,
    )


def _said(
    inquiry: Inquiry, plan: Plan, vlm: VLM, prompt: Prompt, encoded: Encoded, generation: Generation
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels and notices of a run, without repeats, in a fixed order."""
    labels = [*plan.info.labels, *vlm.card.labels]
    notices = [*prompt.notices, *encoded.notices]
    router = generation.selection.router
    if router is not None and "rule" in (router.source, router.rho_source):
        labels.append("reconstruction: router by rule")
    elif router is not None and "trained" in (router.source, router.rho_source):
        labels.append("reconstruction: router trained for this model")
    if vlm.card.domain and not inquiry.image.is_synthetic:
        labels.append(OUT_OF_DOMAIN)
        notices.append(
            f"This model was trained on {vlm.card.domain} only, not on photographs: its answer here means little."
        )
    notices += [str(note) for note in generation.selection.diagnostics.get("notes", [])]
    if classes := without_area(generation.selection):
        outputs = len(generation.selection.anchor)
        are = "is the [CLS] token of a view" if classes == 1 else "are [CLS] tokens of the views"
        notices.append(f"{classes} of the {outputs} tokens after compression {are}, without a place on the map.")
    return tuple(dict.fromkeys(labels)), tuple(dict.fromkeys(notices))
