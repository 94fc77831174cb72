"""A sweep on the embedded model: every request once, whatever fails or kills it in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from sqlite3 import OperationalError, connect
from typing import ClassVar

import pytest

from analysis.annotations import read_annotations, write_annotations
from compression.backends import load_model
from compression.backends.base import VLM
from compression.backends.embedded.questions import FAMILIES
from compression.compressor import Context, Stage, Strategy, StrategyInfo
from compression.errors import InvalidQuestion, ModelUnavailable
from compression.selection import Selection
from compression.strategies import CATALOGUE
from compression.tokens import VisualTokens
from dashboard.batch import write_balanced_scenes, write_scenes
from dashboard.cli import main
from dashboard.errors import InvalidSweep
from dashboard.settings import Settings
from dashboard.sweep_file import SweepFile, read_sweep
from dashboard.sweeping import Progress, duration, find_questions, plan_cells, sweep_and_store
from storage import Store, open_store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def embedded() -> VLM:
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of 256 pixels with three questions each."""
    folder = tmp_path_factory.mktemp("samples")
    write_scenes(folder, 2, 5, 256, 3)
    return folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(samples: Path, strategies: list[str], **more: object) -> Path:
    file = Path("s.toml")
    lines = {"name": "few", "strategies": strategies, "questions": str(samples), **more}
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in lines.items()))
    return file


def asked(samples: Path, strategies: list[str], **more: object) -> SweepFile:
    return read_sweep(written(samples, strategies, **more))


def swept(store: Store, asked: SweepFile, vlm: VLM, *, resume: bool = False):
    return sweep_and_store(asked, Settings(), store, resume=resume, load=lambda name: vlm)


class Counted:
    """A model that notes what it is asked to do, and does it."""

    def __init__(self, vlm: VLM, stop_after: int | None = None) -> None:
        self.vlm, self.stop_after, self.calls = vlm, stop_after, Counter()

    def __getattr__(self, name):
        return getattr(self.vlm, name)

    def encode(self, *arguments, **named):
        self.calls["encode"] += 1
        return self.vlm.encode(*arguments, **named)

    def encode_reduced(self, *arguments):
        self.calls["encode_reduced"] += 1
        return self.vlm.encode_reduced(*arguments)

    def encode_merged(self, *arguments):
        self.calls["encode_merged"] += 1
        return self.vlm.encode_merged(*arguments)

    def generate(self, *arguments, **named):
        if self.calls["generate"] == self.stop_after:
            raise KeyboardInterrupt
        self.calls["generate"] += 1
        return self.vlm.generate(*arguments, **named)


@dataclass(frozen=True)
class Broken(Strategy):
    """Fail on every image."""

    info: ClassVar[StrategyInfo] = StrategyInfo(
        name="broken", title="Broken", paper="", stage=Stage.ENCODER, needs=frozenset(), reduces="prunes"
    )

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        raise IndexError("index 7 is out of range")


# ---------------------------------------------------------------------------------------------------------- planning


def test_every_question_meets_every_plan_and_seed_once(samples, embedded):
    file = asked(samples, ["identity", "divprune"], ratios=[0.5, 0.25], seeds=[0, 3])
    cells = plan_cells(file, find_questions(file, Path("keepmap.db")), embedded)
    assert len(cells) == 6 * 3 * 2
    assert len({cell.swept.request for cell in cells}) == len(cells)
    assert {(cell.swept.strategy, cell.swept.seed) for cell in cells} == {
        (strategy, seed) for strategy in ("identity@1.0", "divprune@0.5", "divprune@0.25") for seed in (0, 3)
    }


def test_a_question_that_stands_twice_is_asked_once(samples, embedded, tmp_path):
    lines = read_annotations(samples / "questions.jsonl")
    for name in {line.image for line in lines}:
        (tmp_path / name).write_bytes((samples / name).read_bytes())
    write_annotations(tmp_path / "questions.jsonl", [*lines, lines[0]])
    file = asked(tmp_path, ["identity"])
    assert len(plan_cells(file, find_questions(file, Path("keepmap.db")), embedded)) == 6


def test_a_budget_that_cannot_be_met_inside_the_model_is_marked_with_the_lowest_one(samples, embedded):
    file = asked(samples, ["fastv@0.5", "fastv@10"])
    refused = [cell for cell in plan_cells(file, find_questions(file, Path("keepmap.db")), embedded) if cell.is_refused]
    assert {(cell.swept.strategy, cell.swept.state, cell.swept.lowest) for cell in refused} == {
        ("fastv@10", "unreachable", 44)
    }


def test_what_a_model_has_no_signal_or_layer_for_is_refused(samples, embedded):
    file = asked(samples, ["fastv:layer=9@0.5", "divprune@0.5"])
    cells = plan_cells(file, find_questions(file, Path("keepmap.db")), embedded)
    assert {(cell.swept.strategy, cell.swept.state) for cell in cells} == {
        ("fastv:layer=9@0.5", "refused"),
        ("divprune@0.5", "done"),
    }
    assert all(cell.is_refused == (cell.swept.state == "refused") for cell in cells)


def test_an_image_that_is_missing_is_said_before_anything_runs(samples, tmp_path):
    lines = read_annotations(samples / "questions.jsonl")
    write_annotations(tmp_path / "questions.jsonl", lines)
    with pytest.raises(InvalidSweep, match=f"asks about {lines[0].image}, which is not in"):
        find_questions(asked(tmp_path, ["identity"]), Path("keepmap.db"))


def test_a_list_without_a_question_is_refused(tmp_path):
    (tmp_path / "questions.jsonl").write_text("\n")
    with pytest.raises(InvalidSweep, match="there is no question in"):
        find_questions(asked(tmp_path, ["identity"]), Path("keepmap.db"))


def test_a_question_that_cannot_be_read_stops_the_plan(samples, embedded):
    file = asked(samples, ["identity"])
    [first, *_] = find_questions(file, Path("keepmap.db"))
    with pytest.raises(InvalidQuestion):
        plan_cells(file, [replace(first, question="xyzzy plugh")], embedded)


def test_scenes_are_written_beside_the_store_and_left_alone_on_resume(tmp_path):
    Path("s.toml").write_text('name = "few"\nstrategies = ["identity"]\n[scenes]\ncount = 1\nquestions = 2\n')
    file, store = read_sweep(Path("s.toml")), tmp_path / "paper.db"
    first = find_questions(file, store)
    assert len(first) == 2
    assert first[0].path.parent == tmp_path / "paper.db.scenes" / "few-1x256-seed0-2"
    before = first[0].path.stat().st_mtime_ns
    assert find_questions(file, store, resume=True) == first
    assert first[0].path.stat().st_mtime_ns == before


# ----------------------------------------------------------------------------------------------------------- running


def test_each_image_is_encoded_once_for_all_strategies_and_every_run_is_stored(samples, embedded):
    counted = Counted(embedded)
    with open_store("sqlite:///keepmap.db") as store:
        sweep = swept(store, asked(samples, ["identity", "uniform_grid@0.25", "fastv@10"]), counted)
        assert counted.calls == {"encode": 2, "generate": 12}
        assert (sweep.planned, sweep.done, sweep.failed, sweep.refused) == (18, 12, 0, 6)
        assert sweep.finished_utc is not None
        requests = store.swept_requests(sweep.sweep)
        runs = [store.get(one.run) for one in requests if one.run]
        assert {run.request.digest for run in runs} == {one.request for one in requests if one.state == "done"}
        assert all(run.comparison == "" and not run.recording.arrays() for run in runs)
        assert all((run.cost.prefill.repeats, run.cost.warmup) == (1, 0) for run in runs)
        assert store.failures() == []


def test_strategies_that_encode_the_image_themselves_are_swept_without_the_shared_encoding(samples, embedded):
    counted = Counted(embedded)
    with open_store("sqlite:///keepmap.db") as store:
        sweep = swept(store, asked(samples, ["tome@0.25", "downsample@0.25", "tome@8"]), counted)
        assert counted.calls == {"generate": 12, "encode_reduced": 2, "encode_merged": 2}
        assert (sweep.done, sweep.failed, sweep.refused) == (12, 0, 6)
        requests = store.swept_requests(sweep.sweep)
        assert {(one.strategy, one.state, one.lowest) for one in requests if one.state != "done"} == {
            ("tome@8", "unreachable", 16)
        }
        runs = [store.get(one.run) for one in requests if one.run]
        assert {(run.strategy_name, run.tokens_total, run.tokens_encoded, run.tokens_kept) for run in runs} == {
            ("tome", 256, 256, 64),
            ("downsample", 256, 64, 64),
        }
        assert {one.retention_ratio for one in requests if one.run} == {0.25}


def test_a_sweep_answers_as_a_single_run_does(samples, embedded):
    from analysis.pipeline import execute

    file = asked(samples, ["dualcomp@0.25"])
    with open_store("sqlite:///keepmap.db") as store:
        swept(store, file, embedded)
        for inquiry in find_questions(file, Path("keepmap.db"))[:2]:
            alone = execute(inquiry, file.plans[0], embedded, record=(), repeats=1)
            [row] = store.find(request=alone.request.digest)
            assert store.get(row.run).answer == alone.answer
            assert store.get(row.run).selection == alone.selection


def test_a_strategy_that_fails_is_recorded_and_the_others_are_done(samples, embedded):
    file = read_sweep(written(samples, ["broken@0.5", "identity"]), CATALOGUE.register(Broken))
    with open_store("sqlite:///keepmap.db") as store:
        sweep = swept(store, file, embedded)
        assert (sweep.done, sweep.failed, sweep.finished_utc is not None) == (6, 6, True)
        assert {one.reason for one in store.failures()} == {"IndexError: index 7 is out of range"}
        assert all(one.request["strategy"] == "broken@0.5" for one in store.failures())


def test_an_image_that_cannot_be_encoded_fails_alone(samples, embedded, tmp_path):
    lines = read_annotations(samples / "questions.jsonl")
    names = sorted({line.image for line in lines})
    for name in names:
        (tmp_path / name).write_bytes((samples / name).read_bytes())
    write_annotations(tmp_path / "questions.jsonl", lines)
    file = asked(tmp_path, ["identity"])

    class Unreadable(Counted):
        def encode(self, *arguments, **named):
            if not self.calls["encode"]:
                self.calls["encode"] += 1
                raise MemoryError("no room for this image")
            return super().encode(*arguments, **named)

    with open_store("sqlite:///keepmap.db") as store:
        sweep = swept(store, file, Unreadable(embedded))
        assert (sweep.done, sweep.failed) == (3, 3)
        assert {(one.stage, one.reason) for one in store.failures()} == {
            ("encode", "MemoryError: no room for this image")
        }
        assert {row.image_name for row in store.find()} == {names[1]}


def test_a_sweep_that_was_stopped_goes_on_with_what_is_missing_only(samples, embedded):
    file = asked(samples, ["identity", "uniform_grid@0.25"])
    with open_store("sqlite:///keepmap.db") as store:
        with pytest.raises(KeyboardInterrupt):
            swept(store, file, Counted(embedded, stop_after=5))
        half = store.find_sweep("few")
        assert (half.done, half.planned, half.finished_utc) == (5, 12, None)
        rest = Counted(embedded)
        whole = swept(store, file, rest, resume=True)
        assert rest.calls["generate"] == 7
        assert (whole.sweep, whole.done, store.count()) == (half.sweep, 12, 12)
        again = Counted(embedded)
        swept(store, file, again, resume=True)
        assert again.calls == {}


def test_what_failed_is_tried_again_on_resume(samples, embedded):
    file = asked(samples, ["identity"])

    class OutOfMemory(Counted):
        def generate(self, *arguments, **named):
            self.calls["generate"] += 1
            if self.calls["generate"] == 2:
                raise RuntimeError("out of memory")
            return self.vlm.generate(*arguments, **named)

    with open_store("sqlite:///keepmap.db") as store:
        assert swept(store, file, OutOfMemory(embedded)).failed == 1
        rest = Counted(embedded)
        sweep = swept(store, file, rest, resume=True)
        assert (sweep.done, sweep.failed, rest.calls["generate"]) == (6, 0, 1)


def test_a_sweep_grows_with_its_file(samples, embedded):
    with open_store("sqlite:///keepmap.db") as store:
        swept(store, asked(samples, ["identity"]), embedded)
        more = Counted(embedded)
        sweep = swept(store, asked(samples, ["identity", "uniform_grid@0.25"]), more, resume=True)
        assert (sweep.planned, sweep.done, more.calls["generate"]) == (12, 12, 6)


def test_a_name_that_is_taken_is_refused_without_resume(samples, embedded):
    with open_store("sqlite:///keepmap.db") as store:
        swept(store, asked(samples, ["identity"]), embedded)
        with pytest.raises(InvalidSweep, match="a sweep named few is stored, 6 of 6 requests have ended"):
            swept(store, asked(samples, ["identity"]), embedded)


def test_a_model_that_cannot_be_loaded_is_found_before_the_first_one_runs(samples, embedded):
    def load(name: str) -> VLM:
        if name == "nowhere":
            raise ModelUnavailable("nowhere cannot be loaded")
        return embedded

    with open_store("sqlite:///keepmap.db") as store:
        with pytest.raises(ModelUnavailable):
            sweep_and_store(asked(samples, ["identity"], models=["embedded", "nowhere"]), Settings(), store, load=load)
        assert (store.count(), store.find_sweep("few")) == (0, None)


# ------------------------------------------------------------------------------------------------- from outside


def test_the_command_prints_accuracies_and_stores_the_sweep(samples, capsys):
    file = written(samples, ["identity", "uniform_grid@0.25", "fastv@10"])
    assert main(["sweep", str(file), "--csv", "few.csv"]) == 0
    told = capsys.readouterr()
    assert "unreachable" in told.out
    assert "18 requests: 12 done, 0 failed, 6 unreachable or not offered. Stored in keepmap.db as few" in told.out
    assert "12 of 12 runs" in told.err
    assert main(["sweep", str(file), "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["sweep"]["done"] == 12
    assert sum(one["n"] for one in again["figures"]) == 12
    assert len(Path("few.csv").read_text().splitlines()) == 1 + len(again["figures"])


def spoilt(samples: Path, folder: Path, spoil) -> str:
    """Copy the samples with the first image's bytes changed; returns its name."""
    lines = read_annotations(samples / "questions.jsonl")
    first, second = sorted({line.image for line in lines})
    (folder / first).write_bytes(spoil((samples / first).read_bytes()))
    (folder / second).write_bytes((samples / second).read_bytes())
    write_annotations(folder / "questions.jsonl", lines)
    return first


def test_a_truncated_image_is_refused_before_anything_runs(samples, tmp_path, capsys):
    name = spoilt(samples, tmp_path, lambda whole: whole[: len(whole) // 2])
    assert main(["sweep", str(written(tmp_path, ["identity"]))]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"keepmap: {name}")
    assert told.count("\n") == 1
    with open_store("sqlite:///keepmap.db") as store:
        assert (store.count(), store.find_sweep("few")) == (0, None)


def test_an_image_with_damaged_pixels_fails_alone_and_the_command_says_so(samples, tmp_path, capsys):
    name = spoilt(samples, tmp_path, lambda whole: whole[:20_000] + bytes(40_000) + whole[60_000:])
    assert main(["sweep", str(written(tmp_path, ["identity"]))]) == 1
    told = capsys.readouterr()
    assert "3 done, 3 failed" in told.out
    assert told.err.splitlines()[-1].startswith(f"keepmap: identity@1.0: the pixels of {name} cannot")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "Ctrl+C"])
def test_a_sweep_that_is_ended_from_outside_runs_nothing_twice(samples, tmp_path, capsys, how):
    file = written(samples, ["identity", "uniform_grid@0.25"], seeds=list(range(8)))
    command = [sys.executable, "-m", "dashboard.cli", "sweep", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell starts what runs in the background deaf to Ctrl+C, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while process.poll() is None and stored(tmp_path / "keepmap.db") < 3:
        os.sched_yield()
    process.send_signal(how)
    told = process.communicate()[1].decode()
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else 130)
    assert ("go on with --resume" in told) == (how == signal.SIGINT)
    with open_store("sqlite:///keepmap.db") as store:
        half = store.find_sweep("few")
        assert 3 <= half.done == store.count() < half.planned == 96
        before = {row.run: store.get(row.run) for row in store.find(limit=96)}
    assert main(["sweep", str(file), "--resume"]) == 0
    assert f"{96 - len(before)} of {96 - len(before)} runs" in capsys.readouterr().err
    with open_store("sqlite:///keepmap.db") as store:
        rows = store.find(limit=200)
        assert len(rows) == len({row.request for row in rows}) == 96
        assert all(store.get(run_id) == run for run_id, run in before.items())
        assert store.find_sweep("few").finished_utc is not None


def stored(database: Path) -> int:
    """Runs in a store that another process writes, 0 while it is being made."""
    if not database.exists():
        return 0
    with closing(connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute("SELECT done FROM v_sweeps").fetchone()[0])
        except (OperationalError, TypeError):
            return 0


# ---------------------------------------------------------------------------------------------------------- progress


def test_progress_tells_the_time_left_from_the_pace_so_far():
    seconds, told = iter([0.0, 1.0, 4.0, 5.0]), []
    progress = Progress(4, told.append, clock=lambda: next(seconds))
    progress.ended(failed=False)
    progress.ended(failed=True)
    assert told == ["2 of 4 runs, 1 failed, 0.5 a second, 4 s left"]
    progress.ended(failed=False)
    assert len(told) == 1


def test_the_last_run_is_always_told():
    told: list[str] = []
    Progress(1, told.append, clock=lambda: 0.0).ended(failed=False)
    assert told == ["1 of 1 runs"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.4, "59 s"), (90, "2 min"), (3600, "1 h 00 min"), (90_060, "25 h 01 min")]
)
def test_a_time_is_said_for_people(seconds, text):
    assert duration(seconds) == text


def test_balanced_scenes_ask_as_many_questions_of_each_family_and_little_of_each_scene(tmp_path: Path):
    assert write_balanced_scenes(tmp_path, 5, 40, 256, 6) == 15
    lines = read_annotations(tmp_path / "questions.jsonl")
    assert Counter(line.family for line in lines) == dict.fromkeys(FAMILIES, 5)
    assert max(Counter((line.image, line.family) for line in lines).values()) == 2
    assert {line.image for line in lines} == {file.name for file in tmp_path.glob("*.tif")}
