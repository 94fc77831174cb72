"""Programs that tests start beside themselves: one that writes many runs, one that is killed while it writes one.

python -m tests.storage.writers many URL FIRST COUNT
python -m tests.storage.writers killed URL
python -m tests.storage.writers dump > tests/storage/version_1.sql
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import event

from storage import open_store
from tests.factories import make_comparison, make_run

LARGE = {"tokens": (64, 64), "strategy": "dualcomp@0.25"}


def write_many(url: str, first: int, count: int) -> None:
    """Add `count` runs, one transaction each."""
    with open_store(url) as store:
        for seed in range(first, first + count):
            store.add(make_run(seed))


def add_and_die(url: str, moment: int) -> None:
    """Add a large run and be killed (SIGKILL) before the given statement of the transaction, or before its commit."""
    run = make_run(1, **LARGE)
    store = open_store(url)
    passed = 0

    def count(*_: Any) -> None:
        nonlocal passed
        passed += 1
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(store.database.engine, "before_cursor_execute", count)
    event.listen(store.database.engine, "after_cursor_execute", count)
    event.listen(store.database.engine, "commit", count)
    store.add(run)


def write_killed(url: str) -> None:
    """Kill a writer at each moment of one transaction in turn, and print what each left, as JSON lines."""
    whole, half = make_run(0), make_run(1, **LARGE)
    with open_store(url) as store:
        store.add(whole)
    moment = was_killed = 1
    while was_killed:
        child = os.fork()
        if child == 0:
            add_and_die(url, moment)
            os._exit(0)
        was_killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
        with open_store(url) as store, store.database.reading() as connection:
            report = {
                "was_killed": bool(was_killed),
                "runs": [summary.id for summary in store.find()],
                "orphans": connection.exec_driver_sql(
                    "SELECT count(*) FROM arrays WHERE digest NOT IN (SELECT digest FROM run_arrays)"
                ).scalar(),
                "integrity": connection.exec_driver_sql("PRAGMA integrity_check").scalar(),
                "is_readable": store.get(whole.id) == whole and (was_killed or store.get(half.id) == half),
            }
        print(json.dumps(report), flush=True)  # noqa: T201 the parent reads it
        moment += 1


def dump() -> str:
    """A small store as SQL: how version_1.sql was made, before version 0.1 was released."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keepmap.db"
        with open_store(f"sqlite:///{path}") as store:
            comparison, runs = make_comparison(strategies=("dualcomp@0.25",), tokens=(4, 4))
            store.add(replace(runs[0], answer=replace(runs[0].answer, text="red")))
            store.add_comparison(comparison)
        with closing(sqlite3.connect(path)) as connection:
            return "\n".join(connection.iterdump()).replace(" \n", "\n") + "\n"


if __name__ == "__main__":
    if sys.argv[1] == "dump":
        sys.stdout.write(dump())
    elif sys.argv[1] == "many":
        write_many(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        write_killed(sys.argv[2])
