"""The immutable record of one strategy on one image and question. Everything that is shown comes from here."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.backends.base import Seconds
from compression.grid import Box, TokenGrid
from compression.selection import Selection
from compression.sight import Turn
from compression.strategies import CATALOGUE


@dataclass(frozen=True)
class ImageRef:
    """Which image: its bytes by digest, and what is needed to place it.

    Args:
        digest: SHA-256 of the bytes as received, hex.
        name: The file's name, for people.
        width, height: Pixels.
        crs: "EPSG:32632" or the like, or None for plain pixels.
        transform: (a, b, c, d, e, f) from (column, row) to the reference system, or None.
        window: (left, top, right, bottom) in pixels, or None for the whole image.
        rendering: Which bands are shown and how they are stretched, in words; "" for plain 8-bit RGB.
        is_synthetic: Whether the image is declared synthetic.
    """

    digest: str
    name: str
    width: int
    height: int
    crs: str | None = None
    transform: tuple[float, float, float, float, float, float] | None = None
    window: tuple[int, int, int, int] | None = None
    rendering: str = ""
    is_synthetic: bool = False


@dataclass(frozen=True)
class ModelRef:
    """Which model and which weights. `revision` is the SHA-256 over the weight files, hex."""

    name: str
    family: str
    revision: str
    layers: int
    parameters: int = 0


@dataclass(frozen=True)
class Request:
    """What was asked, and nothing else: the same request on another day is another run with the same digest."""

    image: ImageRef
    question: str
    choices: tuple[str, ...]
    model: ModelRef
    strategy: str
    strategy_version: int
    seed: int
    dtype: str
    record: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, hex. The image's name and the model's size are not part of it."""
        asked = {
            "image": self.image.digest,
            "window": self.image.window,
            "rendering": self.image.rendering,
            "question": self.question,
            "choices": list(self.choices),
            "model": self.model.name,
            "weights": self.model.revision,
            "strategy": self.strategy,
            "strategy_version": self.strategy_version,
            "seed": self.seed,
            "dtype": self.dtype,
            "record": sorted(self.record),
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """What the model said.

    Args:
        text: The likeliest choice, or the decoded text.
        choices: The choices, or the five likeliest first tokens where there were none.
        probabilities: Per choice, in [0, 1], renormalised over the choices where choices were given.
        choice_mass: Sum of the probabilities before renormalising: how much of the model's belief the choices cover.
        expected: The right answer where it is known.
    """

    text: str
    choices: tuple[str, ...]
    probabilities: tuple[float, ...]
    choice_mass: float
    expected: str | None = None

    @property
    def confidence(self) -> float:
        """The probability of the answer given; NaN where it is not among the choices."""
        return self.probabilities[self.choices.index(self.text)] if self.text in self.choices else float("nan")

    @property
    def is_correct(self) -> bool | None:
        """Whether the answer is the expected one, None where that is not known."""
        return None if self.expected is None else self.text.strip().lower() == self.expected.strip().lower()


@dataclass(frozen=True)
class Cost:
    """What the answer cost. Estimated and measured never share a field.

    Args:
        encode, compress, prefill: Measured seconds; None where the stage did not happen.
        decode: Measured seconds of one decoding step after the prefill; None where none was made.
        prefill_flops: Estimated multiply-adds times two, language model only (analysis.cost).
        encode_flops: Estimated, vision encoder only.
        kv_cache_bytes: Measured from the cache after prefill.
        peak_memory_bytes: Measured highest memory of the process (CPU) or of the device's allocator (CUDA), or None.
        device: "cpu" or "cuda: name".
        dtype: "float32" and so on.
        threads: CPU threads that torch used.
        warmup: Passes before the measured ones.
    """

    encode: Seconds | None
    compress: Seconds | None
    prefill: Seconds
    decode: Seconds | None
    prefill_flops: int
    encode_flops: int
    kv_cache_bytes: int
    peak_memory_bytes: int | None
    device: str
    dtype: str
    threads: int
    warmup: int

    @property
    def total_seconds(self) -> float:
        """Time to the first token: the medians of encoding, compressing and prefill, summed."""
        return sum(stage.median for stage in (self.encode, self.compress, self.prefill) if stage)


@dataclass(frozen=True, eq=False)
class Recording:
    """Attention to the visual tokens, head mean, on the original grid; NaN where a token was not there.

    What fell on a merged token is divided among its members by their weight, so a row sums to the attention on the
    image.

    Args:
        answer: float16 [layers, tokens], from the position whose next token is the answer; None where not recorded.
        question: float16 [layers, tokens], mean over the question's words; None where not recorded.
        answer_mass: float32 [layers], share of the answer position's attention that falls on the image.
        question_mass: float32 [layers].
    """

    answer: NDArray[np.float16] | None = None
    question: NDArray[np.float16] | None = None
    answer_mass: NDArray[np.float32] | None = None
    question_mass: NDArray[np.float32] | None = None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The recorded arrays by name, for storage."""
        named = {
            "attention_answer": self.answer,
            "attention_question": self.question,
            "answer_mass": self.answer_mass,
            "question_mass": self.question_mass,
        }
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Recording:
        """The recording that `arrays` described."""
        return cls(
            answer=arrays.get("attention_answer"),
            question=arrays.get("attention_question"),
            answer_mass=arrays.get("answer_mass"),
            question_mass=arrays.get("question_mass"),
        )


@dataclass(frozen=True, eq=False)
class Run:
    """One strategy on one request: what was decided, answered, recorded and spent. CPU arrays only.

    Args:
        id: Random 128 bits, hex.
        created_utc: ISO 8601 with seconds and "Z".
        tokens_requested: Budget in visual tokens that was asked for, of the last step of a plan; None where the router
            chose.
        tokens_realised: Mean over the language model's layers.
        tokens_per_layer: Visual tokens that each layer processed.
        evidence: Boxes in original pixels that the right answer depends on; empty where not known.
        evidence_recall: Share of the evidence's tokens that were kept or merged into kept ones; None where not known.
        family, task: The question's, "" where not known.
        labels: Short: reconstruction, fallback, out of domain.
        notices: Sentences for the user.
        environment: Versions, device, commit; plain strings.
        comparison: Id of the comparison that the run belongs to, "" for none.
        tokens_original: Visual tokens of the image when the model reads it whole, of which budgets are counted; 0 takes
            those of the grid. A strategy that encodes the image itself has a grid of its own.
        turns: What a strategy that looks in turns did.
    """

    id: str
    created_utc: str
    request: Request
    grid: TokenGrid
    selection: Selection
    answer: Answer
    recording: Recording
    cost: Cost
    tokens_requested: int | None
    tokens_realised: float
    tokens_per_layer: tuple[int, ...]
    evidence: tuple[Box, ...] = ()
    evidence_recall: float | None = None
    family: str = ""
    task: str = ""
    labels: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    comparison: str = ""
    tokens_original: int = 0
    turns: tuple[Turn, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens_original", self.tokens_original or len(self.grid))

    @property
    def tokens_total(self) -> int:
        """Visual tokens of the image before any strategy."""
        return self.tokens_original

    @property
    def tokens_encoded(self) -> int:
        """Visual tokens on the run's own grid: others than `tokens_total` where the strategy encoded the image."""
        return self.selection.tokens

    @property
    def tokens_kept(self) -> int:
        """Visual tokens that are left after the last reduction."""
        return len(self.selection)

    @property
    def tokens_leaving(self) -> float:
        """Mean over the layers of the visual tokens that leave each, as SparseVLM's released code counts them.

        `tokens_realised` is the mean of what enters each layer. What leaves the last one is what entered it.
        """
        return float(np.mean((*self.tokens_per_layer[1:], self.tokens_per_layer[-1])))

    @property
    def retention_ratio(self) -> float:
        """Mean over the layers divided by the total."""
        return self.tokens_realised / self.tokens_total

    @property
    def strategy_name(self) -> str:
        """The strategy's registry key; those of several steps joined by "+"."""
        return CATALOGUE.name_of(self.request.strategy)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name, for storage."""
        return {**self.selection.arrays(), **self.recording.arrays()}

    def to_json(self) -> dict[str, Any]:
        """What is not an array, as plain values; `from_json` needs the arrays beside it."""
        return {
            "id": self.id,
            "created_utc": self.created_utc,
            "request": asdict(self.request),
            "grid": self.grid.to_json(),
            "selection": self.selection.to_json(),
            "answer": asdict(self.answer),
            "cost": asdict(self.cost),
            "tokens_requested": self.tokens_requested,
            "tokens_realised": self.tokens_realised,
            "tokens_per_layer": list(self.tokens_per_layer),
            "evidence": [list(box) for box in self.evidence],
            "evidence_recall": self.evidence_recall,
            "family": self.family,
            "task": self.task,
            "labels": list(self.labels),
            "notices": list(self.notices),
            "environment": dict(self.environment),
            "comparison": self.comparison,
            "tokens_original": self.tokens_original,
            "turns": [asdict(turn) for turn in self.turns],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Run:
        """The run that `to_json` and `arrays` described."""
        asked, answer, cost = value["request"], value["answer"], dict(value["cost"])
        image = dict(asked["image"])
        for name in ("transform", "window"):
            image[name] = tuple(image[name]) if image[name] is not None else None
        for stage in ("encode", "compress", "prefill", "decode"):
            cost[stage] = Seconds(**cost[stage]) if cost[stage] is not None else None
        request = Request(
            image=ImageRef(**image),
            question=asked["question"],
            choices=tuple(asked["choices"]),
            model=ModelRef(**asked["model"]),
            strategy=asked["strategy"],
            strategy_version=asked["strategy_version"],
            seed=asked["seed"],
            dtype=asked["dtype"],
            record=tuple(asked["record"]),
        )
        return cls(
            id=value["id"],
            created_utc=value["created_utc"],
            request=request,
            grid=TokenGrid.from_json(value["grid"]),
            selection=Selection.from_json(value["selection"], arrays),
            answer=Answer(
                text=answer["text"],
                choices=tuple(answer["choices"]),
                probabilities=tuple(answer["probabilities"]),
                choice_mass=answer["choice_mass"],
                expected=answer["expected"],
            ),
            recording=Recording.from_arrays(arrays),
            cost=Cost(**cost),
            tokens_requested=value["tokens_requested"],
            tokens_realised=value["tokens_realised"],
            tokens_per_layer=tuple(value["tokens_per_layer"]),
            evidence=tuple((box[0], box[1], box[2], box[3]) for box in value["evidence"]),
            evidence_recall=value["evidence_recall"],
            family=value["family"],
            task=value["task"],
            labels=tuple(value["labels"]),
            notices=tuple(value["notices"]),
            environment=dict(value["environment"]),
            comparison=value["comparison"],
            # Runs of earlier versions have neither.
            tokens_original=value.get("tokens_original", 0),
            turns=tuple(Turn(**{**turn, "box": tuple(turn["box"])}) for turn in value.get("turns", ())),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Run) or self.to_json() != other.to_json():
            return False
        mine, theirs = self.arrays(), other.arrays()
        return mine.keys() == theirs.keys() and all(
            array.dtype == theirs[name].dtype and np.array_equal(array, theirs[name], equal_nan=array.dtype.kind == "f")
            for name, array in mine.items()
        )

    def __hash__(self) -> int:
        return hash(self.id)


def new_id() -> str:
    """A random 128-bit id, hex."""
    return secrets.token_hex(16)


def utc_now() -> str:
    """The time now, ISO 8601 in UTC with seconds and "Z"."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
