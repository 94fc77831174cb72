"""Downsampling: which size is taken, on towers that make any number of tokens and on those that do not."""

from __future__ import annotations

import math

import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidBudget
from compression.sight import Prospect
from compression.strategies.downsample import STEPS, Downsample, largest_size
from tests.contracts.sights import ToySight


def patches(side: int):
    """A model that makes a token of every started square of so many pixels."""
    return lambda size: math.ceil(size[0] / side) * math.ceil(size[1] / side)


def seen(size, count, largest=None) -> Prospect:
    return Prospect(size, (count(size),), largest or size, count)


def test_a_quarter_of_the_tokens_is_half_of_each_edge():
    assert largest_size(seen((1024, 1024), patches(16)), 1024) == (512, 512)
    assert largest_size(seen((1024, 1024), patches(16)), 1023) == (496, 496)


@pytest.mark.parametrize("size", [(40, 60), (300, 200), (1000, 37), (1, 9), (2048, 1536)])
def test_no_larger_size_fits_the_budget(size):
    count = patches(8)
    ahead = seen(size, count)
    for budget in sorted({1, 2, ahead.total // 7 + 1, ahead.total // 2 + 1, ahead.total}):
        found = largest_size(ahead, budget)
        assert count(found) <= budget
        fitting = []  # the rule with a loop over every length of the longer edge
        for edge in range(1, max(size) + 1):
            scaled = tuple(max(1, round(one * edge / max(size))) for one in size)
            if count(scaled) <= budget:
                fitting.append(scaled)
        assert found == fitting[-1]


def test_an_image_far_larger_than_the_model_sees_is_not_searched_pixel_by_pixel():
    asked = []

    def count(size):
        asked.append(size)
        return patches(16)(tuple(min(one, 1024) for one in size))

    ahead = seen((200_000, 200_000), count, largest=(2048, 2048))
    assert largest_size(ahead, 1024) == (512, 512)
    assert len(asked) < STEPS + 10


def test_a_model_with_few_possible_numbers_takes_the_next_below():
    def count(size):  # one tile of 36 tokens, or four and the whole
        return 36 if max(size) <= 24 else 180

    ahead = seen((48, 48), count)
    assert largest_size(ahead, 100) == (24, 24)
    assert Downsample().lowest(ahead) == 36
    with pytest.raises(InvalidBudget, match="of this image at any size are 36") as raised:
        Downsample().check(ahead, 35)
    assert raised.value.lowest == 36


def test_a_tower_of_one_size_is_refused_and_says_so():
    sight = ToySight(fixed=True)
    with pytest.raises(InvalidBudget, match="this model makes 36 of an image of any size; use 36") as raised:
        Downsample().look(sight, 9, Context())
    assert raised.value.lowest == 36
    assert len(Downsample().look(sight, 36, Context()).tokens) == 36


def test_it_is_the_encoding_of_the_smaller_image_with_boxes_of_the_larger():
    sight = ToySight((48, 48))
    looked = Downsample().look(sight, 36, Context())
    assert looked.tokens.grid.read_size == (24, 24)
    assert looked.tokens.grid.image_size == (48, 48)
    assert looked.tokens.grid.boxes()[0].tolist() == [0, 0, 8, 8]
    small = ToySight((24, 24))
    small.pixels = torch.nn.functional.avg_pool2d(sight.pixels, 2)
    torch.testing.assert_close(looked.tokens.features, small.encode().features)


def test_what_was_done_is_told():
    looked = Downsample().look(ToySight((48, 60)), 40, Context())
    [said] = looked.selection.diagnostics["notes"]
    assert said == (
        "The image was encoded at 25 × 20 pixels instead of 60 × 48, in 2 views instead of 6: a view's name means "
        "another part of the image."
    )
    assert not Downsample().look(ToySight(), 60, Context()).selection.diagnostics["notes"]
