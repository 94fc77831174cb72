"""The passages of the README that follow from the code: `python -m dashboard.docs --write` puts them in anew.

A passage stands between `<!-- begin NAME -->` and `<!-- end NAME -->`. The tables come from the declarations of
strategies, settings and commands, from the embedded model's card and from a stored sweep's figures; a test fails when
the README shows others. A passage named `output COMMAND` holds the real output of a command; it is written only with
`--outputs`, because times and ids differ on each machine.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from compression.backends.embedded.questions import FAMILIES
from compression.compressor import StrategyInfo
from compression.strategies import CATALOGUE
from compression.tokens import SIGNALS, Signal
from dashboard.cli import build_parser
from dashboard.errors import DashboardError
from dashboard.settings import Settings

README = Path(__file__).resolve().parent.parent / "README.md"
CARD = README.parent / "compression" / "backends" / "embedded" / "checkpoint" / "README.md"
SWEPT = README.parent / "dashboard" / "assets" / "sweeps" / "families.csv"
FAR = 0.1  # relative distance from the budget asked for, from which on the realised one is written beside it

_PASSAGE = re.compile(
    r"(?P<begin><!-- begin (?P<name>[^\n]+?) -->\n)(?P<body>.*?)(?P<end><!-- end (?P=name) -->)", re.S
)
_MARKER = re.compile(r"<!-- (?:begin|end) [^\n]+? -->")
_OUTPUT = "output "


class InvalidPassage(DashboardError):
    """A marker of the README that cannot be followed, or a command in it that fails."""


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table; a bar inside a cell is escaped.

    >>> print(table(["a", "b"], [["1", "x|y"]]), end="")
    | a | b |
    |---|---|
    | 1 | x\|y |
    """
    lines = [header, ["---"] * len(header), *rows]
    cells = [[cell.replace("|", r"\|").replace("\n", " ") for cell in line] for line in lines]
    return "".join(
        "|" + "|".join(line) + "|\n" if number == 1 else "| " + " | ".join(line) + " |\n"
        for number, line in enumerate(cells)
    )


def strategy_table(strategies: Iterable[StrategyInfo] | None = None) -> str:
    """One row per registered strategy, from its own declaration."""
    infos = [strategy.info for strategy in CATALOGUE] if strategies is None else strategies
    return table(
        ["strategy", "method", "acts", "does", "needs from the model", "source", "labels", "departures"],
        (
            [
                f"`{info.name}`",
                info.title,
                info.stage.words,
                {"nothing": "keeps everything"}.get(info.reduces, info.reduces),
                "; ".join(info.needs_words(lambda signal: f"`{signal}`")) or "nothing",
                info.paper or "baseline",
                "; ".join(info.labels) or "–",
                str(len(info.deviations)),
            ]
            for info in infos
        ),
    )


_GIVEN = {"features": "`tokens.features`", "signals": "`tokens.signals`", "sight": "the `sight`"}


def signal_table() -> str:
    """One row per signal: its shape, what it holds, and the strategies that need it or read it instead of another."""
    readers: dict[Signal, list[str]] = {
        signal: [
            strategy.info.name
            for strategy in CATALOGUE
            if signal in strategy.info.needs or signal in strategy.info.instead.values()
        ]
        for signal in SIGNALS
    }
    return table(
        ["signal", "shape", "holds", "given in", "needed by"],
        (
            [
                f"`{signal}`",
                info.shape or "–",
                info.meaning,
                _GIVEN.get(info.given, f"`context.{info.given}`"),
                ", ".join(f"`{name}`" for name in readers[signal]) or "–",
            ]
            for signal, info in SIGNALS.items()
        ),
    )


def settings_table() -> str:
    """One row per setting."""
    return table(
        ["flag of `keepmap serve`", "variable", "default", "meaning"],
        (
            [f"`{flag}`", f"`{variable}`", f"`{default}`" if default else "–", meaning]
            for flag, variable, default, meaning in Settings.table()
        ),
    )


def command_table(parser: argparse.ArgumentParser | None = None) -> str:
    """One row per verb of the command line, with its one-line help."""
    parser = parser or build_parser()
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            rows += [[f"`{parser.prog} {verb.dest}`", verb.help or ""] for verb in action._choices_actions]
    return table(["command", "does"], rows)


def card_table(heading: str, card: Path | None = None) -> str:
    """The table below a heading of the embedded model's card that starts so, or "" where the card has none yet."""
    text = (card or CARD).read_text(encoding="utf-8")
    section = next((part for part in re.split(r"^#+ ", text, flags=re.MULTILINE) if part.startswith(heading)), "")
    return "".join(line + "\n" for line in section.splitlines() if line.startswith("|"))


def sweep_tables(file: Path | None = None) -> str:
    """A table for each family of questions of a sweep: a row per strategy, a column per retention ratio."""
    with (file or SWEPT).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    ratios = sorted({row["budget"] for row in rows}, key=float, reverse=True)
    parts = []
    for family in FAMILIES:
        found = {(row["strategy"], row["budget"]): row for row in rows if row["family"] == family}
        asked = max(int(row["n"]) for row in found.values())
        parts.append(
            f"**{family}**, {asked:,} questions\n\n"
            + table(
                ["strategy", *ratios],
                (
                    [f"`{name}`", *(_swept_cell(found.get((name, ratio))) for ratio in ratios)]
                    for name in dict.fromkeys(row["strategy"] for row in rows)
                ),
            )
        )
    return "\n".join(parts)


def _swept_cell(row: Mapping[str, str] | None) -> str:
    """Accuracy and its interval, and the realised retention where it is far from what was asked."""
    if row is None:
        return "–"
    if not int(row["n"]):
        return f"unreachable below {row['lowest']}" if int(row["unreachable"]) else "not offered"
    cell = f"{float(row['accuracy']):.2f} ({float(row['low']):.2f}–{float(row['high']):.2f})"
    kept, asked = float(row["retention_ratio"]), float(row["budget"])
    return f"{cell} at {kept:.3f}" if abs(kept / asked - 1) > FAR else cell


GENERATED: Mapping[str, Callable[[], str]] = {
    "accuracy": partial(card_table, "One view"),
    "accuracy-budgets": partial(card_table, "The same questions"),
    "accuracy-cells": partial(card_table, "4 x 4 cells"),
    "accuracy-strategies": sweep_tables,
    "commands": command_table,
    "router": partial(card_table, "The router"),
    "settings": settings_table,
    "signals": signal_table,
    "strategies": strategy_table,
}
"""Passages that follow from the code and the weights alone, by name."""


def passages(text: str) -> dict[str, str]:
    r"""The passages of a text: name to body.

    >>> passages("<!-- begin a -->\nbody\n<!-- end a -->")
    {'a': 'body\n'}

    Raises:
        InvalidPassage: a passage is not closed, opened twice, or lies in another.
    """
    found: dict[str, str] = {}
    for match in _PASSAGE.finditer(text):
        if match["name"] in found:
            raise InvalidPassage(f"the passage {match['name']!r} stands there twice; leave one")
        found[match["name"]] = match["body"]
    if len(_MARKER.findall(text)) != 2 * len(found) or any(_MARKER.search(body) for body in found.values()):
        raise InvalidPassage(
            "a passage is opened and closed once, by <!-- begin NAME --> and <!-- end NAME -->; look for a lone marker"
        )
    return found


def rewritten(text: str, bodies: Mapping[str, str]) -> str:
    r"""The text with these passages put in.

    >>> rewritten("<!-- begin a -->\nold\n<!-- end a -->", {"a": "new\n"})
    '<!-- begin a -->\nnew\n<!-- end a -->'

    Raises:
        InvalidPassage: the text has no passage of a name, or a broken one.
    """
    if missing := sorted(set(bodies) - set(passages(text))):
        raise InvalidPassage(
            f"the text has no passage {missing[0]!r}; add <!-- begin {missing[0]} --> and <!-- end {missing[0]} -->"
        )
    return _PASSAGE.sub(lambda match: match["begin"] + bodies.get(match["name"], match["body"]) + match["end"], text)


def commands_shown(text: str) -> list[str]:
    """The commands whose real output the text shows, in order."""
    return [name.removeprefix(_OUTPUT) for name in passages(text) if name.startswith(_OUTPUT)]


def outputs(text: str) -> dict[str, str]:
    """Run the commands whose output the text shows, in order, in one empty folder with its own store.

    Raises:
        InvalidPassage: a command is not one of Keepmap's, or fails.
    """
    bodies = {}
    with tempfile.TemporaryDirectory(prefix="keepmap-docs-") as folder:
        for command in commands_shown(text):
            bodies[_OUTPUT + command] = f"```console\n$ {command}\n{run(command, Path(folder))}```\n"
    return bodies


def run(command: str, folder: Path) -> str:
    """Standard output of one `keepmap …` command, run in a folder.

    Raises:
        InvalidPassage: the command is not one of Keepmap's, or fails.
    """
    program, *words = shlex.split(command)
    if program != "keepmap":
        raise InvalidPassage(f"only keepmap's own commands are run for the README, got {command!r}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEEPMAP_")}
    environment |= {"PYTHONPATH": str(README.parent), "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(  # noqa: S603 - the README's own commands, no shell
        [sys.executable, "-m", "dashboard.cli", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise InvalidPassage(f"{command!r} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def main(words: Sequence[str] | None = None) -> int:
    """Write the passages anew, or say which are stale; 1 when some are."""
    parser = argparse.ArgumentParser(prog="python -m dashboard.docs", description="The README's generated passages.")
    parser.add_argument("--write", action="store_true", help="put the passages into the README")
    parser.add_argument("--outputs", action="store_true", help="run the shown commands too, and put in what they print")
    chosen = parser.parse_args(words)
    text = README.read_text(encoding="utf-8")
    bodies = {name: write() for name, write in GENERATED.items()} | (outputs(text) if chosen.outputs else {})
    after = rewritten(text, bodies)
    if after == text:
        return 0
    if chosen.write:
        README.write_text(after, encoding="utf-8")
        return 0
    before = passages(text)
    stale = ", ".join(name for name, body in bodies.items() if before[name] != body)
    sys.stderr.write(f"stale in {README.name}: {stale}; run: python -m dashboard.docs --write\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
