from __future__ import annotations

import pytest

from compression.zooming.boxes import area, common, encloses, overlap, widened

IMAGE = (0.0, 0.0, 200.0, 100.0)


def test_the_overlap_is_the_shared_area_by_that_of_both():
    # 20 x 20 and 20 x 10, sharing 10 x 10.
    assert overlap((0, 0, 20, 20), (10, 10, 30, 20)) == pytest.approx(100 / (400 + 200 - 100))
    assert overlap((0, 0, 20, 20), (0, 0, 20, 20)) == 1


@pytest.mark.parametrize("other", [(20, 0, 40, 20), (30, 30, 40, 40), (5, 5, 5, 9)], ids=["touching", "apart", "empty"])
def test_boxes_that_share_no_area_do_not_overlap(other):
    assert overlap((0, 0, 20, 20), other) == 0
    assert area(common((0, 0, 20, 20), other)) == 0


def test_a_box_holds_itself_and_what_touches_its_edges_from_inside():
    assert encloses(IMAGE, IMAGE)
    assert encloses(IMAGE, (0, 50, 10, 100))
    assert not encloses(IMAGE, (-1, 50, 10, 90))


def test_a_small_box_grows_around_its_centre():
    assert widened((100, 50, 104, 52), 28, IMAGE) == (88, 37, 116, 65)


def test_only_the_small_side_grows():
    assert widened((100, 10, 104, 90), 28, IMAGE) == (88, 10, 116, 90)


def test_a_box_that_would_leave_the_bounds_is_moved_and_keeps_its_size():
    assert widened((198, 98, 200, 100), 28, IMAGE) == (172, 72, 200, 100)


def test_bounds_that_are_too_small_hold_no_such_box():
    assert widened((0, 0, 5, 5), 28, (0, 0, 200, 27)) is None
