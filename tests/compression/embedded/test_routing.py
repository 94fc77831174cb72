"""The router's training: what a question needed, and that the judged figures follow from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compression.backends.embedded.backend import CHECKPOINT
from compression.backends.embedded.evaluation import router_figures
from compression.backends.embedded.questions import FAMILIES, Question
from compression.backends.embedded.reading import Reader
from compression.backends.embedded.routing import LADDER, LAMBDA, Need, fit, judge, needs
from compression.strategies.dualcomp import LearnedRouter

QUESTION = Question("Is there a red car?", ("yes", "no"), "yes", FAMILIES[0], "presence", ())


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(CHECKPOINT)


@pytest.mark.parametrize(
    ("rungs", "rung"),
    [
        ((True,) * 7, 0),
        ((False,) * 7, None),
        ((True, False, True, True, True, True, True), 2),
        ((False,) * 6 + (True,), 6),
    ],
)
def test_what_is_needed_is_the_rung_from_which_on_every_answer_is_right(
    rungs: tuple[bool, ...], rung: int | None
) -> None:
    assert Need(QUESTION, (0, 256), rungs).rung == rung


def test_a_router_learns_the_family_and_the_ratio_of_its_questions(reader: Reader) -> None:
    found = needs(reader, 900_000, {256: 6})
    assert {need.question.family for need in found} == set(FAMILIES)
    assert all(len(need.rungs) == len(LADDER) for need in found)
    router = fit(reader, found)
    figures = judge(reader, router, found)
    assert figures.family > 0.95
    assert 0 < figures.needed <= 1
    assert 0 <= figures.lost <= figures.answerable / figures.questions
    again = fit(reader, found)
    assert all(torch.equal(one, other) for one, other in zip(router.parameters(), again.parameters(), strict=True))


def test_a_router_is_read_back_from_its_weights() -> None:
    router = LearnedRouter(8, hidden=4)
    same = LearnedRouter.of(router.state_dict())
    words = torch.randn(3, 8)
    assert same.route(words) == router.route(words)
    route = same.route(words)
    assert 0 < route.lam < 1
    assert 0.02 <= route.rho <= 1


def test_the_shipped_router_is_small_and_its_figures_come_with_it(reader: Reader) -> None:
    figures = router_figures(CHECKPOINT)
    assert figures is not None
    assert figures["parameters"] <= 1_000_000
    assert figures["family"] > 0.95
    for text, family in (
        ("How many ships are there?", FAMILIES[0]),
        ("In which quarter is the red ship?", FAMILIES[1]),
    ):
        lam = reader.vlm.route(text).lam
        assert min(LAMBDA, key=lambda one: abs(LAMBDA[one] - lam)) == family


def test_a_checkpoint_without_a_router_decides_by_rule(tmp_path: Path) -> None:
    assert router_figures(tmp_path) is None
