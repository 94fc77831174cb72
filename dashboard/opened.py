"""A run as the maps need it: decided once when it is opened, kept in memory for a while, shared by all requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.imagery.cache import ByteCache
from analysis.run import ImageRef, Run
from compression.grid import TokenGrid
from compression.selection import Fate, Selection, Stream
from compression.sight import Turn
from dashboard.rasters import Level, finest, levels_of
from storage import Store

STRONG_SHARE = 0.05
"""Attention from which on a token's value stands on the map in words."""

LARGE_TOKENS = 10_000
"""Runs with more tokens are painted on the server, as tiles."""

CATEGORIES = 6
_SHELF_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class Attention:
    """Recorded attention of one kind.

    Args:
        rows: float16 [layers, tokens], NaN where a token was not there.
        mass: float32 [layers], the share that falls on the image.
        top: float32 [layers], the largest value of each layer.
    """

    rows: NDArray[np.float16]
    mass: NDArray[np.float32]
    top: NDArray[np.float32]

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.rows)

    def strong(self, layer: int) -> NDArray[np.int64]:
        """The tokens with at least `STRONG_SHARE`, the strongest first: at most twenty, as a row sums to one."""
        row = np.nan_to_num(self.rows[layer].astype(np.float32), nan=0.0)
        found = np.flatnonzero(row >= STRONG_SHARE)
        order: NDArray[np.int64] = found[np.argsort(-row[found], kind="stable")]
        return order[: int(1 / STRONG_SHARE)]


@dataclass(frozen=True, eq=False)
class Opened:
    """What the layers of one run are painted from; every array is flat over the grid.

    Args:
        run: Its id.
        strategy: Canonical text.
        level: The level that is shown unless another is asked for: the one with the most tokens.
        fate: uint8 [tokens] of `Fate`.
        target: int32 [tokens], the token that took it, itself if kept, -1 for none.
        category: uint8 [tokens], 0 for a token that shares its outline with no other, else 1 to 6: the colour of its
            cluster, the largest cluster first.
        scores: float32 [tokens] or None.
        semantic: int32 [tokens], the anchor of the semantic output that holds it, -1 for none; None without streams.
        path: int32, the tokens of the geometric stream in reading order; None without streams.
        anchors: int32, those of them that the path was drawn between.
        attention: By "answer" and "question", as far as recorded.
        outputs: Tokens left after the last reduction.
        total: Tokens of the image before any strategy; the grid has others where the strategy encoded it itself.
        requested: Budget in tokens, None where the router chose.
        turns: Where a zoom looked.
    """

    run: str
    strategy: str
    image: ImageRef
    grid: TokenGrid
    levels: tuple[Level, ...]
    level: int
    fate: NDArray[np.uint8]
    target: NDArray[np.int32]
    category: NDArray[np.uint8]
    scores: NDArray[np.float32] | None
    semantic: NDArray[np.int32] | None
    path: NDArray[np.int32] | None
    anchors: NDArray[np.int32]
    attention: Mapping[str, Attention]
    outputs: int
    total: int
    requested: int | None
    turns: tuple[Turn, ...] = ()

    def __len__(self) -> int:
        return len(self.fate)

    @property
    def is_large(self) -> bool:
        """Whether its layers come as tiles."""
        return len(self) > LARGE_TOKENS

    @property
    def groups(self) -> NDArray[np.int32]:
        """The group that each token shares an outline with, int32 [tokens]: its target, or -1 where it is alone."""
        return np.where(self.category > 0, self.target, -1).astype(np.int32)

    @property
    def score_range(self) -> tuple[float, float] | None:
        """Lowest and highest finite score, None where there is none."""
        if self.scores is None:
            return None
        finite = self.scores[np.isfinite(self.scores)]
        return (float(finite.min()), float(finite.max())) if len(finite) else None

    @property
    def nbytes(self) -> int:
        """Bytes held in memory, as far as they grow with the tokens."""
        arrays: list[NDArray[Any] | None] = [
            self.fate,
            self.target,
            self.category,
            self.scores,
            self.semantic,
            self.path,
        ]
        arrays += [raster.index for level in self.levels for raster in level.rasters]
        arrays += [kind.rows for kind in self.attention.values()]
        return sum(array.nbytes for array in arrays if array is not None) + 512 * len(self.grid.views)

    @classmethod
    def of(cls, run: Run) -> Opened:
        """What the maps need of a run."""
        selection = run.selection
        target = selection.target.astype(np.int32)
        levels = levels_of(run.grid)
        stream = selection.stream
        path = None if stream is None else _path(selection, stream)
        return cls(
            run=run.id,
            strategy=run.request.strategy,
            image=run.request.image,
            grid=run.grid,
            levels=levels,
            level=finest(levels),
            fate=selection.fate,
            target=target,
            category=categories(target),
            scores=selection.scores,
            semantic=None if stream is None else _semantic(selection, stream),
            path=path,
            anchors=_anchors(selection, path),
            attention=_attention(run),
            outputs=len(selection),
            total=run.tokens_total,
            requested=run.tokens_requested,
            turns=run.turns,
        )


class Shelf:
    """The runs opened last, up to a number of bytes; safe to use from several threads."""

    def __init__(self, store: Store, max_bytes: int = _SHELF_BYTES) -> None:
        self._store = store
        self._runs: ByteCache[Opened] = ByteCache(max_bytes)

    def open(self, run_id: str) -> Opened:
        """The run of that id. Who may see it is the caller's question, and whether it still exists, too.

        Raises:
            RunNotFound: there is none.
        """
        return self._runs.get(run_id, lambda: Opened.of(self._store.get(run_id)))


def categories(target: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The colour of each token's cluster, uint8 [tokens]: 0 where it is alone, else 1 to 6 by falling size, then again.

    >>> categories(np.array([0, 0, 2, 3, 3, 3], dtype=np.int32)).tolist()
    [2, 2, 0, 1, 1, 1]
    """
    sizes = np.bincount(target[target >= 0], minlength=len(target))
    shared = np.flatnonzero(sizes > 1)
    order = shared[np.argsort(-sizes[shared], kind="stable")]
    colour = np.zeros(len(target) + 1, dtype=np.uint8)  # one more, for the target -1
    colour[order] = np.arange(len(order)) % CATEGORIES + 1
    return colour[target]


def _semantic(selection: Selection, stream: NDArray[np.int8]) -> NDArray[np.int32]:
    held = np.full(selection.tokens, -1, dtype=np.int32)
    output, token, value = selection.weight_output, selection.weight_token, selection.weight_value
    chosen = (stream[output] == Stream.SEMANTIC) & (token < selection.tokens) & (value > 0)
    chosen &= selection.anchor[output] >= 0
    order = np.argsort(value[chosen], kind="stable")  # the heaviest is written last
    held[token[chosen][order]] = selection.anchor[output[chosen][order]]
    return held


def _path(selection: Selection, stream: NDArray[np.int8]) -> NDArray[np.int32]:
    anchors = selection.anchor[stream == Stream.GEOMETRIC]
    return anchors[anchors >= 0].astype(np.int32)


def _anchors(selection: Selection, path: NDArray[np.int32] | None) -> NDArray[np.int32]:
    """The anchors that the strategy noted, in their order, as far as they lie on the path."""
    noted = selection.diagnostics.get("anchors", ())
    if path is None or not isinstance(noted, Sequence) or isinstance(noted, str):
        return np.empty(0, dtype=np.int32)
    on_path = set(path.tolist())
    return np.array([token for token in noted if isinstance(token, int) and token in on_path], dtype=np.int32)


def _attention(run: Run) -> dict[str, Attention]:
    recording = run.recording
    found = {}
    for name, rows, mass in (
        ("answer", recording.answer, recording.answer_mass),
        ("question", recording.question, recording.question_mass),
    ):
        if rows is None or rows.size == 0:
            continue
        values = np.nan_to_num(rows.astype(np.float32), nan=0.0)
        shares = values.sum(axis=1) if mass is None else mass
        found[name] = Attention(rows, shares.astype(np.float32), values.max(axis=1))
    return found


def tops_of_change(run: Opened, first: Opened, of: str) -> list[float]:
    """The largest difference of attention against the first pane in each layer; absent counts as zero."""
    own, other = run.attention.get(of), first.attention.get(of)
    if own is None or other is None or own.rows.shape != other.rows.shape:
        return []
    tops = []
    for mine, theirs in zip(own.rows, other.rows, strict=True):
        change = np.nan_to_num(mine.astype(np.float32), nan=0.0) - np.nan_to_num(theirs.astype(np.float32), nan=0.0)
        tops.append(float(np.abs(change).max()))
    return tops


def counts(run: Opened) -> dict[str, int]:
    """How many tokens were kept, merged and dropped."""
    kept, merged, dropped = np.bincount(run.fate, minlength=len(Fate)).tolist()
    return {"kept": kept, "merged": merged, "dropped": dropped}
