"""What other processes do to a store, and what happens to it when they die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage import open_store
from tests.factories import make_run
from tests.storage.writers import LARGE

ROOT = Path(__file__).parents[2]


def started(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.storage.writers", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out


@pytest.mark.slow
def test_two_processes_write_one_new_store_at_once(url):
    writers = [started("many", url, first, 20) for first in (0, 100)]
    for writer in writers:
        finished(writer)
    with open_store(url) as store:
        assert sorted(summary.seed for summary in store.find(limit=100)) == [*range(20), *range(100, 120)]
        assert store.get(make_run(119).id) == make_run(119)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_of_adding_a_run_leaves_nothing_of_it(url):
    reports = [json.loads(line) for line in finished(started("killed", url)).splitlines()]
    whole, half = make_run(0), make_run(1, **LARGE)
    assert len(reports) > 10
    *killed, last = reports
    assert all(report["was_killed"] for report in killed)
    assert {tuple(report["runs"]) for report in killed} == {(whole.id,)}
    assert sorted(last["runs"]) == sorted([whole.id, half.id])
    for report in reports:
        assert (report["orphans"], report["integrity"], report["is_readable"]) == (0, "ok", True)
