"""What a store hands out besides runs: summaries, comparisons with their panes, failures and jobs. All immutable."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from analysis.run import ImageRef
from compression.grid import Box

PaneState: TypeAlias = Literal["waiting", "running", "done", "refused", "failed", "cancelled", "deleted"]
PANE_STATES: tuple[PaneState, ...] = ("waiting", "running", "done", "refused", "failed", "cancelled", "deleted")

JobState: TypeAlias = Literal["queued", "running", "done", "failed", "cancelled"]
JOB_STATES: tuple[JobState, ...] = ("queued", "running", "done", "failed", "cancelled")

SweptState: TypeAlias = Literal["done", "failed", "unreachable", "refused"]
SWEPT_STATES: tuple[SweptState, ...] = ("done", "failed", "unreachable", "refused")


@dataclass(frozen=True)
class RunSummary:
    """One row of the public view `v_runs`, and where the run belongs. No array is loaded for it.

    The fields up to `tokens_encoded` are the view's columns, in its order and with its names; None is "not known" or
    "did not happen", never zero.

    Args:
        run: Random 128-bit id, hex; also under the name `id`.
        request: Digest of what was asked, hex.
        created_utc: ISO 8601 in UTC.
        model_revision: SHA-256 over the weight files, hex.
        strategy: Canonical text; strategy_name its registry key, or those of its steps joined by "+";
            strategy_params_json all its parameters, JSON.
        strategy_stage: "encoding", "zoom", "encoder" or "decoder", or those of its steps joined by "+"; None where this
            installation does not know the strategy.
        budget_requested, budget_realised: Visual tokens; requested is None where the router chose.
        tokens_total: Visual tokens of the image before any strategy.
        retention_ratio: Mean over the language model's layers divided by the total.
        image: SHA-256 of the bytes as received, hex.
        image_width, image_height: Pixels.
        confidence: Probability of the answer; None where it is not among the choices.
        choice_mass: Sum of the choices' probabilities before they were renormalised.
        encode_seconds, compress_seconds, prefill_seconds, decode_seconds: Measured medians.
        prefill_flops: Estimated.
        kv_cache_bytes, peak_memory_bytes: Measured.
        evidence_recall: Share of the evidence's tokens that were kept or merged into kept ones.
        labels_json: JSON list of short labels.
        tokens_encoded: Visual tokens on the run's own grid; other than the total where the strategy encoded the image.
        comparison: Id of the comparison that it belongs to, "" for none.
        owner: Whose run it is, "" for local use.
        is_sample: Whether it came with Keepmap and everyone may see it.
    """

    run: str
    request: str
    created_utc: str
    model: str
    model_family: str
    model_revision: str
    strategy: str
    strategy_name: str
    strategy_stage: str | None
    strategy_params_json: str
    budget_requested: int | None
    budget_realised: float
    tokens_total: int
    tokens_kept: int
    retention_ratio: float
    image: str
    image_name: str
    image_width: int
    image_height: int
    crs: str | None
    question: str
    question_family: str
    task: str
    answer: str
    answer_expected: str | None
    is_correct: bool | None
    confidence: float | None
    choice_mass: float | None
    seed: int
    device: str
    dtype: str
    encode_seconds: float | None
    compress_seconds: float | None
    prefill_seconds: float
    decode_seconds: float | None
    prefill_flops: int
    kv_cache_bytes: int
    peak_memory_bytes: int | None
    evidence_recall: float | None
    labels_json: str
    keepmap_version: str
    code_commit: str
    tokens_encoded: int
    comparison: str = ""
    owner: str = ""
    is_sample: bool = False

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run

    @property
    def labels(self) -> tuple[str, ...]:
        """Short labels: reconstruction, fallback, out of domain."""
        return tuple(json.loads(self.labels_json))

    @property
    def parameters(self) -> Mapping[str, bool | int | float | str]:
        """The strategy's parameters by name."""
        values: dict[str, bool | int | float | str] = json.loads(self.strategy_params_json)
        return values


@dataclass(frozen=True)
class Pane:
    """One strategy of a comparison, and how far it is.

    Args:
        strategy: Canonical text.
        run: Id of the run, once there is one.
        failure: Id of the failure, where it started and failed.
        reason: Why it was refused, failed or was cancelled, in a sentence.
        lowest: Smallest reachable budget in visual tokens, where it was refused for its budget.
        state: One of `PANE_STATES`.
    """

    strategy: str
    run: str | None = None
    failure: str | None = None
    reason: str = ""
    lowest: int | None = None
    state: str = "waiting"


@dataclass(frozen=True)
class Comparison:
    """One image and question under several strategies: what a link restores.

    Args:
        id: Random 128 bits, hex.
        created_utc: ISO 8601 in UTC.
        choices: Answers to choose among, empty for a free answer.
        expected: The right answer where it is known.
        evidence: Boxes in original pixels.
        family, task: The question's, "" where not known.
        model: As a user asks for it.
        panes: In the order on the page.
        notices: Sentences that hold for all panes.
        owner: "" for local use.
        is_sample: Whether it came with Keepmap and everyone may see it.
    """

    id: str
    created_utc: str
    image: ImageRef
    question: str
    choices: tuple[str, ...]
    expected: str | None
    evidence: tuple[Box, ...]
    family: str
    task: str
    model: str
    panes: tuple[Pane, ...]
    notices: tuple[str, ...] = ()
    owner: str = ""
    is_sample: bool = False


@dataclass(frozen=True)
class Failure:
    """A run that started and failed.

    Args:
        id: Random 128 bits, hex.
        request: What was asked, plain values.
        stage: Where it failed: "open", "encode", "compress", "answer", "record", "store" or the like.
        reason: Why, in a sentence.
    """

    id: str
    created_utc: str
    request: Mapping[str, Any]
    stage: str
    reason: str
    owner: str = ""


@dataclass(frozen=True)
class JobRow:
    """A piece of work that outlives the page that asked for it.

    Args:
        id: Random 128 bits, hex.
        state: One of `JOB_STATES`.
        progress: Share that is done, 0 to 1.
        message: What is being done, or why it ended, in words.
        request: What was asked, plain values.
        comparison: Id of the comparison that it fills, "" for none.
        worker: Who works on it, "" while it is queued.
        heartbeat_utc: When the worker last gave a sign of life; None while it is queued.
        is_cancel_requested: Whether someone asked it to stop.
    """

    id: str
    created_utc: str
    owner: str
    state: str
    progress: float
    message: str
    request: Mapping[str, Any] = field(default_factory=dict)
    comparison: str = ""
    worker: str = ""
    heartbeat_utc: str | None = None
    is_cancel_requested: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Sweep:
    """One row of the public view `v_sweeps`: many requests under one name.

    Args:
        sweep: Random 128-bit id, hex.
        planned: Requests that it consists of; done, failed and refused count those that ended so.
        finished_utc: When nothing was left to run; None before.
        refused: Those that the model cannot be asked, unreachable budgets above all; they are no failures.
    """

    sweep: str
    name: str
    planned: int
    done: int
    failed: int
    started_utc: str
    finished_utc: str | None
    refused: int


@dataclass(frozen=True)
class SweptRequest:
    """What became of one request of a sweep.

    Args:
        request: Digest of what was asked, hex.
        strategy: Canonical text.
        family, task: The question's, "" where not known.
        state: One of `SWEPT_STATES`.
        reason: Why there is no run, in a sentence.
        lowest: Smallest reachable budget in visual tokens, where the budget was unreachable and it is known.
        run: Id of the run, where there is one.
        failure: Id of the failure, where it failed.
        is_correct: Whether the answer was right; None where that is not known.
        retention_ratio: What the run kept, mean over the layers; None where there is no run.
    """

    request: str
    model: str
    strategy: str
    seed: int
    family: str = ""
    task: str = ""
    state: SweptState = "done"
    reason: str = ""
    lowest: int | None = None
    run: str | None = None
    failure: str | None = None
    is_correct: bool | None = None
    retention_ratio: float | None = None
