"""The store as the rest of the program sees it: open it, and runs, comparisons, images and jobs are its verbs."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

from storage.assets import QUOTA_BYTES, ImageFolder
from storage.comparisons import Comparisons
from storage.database import Database
from storage.failures import Failures
from storage.jobs import Jobs
from storage.migrations import migrate
from storage.runs import Runs
from storage.spectra import Spectra
from storage.sweeps import Sweeps

DEFAULT_URL = "sqlite:///keepmap.db"

MEMORY_FOLDER = "keepmap-assets-of-memory-"
"""How the folder is called that holds the images of a store in memory, until that is closed."""


class Store(Runs, Comparisons, Failures, Jobs, Spectra, Sweeps):
    """Runs, comparisons, failures, jobs, decompositions, sweeps and images behind one address; threads may share it.

    `open_store` makes it.

    Args:
        database: Where the rows are.
        images: Where the bytes of images are.
    """

    def __init__(self, database: Database, images: ImageFolder) -> None:
        self.database = database
        self.images = images
        self._close = weakref.finalize(self, _let_go, database, images.folder)

    @property
    def place(self) -> str:
        """Where the store is, for people: a path, or a URL without its password."""
        return self.database.place

    @property
    def is_read_only(self) -> bool:
        """Whether it was opened for reading."""
        return self.database.is_read_only

    def put_image(self, path: Path) -> str:
        """Keep the bytes of an image file as they are and return their SHA-256, hex.

        Raises:
            NotStorable: it is not a regular file that can be read.
            QuotaExceeded: there is no room for it.
        """
        return self.images.put(path)

    def image_path(self, digest: str) -> Path:
        """The file that holds the bytes of an image; it must not be changed.

        Raises:
            AssetMissing: they are not kept here.
        """
        return self.images.path(digest)

    def release_images(self, awaited_seconds: float = 3600.0) -> int:
        """Delete images that nothing uses and that waited this long for a first use; returns how many files went."""
        return self.images.release_unused(awaited_seconds)

    def image_bytes(self) -> int:
        """What all kept images take together."""
        return self.images.used_bytes()

    def close(self) -> None:
        """Let go of the database; a store in memory is gone."""
        self._close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_store(
    url: str = DEFAULT_URL,
    *,
    assets: Path | None = None,
    read_only: bool = False,
    quota_bytes: int = QUOTA_BYTES,
    busy_seconds: float = 10.0,
) -> Store:
    """Open a store, make it if there is none, and bring an old one up to date, after copying it to a backup.

    Args:
        url: A SQLAlchemy URL; "sqlite:///:memory:" for a store that lives in this process only.
        assets: Folder for the bytes of images. Otherwise KEEPMAP_ASSETS, otherwise `<database file>.assets`.
        read_only: Change nothing, not even a journal; a missing store is not made.
        quota_bytes: What all images may take together.
        busy_seconds: How long to wait while another process writes.

    Raises:
        StoreUnavailable: one of its children says what is wrong with the address, the file or the disk.
    """
    database = Database(url, read_only=read_only, busy_seconds=busy_seconds)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return Store(database, ImageFolder(database, _image_folder(database, assets), quota_bytes))


def _image_folder(database: Database, assets: Path | None) -> Path:
    if assets is not None:
        return assets
    if named := os.environ.get("KEEPMAP_ASSETS", ""):
        return Path(named)
    if database.path:
        return database.path.with_name(database.path.name + ".assets")
    if not database.is_memory:
        return Path("keepmap.db.assets")
    return Path(tempfile.mkdtemp(prefix=MEMORY_FOLDER))


def _let_go(database: Database, folder: Path) -> None:
    database.close()
    if folder.name.startswith(MEMORY_FOLDER):
        shutil.rmtree(folder, ignore_errors=True)
