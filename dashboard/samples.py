"""The scenes that the page offers: from the embedded model's own generator, with questions whose answers are known."""

from __future__ import annotations

import json
import logging
import re
import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.imagery import encode_png, write_geotiff
from analysis.pipeline import SYNTHETIC_TAG
from analysis.spectrum import Spectrum
from compression.backends.embedded.questions import FAMILIES, REGIME_TASKS, TASKS, Question, ask
from compression.backends.embedded.scenes import VIEW, Scene, make_scene
from storage import StorageError, Store
from storage.bundle import DOCUMENT, import_comparison

log = logging.getLogger(__name__)

SCENES = ((2008, 1024), (2011, 1024), (2003, 1024), (2020, 1024), (1014, 256), (1011, 256), (1025, 256), (1029, 256))
"""Seeds and sides in pixels, chosen by eye for variety: river, lake, coast, town; each has a name of its own."""

BUNDLES = Path(__file__).parent / "assets" / "bundles"
"""Finished comparisons that come with Keepmap, one folder each, as `storage.bundle.export_comparison` writes them."""

INFORMATION = BUNDLES / "information.jsonl"
"""Decompositions that come with Keepmap, one JSON object a line, as `dashboard.bundled` writes them."""

_QUESTIONS = 12
_FIRST = ("dir", "cell", "cellcover", "count", "colour", "quarter", "side", "presence")
_THUMBNAIL = 128


@dataclass(frozen=True)
class Sample:
    """One scene of the gallery.

    Args:
        seed, size: They and nothing else decide the picture and its questions; the size is in pixels.
    """

    seed: int
    size: int = VIEW

    @cached_property
    def scene(self) -> Scene:
        """The scene with everything that is true about it."""
        return make_scene(self.seed, self.size)

    @property
    def name(self) -> str:
        """A short name for people, without the seed."""
        return re.sub(r"\s+\d+$", "", self.scene.name)

    @property
    def label(self) -> str:
        """The name with the size."""
        return f"{self.name}, {self.size:,} px"

    @property
    def file_name(self) -> str:
        """The name of its GeoTIFF."""
        return f"{self.name.lower().replace(' ', '-')}-{self.seed}.tif"

    @property
    def image(self) -> NDArray[np.uint8]:
        """uint8 [height, width, 3]."""
        return self.scene.image

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """Questions about this scene, one per task, those that depend on a place first."""
        tasks = [task for task in TASKS if task not in REGIME_TASKS]
        drawn = ask(self.scene, np.random.default_rng(self.seed), 6 * _QUESTIONS, tasks=tasks, lettered_share=0.0)
        order = {task: index for index, task in enumerate((*_FIRST, *(task for task in tasks if task not in _FIRST)))}
        first: dict[str, Question] = {}
        for question in drawn:
            first.setdefault(question.task, question)
        ranked = sorted(first.values(), key=lambda question: (question.family == FAMILIES[-1], order[question.task]))
        return tuple(ranked[:_QUESTIONS])

    def question(self, text: str) -> Question | None:
        """The question of that wording, None where this scene has no such one."""
        wanted = _bare(text)
        return next((question for question in self.questions if _bare(question.text) == wanted), None)

    @cached_property
    def thumbnail_png(self) -> bytes:
        """A small PNG for the gallery."""
        step = max(1, self.size // _THUMBNAIL)
        return encode_png(np.ascontiguousarray(self.image[::step, ::step]))


class Samples:
    """The gallery, and the folder where its files are written when first needed.

    Args:
        folder: Where the GeoTIFFs go.
        scenes: Seeds and sides in pixels.
    """

    def __init__(self, folder: Path, scenes: tuple[tuple[int, int], ...] = SCENES) -> None:
        self.folder = folder
        self._samples = tuple(Sample(seed, size) for seed, size in scenes)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    def file(self, index: int) -> Path:
        """The scene as a GeoTIFF, declared synthetic; written once."""
        sample = self._samples[index]
        path = self.folder / sample.file_name
        with self._lock:
            if not path.exists():
                self.folder.mkdir(parents=True, exist_ok=True)
                _write(path, sample.scene)
        return path

    def at(self, name: str) -> int | None:
        """The index of the scene of that name or file name, None where there is none."""
        return next((index for index, one in enumerate(self._samples) if name in (one.name, one.file_name)), None)

    def knows(self, question: str) -> bool:
        """Whether a question is one of those that come with a scene."""
        return any(sample.question(question) is not None for sample in self._samples)


def add_bundles(store: Store, folder: Path = BUNDLES) -> list[str]:
    """Put the comparisons that come with Keepmap into a store that has none of them, and return their ids.

    A store that can only be read, and a bundle that does not fit any more, are no reason not to start.
    """
    if store.is_read_only or any(comparison.is_sample for comparison in store.comparisons(owner="", limit=1000)):
        return []
    added = []
    for bundle in sorted(path.parent for path in folder.glob(f"*/{DOCUMENT}")):
        try:
            added.append(import_comparison(store, bundle, is_sample=True))
        except StorageError as error:
            log.warning("the sample comparison in %s was left out: %s", bundle.name, error)
    return added


def add_information(store: Store, file: Path = INFORMATION) -> int:
    """Put the decompositions that come with Keepmap into a store that has none of them; returns how many.

    A store that can only be read, and a file that does not fit any more, are no reason not to start.
    """
    if store.is_read_only or not file.exists() or store.has_sample_spectra():
        return 0
    try:
        spectra = [Spectrum.from_json(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
        by_request: dict[str, list[Spectrum]] = {}
        for one in spectra:
            by_request.setdefault(one.request, []).append(one)
        for members in by_request.values():
            store.add_spectra(members, {}, is_sample=True)
    except (StorageError, KeyError, TypeError, ValueError) as error:
        log.warning("the sample decompositions were left out: %s", error)
        return 0
    return len(spectra)


def _write(path: Path, scene: Scene) -> None:
    write_geotiff(
        path, scene.image, crs=scene.crs, transform=scene.transform, tags={SYNTHETIC_TAG: f"seed {scene.seed}"}
    )


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
