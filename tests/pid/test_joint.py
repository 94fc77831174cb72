"""Tables: what is read, what is refused, and the informations in them."""

from __future__ import annotations

import numpy as np
import pytest

from pid import Joint, decompose, decompose_many
from pid.errors import InvalidTable, UnknownMeasure
from pid.joint import entropy, mutual_information
from tests.pid.tables import random_table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (np.full((2, 2, 2), 0.25), "sums to 2; probabilities sum to 1 within 1e-06: divide counts by their sum"),
        (np.full((2, 2, 2), 0.125) - np.eye(2), r"holds -0.875 at \(0, 0, 0\); cells must be at least 0"),
        (np.full((2, 2, 2), np.nan), r"holds nan at \(0, 0, 0\); all cells must be finite"),
        (np.full((2, 2, 2), np.inf), "holds inf at"),
        (np.zeros((2, 0, 2)), r"is empty, of shape \(2, 0, 2\)"),
        (np.full((2, 2), 0.25), r"has 2 axes of shape \(2, 2\); p\(x1, x2, y\) has three"),
        ([[["a"]]], "does not hold numbers only .* pass an array of floats"),
        (np.zeros((2, 2, 2)), "sums to 0"),
    ],
    ids=["unnormalised", "negative", "nan", "infinite", "empty", "two axes", "words", "zeros"],
)
def test_a_table_that_is_no_distribution_is_refused_with_its_value_and_the_remedy(table: object, message: str) -> None:
    with pytest.raises(InvalidTable, match=message):
        decompose(table)  # type: ignore[arg-type]


def test_a_bad_table_among_many_is_named_by_its_place() -> None:
    with pytest.raises(InvalidTable, match="table 1: the table sums to 2"):
        decompose_many([np.full((2, 2, 2), 0.125), np.full((2, 2, 2), 0.25)])


def test_a_table_within_the_tolerance_is_renormalised() -> None:
    p = np.full((2, 2, 2), 0.125) * (1 + 5e-7)
    assert Joint.read(p).table.sum() == pytest.approx(1, abs=1e-15)


def test_the_table_given_is_not_changed() -> None:
    p = np.full((2, 2, 2), 0.125)
    Joint.read(p).table[0, 0, 0] = 1.0
    assert p[0, 0, 0] == 0.125


def test_an_unknown_measure_names_the_nearest() -> None:
    with pytest.raises(
        UnknownMeasure, match="no measure is named 'brojaa'; did you mean broja[?] known: broja, imin, mmi, iccs"
    ):
        decompose(np.full((1, 1, 1), 1.0), "brojaa")


def test_mutual_information_is_that_of_the_definition() -> None:
    rng = np.random.default_rng(1)
    for kind in ("spread", "zeros", "peaked"):
        p = random_table(rng, (4, 3, 1), kind)[:, :, 0]
        slow = 0.0
        for x in range(4):
            for y in range(3):
                if p[x, y] > 0:
                    slow += p[x, y] * np.log2(p[x, y] / (p[x].sum() * p[:, y].sum()))
        assert mutual_information(p) == pytest.approx(slow, abs=1e-12)


def test_independent_variables_have_no_information_to_the_last_digit() -> None:
    assert mutual_information(np.outer([0.1, 0.9], [0.3, 0.3, 0.4])) <= 1e-16


def test_a_fair_coin_has_one_bit() -> None:
    assert entropy(np.array([0.5, 0.5, 0.0])) == 1.0
