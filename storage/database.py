"""A database: how its address is read, how it is opened, and how transactions on it begin and end."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, QueuePool, StaticPool, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from storage.errors import InvalidAddress, NotStorable, StoreCorrupt, StoreMissing, StoreReadOnly
from storage.faults import sqlite_code, translate

WRITES = "keepmap_writes"
"""Execution option of connections whose transaction takes the write lock when it begins."""

MAGIC = b"SQLite format 3\0"
"""How every SQLite file begins."""


class Database:
    """A database and the two kinds of transaction that it is used with.

    Args:
        address: A SQLAlchemy URL; "sqlite://" and "sqlite:///:memory:" live in this process only.
        read_only: Never write, not even a journal.
        busy_seconds: How long to wait for another process's transaction.

    Raises:
        StoreUnavailable: one of its children, by what is wrong with the address or the file.
    """

    def __init__(self, address: str, *, read_only: bool = False, busy_seconds: float = 10.0) -> None:
        url = _parsed(address)
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self.is_memory = self.is_sqlite and url.database in (None, "", ":memory:")
        self.path = Path(url.database or "") if self.is_sqlite and not self.is_memory else None
        self.is_read_only = read_only
        self.place = str(self.path or url.render_as_string(hide_password=True))
        if self.is_memory:
            self.place = "the store in memory"
        # All threads share the one connection of a database in memory, so they take turns.
        self._turn: AbstractContextManager[Any] = threading.RLock() if self.is_memory else nullcontext()
        if self.path:
            try:
                _check_file(self.path, read_only)
            except OSError as error:
                raise InvalidAddress(
                    f"{self.path} cannot be looked at ({error.strerror}); name another file"
                ) from error
        try:
            self.engine = self._make_engine(url, busy_seconds)
        except (ImportError, NoSuchModuleError) as error:
            message = f"the database {self.place} needs a driver that is not installed ({error})"
            raise InvalidAddress(f"{message}; install it, or write sqlite:///keepmap.db") from error
        if self.path and not read_only:
            with self.translated():
                self._use_wal(busy_seconds)

    def _make_engine(self, url: URL, busy_seconds: float) -> Engine:
        if not self.is_sqlite:
            return create_engine(url)
        path, is_read_only = self.path, self.is_read_only

        def connect() -> sqlite3.Connection:
            if path and is_read_only:
                return _connect_read_only(path, busy_seconds)
            return sqlite3.connect(path or ":memory:", timeout=busy_seconds, check_same_thread=False)

        # A connection to a file costs little, so a thread never waits for another one's.
        pool = {"poolclass": QueuePool, "max_overflow": -1} if path else {"poolclass": StaticPool}
        engine = create_engine("sqlite://", creator=connect, **pool)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    def _use_wal(self, busy_seconds: float) -> None:
        """Readers beside one writer; the file remembers it. SQLite does not wait for its turn here, so this does."""
        deadline = time.monotonic() + busy_seconds
        while True:
            try:
                with closing(self.engine.raw_connection()) as connection, closing(connection.cursor()) as cursor:
                    cursor.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if sqlite_code(error) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the store and changes nothing."""
        with self._turn, self.translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is there as a whole when the block ends, and not at all when it raises.

        Raises:
            StoreReadOnly: the store was opened for reading.
        """
        if self.is_read_only:
            raise StoreReadOnly(f"{self.place} was opened for reading only; open it without read_only to change it")
        writes = {WRITES: True}
        with self._turn, self.translated(), self.engine.connect() as connection:
            connection.execution_options(**writes)
            with connection.begin():
                yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn the errors of drivers into ours."""
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            raise translate(error, self.place) from error
        except (OverflowError, UnicodeEncodeError) as error:  # the driver's, about a value that no column can hold
            raise NotStorable(
                f"{self.place} cannot hold a value ({error}); use smaller numbers and valid text"
            ) from error

    def close(self) -> None:
        """Let go of all connections; a database in memory is gone."""
        self.engine.dispose()


def _parsed(address: str) -> URL:
    try:
        url = make_url(address)
    except ArgumentError as error:
        message = f"{address!r} is not a database URL; write sqlite:///keepmap.db for a file in this folder"
        raise InvalidAddress(message) from error
    if url.get_backend_name() == "sqlite" and (url.query or url.host or "\0" in (url.database or "")):
        raise InvalidAddress(f"{address!r} must be sqlite:/// and a plain path, such as sqlite:///keepmap.db")
    return url


def _check_file(path: Path, read_only: bool) -> None:
    """Say what is wrong with a path before SQLite says less."""
    if path.is_dir():
        raise InvalidAddress(f"{path} is a folder; name a file in it, such as sqlite:///{path / 'keepmap.db'}")
    if path.exists() and not path.is_file():
        raise InvalidAddress(f"{path} is not a regular file; name a file, such as sqlite:///keepmap.db")
    if read_only and (not path.exists() or path.stat().st_size == 0):
        raise StoreMissing(f"there is no store at {path}; make a run first, or name another file")
    if not path.parent.is_dir():
        raise InvalidAddress(f"the folder {path.parent} does not exist; create it first, or name another")
    if not read_only and not (_may_write(path.parent) and (not path.exists() or _may_write(path))):
        raise StoreReadOnly(f"{path} or its folder cannot be written; make both writable, or open it for reading only")
    if path.exists():
        _check_header(path)


def _may_write(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _check_header(path: Path) -> None:
    """Refuse what is no database, or one without its end: SQLite takes one byte for a new one and looks late."""
    with path.open("rb") as file:
        header = file.read(100)
        size = file.seek(0, os.SEEK_END)
    advice = "restore a backup beside it, or name another file"
    if header and not header.startswith(MAGIC):
        raise StoreCorrupt(f"{path} is not a database; {advice}")
    journal = path.with_name(path.name + "-wal")
    if len(header) < 100 or (journal.exists() and journal.stat().st_size):
        return
    # Offsets of https://www.sqlite.org/fileformat.html, section 1.3; the count holds where both counters agree.
    page_bytes, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    if header[24:28] == header[92:96] and size < page_bytes * pages:
        raise StoreCorrupt(f"{path} is damaged (its end is missing); {advice}")


def _connect_read_only(path: Path, busy_seconds: float) -> sqlite3.Connection:
    name = f"file:{quote(str(path.resolve()))}?mode=ro"
    connection = sqlite3.connect(name, uri=True, timeout=busy_seconds, check_same_thread=False)
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema")
        return connection
    except sqlite3.Error as error:
        connection.close()
        journal = path.with_name(path.name + "-wal")
        if sqlite_code(error) & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or journal.exists():
            raise
    # WAL needs a file for shared memory. In a folder that cannot be written, nobody writes the store either.
    return sqlite3.connect(name + "&immutable=1", uri=True, timeout=busy_seconds, check_same_thread=False)


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA trusted_schema=OFF")


def _begin_sqlite(connection: Connection) -> None:
    # With the write lock taken first, nobody waits in the middle of a transaction, so nobody is refused there.
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
