"""What a compressor decided: which visual tokens were kept, merged and dropped, and how to paint that back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from compression.errors import InvalidSelection


class Fate(IntEnum):
    """What became of a visual token. The three partition the grid."""

    KEPT = 0  # anchor of an output
    MERGED = 1  # part of an output, but not its anchor
    DROPPED = 2  # in no output


class Stream(IntEnum):
    """Which of DualComp's streams an output came from."""

    SEMANTIC = 0
    GEOMETRIC = 1


@dataclass(frozen=True)
class RouterDecision:
    """How a router split the budget.

    Args:
        lam: lambda in [0, 1]; 0 is object semantics, 1 is scene geometry.
        rho: Retention ratio in (0, 1].
        shares: Share of the kept tokens per stream, summing to one.
        margins: Distance of each head from its decision boundary, by name of the head; empty where a rule decided.
        thresholds: Thresholds that followed from lambda, by name.
        source: "rule", "trained" or "asked".
        rho_source: "rule", "trained" or "asked".
        reason: The words or features that decided, for people.
    """

    lam: float
    rho: float
    shares: Mapping[str, float]
    margins: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    source: str = "rule"
    rho_source: str = "rule"
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """A plain value; `lambda` and `rho` under the names of the paper."""
        return {
            "lambda": self.lam,
            "rho": self.rho,
            "stream shares": dict(self.shares),
            "margins": dict(self.margins),
            "thresholds": dict(self.thresholds),
            "source": self.source,
            "rho_source": self.rho_source,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RouterDecision:
        """The decision that `to_json` described."""
        return cls(
            lam=value["lambda"],
            rho=value["rho"],
            shares=dict(value["stream shares"]),
            margins=dict(value["margins"]),
            thresholds=dict(value["thresholds"]),
            source=value["source"],
            rho_source=value["rho_source"],
            reason=value["reason"],
        )


@dataclass(frozen=True, eq=False)
class Selection:
    """The outputs of a compressor in the order in which the model reads them. Always NumPy on the CPU.

    Pruning, pooling, averaging, shared-neighbour merging and path order are one representation: a sparse matrix
    `weight`
    of [outputs, tokens + extra], and for each output the token that lends it its place.

    Args:
        tokens: Number of visual tokens before compression.
        anchor: int64 [outputs], the source token that lends its place; -1 for an output without area; repeats allowed.
        weight_output: int64 [entries], the output of each weight.
        weight_token: int64 [entries], its source: a token, or `tokens + e` for the e-th area-less source such as [CLS].
        weight_value: float32 [entries], the weight.
        scores: float32 [tokens], the importance that ranked the tokens, NaN where the method has none; or None.
        stream: int8 [outputs] of `Stream`, or None for methods without streams.
        extra: Number of area-less sources that follow the tokens, such as the [CLS] of each view.
        router: The router's decision, where there was one.
        diagnostics: Plain values that explain the decision.

    Raises:
        InvalidSelection: the arrays contradict each other.
    """

    tokens: int
    anchor: NDArray[np.int64]
    weight_output: NDArray[np.int64]
    weight_token: NDArray[np.int64]
    weight_value: NDArray[np.float32]
    scores: NDArray[np.float32] | None = None
    stream: NDArray[np.int8] | None = None
    extra: int = 0
    router: RouterDecision | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        outputs = len(self.anchor)
        if outputs == 0:
            raise InvalidSelection("a selection has at least one output, got none; keep at least one token")
        if self.anchor.min() < -1 or self.anchor.max() >= self.tokens:
            raise InvalidSelection(
                f"anchors must lie in -1..{self.tokens - 1}, got {self.anchor.min()}..{self.anchor.max()}"
            )
        if not len(self.weight_output) == len(self.weight_token) == len(self.weight_value):
            raise InvalidSelection("weight_output, weight_token and weight_value must be equally long")
        if len(self.weight_token) and (
            self.weight_token.min() < 0 or self.weight_token.max() >= self.tokens + self.extra
        ):
            raise InvalidSelection(f"weights must name sources in 0..{self.tokens + self.extra - 1}")
        if len(self.weight_output) and (self.weight_output.min() < 0 or self.weight_output.max() >= outputs):
            raise InvalidSelection(f"weights must name outputs in 0..{outputs - 1}")
        if not np.isfinite(self.weight_value).all():
            raise InvalidSelection("weights must be finite")
        if self.scores is not None and len(self.scores) != self.tokens:
            raise InvalidSelection(
                f"scores must have one entry for each of {self.tokens} tokens, got {len(self.scores)}"
            )
        if self.stream is not None and len(self.stream) != outputs:
            raise InvalidSelection(f"stream must have one entry for each of {outputs} outputs, got {len(self.stream)}")

    @classmethod
    def prune(
        cls,
        tokens: int,
        kept: ArrayLike,
        *,
        scores: ArrayLike | None = None,
        router: RouterDecision | None = None,
        diagnostics: Mapping[str, Any] | None = None,
    ) -> Selection:
        """Keep the named tokens unchanged, in the order given, and drop the rest.

        >>> Selection.prune(4, [1, 3]).fate.tolist()
        [2, 0, 2, 0]
        """
        index = np.asarray(kept, dtype=np.int64)
        return cls(
            tokens=tokens,
            anchor=index,
            weight_output=np.arange(len(index)),
            weight_token=index,
            weight_value=np.ones(len(index), dtype=np.float32),
            scores=_scores(scores),
            router=router,
            diagnostics=dict(diagnostics or {}),
        )

    @classmethod
    def merge(
        cls,
        tokens: int,
        anchor: ArrayLike,
        weights: Sequence[tuple[ArrayLike, ArrayLike]],
        *,
        scores: ArrayLike | None = None,
        stream: ArrayLike | None = None,
        extra: int = 0,
        router: RouterDecision | None = None,
        diagnostics: Mapping[str, Any] | None = None,
    ) -> Selection:
        """Outputs as weighted sums: for each output its source tokens and their weights.

        >>> half = Selection.merge(4, [0, 3], [([0, 1], [0.5, 0.5]), ([3], [1.0])])
        >>> half.fate.tolist()
        [0, 1, 2, 0]
        """
        sources = [np.asarray(source, dtype=np.int64).reshape(-1) for source, _ in weights]
        values = [np.asarray(value, dtype=np.float32).reshape(-1) for _, value in weights]
        sizes = [len(source) for source in sources]
        return cls(
            tokens=tokens,
            anchor=np.asarray(anchor, dtype=np.int64),
            weight_output=np.repeat(np.arange(len(sizes)), sizes),
            weight_token=np.concatenate(sources) if sources else np.empty(0, dtype=np.int64),
            weight_value=np.concatenate(values) if values else np.empty(0, dtype=np.float32),
            scores=_scores(scores),
            stream=None if stream is None else np.asarray(stream, dtype=np.int8),
            extra=extra,
            router=router,
            diagnostics=dict(diagnostics or {}),
        )

    def __len__(self) -> int:
        return len(self.anchor)

    @cached_property
    def fate(self) -> NDArray[np.uint8]:
        """What became of each token, uint8 [tokens] of `Fate`."""
        fate = np.full(self.tokens, Fate.DROPPED, dtype=np.uint8)
        used = self.weight_token[(self.weight_value > 0) & (self.weight_token < self.tokens)]
        fate[used] = Fate.MERGED
        fate[self.anchor[self.anchor >= 0]] = Fate.KEPT
        return fate

    @cached_property
    def target(self) -> NDArray[np.int64]:
        """The token that took each token, int64 [tokens]: itself if kept, its heaviest output's anchor, or -1.

        Of equally heavy outputs it is the first.
        A token merged into outputs without area only has target -1.
        """
        target = np.full(self.tokens, -1, dtype=np.int64)
        placed = (self.anchor[self.weight_output] >= 0) & (self.weight_token < self.tokens) & (self.weight_value > 0)
        backwards = np.flatnonzero(placed)[::-1]
        order = backwards[np.argsort(self.weight_value[backwards], kind="stable")]  # the heaviest, first one is last
        target[self.weight_token[order]] = self.anchor[self.weight_output[order]]
        kept = self.fate == Fate.KEPT
        target[kept] = np.flatnonzero(kept)
        return target

    def counts(self) -> dict[str, int]:
        """How many tokens were kept, merged and dropped; the three sum to `tokens`."""
        kept, merged, dropped = np.bincount(self.fate, minlength=3).tolist()
        return {"kept": kept, "merged": merged, "dropped": dropped}

    def apply(self, features: Tensor, extra: Tensor | None = None) -> Tensor:
        """Compress [tokens, dim], and [extra, dim] of area-less sources where it uses them, to [outputs, dim].

        Pruning is pure indexing, so it changes no bit.

        Raises:
            InvalidSelection: the number of features does not fit.
        """
        if len(features) != self.tokens or (len(extra) if extra is not None else 0) < self.extra:
            raise InvalidSelection(
                f"features must be {self.tokens} tokens and {self.extra} extra sources, got {len(features)}"
            )
        sources = (
            features if not self.extra or extra is None else torch.cat([features, extra[: self.extra].to(features)])
        )
        token = torch.from_numpy(self.weight_token).to(features.device)
        if self.is_pruning:
            return sources[token]
        output = torch.from_numpy(self.weight_output).to(features.device)
        value = torch.from_numpy(self.weight_value).to(features.device)
        # Sums in float32 at least: a cluster of a thousand float16 tokens would lose its small members.
        wide = torch.promote_types(features.dtype, torch.float32)
        merged = torch.zeros(len(self), features.shape[1], dtype=wide, device=features.device)
        merged.index_add_(0, output, sources[token].to(wide) * value.to(wide)[:, None])
        return merged.to(features.dtype)

    @cached_property
    def is_pruning(self) -> bool:
        """Whether each output is one source, unchanged."""
        return bool(
            len(self.weight_output) == len(self)
            and (self.weight_output == np.arange(len(self))).all()
            and (self.weight_value == 1).all()
        )

    def expand(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Spread results over outputs back to the tokens: [..., outputs] -> float64 [..., tokens], NaN where dropped.

        A token gets the value of its output; one that is in several outputs the mean, weighted by its weights there.
        """
        total = np.zeros((*values.shape[:-1], self.tokens))
        weight = np.zeros(self.tokens)
        real = self.weight_token < self.tokens
        token, output, share = self.weight_token[real], self.weight_output[real], np.abs(self.weight_value[real])
        shared = np.asarray(values, dtype=np.float64)[..., output] * share
        np.add.at(np.moveaxis(total, -1, 0), token, np.moveaxis(shared, -1, 0))
        np.add.at(weight, token, share)
        with np.errstate(invalid="ignore", divide="ignore"):
            expanded: NDArray[np.float64] = np.where(weight > 0, total / weight, np.nan)
        return expanded

    def distribute(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Share amounts over outputs out to the tokens: [..., outputs] -> float64 [..., tokens], NaN where dropped.

        An output's amount is divided among its tokens by their weights in it, so that what falls on the tokens sums to
        what
        fell on the outputs that have tokens: attention is neither lost nor counted twice. An output whose amount is NaN
        is not there; a token is NaN where none of its outputs is.
        """
        amounts_of = np.asarray(values, dtype=np.float64)
        size = np.abs(self.weight_value).astype(np.float64)
        sums = np.bincount(self.weight_output, weights=size, minlength=len(self))
        real = (self.weight_token < self.tokens) & (size > 0)
        token, output = self.weight_token[real], self.weight_output[real]
        share = size[real] / sums[output]
        amounts, present = np.zeros((2, *amounts_of.shape[:-1], self.tokens))
        heard = ~np.isnan(amounts_of)
        shared = np.where(heard, amounts_of, 0.0)[..., output] * share
        np.add.at(np.moveaxis(amounts, -1, 0), token, np.moveaxis(shared, -1, 0))
        np.add.at(np.moveaxis(present, -1, 0), token, np.moveaxis(heard[..., output], -1, 0))
        return np.where(present > 0, amounts, np.nan)

    def then(self, later: Selection) -> Selection:
        """The composition with a selection over this one's outputs; anchors point into the original grid.

        Scores are this selection's where it has any, else the later one's spread back. Of diagnostics of one name the
        later one's stands; notes are those of both.

        Raises:
            InvalidSelection: `later` does not start from this selection's outputs.
        """
        if later.tokens != len(self) or later.extra:
            raise InvalidSelection(f"a following selection must start from {len(self)} tokens, got {later.tokens}")
        order = np.argsort(self.weight_output, kind="stable")
        starts = np.searchsorted(self.weight_output[order], np.arange(len(self) + 1))
        entries = [order[starts[t] : starts[t + 1]] for t in later.weight_token]
        sizes = [len(entry) for entry in entries]
        chosen = np.concatenate(entries) if entries else np.empty(0, dtype=np.int64)
        output = np.repeat(later.weight_output, sizes)
        value = np.repeat(later.weight_value, sizes) * self.weight_value[chosen]
        span = self.tokens + self.extra
        keys, inverse = np.unique(output * span + self.weight_token[chosen], return_inverse=True)
        summed = np.bincount(inverse, weights=value, minlength=len(keys)).astype(np.float32)
        anchor = np.where(later.anchor >= 0, self.anchor[later.anchor], -1)
        scores = self.scores
        if scores is None and later.scores is not None:
            scores = self.expand(later.scores).astype(np.float32)
        notes = dict.fromkeys([*self.diagnostics.get("notes", []), *later.diagnostics.get("notes", [])])
        stream = self.stream[later.anchor] if self.stream is not None and (later.anchor >= 0).all() else None
        return Selection(
            tokens=self.tokens,
            anchor=anchor,
            weight_output=keys // span,
            weight_token=keys % span,
            weight_value=summed,
            scores=scores,
            stream=stream if later.stream is None else later.stream,
            extra=self.extra,
            router=later.router or self.router,
            diagnostics={**self.diagnostics, **later.diagnostics, **({"notes": list(notes)} if notes else {})},
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of the selection by name, for storage."""
        named: dict[str, NDArray[Any] | None] = {
            "anchor": self.anchor,
            "weight_output": self.weight_output,
            "weight_token": self.weight_token,
            "weight_value": self.weight_value,
            "scores": self.scores,
            "stream": self.stream,
        }
        return {name: array for name, array in named.items() if array is not None}

    def to_json(self) -> dict[str, Any]:
        """What is not an array."""
        return {
            "tokens": self.tokens,
            "extra": self.extra,
            "router": self.router.to_json() if self.router else None,
            "diagnostics": dict(self.diagnostics),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Selection:
        """The selection that `to_json` and `arrays` described."""
        return cls(
            tokens=value["tokens"],
            extra=value["extra"],
            router=RouterDecision.from_json(value["router"]) if value["router"] else None,
            diagnostics=value["diagnostics"],
            anchor=arrays["anchor"],
            weight_output=arrays["weight_output"],
            weight_token=arrays["weight_token"],
            weight_value=arrays["weight_value"],
            scores=arrays.get("scores"),
            stream=arrays.get("stream"),
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, hex."""
        content = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True, default=str).encode())
        for name, array in sorted(self.arrays().items()):
            content.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
            content.update(np.ascontiguousarray(array).tobytes())
        return content.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selection) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def _scores(scores: ArrayLike | None) -> NDArray[np.float32] | None:
    return None if scores is None else np.asarray(scores, dtype=np.float32)
