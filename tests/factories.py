"""Realistic runs, comparisons and pictures for tests, drawn from a seed: no model and no image file is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.run import Answer, Cost, ImageRef, ModelRef, Recording, Request, Run
from analysis.spectrum import ATOMS, Interval, Method, Spectrum
from compression.backends.base import Seconds
from compression.grid import Box, TokenGrid, View
from compression.selection import Fate, RouterDecision, Selection
from storage.records import Comparison, Pane

COLOURS = ("red", "blue", "white", "green", "yellow")
MERGING = ("visionzip", "dualcomp", "geollava8k")
MODEL = ModelRef(
    name="embedded", family="llava", revision=hashlib.sha256(b"weights").hexdigest(), layers=6, parameters=6_200_000
)


def make_id(*parts: object) -> str:
    """128 bits as hex that depend on nothing but the parts."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def make_grid(
    tokens: tuple[int, int] = (16, 16), views: int = 1, image_size: tuple[int, int] = (256, 256)
) -> TokenGrid:
    """One view of (rows, cols) tokens over the image, or a square number of views that tile it with `tokens` each."""
    if views == 1:
        return TokenGrid.single(*tokens, image_size)
    side = round(views**0.5)
    if side * side != views:
        raise ValueError(f"views must be a square number, got {views}")
    height, width = image_size[0] / side, image_size[1] / side
    cells = [
        View(*tokens, (col * width, row * height, (col + 1) * width, (row + 1) * height), f"{col + 1}-{row + 1}")
        for row in range(side)
        for col in range(side)
    ]
    return TokenGrid(tuple(cells), image_size)


def make_image_ref(
    seed: int = 0, image_size: tuple[int, int] = (256, 256), georeferenced: bool = True, digest: str = ""
) -> ImageRef:
    """An image of (height, width) pixels of half a metre; with `digest` the one whose bytes are at hand."""
    left, top = 500_000.0 + 1_000 * seed, 5_400_000.0
    return ImageRef(
        digest=digest or hashlib.sha256(f"image {seed}".encode()).hexdigest(),
        name=f"scene-{seed:03}.tif",
        width=image_size[1],
        height=image_size[0],
        crs="EPSG:32632" if georeferenced else None,
        transform=(0.5, 0.0, left, 0.0, -0.5, top) if georeferenced else None,
        is_synthetic=True,
    )


def make_selection(seed: int, tokens: int, kept: int, strategy: str) -> Selection:
    """What a strategy of that name could have decided: identity keeps all, three merge, the others prune."""
    rng = np.random.default_rng(seed)
    scores = rng.gamma(2.0, 1.0, tokens).astype(np.float32)
    anchors = np.sort(np.argsort(scores)[::-1][:kept]).astype(np.int64)
    if strategy == "identity" or kept >= tokens:
        return Selection.prune(tokens, np.arange(tokens))
    if strategy not in MERGING:
        return Selection.prune(tokens, anchors, scores=scores, diagnostics={"drawn from": "scores", "kept": kept})
    rest = np.setdiff1d(np.arange(tokens), anchors)
    followers = rng.choice(rest, size=len(rest) // 2, replace=False)
    owner = rng.integers(0, kept, len(followers))
    weights = []
    for output, anchor in enumerate(anchors):
        members = np.concatenate([[anchor], followers[owner == output]])
        weights.append((members, np.full(len(members), 1 / len(members), dtype=np.float32)))
    router = stream = None
    if strategy == "dualcomp":
        stream = np.where(np.arange(kept) < kept // 2, 0, 1).astype(np.int8)
        geometric = float((stream == 1).mean())
        router = RouterDecision(
            lam=geometric,
            rho=kept / tokens,
            shares={"semantic": 1 - geometric, "geometric": geometric},
            margins={"lambda": 0.3},
            thresholds={"tau": 0.75 + 0.2 * geometric},
            reason="how many",
        )
    return Selection.merge(
        tokens, anchors, weights, scores=scores, stream=stream, router=router, diagnostics={"clusters": kept}
    )


def make_recording(seed: int, selection: Selection, layers: int) -> Recording:
    """Attention that sums to its mass in every layer; NaN where a token was dropped."""
    rng = np.random.default_rng((seed, 1))
    mass = rng.uniform(0.2, 0.6, layers).astype(np.float32)

    def rows() -> NDArray[np.float16]:
        drawn = rng.gamma(0.5, 1.0, (layers, selection.tokens))
        drawn[:, selection.fate == Fate.DROPPED] = np.nan
        shared: NDArray[np.float16] = (drawn / np.nansum(drawn, axis=1, keepdims=True) * mass[:, None]).astype(
            np.float16
        )
        return shared

    return Recording(answer=rows(), question=rows(), answer_mass=mass, question_mass=mass * np.float32(0.8))


def make_seconds(rng: np.random.Generator, scale: float) -> Seconds:
    """Three repeats around `scale` seconds."""
    return Seconds.of(rng.uniform(0.8 * scale, 1.2 * scale, 3).tolist())


def make_run(
    seed: int = 0,
    tokens: tuple[int, int] = (16, 16),
    strategy: str = "divprune@0.25",
    *,
    views: int = 1,
    image: ImageRef | None = None,
    image_size: tuple[int, int] = (256, 256),
    question: str = "what colour is the largest building?",
    choices: Sequence[str] = COLOURS,
    expected: str | None = "red",
    correct: bool = True,
    evidence: Sequence[Box] = ((96.0, 80.0, 160.0, 144.0),),
    family: str = "object-semantic",
    task: str = "colour",
    model: ModelRef = MODEL,
    comparison: str = "",
    created_utc: str = "",
    labels: Sequence[str] = (),
    notices: Sequence[str] = (),
) -> Run:
    """One complete run.

    Args:
        seed: Everything that is drawn depends on it and on the strategy.
        tokens: (rows, cols) of each view.
        strategy: Canonical text with a ratio or a count, such as "dualcomp@0.25".
        views: 1, or a square number of views that tile the image.
        image_size: (height, width); ignored where `image` is given.
        correct: Whether the answer is the expected one.
    """
    budget = strategy.rpartition("@")[2] if "@" in strategy else ""
    name = strategy.partition("@")[0].partition(":")[0]
    image = image or make_image_ref(seed, image_size)
    grid = make_grid(tokens, views, (image.height, image.width))
    total = len(grid)
    asked = max(1, round(float(budget) * total)) if "." in budget else int(budget or total)
    rng = np.random.default_rng([seed, *name.encode()])
    selection = make_selection(int(rng.integers(1 << 31)), total, asked, name)
    cut = 2 if name == "fastv" else 0
    per_layer = tuple(total if layer < cut else len(selection) for layer in range(model.layers))
    realised = sum(per_layer) / len(per_layer)
    right = choices.index(expected) if expected in choices else 0
    said = right if correct else (right + 1) % len(choices)
    beliefs = rng.dirichlet(np.ones(len(choices)))
    beliefs[[said, int(beliefs.argmax())]] = beliefs[[int(beliefs.argmax()), said]]
    covered = grid.overlapping(np.asarray(evidence)) if evidence else np.zeros(total, dtype=bool)
    recall = float((selection.fate[covered] != Fate.DROPPED).mean()) if covered.any() else None
    return Run(
        id=make_id("run", seed, strategy, tokens, views, image.digest, question, comparison),
        created_utc=created_utc or f"2026-01-{1 + seed % 28:02}T{seed // 28 % 24:02}:00:00Z",
        request=Request(
            image=image,
            question=question,
            choices=tuple(choices),
            model=model,
            strategy=strategy,
            strategy_version=1,
            seed=seed,
            dtype="float32",
            record=("attention", "router", "scores"),
        ),
        grid=grid,
        selection=selection,
        answer=Answer(
            text=choices[said],
            choices=tuple(choices),
            probabilities=tuple(beliefs.tolist()),
            choice_mass=float(rng.uniform(0.9, 1.0)),
            expected=expected,
        ),
        recording=make_recording(seed, selection, model.layers),
        cost=Cost(
            encode=make_seconds(rng, 0.05),
            compress=None if name == "identity" else make_seconds(rng, 0.004),
            prefill=make_seconds(rng, 0.1 * realised / total),
            decode=None,
            prefill_flops=int(2e6 * sum(per_layer)),
            encode_flops=int(4e6 * total),
            kv_cache_bytes=2 * 4 * 128 * sum(per_layer),
            peak_memory_bytes=512 * 1024 * 1024,
            device="cpu",
            dtype="float32",
            threads=1,
            warmup=1,
        ),
        tokens_requested=asked,
        tokens_realised=realised,
        tokens_per_layer=per_layer,
        evidence=tuple(evidence),
        evidence_recall=recall,
        family=family,
        task=task,
        labels=tuple(labels) or (("training-free reconstruction",) if name in ("dualcomp", "geollava8k") else ()),
        notices=tuple(notices),
        environment={"keepmap": "0.1.0", "commit": "0" * 40, "python": "3.11.7", "device": "cpu"},
        comparison=comparison,
    )


def make_comparison(
    seed: int = 0,
    strategies: Sequence[str] = ("identity@1.0", "dualcomp@0.25", "fastv@0.5"),
    *,
    image: ImageRef | None = None,
    tokens: tuple[int, int] = (16, 16),
    views: int = 1,
    question: str = "what colour is the largest building?",
) -> tuple[Comparison, list[Run]]:
    """A finished comparison and its runs, one per strategy; the caller stores the runs first."""
    image = image or make_image_ref(seed)
    identity = make_id("comparison", seed, tuple(strategies), tokens, views, image.digest, question)
    runs = [
        make_run(
            seed,
            tokens,
            strategy,
            views=views,
            image=image,
            question=question,
            comparison=identity,
            correct=position != len(strategies) - 1,
        )
        for position, strategy in enumerate(strategies)
    ]
    first = runs[0]
    comparison = Comparison(
        id=identity,
        created_utc=first.created_utc,
        image=image,
        question=question,
        choices=first.request.choices,
        expected=first.answer.expected,
        evidence=first.evidence,
        family=first.family,
        task=first.task,
        model=first.request.model.name,
        panes=tuple(Pane(strategy=run.request.strategy, run=run.id, state="done") for run in runs),
    )
    return comparison, runs


def make_image_file(folder: Path, seed: int = 0, size: tuple[int, int] = (256, 256)) -> Path:
    """A small PNG of (height, width) with fields and buildings, written to `folder`."""
    rng = np.random.default_rng(seed)
    height, width = size
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:] = (108, 132, 84)
    pixels[:, : width // 3] = (150, 138, 96)
    for _ in range(12):
        top, left = int(rng.integers(0, height - 24)), int(rng.integers(0, width - 24))
        pixels[top : top + 20, left : left + 16] = rng.integers(90, 240, 3)
    path = folder / f"scene-{seed:03}.png"
    Image.fromarray(pixels).save(path)
    return path


def make_spectrum(seed: int = 0) -> Spectrum:
    """A decomposition of `dualcomp@0.25`, different for every seed."""
    draw = np.random.default_rng(seed)
    values = dict(zip(ATOMS, draw.dirichlet(np.ones(4)).tolist(), strict=True))
    return Spectrum(
        id=f"{seed:032x}",
        created_utc="2026-01-02T03:04:05Z",
        request=hashlib.sha256(f"spectrum {seed}".encode()).hexdigest(),
        model=ModelRef("embedded", "embedded", "a" * 64, 6, 2_000_000),
        strategy="dualcomp@0.25",
        budget=0.25,
        family="scene-geometric",
        task="quarter",
        choices=("northwest", "northeast", "southwest", "southeast"),
        layer=None,
        checkpoint=None,
        samples=64,
        n=512,
        method=Method("broja", "posterior clouds", "shuffled", "frozen", 0.3, 8, 0, 0, "bca", 0.95, 1000),
        atoms={name: Interval(value, value - 0.05, value + 0.05) for name, value in values.items()},
        total=Interval(1.0, 0.9, 1.1),
        lower=0.7,
        upper=0.7000001,
        gated={"full": 0.0, "vision": 0.25, "language": 0.125},
        incoherence=0.0,
        coherence={},
        retention=0.25,
        accuracy=0.75,
        accuracy_blind=0.25,
        choice_mass=0.99,
        reference="f" * 32,
        differences={name: Interval(value - 0.5, value - 0.6, value - 0.4) for name, value in values.items()},
        labels=("reconstruction: router by rule",),
        notices=("The model put little on the choices.",),
        environment={"keepmap": "0.1.0"},
    )
