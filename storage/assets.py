"""The bytes of images, as received: one file per digest beside the store, with a quota, deleted with their last user.

A file's name is the digest and nothing else, so no name that a user chose ever reaches the file system. The table
`images` says which files there are; whoever changes both holds the store's write lock, so a file is never deleted under
a new user.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from io import BufferedReader, BufferedWriter
from pathlib import Path

from sqlalchemy import Connection, exists, func, insert, select, true, update
from sqlalchemy import delete as delete_from

from analysis.run import new_id, utc_now
from storage import schema
from storage.database import Database
from storage.errors import AssetMissing, NotStorable, QuotaExceeded, StoreReadOnly
from storage.faults import translate_os

QUOTA_BYTES = 4 * 1024**3
"""What all images of a store may take together, unless it is opened with another quota."""

CHUNK_BYTES = 1024 * 1024
DIGEST = re.compile(r"[0-9a-f]{64}")
PART = ".part"
"""How a file's name ends while it is being written."""


class ImageFolder:
    """The folder that holds the bytes of images.

    Args:
        database: The store's database, which counts them.
        folder: Made when the first image arrives.
        quota_bytes: What all images may take together.
    """

    def __init__(self, database: Database, folder: Path, quota_bytes: int = QUOTA_BYTES) -> None:
        self.database = database
        self.folder = folder
        self.quota_bytes = quota_bytes

    def put(self, path: Path) -> str:
        """Keep the bytes of a file and return their SHA-256, hex. Bytes that are already there are not kept twice.

        Raises:
            NotStorable: it is not a regular file that can be read.
            QuotaExceeded: there is no room for it, even after releasing what nothing uses.
            StoreFull, StoreReadOnly: the folder cannot take it.
        """
        if self.database.is_read_only:
            raise StoreReadOnly(
                f"{self.database.place} was opened for reading only, so no image can be kept; open it without read_only"
            )
        with _opened(path) as source:
            size = os.fstat(source.fileno()).st_size
            self._make_room(source, size)
            partial = self.folder / f"{new_id()}{PART}"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                try:
                    with partial.open("xb") as target:
                        digest = _copy(source, target, size)
                    self._keep(partial, digest, size)
                finally:
                    partial.unlink(missing_ok=True)
            except OSError as error:
                raise translate_os(error, self.folder) from error
        return digest

    def path(self, digest: str) -> Path:
        """Where the bytes of an image are.

        Raises:
            AssetMissing: they are not kept here.
        """
        path = self.folder / digest
        # lstat does not follow a link that someone may have put into the folder.
        if not DIGEST.fullmatch(digest) or not path.exists() or not stat.S_ISREG(path.lstat().st_mode):
            raise AssetMissing(f"the image {digest[:12]!r} is not kept in {self.folder}; add the image again to see it")
        return path

    def used_bytes(self) -> int:
        """What all images take together."""
        with self.database.reading() as connection:
            return _used(connection)

    def mark_used(self, connection: Connection, digest: str) -> None:
        """Note that a run or comparison uses an image; from now on it goes with its last user."""
        images = schema.images
        connection.execute(
            update(images).where(images.c.digest == digest, images.c.is_awaited).values(is_awaited=False)
        )

    def release(self, connection: Connection, digests: Iterable[str] | None, awaited_before: str = "") -> None:
        """Forget those of the images that nothing uses; `sweep` deletes the files after the commit.

        Args:
            digests: Which images; None for all.
            awaited_before: Images that were never used are forgotten if they were received before this time, ISO 8601.
        """
        images = schema.images
        condition = [
            true() if digests is None else images.c.digest.in_(list(digests)),
            ~images.c.is_awaited | (images.c.received_utc < awaited_before),
            ~exists().where(schema.runs.c.image == images.c.digest),
            ~exists().where(schema.comparisons.c.image == images.c.digest),
        ]
        connection.execute(delete_from(images).where(*condition))

    def sweep(self, digests: Iterable[str]) -> None:
        """Delete the files of images that the store does not count any more.

        Deleting before the commit could lose bytes that are still used; after it, a crash leaves a file too many.
        """
        files = [self.folder / digest for digest in digests if DIGEST.fullmatch(digest)]
        if not any(file.exists() for file in files):
            return
        with self.database.writing() as connection:
            counted = set(connection.scalars(select(schema.images.c.digest)))
            for file in files:
                if file.name not in counted:
                    # What cannot be deleted now is not counted any more, and goes with a later sweep.
                    with contextlib.suppress(OSError):
                        file.unlink(missing_ok=True)

    def release_unused(self, awaited_seconds: float = 3600.0) -> int:
        """Delete the images that nothing uses and the leftovers of interrupted writes; returns how many files went.

        Args:
            awaited_seconds: How long an image that was received waits for its first run.
        """
        before = (datetime.now(UTC) - timedelta(seconds=awaited_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self.database.writing() as connection:
            self.release(connection, None, before)
        if not self.folder.is_dir():
            return 0
        files = {file.name for file in self.folder.iterdir() if DIGEST.fullmatch(file.name)}
        self.sweep(files)
        went = sum(1 for name in files if not (self.folder / name).exists())
        oldest = datetime.now(UTC).timestamp() - awaited_seconds
        for part in self.folder.glob(f"*{PART}"):
            if part.stat().st_mtime < oldest:
                part.unlink(missing_ok=True)
                went += 1
        return went

    def _make_room(self, source: BufferedReader, size: int) -> None:
        if self.used_bytes() + size <= self.quota_bytes:
            return
        self.release_unused()
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        source.seek(0)
        with self.database.reading() as connection:
            if connection.scalar(select(schema.images.c.digest).where(schema.images.c.digest == digest)) is None:
                self._check_quota(connection, size)

    def _check_quota(self, connection: Connection, size: int) -> None:
        left = max(self.quota_bytes - _used(connection), 0)
        if size > left:
            raise QuotaExceeded(
                f"the image takes {size:,} bytes, and of {self.quota_bytes:,} there are {left:,} left for images; "
                "delete runs whose images are not needed, or raise the quota"
            )

    def _keep(self, partial: Path, digest: str, size: int) -> None:
        images, path = schema.images, self.folder / digest
        with self.database.writing() as connection:
            stored = connection.scalar(select(images.c.size_bytes).where(images.c.digest == digest))
            if stored is None:
                self._check_quota(connection, size)
                values = {"digest": digest, "size_bytes": size, "received_utc": utc_now(), "is_awaited": True}
                connection.execute(insert(images).values(values))
            else:
                connection.execute(
                    update(images).where(images.c.digest == digest).values(received_utc=utc_now(), is_awaited=True)
                )
            if path.is_symlink() or not path.is_file() or path.stat().st_size != size:
                partial.replace(path)
                _flush_folder(self.folder)


def _used(connection: Connection) -> int:
    return int(connection.scalar(select(func.coalesce(func.sum(schema.images.c.size_bytes), 0))) or 0)


def _opened(path: Path) -> BufferedReader:
    try:
        # Without O_NONBLOCK a pipe would wait for ever for someone to write into it.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise NotStorable(f"the image {path.name!r} cannot be read ({error.strerror}); choose another file") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotStorable(f"{path.name!r} is not a regular file; choose an image file")
    return os.fdopen(handle, "rb")


def _copy(source: BufferedReader, target: BufferedWriter, size: int) -> str:
    """Copy `size` bytes to the disk and return their SHA-256, hex."""
    digest, left = hashlib.sha256(), size
    while left and (chunk := source.read(min(CHUNK_BYTES, left))):
        digest.update(chunk)
        target.write(chunk)
        left -= len(chunk)
    if left or source.read(1):
        raise NotStorable("the image changed while it was read; add it again when it is complete")
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make a rename in the folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
