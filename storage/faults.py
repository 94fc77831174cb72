"""What the errors of drivers and file systems mean to a user. This is the one place where that is decided."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from storage.errors import (
    NotStorable,
    StorageError,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)

ADVICE: dict[int, tuple[type[StorageError], str, str]] = {
    sqlite3.SQLITE_NOTADB: (StoreCorrupt, "is not a database", "restore a backup beside it, or name another file"),
    sqlite3.SQLITE_CORRUPT: (StoreCorrupt, "is damaged", "restore a backup beside it, or name another file"),
    sqlite3.SQLITE_FULL: (StoreFull, "has no room left", "nothing was changed; free disk space, or delete runs"),
    sqlite3.SQLITE_READONLY: (StoreReadOnly, "cannot be written", "make it and its folder writable, or only read it"),
    sqlite3.SQLITE_PERM: (StoreReadOnly, "cannot be written", "make it and its folder writable, or only read it"),
    sqlite3.SQLITE_BUSY: (StoreLocked, "is being written by another process", "try again when that has finished"),
    sqlite3.SQLITE_LOCKED: (StoreLocked, "is being written by another process", "try again when that has finished"),
    sqlite3.SQLITE_TOOBIG: (NotStorable, "cannot take a value of that size", "record less"),
    sqlite3.SQLITE_CANTOPEN: (StoreUnavailable, "cannot be opened", "check that you may read and write in its folder"),
}
"""By SQLite's primary result code: our class, what is wrong, what to do."""

MISSING_PART = (StoreCorrupt, "lacks a part of a store", "restore a backup beside it, or name another file")


def sqlite_code(error: BaseException) -> int:
    """SQLite's extended result code, 0 where there is none."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return int(getattr(cause, "sqlite_errorcode", 0) or 0)


def translate(error: DBAPIError | sqlite3.Error, place: str) -> StorageError:
    """Our error for a driver's: which store, what is wrong with it, what the driver said, what to do."""
    code, said = sqlite_code(error), str(error.orig if isinstance(error, DBAPIError) else error)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # how a full disk looks while WAL's shared memory grows
        code = sqlite3.SQLITE_FULL
    fallback = (StoreUnavailable, "cannot be used", "check that it can be reached and read")
    if said.startswith(("no such table", "no such column")):
        fallback = MISSING_PART
    kind, wrong, advice = ADVICE.get(code & 0xFF, fallback)
    return kind(f"{place} {wrong} ({said}); {advice}")


def translate_os(error: OSError, place: Path) -> StorageError:
    """Our error for a file system's, about a file beside the store."""
    said = error.strerror
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreFull(f"{place} has no room left ({said}); nothing was changed; free disk space, or delete runs")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnly(f"{place} cannot be written ({said}); make it writable, or set KEEPMAP_ASSETS to a folder")
    return StoreUnavailable(f"{place} cannot be used ({said}); check the folder that it is in")
