"""What is read as three passes, what is refused, and the gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pid import Posteriors, clouds
from pid.errors import InvalidPosteriors, InvalidSetting, TooFewSamples

GOOD = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"p1": GOOD * 2}, "p1 sums to 2 in row 0; each row must sum to 1 within 1e-05"),
        ({"p2": GOOD - [[0, 0], [0, 0.2], [0, 0]]}, "p2 holds -0.1 in row 1, option 1; .* not logits"),
        ({"p12": GOOD * np.inf}, "p12 holds inf in row 0"),
        ({"p12": np.where(GOOD == 0.9, np.nan, GOOD)}, "row 1 is NaN at different options in p1, p2 and p12"),
        ({"p1": GOOD[:2]}, r"p1, p2 and p12 have the shapes \(2, 2\), \(3, 2\), \(3, 2\)"),
        ({"p1": np.zeros((0, 2))}, r"p1 has the shape \(0, 2\)"),
        ({"p1": GOOD[0]}, r"p1 has the shape \(2,\)"),
        ({"p1": [["a"]]}, "p1 does not hold numbers only"),
        ({"confidences": np.ones((3, 2))}, r"confidences has the shape \(3, 2\); it must be \[3, 3\]"),
        ({"confidences": np.full((3, 3), 1.5)}, "confidences go from 1.5 to 1.5; they are probabilities"),
        ({"weights": [1, 2]}, r"weights has the shape \(2,\); it must hold one weight for each of 3 rows"),
        ({"weights": [0, 0, 0]}, "weights go from 0 to 0; they must be finite, at least 0 and not all 0"),
        ({"weights": [1, -1, 1]}, "weights go from -1 to 1"),
        ({"groups": [1, 2]}, r"groups has the shape \(2,\)"),
        ({"options": [2, 2]}, "must give each of the 3 samples its number of options, 1..2"),
        ({"options": [2, 1, 2]}, "row 1 puts 0.1 on an option beyond its 1; padding must be 0 or NaN"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_with_their_value(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"p1": GOOD, "p2": GOOD, "p12": GOOD} | change
    rows = [given.pop(name) for name in ("p1", "p2", "p12")]
    with pytest.raises(InvalidPosteriors, match=message):
        clouds(*rows, **given)


def test_a_row_of_nothing_but_nan_is_refused() -> None:
    rows = np.vstack([GOOD, [[np.nan, np.nan]]])
    with pytest.raises(InvalidPosteriors, match="row 3 is NaN at every option; leave out samples without an answer"):
        clouds(rows, rows, rows)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gate": 1.5}, "the gate is 1.5; it is a probability from 0"),
        ({"max_points": 0}, "max_points is 0; a cloud has at least 1 point"),
        ({"replicates": 5}, "5 replicates are too few for level 0.95"),
        ({"replicates": 100, "level": 1.0}, "the level is 1; it is at least 0.5 and below 1"),
    ],
)
def test_settings_outside_their_range_are_refused(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        clouds(GOOD, GOOD, GOOD, **setting)


def test_intervals_of_one_sample_or_one_image_are_refused() -> None:
    with pytest.raises(TooFewSamples, match="1 samples of 1 group; intervals need at least 2 groups"):
        clouds(GOOD[:1], GOOD[:1], GOOD[:1], replicates=100)
    with pytest.raises(TooFewSamples, match="3 samples of 1 group"):
        clouds(GOOD, GOOD, GOOD, groups=["a", "a", "a"], replicates=100)


def test_the_gate_makes_unsure_rows_uniform_on_the_options_offered_and_counts_them_by_pass() -> None:
    rows = np.array([[0.7, 0.2, 0.1], [0.6, 0.4, np.nan]])
    confidences = np.array([[0.1, 0.2], [0.9, 0.2], [0.9, 0.9]])
    said = Posteriors.read(rows, rows, rows, confidences=confidences, weights=[3, 1])
    gated, fraction = said.gated(0.3)
    np.testing.assert_allclose(gated.rows[0], [[1 / 3] * 3, [0.5, 0.5, 0]])
    np.testing.assert_allclose(gated.rows[1], [[0.7, 0.2, 0.1], [0.5, 0.5, 0]])
    np.testing.assert_allclose(gated.rows[2], [[0.7, 0.2, 0.1], [0.6, 0.4, 0]])
    assert (fraction.p1, fraction.p2, fraction.p12) == (1.0, 0.25, 0.0)


def test_a_gate_of_zero_or_no_confidences_gate_nothing() -> None:
    said = Posteriors.read(GOOD, GOOD, GOOD, confidences=np.zeros((3, 3)))
    np.testing.assert_array_equal(said.gated(0.0)[0].rows, said.rows)
    assert Posteriors.read(GOOD, GOOD, GOOD).gated(0.3)[1].p1 == 0.0


def test_samples_are_split_by_their_number_of_options_wherever_these_lie() -> None:
    rows = np.array([[0.7, 0.2, 0.1], [0.6, np.nan, 0.4], [0.5, 0.3, 0.2]])
    parts = {count: (places, part) for count, places, part in Posteriors.read(rows, rows, rows).by_option_count()}
    assert set(parts) == {2, 3}
    np.testing.assert_array_equal(parts[2][0], [1])
    np.testing.assert_allclose(parts[2][1][0], [[0.6, 0.4]])
    np.testing.assert_array_equal(parts[3][0], [0, 2])


def test_padding_with_zeros_and_a_number_of_options_reads_as_padding_with_nan() -> None:
    padded = np.array([[0.7, 0.2, 0.1], [0.6, 0.4, 0.0]])
    missing = np.array([[0.7, 0.2, 0.1], [0.6, 0.4, np.nan]])
    left = Posteriors.read(padded, padded, padded, options=[3, 2])
    right = Posteriors.read(missing, missing, missing)
    np.testing.assert_array_equal(left.rows, right.rows)
    np.testing.assert_array_equal(left.offered, right.offered)


def test_rows_of_float32_are_renormalised() -> None:
    rows = np.array([[1 / 3, 2 / 3]], dtype=np.float32)
    assert Posteriors.read(rows, rows, rows).rows.sum(2) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("name", ["weights", "confidences"])
def test_text_where_numbers_belong_is_named(name: str) -> None:
    rows = np.full((3, 2), 0.5)
    with pytest.raises(InvalidPosteriors, match=f"{name} does not hold numbers only"):
        Posteriors.read(rows, rows, rows, **{name: ["much", "some", "little"]})
