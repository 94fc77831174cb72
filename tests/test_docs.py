"""The documentation is part of the build: it fails here when it no longer says what is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from compression.strategies import CATALOGUE
from compression.tokens import Signal
from dashboard import docs
from dashboard.cli import build_parser
from dashboard.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("analysis", "compression", "dashboard", "pid", "storage", "tests")
DOCUMENTS = sorted(ROOT.glob("*.md"))


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def shell_lines(text: str) -> list[str]:
    """Lines after a prompt in the console blocks, their comments left out."""
    lines = [line for block in fenced(text, "console") for line in block.splitlines()]
    return [re.sub(r"\s+# .*", "", line.removeprefix("$ ")) for line in lines if line.startswith("$ ")]


@pytest.mark.parametrize("name", sorted(docs.GENERATED))
def test_the_generated_passage_of_the_readme_is_fresh(name: str) -> None:
    assert docs.passages(README)[name] == docs.GENERATED[name](), "run: make docs"


def test_no_passage_of_the_readme_is_empty() -> None:
    assert not [name for name, body in docs.passages(README).items() if not body.strip()]


def test_every_strategy_has_its_row() -> None:
    rows = docs.passages(README)["strategies"].splitlines()[2:]
    assert [row.split("|")[1].strip(" `") for row in rows] == list(CATALOGUE.names())


def test_every_signal_has_its_row_and_says_who_needs_it() -> None:
    rows = {row.split("|")[1].strip(" `"): row for row in docs.passages(README)["signals"].splitlines()[2:]}
    assert list(rows) == [signal.value for signal in Signal]
    for strategy in CATALOGUE:
        assert all(f"`{strategy.info.name}`" in rows[signal] for signal in strategy.info.needs)


def test_every_strategy_is_named_in_the_changelog() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert not [name for name in CATALOGUE.names() if f"`{name}`" not in changes]


def test_every_command_has_its_row_and_its_example() -> None:
    verbs = build_parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    assert verbs
    for name, parser in verbs.items():
        assert f"| `keepmap {name}` |" in README
        example = re.search(r"Example: (keepmap .+)", parser.format_help().replace("\n", " "))
        assert example, f"keepmap {name} --help shows no example"


def test_every_variable_that_is_read_is_documented() -> None:
    known = {variable for _, variable, _, _ in Settings.table()}
    read = set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        read |= set(re.findall(r"environ(?:\.get)?[\[(]\s*[\"'](KEEPMAP_\w+)", path.read_text(encoding="utf-8")))
    for name in ("Makefile", "Dockerfile", ".ci/run"):
        read |= set(re.findall(r"\bKEEPMAP_[A-Z_]+", (ROOT / name).read_text(encoding="utf-8")))
    spoken_of = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert not sorted(name for name in read - known if f"`{name}`" not in spoken_of)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_and_pictures_lead_to_files_that_are_there(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (ROOT / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_paths_named_in_the_text_are_there(document: Path) -> None:
    named = re.findall(
        r"`((?:compression|analysis|pid|storage|dashboard|tests|\.ci)/[\w./-]*)`", document.read_text(encoding="utf-8")
    )
    assert not [path for path in named if "yourname" not in path and not (ROOT / path).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_shown_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    shown = set(re.findall(r"(?:\$ |`)make ([a-z]+)", document.read_text(encoding="utf-8")))
    assert shown <= targets


@pytest.mark.parametrize("line", [line for line in shell_lines(README) if line.startswith("keepmap ")])
def test_a_shown_command_is_understood(line: str) -> None:
    options = build_parser().parse_args(shlex.split(line)[1:])
    for text in getattr(options, "strategy", None) or []:
        assert str(CATALOGUE.plan(text))


def test_strategies_named_in_the_text_can_be_planned() -> None:
    named = re.findall(r"`([a-z_0-9]+(?::[a-z_]+=[^@`\s]+)?@[0-9.]+)`", README)
    assert named
    for text in named:
        assert str(CATALOGUE.plan(text))


def test_the_changelog_begins_with_the_version_that_is_built() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert headings[:2] == ["Unreleased", version]


def test_changes_stand_under_the_headings_of_keep_a_changelog() -> None:
    headings = set(re.findall(r"^### (.+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Known limits"}


def test_a_lone_marker_is_refused() -> None:
    with pytest.raises(docs.InvalidPassage, match="lone marker"):
        docs.passages("<!-- begin a -->\nbody")


def test_a_passage_that_stands_twice_is_refused() -> None:
    with pytest.raises(docs.InvalidPassage, match="twice"):
        docs.passages("<!-- begin a -->\n<!-- end a -->\n" * 2)


def test_a_passage_that_the_text_lacks_is_named() -> None:
    with pytest.raises(docs.InvalidPassage, match="no passage 'b'"):
        docs.rewritten("<!-- begin a -->\n<!-- end a -->", {"b": ""})


def test_only_commands_of_keepmap_are_run(tmp_path: Path) -> None:
    with pytest.raises(docs.InvalidPassage, match="only keepmap's own commands"):
        docs.run("ls -l", tmp_path)


@pytest.mark.slow
def test_the_commands_and_the_python_examples_of_the_readme_run(tmp_path: Path) -> None:
    for command in docs.commands_shown(README):
        assert docs.run(command, tmp_path).strip(), command
    for example, lines in zip(fenced(README, "python"), (2, 3, 1), strict=True):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{example}"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == lines
        assert set(re.findall(r"^print\(.+\)  # -> (.+)$", example, re.M)) <= set(done.stdout.splitlines())
