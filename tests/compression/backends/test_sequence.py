"""Where outputs lie in the model's input sequence."""

from __future__ import annotations

from compression.backends.sequence import blocks_of
from compression.selection import Selection
from tests.contracts.toys import toy_grid


def test_outputs_without_a_place_go_with_their_sources() -> None:
    # Two views of two tokens: a kept one, a sum of the second view's, its [CLS], and a sum over both views.
    selection = Selection.merge(
        4, [0, -1, -1, -1], [([0], [1.0]), ([2, 3], [0.5, 0.5]), ([5], [1.0]), ([1, 2], [0.5, 0.5])], extra=2
    )
    assert [block.tolist() for block in blocks_of(selection, toy_grid((1, 2), (1, 2)))] == [[0], [1, 2, 3]]
