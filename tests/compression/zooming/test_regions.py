from __future__ import annotations

import numpy as np
import pytest

from compression.grid import TokenGrid, View
from compression.zooming.regions import components, regions, strongest


def slow_components(mask):
    """Spread the smallest first index over touching cells until nothing changes, then count them off."""
    rows, cols = mask.shape
    name = {(y, x): y * cols + x for y in range(rows) for x in range(cols) if mask[y, x]}
    changed = True
    while changed:
        changed = False
        for (y, x), own in list(name.items()):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    other = name.get((y + dy, x + dx), own)
                    if other < name[y, x]:
                        name[y, x] = other
                        changed = True
    order = {first: number for number, first in enumerate(sorted(set(name.values())), start=1)}
    out = np.zeros(mask.shape, dtype=np.int64)
    for (y, x), own in name.items():
        out[y, x] = order[own]
    return out


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("density", [0.2, 0.5, 0.8])
def test_components_agree_with_the_slow_reference(seed, density):
    mask = np.random.default_rng(seed).random((9, 13)) < density
    np.testing.assert_array_equal(components(mask), slow_components(mask))


def test_corners_join_regions():
    assert components(np.array([[1, 0], [0, 1]], dtype=bool)).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0])
def test_no_fewer_tokens_hold_the_share(share):
    values = np.random.default_rng(3).random(50)
    chosen = strongest(values, share)
    assert values[chosen].sum() >= share * values.sum() * (1 - 1e-9)
    assert values[chosen].sum() - values[chosen].min() < share * values.sum()
    assert values[chosen].min() >= values[~chosen].max(initial=0)


def test_among_equal_tokens_the_lower_index_is_taken():
    assert strongest(np.ones(4), 0.5).tolist() == [True, True, False, False]


def test_regions_are_boxes_in_original_pixels_with_their_share_of_the_mass():
    grid = TokenGrid.single(3, 4, (30, 80))  # tokens of 20 x 10 pixels
    values = np.array([[0.0, 0.3, 0.0, 0.0], [0.0, 0.3, 0.0, 0.0], [0.1, 0.0, 0.0, 0.3]]).ravel()
    found = regions(values, grid, 0.9)
    assert [one.box for one in found] == [(20, 0, 40, 20), (60, 20, 80, 30)]
    assert [one.confidence for one in found] == pytest.approx([0.6, 0.3])


def test_regions_do_not_reach_from_one_view_into_another():
    left, right = View(1, 2, (0, 0, 20, 10), "a1"), View(1, 2, (20, 0, 40, 10), "b1")
    found = regions(np.array([0.0, 1.0, 1.0, 0.0]), TokenGrid((left, right), (10, 40)), 1.0)
    assert [one.box for one in found] == [(10, 0, 20, 10), (20, 0, 30, 10)]


@pytest.mark.parametrize("values", [np.zeros(6), np.full(6, np.nan), np.full(6, -1.0)], ids=["zero", "nan", "negative"])
def test_without_mass_there_are_no_regions(values):
    assert regions(values, TokenGrid.single(2, 3, (20, 30)), 0.5) == []
