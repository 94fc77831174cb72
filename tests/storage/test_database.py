from __future__ import annotations

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from storage import (
    InvalidAddress,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreUnavailable,
    open_store,
)
from tests.factories import make_run


@pytest.fixture
def written(url, tmp_path):
    """The path of a closed store with twenty runs."""
    with open_store(url) as store:
        for seed in range(20):
            store.add(make_run(seed))
    return tmp_path / "keepmap.db"


def read_all(url):
    with open_store(url) as store:
        return [store.get(summary.id) for summary in store.find()]


def test_a_store_is_made_where_there_is_none_and_found_again(url):
    run = make_run()
    with open_store(url) as store:
        store.add(run)
    with open_store(url) as store:
        assert store.get(run.id) == run


def test_a_store_in_memory_is_one_store_for_all_threads():
    with open_store("sqlite:///:memory:") as store:
        threads = [threading.Thread(target=store.add, args=(make_run(seed),)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.count() == 8


def test_threads_share_a_store_in_a_file(file_store):
    def work(seed):
        run = make_run(seed)
        file_store.add(run)
        assert file_store.get(run.id) == run

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file_store.count() == 8


def test_the_file_is_in_write_ahead_mode_and_keys_hold(file_store):
    with file_store.database.reading() as connection:
        asked = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "foreign_keys")
        }
        assert asked == {"journal_mode": "wal", "foreign_keys": 1}
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 10_000


def test_a_closed_store_leaves_one_file(written):
    assert sorted(file.name for file in written.parent.iterdir()) == ["keepmap.db"]


def test_an_empty_file_becomes_a_store(url, tmp_path):
    (tmp_path / "keepmap.db").touch()
    with open_store(url) as store:
        assert store.count() == 0


RUBBISH = {
    "text": b"this is a text file, not a database\n" * 100,
    "one byte": b"x",
    "image": b"\x89PNG\r\n\x1a\n" + bytes(4096),
    "random": bytes(range(256)) * 64,
    "only a magic number": b"SQLite format 3\x00" + b"\xff" * 4080,
    "part of a magic number": b"SQLite format 3",
}


@pytest.mark.parametrize("read_only", [False, True], ids=["to write", "to read"])
@pytest.mark.parametrize("content", RUBBISH.values(), ids=RUBBISH)
def test_a_file_that_is_no_database_is_refused_and_left_alone(url, tmp_path, content, read_only):
    path = tmp_path / "keepmap.db"
    path.write_bytes(content)
    with pytest.raises(
        StoreCorrupt, match=r"keepmap.db is (not a database|damaged).*; restore a backup beside it, or name"
    ):
        open_store(url, read_only=read_only)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["keepmap.db"]


@pytest.mark.parametrize("part", [0.25, 0.5, 0.9])
def test_a_store_that_was_cut_short_is_noticed_when_it_is_opened(url, written, part):
    os.truncate(written, int(written.stat().st_size * part))
    with pytest.raises(StoreCorrupt, match="keepmap.db is damaged .its end is missing.; restore a backup"):
        open_store(url)


def test_a_store_that_is_damaged_inside_says_so_when_it_is_read(url, written):
    with written.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (written.stat().st_size - 4096))
    with pytest.raises(StoreCorrupt, match="restore a backup"):
        read_all(url)


def test_a_store_without_one_of_its_tables_says_so(url, written):
    with closing(sqlite3.connect(written)) as connection:
        connection.execute("DROP TABLE run_arrays")
    with (
        open_store(url) as store,
        pytest.raises(StoreCorrupt, match="lacks a part of a store .no such table: run_arrays"),
    ):
        store.add(make_run(99))


def test_another_programs_database_is_refused_and_left_alone(url, tmp_path):
    path = tmp_path / "keepmap.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE cookies (name TEXT)")
    with pytest.raises(
        StoreCorrupt, match="another program's database .it has the table 'cookies'.; name another file"
    ):
        open_store(url)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("cookies",)]


ADDRESSES = {
    "no URL": ("keepmap.db", "is not a database URL; write sqlite:///keepmap.db"),
    "empty": ("", "is not a database URL"),
    "unknown kind": ("nosuchdb://host/name", "needs a driver that is not installed"),
    "options": ("sqlite:///keepmap.db?mode=ro", "must be sqlite:/// and a plain path"),
    "nul": ("sqlite:///keep\x00map.db", "must be sqlite:/// and a plain path"),
    "two slashes": ("sqlite://keepmap.db", "must be sqlite:/// and a plain path"),
    "too long": ("sqlite:///" + "x" * 5000, "cannot be looked at"),
}


@pytest.mark.parametrize(("address", "message"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_that_is_none_is_refused(address, message):
    with pytest.raises(InvalidAddress, match=message):
        open_store(address)


def test_a_password_is_not_shown():
    with pytest.raises(InvalidAddress) as caught:
        open_store("nosuchdb://ann:secret@host/name")
    assert "secret" not in str(caught.value)


def test_a_folder_in_place_of_a_file_is_refused(tmp_path):
    with pytest.raises(InvalidAddress, match=r"is a folder; name a file in it, such as sqlite:///.*keepmap\.db"):
        open_store(f"sqlite:///{tmp_path}")


def test_a_pipe_in_place_of_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidAddress, match="is not a regular file"):
        open_store(f"sqlite:///{tmp_path / 'pipe'}")


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(InvalidAddress, match=r"the folder .*/absent does not exist; create it first"):
        open_store(f"sqlite:///{tmp_path / 'absent' / 'keepmap.db'}")


@pytest.mark.parametrize("name", ["größe 道.db", "a#b&c=d;e.db", "'; DROP TABLE runs; --.db", "file:.db"])
def test_a_path_may_hold_what_file_names_hold(tmp_path, name):
    address = f"sqlite:///{tmp_path / name}"
    with open_store(address) as store:
        store.add(make_run())
    assert (tmp_path / name).is_file()
    with open_store(address, read_only=True) as store:
        assert store.count() == 1


def test_reading_makes_no_store(url, tmp_path):
    for _ in range(2):
        with pytest.raises(StoreMissing, match="there is no store at .*keepmap.db; make a run first"):
            open_store(url, read_only=True)
        (tmp_path / "keepmap.db").touch()


def test_a_store_opened_for_reading_is_read_and_not_written(url, written):
    before = written.read_bytes()
    with open_store(url, read_only=True) as store:
        assert store.get(make_run(3).id) == make_run(3)
        assert store.is_read_only
        for write in (
            lambda: store.add(make_run(50)),
            lambda: store.delete(make_run(3).id),
            lambda: store.fail({}, "open", "no"),
            lambda: store.add_job({}),
        ):
            with pytest.raises(StoreReadOnly, match="was opened for reading only; open it without read_only"):
                write()
    assert written.read_bytes() == before


@pytest.mark.parametrize("locked", ["file", "folder", "both"])
def test_a_store_without_write_permission_is_read_and_says_what_it_cannot(open_folder, as_ordinary_user, locked):
    path = open_folder / "keepmap.db"
    address, run = f"sqlite:///{path}", make_run()
    with as_ordinary_user(), open_store(address) as store:
        store.add(run)
    if locked in ("file", "both"):
        path.chmod(0o444)
    if locked in ("folder", "both"):
        open_folder.chmod(0o555)
    with as_ordinary_user():
        with pytest.raises(StoreReadOnly, match="cannot be written; make both writable, or open it for reading only"):
            open_store(address)
        with open_store(address, read_only=True) as store:
            assert store.get(run.id) == run


def test_a_store_that_loses_its_write_permission_while_open_says_so(open_folder, as_ordinary_user):
    with as_ordinary_user(), open_store(f"sqlite:///{open_folder / 'keepmap.db'}") as store:
        store.add(make_run())
        store.database.engine.dispose()
        (open_folder / "keepmap.db").chmod(0o444)
        with pytest.raises(StoreReadOnly, match="keepmap.db cannot be written .attempt to write a readonly database"):
            store.add(make_run(1))
        assert store.count() == 1


def test_a_store_that_may_not_be_read_says_so(open_folder, as_ordinary_user):
    path = open_folder / "keepmap.db"
    with as_ordinary_user(), open_store(f"sqlite:///{path}") as store:
        store.add(make_run())
    path.chmod(0)
    for read_only in (False, True):
        with as_ordinary_user(), pytest.raises(StoreUnavailable, match="cannot be (written|opened|looked at)"):
            open_store(f"sqlite:///{path}", read_only=read_only)


def test_another_writer_is_waited_for_and_then_named(url, written):
    with open_store(url, busy_seconds=0) as store, closing(sqlite3.connect(written, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreLocked, match="is being written by another process .database is locked.; try again"):
            store.add(make_run(50))
        assert store.count() == 20
        other.execute("ROLLBACK")
        store.add(make_run(50))
        assert store.count() == 21


def test_a_full_disk_leaves_the_store_as_it_was(file_store):
    runs = [make_run(seed) for seed in range(2)]
    file_store.add(runs[0])
    large = make_run(7, tokens=(128, 128), strategy="visionzip@0.25")
    with file_store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 8}")
    with pytest.raises(StoreFull, match="has no room left .database or disk is full.; nothing was changed"):
        file_store.add(large)
    assert file_store.count() == 1
    assert file_store.get(runs[0].id) == runs[0]
    with file_store.database.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    file_store.add(large)
    assert file_store.get(large.id) == large


def test_a_full_disk_lets_small_things_be_written_after_something_was_deleted(file_store):
    for seed in range(6):
        file_store.add(make_run(seed, tokens=(32, 32)))
    with file_store.database.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull):
        file_store.add(make_run(50, tokens=(32, 32)))
    file_store.delete(make_run(0, tokens=(32, 32)).id)
    file_store.delete(make_run(1, tokens=(32, 32)).id)
    file_store.add(make_run(50, tokens=(32, 32)))
    assert file_store.count() == 5


def test_the_place_of_a_store_is_for_people(url, tmp_path):
    with open_store(url) as store:
        assert store.place == str(tmp_path / "keepmap.db")
    with open_store("sqlite://") as store:
        assert store.place == "the store in memory"


def test_a_relative_address_is_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store() as store:
        assert store.database.path == Path("keepmap.db")
    assert (tmp_path / "keepmap.db").is_file()
