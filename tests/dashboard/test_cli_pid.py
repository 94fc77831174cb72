"""`keepmap pid` as a user meets it: a table, JSON, the view, and one line for every mistake."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from dashboard.cli import main

FEW = ["--replicates", "100"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_benchmark_is_decomposed_printed_and_kept_in_the_view(capsys, tmp_path):
    arguments = ["pid", "--regimes", "2", "-s", "uniform_grid@0.25", "-s", "identity", *FEW]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "Up to 32 questions are put to the model" in printed.err
    lines = printed.out.splitlines()
    assert lines[0].split()[:4] == ["strategy", "task", "n", "redundancy"]
    assert [line.split()[0] for line in lines[1:9]] == ["identity@1.0"] * 4 + ["uniform_grid@0.25"] * 4
    assert "BROJA by posterior clouds, intervention shuffled, selection frozen, gate 0.3" in lines[-1]
    with sqlite3.connect(tmp_path / "keepmap.db") as store:
        rows = store.execute("SELECT strategy, task, n, total_bits FROM v_pid ORDER BY pid").fetchall()
    assert len(rows) == 8
    assert main([*arguments, "--by", "task,strategy"]) == 0
    again = capsys.readouterr()
    assert "Asked" not in again.err, "what is stored is not asked again"
    assert again.out.splitlines()[1].split()[:2] == ["identity@1.0", "knowledge"]


def test_json_holds_everything_and_layers_when_asked_for(capsys):
    assert main(["pid", "--regimes", "2", "--layers", "--intervention", "mean", "--json", *FEW]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["layer"] for one in found} == {None, 0, 1, 2, 3, 4, 5}
    assert {one["method"]["intervention"] for one in found} == {"mean"}
    assert set(found[0]["atoms"]) == {"redundancy", "unique_vision", "unique_language", "synergy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--intervention", "blur"], "--intervention is one of shuffled; mean; noise; dropped; options_kept"),
        (["--selection", "melted"], "--selection is one of frozen; rerun, got 'melted'"),
        (["--by", "model"], "--by is one of strategy,task; task,strategy, got 'model'"),
        (["--gate", "1.5"], "--gate is a probability from 0 (off) to 1, got 1.5"),
        (["--partners", "1"], "--partners must be at least 2, got 1"),
        (["--replicates", "5"], "--replicates must be at least 100, got 5"),
        (["--seed", "-1"], "--seed must be a whole number from 0 to 4294967295, got -1"),
        (["-s", "identity"], "-s belongs to --regimes"),
        (["--regimes", "1"], "the benchmark needs at least 2 pictures, got 1"),
        (["--regimes", "4", "-s", "nothing@0.5"], "no strategy is named 'nothing'"),
        (["--seed", "4294967296"], "got 4294967296"),
        (["--regimes", "4", "-s", "identity", "-s", "fastv@0.01"], "write at least"),
        (["--regimes", "4", "--where", "nonsense = 1"], "--where chooses among stored runs"),
        (["--regimes", "2", "--intervention", "mean", "--selection", "rerun"], "'rerun' is defined with intervention"),
        ([], "there is no store at keepmap.db; make a run first"),
        (["--db", "sqlite:///:memory:"], "0 stored runs of embedded give no two questions"),
        (["--db", "sqlite:///:memory:", "--where", "nonsense = 1"], "the condition is not one over the columns"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_line_and_nothing_is_stored(capsys, tmp_path, arguments, message):
    assert main(["pid", *arguments]) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("keepmap: ")]
    assert len(said) == 1
    assert message in said[0]
    if (tmp_path / "keepmap.db").exists():
        with sqlite3.connect(tmp_path / "keepmap.db") as store:
            assert store.execute("SELECT count(*) FROM v_pid").fetchone() == (0,)


def test_no_store_is_made_to_say_that_it_has_no_run(capsys, tmp_path):
    assert main(["pid"]) == 2
    assert (
        capsys.readouterr().err == "keepmap: there is no store at keepmap.db; make a run first, or name another file\n"
    )
    assert not list(tmp_path.iterdir())
