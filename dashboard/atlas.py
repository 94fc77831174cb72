"""What the map routes share: who may see a comparison or a run, opened runs, placed images, and tiles drawn once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from analysis.errors import ImageError
from analysis.imagery import encode_png, media_type, mercator_tile, pixel_tile, thumbnail
from analysis.imagery.cache import ByteCache
from analysis.run import ImageRef
from dashboard.answers import Encoded
from dashboard.layers import PAINTER_VERSION, Look, paint
from dashboard.opened import Opened, Shelf
from dashboard.palette import Theme, palette, palette_digest
from dashboard.panes import caption, facts_of
from dashboard.placement import Placement, place_image
from dashboard.tiles import TILE, is_tile
from dashboard.visitors import is_id
from storage import AssetMissing, Comparison, ComparisonNotFound, JobRow, NotFound, RunNotFound, RunSummary, Store

_TILE_BYTES = 64 * 2**20
_MOST_PLACES = 64
_MOST_FACTS = 256
_THUMBNAIL_PIXELS = 512
IMAGE_VERSION = 1
"""Raised whenever the same image gives another tile: browsers keep tiles by it."""


EMPTY_TILE = Encoded(encode_png(np.zeros((TILE, TILE, 4), dtype=np.uint8)), "image/png")


class Atlas:
    """Reads the store for the map routes; one per server, used from several threads.

    Args:
        store: Where runs, comparisons and images are.
        public: Whether every row has an owner who alone sees it, unless a link shares it.
    """

    def __init__(self, store: Store, public: bool) -> None:
        self.store = store
        self.public = public
        self._shelf = Shelf(store)
        self._tiles: ByteCache[Encoded] = ByteCache(_TILE_BYTES)
        self._places: OrderedDict[str, Placement] = OrderedDict()
        self._facts: OrderedDict[tuple[str, str], Mapping[str, Any]] = OrderedDict()
        self._lock = Lock()

    # ------------------------------------------------------------------ who may see what
    def comparison(self, comparison_id: str) -> Comparison:
        """A comparison. Whoever knows its id may see it: that is what a link shares.

        Raises:
            ComparisonNotFound: there is none.
        """
        if not is_id(comparison_id):
            raise ComparisonNotFound("there is no comparison of that id; check the link")
        return self.store.comparison(comparison_id)

    def run(self, run_id: str, owner: str | None, link: str = "") -> Opened:
        """A run that this owner may see: their own, a sample, or one that the comparison named by `link` shares.

        Raises:
            RunNotFound: there is none, or it is another's.
        """
        self.check(run_id, owner, link)
        return self._shelf.open(run_id)

    def check(self, run_id: str, owner: str | None, link: str = "") -> RunSummary:
        """The summary of a run that may be seen.

        Raises:
            RunNotFound: there is none, or it is another's.
        """
        missing = RunNotFound("there is no run of that id, or it is not yours; check the link")
        if not is_id(run_id):
            raise missing
        summary = self.store.summary(run_id)
        if owner is None or summary.owner == owner or summary.is_sample or self._shares(link, run_id):
            return summary
        raise missing

    def _shares(self, link: str, run_id: str) -> bool:
        if not is_id(link):
            return False
        try:
            return any(pane.run == run_id for pane in self.store.comparison(link).panes)
        except NotFound:
            return False

    def panes(self, comparison: Comparison) -> list[Opened | None]:
        """The runs of a comparison's panes; None where there is none yet, or it was deleted."""
        return [self._pane(pane.run) for pane in comparison.panes]

    def _pane(self, run_id: str | None) -> Opened | None:
        if run_id is None:
            return None
        try:
            self.store.summary(run_id)
            return self._shelf.open(run_id)
        except RunNotFound:
            return None

    def captions(self, comparison: Comparison) -> list[str]:
        """What stands right of each pane's title; no array is loaded for it."""
        kept: list[tuple[int, int] | None] = []
        for pane in comparison.panes:
            try:
                summary = None if pane.run is None else self.store.summary(pane.run)
            except RunNotFound:
                summary = None
            kept.append(None if summary is None else (summary.tokens_kept, summary.tokens_total))
        total = next((one[1] for one in kept if one is not None), None)
        return [
            caption(pane.strategy, *(one or (None, total))) for pane, one in zip(comparison.panes, kept, strict=True)
        ]

    def facts(self, opened: Sequence[Opened | None]) -> list[Mapping[str, Any] | None]:
        """The numbers of each pane, computed once for a run and the first pane that it is compared with."""
        first = opened[0] if opened else None
        return [None if run is None else self._facts_of(run, first) for run in opened]

    def _facts_of(self, run: Opened, first: Opened | None) -> Mapping[str, Any]:
        key = (run.run, first.run if first is not None else "")
        with self._lock:
            if key in self._facts:
                self._facts.move_to_end(key)
                return self._facts[key]
        found = facts_of(run, first)
        with self._lock:
            self._facts[key] = found
            while len(self._facts) > _MOST_FACTS:
                self._facts.popitem(last=False)
        return found

    def job(self, comparison: Comparison) -> JobRow | None:
        """The job that fills a comparison, while it is not over."""
        return next((job for job in self.store.jobs(comparison=comparison.id) if not job.is_over), None)

    # ------------------------------------------------------------------ images
    def placement(self, image: ImageRef) -> Placement:
        """How an image lies on the map; remembered, as its bytes never change."""
        key = f"{image.digest}:{image.width}x{image.height}"
        with self._lock:
            if key in self._places:
                self._places.move_to_end(key)
                return self._places[key]
        found = place_image(image, self.path(image))
        if found.info is not None:
            with self._lock:
                self._places[key] = found
                while len(self._places) > _MOST_PLACES:
                    self._places.popitem(last=False)
        return found

    def path(self, image: ImageRef) -> Path | None:
        """The file with an image's bytes, None where they are not kept."""
        try:
            return self.store.image_path(image.digest)
        except AssetMissing:
            return None

    def image_tile(self, image: ImageRef, zoom: int, x: int, y: int) -> Encoded | None:
        """A tile of the image as it lies on the map, transparent beside the image; None where there can be no tile.

        Raises:
            ImageError: the file cannot be read.
        """
        if not is_tile(zoom, x, y):
            return None
        path = self.path(image)
        if path is None:
            return EMPTY_TILE
        is_placed = self.placement(image).is_placed
        draw = mercator_tile if is_placed else pixel_tile

        def make() -> Encoded:
            content = draw(path, zoom, x, y)
            return EMPTY_TILE if content is None else Encoded(content, "image/png")

        return self._tiles.get(("image", image.digest, is_placed, zoom, x, y), make)

    def thumbnail(self, image: ImageRef) -> Encoded | None:
        """The whole image, small; None where its bytes are not kept or cannot be read."""
        path = self.path(image)
        if path is None:
            return None

        def make() -> Encoded:
            content = thumbnail(path, _THUMBNAIL_PIXELS)
            return Encoded(content, media_type(content))

        try:
            return self._tiles.get(("thumbnail", image.digest), make)
        except ImageError:
            return None

    # ------------------------------------------------------------------ layers
    def layer_tile(self, run: Opened, look: Look, theme: Theme, zoom: int, x: int, y: int) -> Encoded | None:
        """A tile of a layer, None where there can be none."""
        if not is_tile(zoom, x, y):
            return None
        placement = self.placement(run.image)

        def make() -> Encoded:
            return Encoded(encode_png(paint(run, look, placement.view(zoom, x, y), palette(theme))), "image/png")

        return self._tiles.get((layer_tag(run, look, theme), zoom, x, y), make)


def layer_tag(run: Opened, look: Look, theme: Theme) -> str:
    """What decides how the tiles of a layer look, as a digest."""
    against = look.against.run if look.against is not None else ""
    parts = (run.run, look.layer, look.level, look.of, look.depth, look.scale, against, look.compared, theme)
    return tag(*parts, PAINTER_VERSION, palette_digest())


def tag(*parts: object) -> str:
    """A digest of what decides an answer: its ETag, without the quotes."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]
