"""How long an exact decomposition takes, as a ratio to the same optimum by a general conic solver in the same run.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.pid [--rounds 5] [--large]

Goals: at least 3 times faster than the exponential-cone program (Clarabel) from 10 x 10 x 5 on, 15 times from
20 x 20 x 10; 1,000 bootstrap replicates of a 4 x 4 x 4 table within 2 s; 2,048 samples of posteriors with 4 options
within 1 s; all on one core. The two solvers take turns on the same random tables, so that a busy machine slows both,
and the median of the pairs' ratios counts. CPU seconds. The conic time is the solver's alone: building its program is
not counted, while ours is the whole of `pid.decompose`. `--large` adds sizes at which the conic solver takes minutes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import pid
from tests.pid.conic import solved
from tests.pid.samples import loose_answers
from tests.pid.tables import Array, random_table

GOALS = {(10, 10, 5): 3.0, (20, 20, 10): 15.0}
SIZES = ((2, 2, 2), (3, 3, 3), (4, 4, 4), (8, 8, 4), (10, 10, 5), (15, 15, 8), (20, 20, 10))
LARGE = ((32, 32, 4), (64, 64, 4))


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def compare(size: tuple[int, int, int], rounds: int) -> tuple[float, float, float, float]:
    """Median milliseconds of ours, of the conic solver, and of their ratio; the widest enclosure in bits."""
    rng = np.random.default_rng(1)
    ours, conic, ratios, width = [], [], [], 0.0
    for _ in range(rounds):
        table = random_table(rng, size)
        # Short calls are repeated, since one is near the resolution of the clock.
        repeats = max(1, 200 // int(np.prod(size)))
        ours.append(seconds(lambda p=table, n=repeats: [pid.decompose(p) for _ in range(n)]) / repeats)
        conic.append(solved(table)[1])
        ratios.append(conic[-1] / ours[-1])
        width = max(width, pid.decompose(table).width)
    return 1e3 * statistics.median(ours), 1e3 * statistics.median(conic), statistics.median(ratios), width


def batched(size: tuple[int, int, int], count: int = 512) -> float:
    """Milliseconds per table when many are solved together."""
    rng = np.random.default_rng(2)
    tables: list[Array] = [random_table(rng, size) for _ in range(count)]
    return 1e3 * seconds(lambda: pid.decompose_many(tables)) / count


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="tables per size")
    parser.add_argument("--large", action="store_true", help="also sizes at which the conic solver takes minutes")
    chosen = parser.parse_args()
    pid.decompose(np.full((2, 2, 2), 0.125))
    print("| table | ours, ms | batched, ms | conic, ms | ratio | goal | widest enclosure, bits |")
    print("|---|---|---|---|---|---|---|")
    for size in SIZES + (LARGE if chosen.large else ()):
        ours, conic, ratio, width = compare(size, chosen.rounds)
        together = f"{batched(size):.2f}" if np.prod(size) <= 256 else "–"
        goal = max((least for start, least in GOALS.items() if np.prod(size) >= np.prod(start)), default=None)
        said = "–" if goal is None else f"≥ {goal:g} {'met' if ratio >= goal else 'missed'}"
        shape = "×".join(map(str, size))
        print(f"| {shape} | {ours:.2f} | {together} | {conic:.2f} | {ratio:.1f} | {said} | {width:.1e} |")

    counts = np.random.default_rng(3).multinomial(1000, random_table(np.random.default_rng(4), (4, 4, 4)).ravel())
    rows = loose_answers(2048)
    print("\n| task | seconds | goal |")
    print("|---|---|---|")
    tasks: list[tuple[str, float, Callable[[], object]]] = [
        ("1,000 bootstrap replicates of a 4×4×4 table", 2.0, lambda: pid.table_intervals(counts.reshape(4, 4, 4))),
        ("2,048 samples of posteriors with 4 options", 1.0, lambda: pid.clouds(*rows)),
    ]
    for name, goal, work in tasks:
        taken = statistics.median(seconds(work) for _ in range(3))
        print(f"| {name} | {taken:.2f} | ≤ {goal:g} {'met' if taken <= goal else 'missed'} |")
    print(f"| the same with 1,000 replicates | {seconds(lambda: pid.clouds(*rows, replicates=1000)):.2f} | – |")


if __name__ == "__main__":
    main()
