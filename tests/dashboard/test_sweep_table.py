"""The table of a sweep counts what was answered, and says where a budget cannot be met or a run failed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from compression.intervals import wilson_interval
from dashboard.errors import InvalidSweep
from dashboard.sweep_table import figures_json, figures_of, sweep_report, write_csv
from storage import SweptRequest


def ended(strategy: str, *right: bool | None, family: str = "knowledge", **facts: object) -> list[SweptRequest]:
    """Requests that were answered so, each keeping a quarter."""
    facts = {"model": "embedded", "seed": 0, "retention_ratio": 0.25, **facts}
    return [
        SweptRequest(f"{strategy} {family} {at} {facts['seed']}", strategy=strategy, family=family, is_correct=one,
                     **facts)  # type: ignore[arg-type]
        for at, one in enumerate(right)
    ]  # fmt: skip


def unanswered(strategy: str, state: str, **facts: object) -> SweptRequest:
    facts = {"family": "knowledge", **facts}
    return SweptRequest(f"{strategy} {state}", "embedded", strategy, 0, state=state, **facts)  # type: ignore[arg-type]


def test_accuracy_is_the_share_of_right_answers_with_its_interval():
    [figure] = figures_of(ended("divprune@0.25", True, True, True, False))
    assert (figure.strategy, figure.budget, figure.n, figure.right) == ("divprune", "0.25", 4, 3)
    assert (figure.accuracy, figure.retention_ratio) == (0.75, 0.25)
    assert (figure.low, figure.high) == wilson_interval(3, 4)


def test_an_answer_that_cannot_be_judged_counts_nowhere():
    [figure] = figures_of(ended("divprune@0.25", True, None))
    assert (figure.n, figure.accuracy) == (1, 1.0)


def test_what_was_not_answered_is_counted_apart_and_has_no_accuracy():
    requests = [
        unanswered("fastv@0.05", "unreachable", lowest=44),
        unanswered("divprune@0.25", "failed"),
        unanswered("trim@0.25", "refused"),
    ]
    found = {one.strategy: one for one in figures_of(requests)}
    assert {one.accuracy for one in found.values()} == {one.low for one in found.values()} == {None}
    assert (found["fastv"].unreachable, found["fastv"].lowest) == (1, 44)
    assert (found["divprune"].failed, found["trim"].refused) == (1, 1)
    lines = sweep_report(list(found.values())).splitlines()
    assert [line.partition(" -  ")[2] for line in lines[1:4]] == ["1 failed", "unreachable below 44", "not offered"]


def test_a_failure_beside_answers_is_said_in_their_cell():
    report = sweep_report(figures_of([*ended("divprune@0.25", True), unanswered("divprune@0.25", "failed")]))
    assert "1.000 (0.207-1.000), 1 failed" in report


def test_rows_are_never_pooled_over_seeds():
    requests = ended("random_subset@0.25", True, False) + ended("random_subset@0.25", True, True, seed=1)
    assert [(one.seed, one.n, one.right) for one in figures_of(requests)] == [(0, 2, 1), (1, 2, 2)]
    assert sweep_report(figures_of(requests)).splitlines()[0].split()[:3] == ["strategy", "budget", "seed"]


def test_the_uncompressed_model_comes_first_and_budgets_descend():
    texts = ("divprune@0.05", "divprune@0.5", "divprune@64", "divprune@128", "identity@1.0", "dualcomp")
    order = [(one.strategy, one.budget) for one in figures_of([row for text in texts for row in ended(text, True)])]
    assert order == [
        ("identity", "1.0"),
        ("divprune", "0.5"),
        ("divprune", "0.05"),
        ("divprune", "128"),
        ("divprune", "64"),
        ("dualcomp", ""),
    ]


def test_a_plan_is_listed_without_the_budget_of_its_last_step():
    texts = ("visionzip@0.5+fastv:layer=2@0.25", "visionzip@0.5+fastv:layer=2@0.5", "dualcomp+fastkv@64")
    found = figures_of([row for text in texts for row in ended(text, True)])
    assert [(one.strategy, one.budget) for one in found] == [
        ("dualcomp+fastkv", "64"),
        ("visionzip@0.5+fastv:layer=2", "0.5"),
        ("visionzip@0.5+fastv:layer=2", "0.25"),
    ]


def test_the_csv_holds_the_tidy_rows(tmp_path: Path):
    figures = figures_of([*ended("divprune@0.25", True, False), unanswered("fastv@0.05", "unreachable")])
    write_csv(figures, tmp_path / "a.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [
        {name: "" if value is None else str(value) for name, value in one.items()} for one in figures_json(figures)
    ] == rows
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_csv_that_cannot_be_written_is_one_clear_error_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(InvalidSweep, match="a.csv cannot be written: Is a directory"):
        write_csv([], tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


def test_a_sweep_without_an_outcome_says_so():
    assert sweep_report([]) == "No request has ended."
