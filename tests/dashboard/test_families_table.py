"""The table of accuracies in the README is what its command computes, and speaks of every strategy."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import pytest

from analysis.pipeline import Encoded, Inquiry, compare, encode
from compression.backends import load_model
from compression.backends.base import VLM
from compression.backends.embedded.questions import FAMILIES
from compression.strategies import CATALOGUE
from dashboard.docs import SWEPT
from dashboard.sweep_file import SweepFile, read_sweep
from dashboard.sweeping import find_questions

FILE = SWEPT.with_suffix(".toml")
ASKED = 200
FLIPPED = 2  # of the questions: on another processor, the last bits of two nearly equal answers may change places
SAMPLE = (
    ("identity@1.0", "object-semantic"),
    ("visionzip@0.1", "scene-geometric"),
    ("fastv@0.25", "object-semantic"),
    ("uniform_grid@0.05", "scene-geometric"),
)


def rows() -> dict[tuple[str, str, str], dict[str, str]]:
    with SWEPT.open(encoding="utf-8", newline="") as lines:
        return {(row["strategy"], row["budget"], row["family"]): row for row in csv.DictReader(lines)}


@pytest.fixture(scope="module")
def asked() -> SweepFile:
    return read_sweep(FILE)


@pytest.fixture(scope="module")
def embedded() -> VLM:
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def inquiries(asked: SweepFile, tmp_path_factory: pytest.TempPathFactory) -> list[Inquiry]:
    return find_questions(asked, tmp_path_factory.mktemp("table") / "keepmap.db")


def test_the_sweep_asks_for_every_registered_strategy_at_every_ratio(asked: SweepFile) -> None:
    named = {plan.info.name for plan in asked.plans}
    assert named == set(CATALOGUE.names())
    assert len(asked.plans) == 1 + 4 * (len(named) - 1)


def test_the_table_has_a_cell_of_two_hundred_questions_or_a_reason_for_every_plan_and_family(asked: SweepFile) -> None:
    found = rows()
    wanted = {(*str(plan).split("@"), family) for plan in asked.plans for family in FAMILIES}
    assert set(found) == wanted
    for row in found.values():
        assert int(row["n"]) + int(row["unreachable"]) + int(row["refused"]) == ASKED
        assert not int(row["failed"])


@pytest.mark.parametrize(("strategy", "family"), SAMPLE)
def test_a_sample_of_the_table_comes_out_again(
    strategy: str, family: str, inquiries: list[Inquiry], embedded: VLM
) -> None:
    @cache
    def encoded(path: Path) -> Encoded:
        return encode(next(one for one in inquiries if one.path == path), embedded, repeats=1, warmup=0)

    right, plan = 0, CATALOGUE.plan(strategy)
    for inquiry in (one for one in inquiries if one.family == family):
        [outcome] = compare(inquiry, [plan], embedded, record=(), repeats=1, warmup=0, encoded=encoded(inquiry.path))
        assert outcome.run is not None, outcome.reason
        right += bool(outcome.run.answer.is_correct)
    name, _, budget = strategy.partition("@")
    assert abs(right - int(rows()[name, budget, family]["right"])) <= FLIPPED
