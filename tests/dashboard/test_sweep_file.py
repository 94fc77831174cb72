"""A sweep's file is followed as it stands, or refused in one line that names the key, before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.cli import main
from dashboard.errors import InvalidSweep
from dashboard.sweep_file import Scenes, expand, read_sweep

SCENES = "[scenes]\ncount = 1\n"
BASE = 'name = "a"\nstrategies = ["identity"]\n'


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(text: str) -> Path:
    file = Path("sweep.toml")
    file.write_text(text, encoding="utf-8")
    return file


def strategies(text: str) -> list[str]:
    return [str(plan) for plan in read_sweep(written(text + SCENES)).plans]


def test_strategies_without_a_budget_run_at_every_ratio_and_the_others_at_their_own():
    text = 'name = "a"\nstrategies = ["identity", "fastv:layer=2", "divprune@64", "dualcomp"]\nratios = [0.5, 0.25]\n'
    assert strategies(text) == [
        "identity@1.0",
        "fastv:layer=2@0.5",
        "fastv:layer=2@0.25",
        "divprune@64",
        "dualcomp@0.5",
        "dualcomp@0.25",
    ]


def test_the_ratios_are_those_of_the_last_step_of_a_plan():
    text = 'name = "a"\nstrategies = ["visiondrop@0.5+visiondrop_stages", "dualcomp+fastkv@64"]\nratios = [0.5, 0.25]\n'
    assert strategies(text) == [
        "visiondrop@0.5+visiondrop_stages@0.5",
        "visiondrop@0.5+visiondrop_stages@0.25",
        "dualcomp+fastkv@64",
    ]


def test_without_ratios_an_adaptive_strategy_chooses_its_own_budget():
    assert strategies('name = "a"\nstrategies = ["dualcomp"]\n') == ["dualcomp"]


def test_the_same_strategy_written_twice_is_one():
    assert strategies('name = "a"\nstrategies = ["identity", "identity@1.0", "divprune@.5", "divprune@0.50"]\n') == [
        "identity@1.0",
        "divprune@0.5",
    ]


def test_expansion_keeps_the_order_of_the_file():
    assert expand(["b", "a@3"], [0.1, 1.0]) == ["b@0.1", "b@1.0", "a@3"]


def test_what_is_left_out_has_its_default():
    asked = read_sweep(written(BASE + SCENES))
    assert (asked.models, asked.seeds, asked.record, asked.repeats, asked.warmup) == ((), (0,), (), 1, 0)
    assert (asked.folder, asked.scenes) == (None, Scenes(count=1))


def test_questions_are_looked_for_beside_the_file(tmp_path):
    (tmp_path / "in" / "samples").mkdir(parents=True)
    (tmp_path / "in" / "samples" / "questions.jsonl").write_text("")
    (tmp_path / "in" / "s.toml").write_text(BASE + 'questions = "samples"\n')
    assert read_sweep(tmp_path / "in" / "s.toml").folder == tmp_path / "in" / "samples"


BAD = [
    ("name = ", "is not TOML"),
    (BASE + "strategy = 1\n" + SCENES, "has no key 'strategy'; it has: name, models"),
    (BASE + "[scenes]\nnumber = 3\n", r"[scenes] has no key 'number'; it has: count"),
    ('strategies = ["identity"]\n' + SCENES, "name must be up to 64"),
    ('name = "../a"\nstrategies = ["identity"]\n' + SCENES, "name must be up to 64"),
    ('name = "a"\n' + SCENES, "strategies must be a list of texts"),
    ('name = "a"\nstrategies = []\n' + SCENES, "strategies is empty"),
    ('name = "a"\nstrategies = "identity"\n' + SCENES, "strategies must be a list of texts"),
    ('name = "a"\nstrategies = [3]\n' + SCENES, "strategies must be a list of texts"),
    ('name = "a"\nstrategies = ["dualcmp@0.5"]\n' + SCENES, "did you mean dualcomp?"),
    ('name = "a"\nstrategies = ["visionzip+fastkv@0.5"]\n' + SCENES, "visionzip needs a budget"),
    ('name = "a"\nstrategies = ["fastkv@0.5+visionzip"]\nratios = [0.5]\n' + SCENES, "cannot follow another step"),
    ('name = "a"\nstrategies = ["fastv:depth=2@0.5"]\n' + SCENES, "has no parameter 'depth'"),
    ('name = "a"\nstrategies = ["divprune"]\n' + SCENES, "divprune needs a budget"),
    (BASE + "ratios = [1]\n" + SCENES, "ratios must be a list of numbers with a decimal point"),
    (BASE + "ratios = [0.5, 1.5]\n" + SCENES, "ratios must be"),
    (BASE + "ratios = 0.5\n" + SCENES, "ratios must be"),
    (BASE + "ratios = [nan]\n" + SCENES, "ratios must be"),
    (BASE + "models = []\n" + SCENES, "models is empty"),
    (BASE + "seeds = [-1]\n" + SCENES, "seeds must be"),
    (BASE + "seeds = [true]\n" + SCENES, "seeds must be"),
    (BASE + "seeds = []\n" + SCENES, "seeds must be"),
    (BASE + 'record = ["dreams"]\n' + SCENES, "'dreams' cannot be recorded"),
    (BASE + "repeats = 0\n" + SCENES, "repeats must be a whole number from 1 to 50"),
    (BASE + "warmup = 1.0\n" + SCENES, "warmup must be a whole number"),
    (BASE, 'give either questions = "FOLDER" or a table [scenes]'),
    (BASE + 'questions = "x"\n' + SCENES, "give either questions"),
    (BASE + 'questions = "nowhere"\n', "there is no questions.jsonl in nowhere"),
    (BASE + "questions = 3\n", "questions must be the path of a folder"),
    (BASE + "scenes = 3\n", "scenes must be a table"),
    (BASE + "[scenes]\nsize = 300\n", "multiple of 256"),
    (BASE + '[scenes]\ncount = "8"\n', "count must be a whole number"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_mistake_in_the_file_is_one_line_and_nothing_is_made(capsys, text, message):
    assert main(["sweep", str(written(text))]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.startswith("keepmap: sweep.toml")
    assert (told.err.count("\n"), told.out) == (1, "")
    assert [path.name for path in Path().iterdir()] == ["sweep.toml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.toml"], "nowhere.toml cannot be read: No such file or directory"),
        (["."], "cannot be read: Is a directory"),
        (["sweep.toml", "--engine", "ray"], "--engine ray is not in this version"),
        (["sweep.toml", "--engine", "cloud"], "--engine is local, got 'cloud'"),
        (["sweep.toml", "--csv", "no/such/folder.csv"], "there is no folder no/such"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(capsys, arguments, message):
    written(BASE + SCENES)
    assert main(["sweep", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_byte_order_mark_is_no_part_of_the_file():
    Path("sweep.toml").write_text("\ufeff" + BASE + SCENES, encoding="utf-8")
    assert read_sweep(Path("sweep.toml")).name


def test_a_file_that_is_nested_too_deeply_is_refused():
    Path("sweep.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(InvalidSweep, match="sweep.toml is nested too deeply"):
        read_sweep(Path("sweep.toml"))


def test_a_file_that_is_no_text_is_refused():
    Path("sweep.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidSweep, match="sweep.toml is not TOML"):
        read_sweep(Path("sweep.toml"))


def test_balanced_scenes_are_asked_for_by_the_questions_of_each_family_and_by_nothing_else():
    assert read_sweep(written(BASE + "[scenes]\nper_family = 200\nquestions = 6\n")).scenes == Scenes(
        questions=6, per_family=200
    )
    with pytest.raises(InvalidSweep, match="either count or per_family"):
        read_sweep(written(BASE + "[scenes]\nper_family = 200\ncount = 4\n"))
    with pytest.raises(InvalidSweep, match="per_family must be a whole number from 1 to 10000, got 0"):
        read_sweep(written(BASE + "[scenes]\nper_family = 0\n"))


def test_the_names_of_two_balanced_sets_of_scenes_differ_from_each_other_and_from_a_plain_set():
    names = {Scenes(count=8).name, Scenes(per_family=8).name, Scenes(per_family=9).name}
    assert len(names) == 3
