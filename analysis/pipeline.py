"""One image, one question, several strategies: from files and words to runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from analysis import imagery
from analysis.cost import measured_peak, prefill_flops
from analysis.environment import environment
from analysis.errors import AnalysisError
from analysis.lens import Spent
from analysis.recorder import Recorder
from analysis.retention import evidence_recall, evidence_shown, without_area
from analysis.run import Answer, Cost, ImageRef, ModelRef, Recording, Request, Run, new_id, utc_now
from analysis.sight import ImageSight
from compression.backends.base import VLM, Generation, Progress, Prompt, Seconds
from compression.compressor import Cancel, Context, Plan, format_strategy
from compression.errors import Cancelled, CompressionError, InvalidBudget, InvalidStrategyText, MissingSignal
from compression.grid import Box
from compression.sight import Looked, Turn, looking
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
    """An image as the model's encoder left it, with the measured time and the estimated operations.

    `spent` is what the language model did before its answer, where a strategy asked it where to look.
    """

    tokens: VisualTokens
    seconds: Seconds
    notices: tuple[str, ...]
    flops: int
    spent: Spent | None = None


Seen: TypeAlias = dict[tuple[str, int], tuple[Encoded, Looked]]
"""What strategies looked at in one image, by their text and the seed, where the question does not matter."""


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
    sight = ImageSight(inquiry.path, _size(inquiry), vlm, repeats=repeats, warmup=warmup)
    return _encoded(sight, sight.encode(), inquiry)


def look(
    inquiry: Inquiry,
    plan: Plan,
    vlm: VLM,
    *,
    seed: int = 0,
    repeats: int = REPEATS,
    warmup: int = WARMUP,
    cancel: Cancel | None = None,
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
    sight = ImageSight(inquiry.path, _size(inquiry), vlm, repeats=repeats, warmup=warmup, prompt=prompt, cancel=cancel)
    looked = strategy.look(sight, plan.steps[0].budget.tokens(total), context)
    return _encoded(sight, looked.tokens, inquiry), looked


def _encoded(sight: ImageSight, tokens: VisualTokens, inquiry: Inquiry) -> Encoded:
    info = imagery.describe(inquiry.path, name=inquiry.image.name)
    return Encoded(tokens, sight.seconds, (*info.notices, *sight.notices), sight.flops, sight.spent(tokens))


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
    seen: Seen | None = None,
    cancel: Cancel | None = None,
) -> Run:
    """Run one strategy and return its record.

    Args:
        encoded: The image as `encode` left it, where that was done before; a strategy that looks at the image itself
            does not use it.
        seen: What such strategies looked at in this image before; what this one looks at is added.

    Raises:
        CompressionError: the strategy, the budget or the question cannot be used, or `cancel` said stop.
        ImageError: the image cannot be read.
    """
    prompt = vlm.prompt(inquiry.question, inquiry.choices)
    total, given, looked = vlm.count_tokens(_size(inquiry)), plan, None
    if cancel is not None and cancel():
        raise Cancelled("the run was cancelled")
    with measured_peak(vlm.device) as peak:
        if strategy := looking(plan):
            key = format_strategy(strategy, plan.steps[0].budget), seed
            if not seen or key not in seen:
                encoded, looked = look(inquiry, plan, vlm, seed=seed, repeats=repeats, warmup=warmup, cancel=cancel)
                if seen is not None and not strategy.reads_question:
                    seen[key] = encoded, looked
            else:
                encoded, looked = seen[key]
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
        compress=_compress_seconds(plan, encoded.spent, generation),
        prefill=generation.prefill,
        decode=generation.decode,
        prefill_flops=prefill_flops(vlm.architecture, generation.sequence_per_layer)
        + (encoded.spent.flops if encoded.spent else 0),
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
        evidence_recall=evidence_shown(looked.crops, inquiry.evidence)
        if looked and looked.turns
        else evidence_recall(generation.selection, grid, inquiry.evidence),
        family=inquiry.family or prompt.family,
        task=inquiry.task or prompt.task,
        labels=labels,
        notices=notices,
        environment=environment(vlm.device),
        comparison=comparison,
        tokens_original=total,
        turns=_ended(looked.turns, generation.text) if looked else (),
    )


def _compress_seconds(plan: Plan, spent: Spent | None, generation: Generation) -> Seconds | None:
    """Time of reducing tokens after the encoding, and of what a strategy asked the language model before the answer.

    What it encoded while it looked is in the encoder's time. None where there was neither.
    """
    steps = plan.steps[1:] if looking(plan) else plan.steps
    own = generation.compress if any(step.compressor.info.reduces != "nothing" for step in steps) else None
    if spent is None or own is None:
        return own if spent is None else spent.seconds
    return Seconds.total([spent.seconds, own])


def _ended(turns: Sequence[Turn], answer: str) -> tuple[Turn, ...]:
    """Turns after which the model was not asked again: the answer is what came after them.

    It does not follow the overview alone where a crop came between.
    """
    crops = [turn for turn in turns[1:] if turn.is_accepted] or turns[:1]
    return tuple(replace(turn, after=answer) if turn in crops and not turn.after else turn for turn in turns)


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
    seen: Seen | None = None,
    cancel: Cancel | None = None,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Run several strategies on one encoding; one outcome per plan, in order, each as soon as it is there.

    A strategy that looks at the image itself gets an encoding of its own.

    A strategy that fails is an outcome and does not stop the others; a cancelled comparison ends with outcomes that
    say so.

    Args:
        encoded: The image as `encode` left it, where that was done before; else it is encoded here, once.
        seen: What strategies looked at in this image before, where it serves all questions; new looks are added.

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
                seen=seen,
                cancel=cancel,
            )
        except Cancelled as error:
            yield Outcome(str(plan), None, "cancelled", str(error))
        except (InvalidBudget, InvalidStrategyText, MissingSignal) as error:
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
    probabilities = generation.probabilities(renormalised=bool(prompt.choices))
    return Answer(
        text=generation.text,
        choices=generation.choices,
        probabilities=tuple(float(value) for value in probabilities),
        choice_mass=min(1.0, float(generation.probabilities(renormalised=False).sum())),
        expected=expected,
    )


def _said(
    inquiry: Inquiry, plan: Plan, vlm: VLM, prompt: Prompt, encoded: Encoded, generation: Generation
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Labels and notices of a run, without repeats, in a fixed order."""
    labels = [*plan.info.labels, *plan.info.stand_ins(vlm.provides), *vlm.card.labels]
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
    if spent := encoded.spent:
        notices.append(
            f"{plan.info.title} looked in {spent.passes} {'pass' if spent.passes == 1 else 'passes'} of the language "
            f"model over {spent.tokens:,} visual tokens before the answer; their time stands under compression, their "
            "operations under prefill."
        )
    if classes := without_area(generation.selection):
        outputs = len(generation.selection.anchor)
        are = "is the [CLS] token of a view" if classes == 1 else "are [CLS] tokens of the views"
        notices.append(f"{classes} of the {outputs} tokens after compression {are}, without a place on the map.")
    return tuple(dict.fromkeys(labels)), tuple(dict.fromkeys(notices))
