"""The command line as a user meets it: what it prints, what it stores, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio

from analysis.annotations import read_annotations
from analysis.imagery import describe, encode_png, write_geotiff
from dashboard.cli import build_parser, main
from storage import open_store

ROOT = Path(__file__).resolve().parents[2]
COUNT = "How many ships are there?"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sample scenes with questions, as the command writes them."""
    folder = tmp_path_factory.mktemp("scenes")
    assert main(["scenes", str(folder), "--count", "2", "--seed", "5"]) == 0
    return folder


@pytest.fixture
def scene(scenes: Path) -> Path:
    """One of them."""
    return scenes / "scene-256-00005.tif"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default store lies in the working directory: each test has its own."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> int:
    return main(["run", *map(str, arguments), "--repeats", "1"])


def test_scenes_are_georeferenced_and_their_questions_know_their_answers(scenes, scene):
    lines = read_annotations(scenes / "questions.jsonl")
    assert {line.image for line in lines} == {"scene-256-00005.tif", "scene-256-00006.tif"}
    assert all(line.answer in line.choices for line in lines)
    assert describe(scene).crs.startswith("EPSG:326")
    assert describe(scene).size == (256, 256)


def test_a_run_is_printed_stored_and_known_to_be_right_or_wrong(scenes, capsys):
    line = next(one for one in read_annotations(scenes / "questions.jsonl") if one.evidence)
    assert run(scenes / line.image, line.question, "-s", "identity", "-s", "dualcomp@0.25", "-s", "fastv@128") == 0
    printed = capsys.readouterr().out
    assert "dualcomp@0.25" in printed
    assert "right" in printed or "wrong" in printed
    with open_store("sqlite:///keepmap.db") as store:
        rows = store.find()
        assert sorted(row.strategy for row in rows) == ["dualcomp@0.25", "fastv@128", "identity@1.0"]
        assert all(row.answer_expected == line.answer and row.evidence_recall is not None for row in rows)
        assert [pane.state for pane in store.comparison(rows[0].comparison).panes] == ["done"] * 3


def test_a_plan_of_two_steps_is_run_and_stored(scenes, scene, capsys):
    plan = "visiondrop@0.5+visiondrop_stages@0.25"
    assert run(scene, COUNT, "-s", plan, "--json") == 0
    [one] = json.loads(capsys.readouterr().out)["runs"]
    assert one["strategy"] == plan
    assert one["tokens"]["requested"] == 64
    entering = one["tokens"]["per_layer"]
    assert entering[0] == 128
    assert 63 < one["tokens"]["realised"] <= 64
    assert one["tokens"]["realised"] == sum(entering) / len(entering)
    # What leaves a layer enters the next one; what leaves the last one entered it.
    assert one["tokens"]["realised_leaving"] == sum([*entering[1:], entering[-1]]) / len(entering)
    assert one["tokens"]["realised_leaving"] < one["tokens"]["realised"]
    with open_store("sqlite:///keepmap.db") as store:
        [row] = store.find()
        assert (row.strategy, row.strategy_stage, row.budget_requested) == (plan, "encoder+decoder", 64)


def test_the_json_has_every_promised_field(scenes, capsys):
    line = read_annotations(scenes / "questions.jsonl")[0]
    assert run(scenes / line.image, line.question, "-s", "dualcomp", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {"image", "question", "choices", "model", "runs"} <= told.keys()
    [one] = told["runs"]
    assert {
        "run",
        "request",
        "strategy",
        "answer",
        "probabilities",
        "kept",
        "merged",
        "dropped",
        "labels",
        "environment",
    } <= one.keys()
    assert {"total", "requested", "realised", "realised_leaving", "per_layer"} <= one["tokens"].keys()
    assert {"lambda", "rho", "stream shares"} <= one["router"].keys()
    assert {"encode_seconds", "compress_seconds", "prefill_seconds", "decode_seconds", "prefill_flops"} <= one[
        "cost"
    ].keys()
    assert {"kv_cache_bytes", "peak_memory_bytes", "device", "repeats"} <= one["cost"].keys()
    assert one["kept"] + one["merged"] + one["dropped"] == one["tokens"]["total"] == 256


def test_expected_answer_evidence_and_choices_can_be_given(scene, capsys):
    given = ("--choice", "two", "--choice", "six", "--expected", "two", "--evidence", "0,0,16,16", "--json")
    assert run(scene, COUNT, "-s", "identity", *given) == 0
    [one] = json.loads(capsys.readouterr().out)["runs"]
    assert list(one["probabilities"]) == ["two", "six"]
    assert one["expected"] == "two"
    assert one["evidence_recall"] == 1.0


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("nonesuch@0.5", "no strategy is named 'nonesuch'"),
        ("dualcmp@0.5", "did you mean dualcomp?"),
        ("divprune", "needs a budget"),
        ("divprune@0", "at least 1 visual token"),
        ("divprune@-4", "a budget is a retention ratio"),
        ("divprune@1.5", "a budget is a retention ratio"),
        ("identity@0.5", "identity keeps all 256 visual tokens, got a budget of 128"),
        ("divprune@257", "above the 256 visual tokens"),
        ("fastv@10", "write at least 44"),
        ("fastv:layer=9@128", "got layer 9"),
        ("fastv:depth=2@128", "has no parameter 'depth'"),
        ("dualcomp:tau0=many@64", "tau0 takes a number"),
        ("fastv:layer@64", "param=value"),
        ("@64", "a strategy is written"),
    ],
)
def test_a_mistake_in_a_strategy_is_one_line_and_nothing_is_stored(scene, capsys, strategy, message):
    assert run(scene, COUNT, "-s", "identity", "-s", strategy) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert not Path("keepmap.db").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.png", b"not an image at all"),
        ("empty.tif", b""),
        ("page.jpg", b"<html><body>hello</body></html>"),
        ("header.png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x01\x86\xa0\x00\x01\x86\xa0\x08\x02\x00\x00\x00"),
    ],
)
def test_a_file_that_is_no_image_is_refused_in_one_line(tmp_path, capsys, name, content):
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name, COUNT, "-s", "identity") == 2
    told = capsys.readouterr().err
    assert told.startswith("keepmap: ")
    assert name in told
    assert told.count("\n") == 1
    assert not Path("keepmap.db").exists()


def test_a_truncated_image_is_refused_in_one_line(scene, tmp_path, capsys):
    whole = scene.read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path / "cut.tif", COUNT, "-s", "identity") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (64, 64, 4)], ids=["one pixel", "one row", "with alpha"])
def test_unusual_images_are_handled(tmp_path, capsys, shape):
    (tmp_path / "odd.png").write_bytes(encode_png(np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)))
    assert run(tmp_path / "odd.png", COUNT, "-s", "identity", "-s", "dualcomp@0.25") == 0
    assert "Note: This model was trained on synthetic scenes only" in capsys.readouterr().out


def test_a_sixteen_bit_image_with_four_bands_is_handled(tmp_path, capsys):
    place = rasterio.Affine(10, 0, 500000, 0, -10, 5000000)
    with rasterio.open(
        tmp_path / "deep.tif",
        "w",
        driver="GTiff",
        width=64,
        height=48,
        count=4,
        dtype="uint16",
        crs="EPSG:32633",
        transform=place,
    ) as file:
        file.write(np.random.default_rng(0).integers(0, 4000, (4, 48, 64), dtype=np.uint16))
    assert run(tmp_path / "deep.tif", COUNT, "-s", "uniform_grid@0.25", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["image"]["crs"] == "EPSG:32633"
    assert "percentile" in told["image"]["rendering"]


def test_only_files_that_declare_it_count_as_synthetic(scene, capsys, tmp_path):
    write_geotiff(tmp_path / "same.tif", np.zeros((256, 256, 3), dtype=np.uint8), None, None)
    labels = []
    for image in (tmp_path / "same.tif", scene):
        assert run(image, COUNT, "-s", "identity", "--json") == 0
        labels.append(json.loads(capsys.readouterr().out)["runs"][0]["labels"])
    assert ["out of domain" in one for one in labels] == [True, False]


@pytest.mark.data
@pytest.mark.parametrize("name", ["m_4709963_se_14_1_20200831.tif", "landsat_bahamas_rgb.tif", "berkeley.jpg"])
def test_real_images_are_asked_about_and_labelled_as_outside_the_models_domain(capsys, name):
    folder = Path(os.environ.get("KEEPMAP_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / name).is_file():
        pytest.skip(f"{name} is not in the data folder; set KEEPMAP_TEST_DATA to one that holds it")
    assert run(folder / name, COUNT, "-s", "identity", "-s", "dualcomp@0.25", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["image"]["crs"] is None) == name.endswith(".jpg")
    assert all("out of domain" in one["labels"] for one in told["runs"])


@pytest.mark.parametrize(
    "verb",
    [
        ["run", COUNT, "-s", "identity"],
        ["serve"],
        ["pid", "--regimes", "2"],
        ["train-embedded", "--minutes", "1"],
        ["sweep", "sweep.toml"],
    ],
    ids=lambda verb: verb[0],
)
def test_a_device_that_is_not_there_is_one_line_before_anything_runs(scene, capsys, monkeypatch, verb):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    Path("sweep.toml").write_text('name = "a"\nstrategies = ["identity"]\nquestions = "' + str(scene.parent) + '"\n')
    name, *words = verb
    image = [str(scene)] if name == "run" else []
    assert main([name, *image, *words, "--device", "cuda"]) == 2
    told = capsys.readouterr().err
    assert "this machine has no CUDA GPU that PyTorch can use; use auto or cpu" in told
    assert told.count("\n") == 1
    assert not _count(Path("keepmap.db"), "SELECT COUNT(*) FROM v_runs")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--choice", "two"), "answers to choose among are 2 to 64, got 1"),
        (("--choice", "two", "--choice", "Two"), "the choice 'two' is given twice"),
        (("--choice", "two", "--choice", "six", "--expected", "banana"), "'banana' is none of the answers"),
        (("--expected", "banana"), "'banana' is none of the answers to choose among: zero, one"),
        (("--evidence", "300,0,310,10"), "lies outside the image of 256 x 256 pixels"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_answers_and_evidence_that_cannot_be_are_refused_in_one_line(scene, capsys, arguments, message):
    assert run(scene, COUNT, "-s", "identity", *arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not Path("keepmap.db").exists()


def test_the_hint_opens_the_store_that_was_written(scene, capsys):
    assert run(scene, COUNT, "-s", "identity", "--db", "sqlite:///my runs.db") == 0
    assert "keepmap serve --db 'sqlite:///my runs.db', then /?comparison=" in capsys.readouterr().out
    assert run(scene, COUNT, "-s", "identity", "--db", "sqlite:///:memory:") == 0
    printed = capsys.readouterr().out
    assert "Open it" not in printed
    assert "The store was in memory and is gone" in printed


def test_a_run_that_dies_leaves_failed_panes_and_no_waiting_ones(scene, monkeypatch):
    def dies(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("analysis.pipeline.execute", dies)
    assert run(scene, COUNT, "-s", "identity", "-s", "fastv@128") == 130
    with open_store("sqlite:///keepmap.db") as store:
        [comparison] = store.comparisons()
        assert [pane.state for pane in comparison.panes] == ["failed", "failed"]
        assert "The run stopped before its end: KeyboardInterrupt" in comparison.panes[0].reason
        assert [job.state for job in store.jobs()] == ["failed"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ("", "is empty"),
        ("xyzzy plugh", "knows no word"),
        ("How many ships are there? " * 100, "2,599 characters, up to 2,000"),
    ],
    ids=["empty", "unknown", "long"],
)
def test_a_question_that_cannot_be_asked_is_one_line(scene, capsys, question, message):
    assert run(scene, question, "-s", "identity") == 2
    assert message in capsys.readouterr().err
    assert not Path("keepmap.db").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "a.tif"], "required"),
        (["run", "a.tif", "q"], "--strategy"),
        (["run", "a.tif", "q", "-s", "identity", "--record", "dreams"], "cannot be recorded"),
        (["run", "a.tif", "q", "-s", "identity"], "a.tif"),
        (["run", "a.tif", "q", "-s", "identity", "--repeats", "0"], "repeats must lie in 1"),
        (["scenes", "x", "--count", "0"], "--count must be at least 1"),
        (["scenes", "x", "--size", "300"], "multiple of 256"),
        (["scenes", "x", "--seed", "-1"], "--seed must be a whole number from 0 to 4294967295, got -1"),
        (["run", "a.tif", "q", "-s", "identity", "--seed", "-1"], "--seed must be a whole number from 0"),
        (["run", "a.tif", "q", "-s", "identity", "--seed", "4294967296"], "to 4294967295, got 4294967296"),
        (["train-embedded", "--seed", "4294967296"], "to 4294967295, got 4294967296"),
        (["train-embedded", "--output", "/dev/null"], "/dev/null is a file; name a folder"),
        (["run", ".", "q", "-s", "identity"], "'.' is a folder; give the path of a local image"),
        (["run", "/dev/null", "q", "-s", "identity"], "'null' is no regular file"),
        (["scenes", "x" * 300], "cannot be written: File name too long"),
        (["train-embedded", "--minutes", "-1"], "--minutes must be above 0"),
        (["train-embedded", "--resume"], "nothing to resume"),
        (["train-embedded", "--steps", "10,20"], "four whole numbers"),
        (["serve", "--port", "0"], "port must lie in 1"),
        (["sweep"], "required: FILE.toml"),
        (["export"], "invalid choice"),
    ],
)
def test_other_mistakes_are_one_line_and_exit_code_2(capsys, arguments, message):
    try:
        code = main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_box_that_is_none_is_one_line(scene, capsys):
    assert run(scene, COUNT, "-s", "identity", "--evidence", "1,2,3") == 2
    assert "a box is left, top, right, bottom" in capsys.readouterr().err


def test_an_unreachable_model_is_one_line(scene, capsys, tmp_path):
    assert run(scene, COUNT, "-s", "identity", "--model", str(tmp_path / "weights")) == 2
    assert "cannot be loaded" in capsys.readouterr().err


def test_a_corrupt_store_is_named_and_left_alone(scene, capsys):
    Path("keepmap.db").write_text("this is not a database, and it is long enough to be read as one" * 20)
    before = Path("keepmap.db").read_bytes()
    assert run(scene, COUNT, "-s", "identity") == 2
    told = capsys.readouterr().err
    assert "keepmap.db" in told
    assert told.count("\n") == 1
    assert Path("keepmap.db").read_bytes() == before


def test_a_killed_run_leaves_a_store_that_opens_and_shows_no_half_run(scene, tmp_path):
    command = [sys.executable, "-m", "dashboard.cli", "run", str(scene), COUNT, "--repeats", "50"]
    command += [part for _ in range(8) for part in ("-s", "identity")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    database = tmp_path / "keepmap.db"
    while process.poll() is None and not _count(database, "SELECT COUNT(*) FROM v_runs"):
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with open_store(f"sqlite:///{database}") as store:
        found = store.find()
        assert 1 <= len(found) < 8
        assert [job.state for job in store.fail_orphans(-1.0)] == ["failed"]
        states = [pane.state for pane in store.comparison(found[0].comparison).panes]
        assert set(states) <= {"done", "failed"}
        assert states[-1] == "failed"
        assert all(store.get(row.run).selection.tokens == 256 for row in found)
    assert _count(database, "SELECT COUNT(*) FROM v_choices") == 7 * len(found)


def _count(database: Path, sql: str) -> int:
    if not database.exists():
        return 0
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        return int(connection.execute(sql).fetchone()[0])
    except sqlite3.OperationalError:  # being made at this moment
        return 0
    finally:
        connection.close()


def test_every_verb_has_help_with_an_example(capsys):
    for verb in ("serve", "run", "scenes", "sweep", "strategies", "models", "train-embedded", "doctor"):
        with pytest.raises(SystemExit) as exit_:
            build_parser().parse_args([verb, "--help"])
        assert exit_.value.code == 0
        assert f"Example: keepmap {verb}" in " ".join(capsys.readouterr().out.split())


def test_help_answers_without_heavy_imports():
    heavy = "('torch', 'gradio', 'transformers', 'rasterio', 'sqlalchemy')"
    code = (
        "import sys; from dashboard.cli import build_parser; build_parser().format_help(); "
        f"print([module for module in {heavy} if module in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_strategies_and_models_are_listed_as_text_and_json(capsys):
    assert main(["strategies"]) == 0
    assert "dualcomp" in capsys.readouterr().out
    assert main(["strategies", "--json"]) == 0
    told = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert "reconstruction" in " ".join(told["dualcomp"]["labels"])
    assert main(["models", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known[0]["name"] == "embedded"
    for one in known:
        assert one["gpu"]["weights_bytes"] == one["parameters"] * one["gpu"]["width"]
        parts = ("weights_bytes", "kv_cache_bytes", "activation_bytes")
        assert one["cpu"]["total_bytes"] == sum(one["cpu"][part] for part in parts)
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    assert all(one["name"] in printed for one in known)
    assert "GB" in printed


def test_the_doctor_finds_what_is_there(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "embedded weights" in printed
    assert "torch" in printed
