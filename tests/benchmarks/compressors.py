"""Time and peak memory of every strategy before the language model, as images grow to 65,536 visual tokens.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.compressors [--quick] [--only divprune,vispruner] [--part views]

Three tables, of random features of 1,024 numbers with random signals, a tenth of the tokens kept:

- `views`: 576 and 4,096 tokens in one view, 16,384 and 65,536 in 64 and 256 views of 256, as tiled models give them.
  Goal: from 16,384 to 65,536 tokens the time grows at most 6 times; DivPrune, which chooses over all views at once,
  has none, and is not run where it would take minutes.
- `one`: 16,384 tokens in a single view, 256 kept, beside 4,096 in a single view. Goals: no N x N matrix is built, read
  off the peak, which stays below half of such a matrix; greedy methods, which do N * kept comparisons, grow at most 6
  times. DivPrune, VisPruner and FlashVLM compare all tokens with all by their own rule, in blocks of rows: no goal in
  time.
- `dense`: the method as its equation stands, on the same tokens: the whole N x N matrix, and in each step the minimum
  over all that are chosen. Both must keep the same.

CPU seconds on one thread, the least of the repeats; memory is the peak of the process above what it held before (Linux
with glibc).
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.cost import measured_peak
from compression.compressor import Compressor, Context, Stage
from compression.grid import TokenGrid, View
from compression.selection import Selection
from compression.strategies import CATALOGUE
from compression.tokens import SIGNALS, Signal, VisualTokens, unit_rows

Result = TypeVar("Result")

DIM = 1024
GROWTH = 6.0
KEPT = 0.1
AXES = {"heads": 16, "head dim": 64, "encoder dim": DIM, "dim": DIM, "words": 12}
SHARES = frozenset({"heads, N", "N"})
"""Axes of the signals that are attention or a similarity: positive, and a sum of one over each view."""
GREEDY = ("segpruner", "cdpruner", "apet")
WHOLE_IMAGE = ("divprune",)
"""Greedy over all views at once: with a tenth kept, four times the tokens are sixteen times the comparisons."""
LIMIT = 150.0
"""CPU seconds that one call may be expected to take, growing with the square of the tokens; else it is not run."""
QUICK = {"views": ((1, 16), (1, 24), (4, 16), (16, 16)), "one": (576, 1024), "dense": (256,)}
FULL = {"views": ((1, 24), (1, 64), (64, 16), (256, 16)), "one": (4096, 16384), "dense": (576, 4096)}


@dataclass(frozen=True)
class Cost:
    """What one call took: CPU seconds, and bytes above what the process held before."""

    seconds: float
    peak_bytes: int

    def __str__(self) -> str:
        return f"{1e3 * self.seconds:,.0f} ms, {self.peak_bytes / 2**20:,.0f} MiB"


def tokens_for(views: int, side: int, needs: frozenset[Signal]) -> VisualTokens:
    """Random tokens of square views in a row, with the signals that are needed."""
    boxes = [(float(side * at), 0.0, float(side * (at + 1)), float(side)) for at in range(views)]
    grid = TokenGrid(tuple(View(side, side, box) for box in boxes), (side, side * views))
    draw = torch.Generator().manual_seed(0)
    sizes = {**AXES, "N": len(grid), "V": views}
    signals = {}
    for signal in sorted(needs - {Signal.FEATURES}):
        axes = SIGNALS[signal].shape.strip("[]")
        values = torch.randn([sizes[axis] for axis in axes.split(", ")], generator=draw)
        if axes in SHARES:
            values = torch.cat([part.softmax(dim=-1) for part in values.split(side * side, dim=-1)], dim=-1)
        signals[signal] = values
    return VisualTokens.whole(torch.randn(len(grid), DIM, generator=draw), grid, signals)


def measured(work: Callable[[], Result], repeats: int) -> tuple[Cost, Result]:
    """The least CPU time of some calls, the highest peak, and what they give; long work is not repeated."""
    spent: list[float] = []
    peaks = []
    while len(spent) < repeats and sum(spent) < 6.0:
        ctypes.CDLL(None).malloc_trim(0)  # else memory that is free but still held would hide what the call takes
        held = resident()
        with measured_peak("cpu") as peak:
            start = time.process_time()
            result = work()
            spent.append(time.process_time() - start)
        peaks.append((peak.value or held) - held)
    return Cost(min(spent), max(peaks)), result


def resident() -> int:
    """Bytes that this process holds now."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def compressed(strategy: Compressor, tokens: VisualTokens, count: int) -> Selection:
    """What the strategy decides; `identity` knows no other budget than all."""
    return strategy.compress(tokens, len(tokens) if strategy.info.reduces == "nothing" else count, Context())


def dense_divprune(tokens: VisualTokens, count: int) -> NDArray[np.int64]:
    """Max-min diversity from the whole matrix of distances."""
    unit = unit_rows(tokens.signals[Signal.PROJECTED])
    distance = 1 - unit @ unit.T
    others = distance.clone().fill_diagonal_(torch.inf)
    chosen = [int(others.amin(dim=1).argmax())]
    while len(chosen) < count:
        nearest = distance[:, chosen].amin(dim=1)
        nearest[chosen] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return np.sort(chosen)


def dense_cdpruner(tokens: VisualTokens, count: int) -> NDArray[np.int64]:
    """Greedy MAP of the determinant from the whole kernel, its rows orthogonalised one by one."""
    unit = unit_rows(tokens.signals[Signal.PROJECTED])
    words = unit_rows(tokens.signals[Signal.TEXT])
    quality = (unit @ words.T).mean(dim=1)
    quality = (quality - quality.min() + 1e-6) / (quality.max() - quality.min())
    kernel = quality[:, None] * (unit @ unit.T) * quality[None]
    gain, rows = kernel.diagonal().clone(), torch.zeros(count, len(unit))
    chosen: list[int] = []
    for step in range(count):
        pick = int(gain.argmax())
        rows[step] = (kernel[pick] - rows[:step, pick] @ rows[:step]) / gain[pick].sqrt()
        gain = gain - rows[step] ** 2
        gain[pick] = -torch.inf
        chosen.append(pick)
    return np.sort(chosen)


def dense_segpruner(tokens: VisualTokens, count: int) -> NDArray[np.int64]:
    """Farthest points from the whole matrices of distances in place and in content."""
    boxes = torch.from_numpy(tokens.grid.boxes())
    places = (boxes[:, :2] + boxes[:, 2:]) / 2
    first = int(tokens.signals[Signal.RECEIVED_ATTENTION].argmax())
    apart = torch.cdist(places, places)
    unit = unit_rows(tokens.features)
    distance = 0.5 * apart / apart[first].max() + 0.5 * (1 - unit @ unit.T)
    chosen = [first]
    while len(chosen) < count:
        nearest = distance[:, chosen].amin(dim=1)
        nearest[chosen] = -torch.inf
        chosen.append(int(nearest.argmax()))
    return np.sort(chosen)


def dense_vispruner(tokens: VisualTokens, count: int) -> NDArray[np.int64]:
    """Rounds that each compare all even with all odd places, as released."""
    attention = tokens.signals[Signal.CLS_ATTENTION].mean(dim=0)
    unit = unit_rows(tokens.features)
    order = attention.argsort(descending=True, stable=True)
    first = int(count * 0.5)
    left = order[first:]
    while (over := len(left) - (count - first)) > 0:
        even, odd = left[::2], left[1::2]
        alike = (unit[even] @ unit[odd].T).amax(dim=1)
        left = torch.cat([even[alike.argsort(descending=True, stable=True)[min(8, over) :]], odd])
    return np.sort(torch.cat([order[:first], left]).numpy())


def dense_prumerge(tokens: VisualTokens, count: int) -> NDArray[np.int64]:
    """The most attended tokens, and the neighbours of every token from the whole matrix of their keys."""
    unit = unit_rows(tokens.signals[Signal.LAST_KEYS])
    (unit @ unit.T).fill_diagonal_(-torch.inf).topk(32, dim=1)
    return np.sort(tokens.signals[Signal.LAST_CLS_ATTENTION].argsort(descending=True, stable=True)[: count - 1].numpy())


DENSE: dict[str, Callable[[VisualTokens, int], NDArray[np.int64]]] = {
    "divprune": dense_divprune,
    "cdpruner": dense_cdpruner,
    "segpruner": dense_segpruner,
    "vispruner": dense_vispruner,
    "prumerge": dense_prumerge,
}


def goal(value: float, most: float) -> str:
    """A goal and whether it is met."""
    return f"≤ {most:g} {'met' if value <= most else 'missed'}"


def by_views(strategies: Sequence[Compressor], shapes: Sequence[tuple[int, int]]) -> None:
    """Print the table of growing images."""
    header = [f"{views * side * side:,} tokens" + (f" in {views} views" if views > 1 else "") for views, side in shapes]
    print(f"\n| strategy | {' | '.join(header)} | growth | goal |\n|{'---|' * (len(header) + 3)}")
    for strategy in strategies:
        costs: list[Cost] = []
        for views, side in shapes:
            growing = (
                (views * side**2 / (shapes[len(costs) - 1][0] * shapes[len(costs) - 1][1] ** 2)) ** 2 if costs else 0
            )
            if costs and costs[-1].seconds * growing > LIMIT:
                break
            tokens = tokens_for(views, side, strategy.info.needs)
            count = round(KEPT * len(tokens))
            costs.append(measured(lambda s=strategy, t=tokens, k=count: compressed(s, t, k), 3)[0])
        cells = [*map(str, costs), *["not run"] * (len(shapes) - len(costs))]
        growth = costs[-1].seconds / costs[-2].seconds if len(costs) == len(shapes) else None
        said = "–" if strategy.info.name in WHOLE_IMAGE or growth is None else goal(growth, GROWTH)
        grown = "–" if growth is None else f"{growth:.1f}"
        print(f"| `{strategy.info.name}` | {' | '.join(cells)} | {grown} | {said} |", flush=True)


def in_one_view(strategies: Sequence[Compressor], sizes: Sequence[int], kept: int) -> None:
    """Print the table of large single views."""
    matrix = 4 * sizes[-1] ** 2
    header = " | ".join(f"{size:,} tokens" for size in sizes)
    print(f"\n| {kept} kept of one view | {header} | growth | goal | peak / N×N | goal |\n|{'---|' * (len(sizes) + 5)}")
    for strategy in strategies:
        costs = []
        for size in sizes:
            tokens = tokens_for(1, round(size**0.5), strategy.info.needs)
            costs.append(measured(lambda s=strategy, t=tokens: compressed(s, t, kept), 1)[0])
        growth, share = costs[-1].seconds / costs[0].seconds, costs[-1].peak_bytes / matrix
        timed = goal(growth, GROWTH) if strategy.info.name in GREEDY else "–"
        small = goal(share, 0.5)
        cells = " | ".join(map(str, costs))
        print(f"| `{strategy.info.name}` | {cells} | {growth:.1f} | {timed} | {share:.2f} | {small} |", flush=True)


def against_dense(strategies: Sequence[Compressor], sizes: Sequence[int]) -> None:
    """Print the table beside the straightforward versions."""
    print("\n| strategy | tokens in one view | ours | dense | faster | same tokens kept |\n|---|---|---|---|---|---|")
    for strategy in strategies:
        if (dense := DENSE.get(strategy.info.name)) is None:
            continue
        for size in sizes:
            tokens = tokens_for(1, round(size**0.5), strategy.info.needs)
            count = round(KEPT * size)
            ours, selection = measured(lambda s=strategy, t=tokens, k=count: compressed(s, t, k), 3)
            theirs, wanted = measured(lambda d=dense, t=tokens, k=count: d(t, k), 3)
            same = f"{len(np.intersect1d(selection.anchor, wanted)) / len(wanted):.1%}"
            ratio = theirs.seconds / ours.seconds
            print(f"| `{strategy.info.name}` | {size:,} | {ours} | {theirs} | {ratio:.1f} | {same} |", flush=True)


@torch.inference_mode()
def main() -> None:
    """Print the tables."""
    ask = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    ask.add_argument("--quick", action="store_true", help="small sizes, in seconds; the goals say little then")
    ask.add_argument("--only", default="", help="names of strategies, by commas")
    ask.add_argument("--part", choices=("views", "one", "dense"), help="one of the tables")
    chosen = ask.parse_args()
    torch.set_num_threads(1)
    names = chosen.only.split(",") if chosen.only else CATALOGUE.names()
    strategies = [built for built in (CATALOGUE.build(name) for name in names) if built.info.stage is Stage.ENCODER]
    sizes = QUICK if chosen.quick else FULL
    for strategy in strategies:  # what is done once per process: threads, libraries
        compressed(strategy, tokens_for(1, 4, strategy.info.needs), 2)
    if chosen.part in (None, "views"):
        by_views(strategies, sizes["views"])
    if chosen.part in (None, "one"):
        in_one_view(strategies, sizes["one"], 64 if chosen.quick else 256)
    if chosen.part in (None, "dense"):
        against_dense(strategies, sizes["dense"])


if __name__ == "__main__":
    main()
