from __future__ import annotations

import numpy as np

from compression.zooming.boxes import encloses
from compression.zooming.policy import LEAST_SIDE, rule

IMAGE = (0.0, 0.0, 1000.0, 800.0)


def test_a_box_inside_the_previous_one_is_taken_as_it_is():
    ruling = rule((100, 100, 300, 200), IMAGE)
    assert (ruling.box, ruling.reason) == ((100, 100, 300, 200), "")


def test_a_box_that_drifts_out_of_the_previous_one_is_rejected():
    ruling = rule((100, 100, 300, 200), (120, 90, 400, 400))
    assert (ruling.box, ruling.reason) == (None, "does not lie inside the previous box")


def test_a_small_box_is_expanded_around_its_centre_inside_the_previous_one():
    ruling = rule((396, 200, 400, 204), (100, 100, 400, 300))
    assert (ruling.box, ruling.reason) == ((372, 188, 400, 216), "expanded to 28 pixels a side")


def test_the_same_box_is_not_looked_at_twice():
    assert rule(IMAGE, IMAGE).box is None
    assert rule((5, 5, 8, 8), (0, 0, 28, 28)).reason == "is the previous box again"


def test_an_image_smaller_than_the_least_side_is_not_zoomed_into():
    assert rule((1, 1, 5, 5), (0, 0, 20, 20)).reason == "lies in a box of less than 28 pixels a side"


def test_whatever_is_accepted_lies_inside_and_is_large_enough():
    draw = np.random.default_rng(0)
    for _ in range(300):
        left, right = sorted(draw.uniform(-50, 250, 2).tolist())
        top, bottom = sorted(draw.uniform(-50, 250, 2).tolist())
        previous = (0.0, 0.0, *draw.uniform(10, 220, 2).tolist())
        ruling = rule((left, top, right, bottom), previous)
        if ruling.box is None:
            assert ruling.reason
            continue
        assert encloses(previous, ruling.box)
        assert min(ruling.box[2] - ruling.box[0], ruling.box[3] - ruling.box[1]) >= LEAST_SIDE - 1e-9
