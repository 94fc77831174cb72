"""An 8,192 x 8,192 scene from file to answer and to tiles: peak memory and times, each beside the same for 256 pixels.

    python -m tests.benchmarks.large_image [--size 8192]

Each size runs in a process of its own, because the highest memory of a process never falls. Goal: the large image
takes at most 1.5 times the memory of the small one, because it is read in windows and never whole.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GOAL = 1.5


def work(path: Path) -> dict[str, float]:
    """Open, ask under three strategies, and draw the tiles of a pan and a zoom; seconds and peak bytes."""
    import torch

    from analysis import imagery
    from analysis.pipeline import Inquiry, compare, open_image
    from compression.backends import load_model
    from compression.strategies import CATALOGUE

    torch.set_num_threads(1)
    vlm = load_model("embedded", device="cpu")
    start = time.perf_counter()
    image = open_image(path)
    opened = time.perf_counter()
    plans = [CATALOGUE.plan(text) for text in ("identity", "dualcomp@0.25", "uniform_grid@0.25")]
    outcomes = list(compare(Inquiry(path, image, "Which land cover is the largest?"), plans, vlm))
    compared = time.perf_counter()
    info = imagery.describe(path)
    tiles, zoom = [], imagery.max_zoom(info)
    for z in range(zoom + 1):
        for at in range(min(2**z, 6)):
            begin = time.perf_counter()
            imagery.pixel_tile(path, z, at, at)
            tiles.append(time.perf_counter() - begin)
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return {
        "open_seconds": opened - start,
        "compare_seconds": compared - opened,
        "runs": sum(outcome.run is not None for outcome in outcomes),
        "tiles": len(tiles),
        "first_tile_seconds": tiles[0],
        "median_tile_seconds": sorted(tiles)[len(tiles) // 2],
        "peak_bytes": peak,
    }


def main() -> int:
    """Measure both sizes; 0 when the goal is met."""
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--size", type=int, default=8192)
    ask.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = ask.parse_args()
    if options.work:
        print(json.dumps(work(options.work)))
        return 0
    peaks = {}
    with tempfile.TemporaryDirectory() as folder:
        for size in (256, options.size):
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "dashboard.cli", "scenes", folder, "--count", "1", "--size", str(size)],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            made = time.perf_counter() - begin
            path = next(Path(folder).glob(f"scene-{size}-*.tif"))
            told = json.loads(
                subprocess.run(
                    [sys.executable, "-m", "tests.benchmarks.large_image", "--work", str(path)],
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            peaks[size] = told.pop("peak_bytes")
            print(
                f"{size:5} px: file {path.stat().st_size / 1e6:.1f} MB made in {made:.1f} s; peak "
                f"{peaks[size] / 2**20:.0f} MiB; " + ", ".join(f"{name} {value:.3g}" for name, value in told.items())
            )
    ratio = peaks[options.size] / peaks[256]
    print(f"peak memory {options.size} px / 256 px = {ratio:.2f}; goal {GOAL}: {'met' if ratio <= GOAL else 'missed'}")
    return 0 if ratio <= GOAL else 1


if __name__ == "__main__":
    raise SystemExit(main())
