"""A server over a store with one finished comparison, for tests of the map routes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from analysis.pipeline import open_image
from analysis.run import ImageRef
from dashboard.server import build_api
from storage import Comparison, Store, open_store
from tests.factories import make_comparison, make_id, make_image_file

STRATEGIES = ("identity@1.0", "dualcomp@0.25", "divprune@0.25")
ODD_IDS = [
    "0" * 31,
    "0" * 33,
    "A" * 32,
    "g" * 32,
    "..",
    "%2e%2e",
    "1' or '1'='1",
    "<script>",
    "null",
    make_id("nobody"),
]


@dataclass(frozen=True)
class Settings:
    """What the routes ask of the settings."""

    public: bool = False


@dataclass(frozen=True)
class Shop:
    """A store with one finished comparison of a plain picture, and a client of its routes."""

    client: TestClient
    store: Store
    comparison: Comparison

    @property
    def runs(self) -> list[str]:
        """Ids of the runs of the comparison."""
        return [str(pane.run) for pane in self.comparison.panes]

    def add(self, image: ImageRef, owner: str = "", **wanted: Any) -> Comparison:
        """Another finished comparison, of an image, stored with its runs."""
        comparison, runs = make_comparison(0, STRATEGIES, image=image, **wanted)
        for run in runs:
            self.store.add(run, owner)
        self.store.add_comparison(comparison, owner)
        return comparison


@contextmanager
def served(
    folder: Path, *, public: bool = False, owner: str = "", size: tuple[int, int] = (300, 420)
) -> Iterator[Shop]:
    """Serve a new store in a folder, with a picture of (height, width) and a comparison of it."""
    with open_store(f"sqlite:///{folder / 'k.db'}") as store:
        path = make_image_file(folder, size=size)
        store.put_image(path)
        with TestClient(build_api(store, Settings(public)), raise_server_exceptions=False) as client:
            comparison, _ = make_comparison(0, STRATEGIES, image=open_image(path))
            shop = Shop(client, store, comparison)
            shop.add(comparison.image, owner)
            yield shop


def png(content: bytes) -> NDArray[np.uint8]:
    """The pixels of a PNG, uint8 [height, width, 4]."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))
