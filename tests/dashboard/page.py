"""A page's context over a store in a folder, with a model that answers at once: no weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.pipeline import Inquiry, Outcome
from compression.backends.base import Architecture, ModelCard, Prompt
from compression.backends.embedded.backend import EmbeddedBackend
from compression.compressor import Plan
from compression.errors import Cancelled
from compression.grid import TokenGrid
from compression.sight import Prospect
from compression.tokens import Signal, VisualTokens
from dashboard.context import Context
from dashboard.jobs import Jobs
from dashboard.models import Models
from dashboard.samples import SCENES, Samples
from dashboard.settings import Settings
from storage import Pane, Store, open_store
from tests.factories import make_comparison, make_image_file, make_image_ref, make_run

__all__ = ["Pane", "QuickModel", "make_image_ref", "make_run", "opened", "quick_compare", "stored"]


class QuickModel:
    """What the page asks of a model: sizes, signals, and the embedded model's reading of questions."""

    card = ModelCard(name="embedded", family="embedded", revision="ab" * 32, parameters=1000)
    architecture = Architecture(
        layers=6,
        dim=8,
        heads=2,
        kv_heads=2,
        head_dim=4,
        ffn=16,
        vocabulary=149,
        encoder_layers=2,
        encoder_dim=8,
        encoder_ffn=16,
    )
    provides = frozenset(Signal)
    device = "cpu"
    dtype = "float32"

    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """As it is."""
        return image_size

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """Nothing is lost."""
        return ()

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """16 x 16 tokens."""
        return 256

    def prospect(self, image_size: tuple[int, int]) -> Prospect:
        """A fixed-size tower of two blocks."""
        return Prospect(image_size, (256,), image_size, self.count_tokens, 2)

    def encode(self, image: Any, image_size: tuple[int, int]) -> VisualTokens:
        """16 x 16 tokens without meaning."""
        grid = TokenGrid.single(16, 16, image_size)
        return VisualTokens(torch.zeros(256, 2), grid, np.arange(256))

    def prompt(self, question: str, choices: Sequence[str] = ()) -> Prompt:
        """The embedded model's own reading."""
        return EmbeddedBackend.prompt(self, question, choices)  # type: ignore[arg-type]


def quick_compare(inquiry: Inquiry, plans: Sequence[Plan], vlm: Any, **asked: Any) -> Iterator[Outcome]:
    """One drawn run per plan; stops where it is told to."""
    for position, plan in enumerate(plans):
        asked["progress"](f"{plan.info.title} is compressing and answering", position / len(plans))
        if asked["cancel"]():
            yield Outcome(str(plan), None, "cancelled", "the run was cancelled")
            continue
        run = make_run(
            position,
            strategy=str(plan),
            image=inquiry.image,
            question=inquiry.question,
            choices=inquiry.choices or ("yes", "no"),
            expected=inquiry.expected,
            evidence=inquiry.evidence,
            comparison=asked["comparison"],
        )
        yield Outcome(str(plan), run)


def stubborn_compare(*_: Any, **__: Any) -> Iterator[Outcome]:
    """Fails with something nobody expected."""
    raise ZeroDivisionError("secret detail")
    yield  # pragma: no cover


def cancelled_compare(*_: Any, **__: Any) -> Iterator[Outcome]:
    """Is stopped before its first strategy."""
    raise Cancelled("the run was cancelled")
    yield  # pragma: no cover


@contextmanager
def opened(
    folder: Path, *, compare: Callable[..., Iterator[Outcome]] = quick_compare, ready: bool = True, **settings: Any
) -> Iterator[Context]:
    """A context whose worker does not run by itself: tests call `jobs.run_next`."""
    chosen = Settings(db=f"sqlite:///{folder / 'k.db'}", **settings)
    with open_store(chosen.db) as store:
        models = Models(load=lambda name, device: QuickModel())
        if ready:
            models.get()
        samples = Samples(folder / "samples", SCENES[-3:])
        yield Context(chosen, store, models, Jobs(store, models, chosen, compare), samples)


def stored(store: Store, folder: Path, *, owner: str = "", seed: int = 0, sample: bool = False, **wanted: Any) -> str:
    """A finished comparison in the store; returns its id."""
    if "image" not in wanted:
        digest = store.put_image(make_image_file(folder, seed))
        wanted["image"] = make_image_ref(seed, digest=digest)
    comparison, runs = make_comparison(seed, **wanted)
    for run in runs:
        store.add(run, owner, is_sample=sample)
    return store.add_comparison(replace(comparison, is_sample=sample), owner)
