"""The setting `positions`: who has it, how it is written, and where an output stands that has no place."""

from __future__ import annotations

import pytest

from compression.backends.axes import places_on
from compression.compressor import Stage, Strategy
from compression.decoder import DecoderStrategy
from compression.errors import InvalidParameter
from compression.grid import TokenGrid, View
from compression.positions import positions_of
from compression.selection import Selection
from compression.strategies import CATALOGUE


@pytest.mark.parametrize("kind", list(CATALOGUE), ids=lambda kind: kind.info.name)
def test_every_strategy_that_reduces_before_the_language_model_takes_positions(kind: type[Strategy]) -> None:
    has = any(parameter.name == "positions" for parameter in kind.info.parameters)
    if not issubclass(kind, DecoderStrategy):
        assert has == (kind.info.stage is Stage.ENCODER and kind.info.reduces != "nothing")


@pytest.mark.parametrize("name", [kind.info.name for kind in CATALOGUE if kind.info.stage is Stage.ENCODER][1:])
def test_positions_are_written_and_read_back_and_the_released_ones_are_left_out(name: str) -> None:
    assert "positions" not in str(CATALOGUE.plan(f"{name}@0.5"))
    for convention in ("original", "renumbered"):
        plan = CATALOGUE.plan(f"{name}:positions={convention}@0.5")
        assert str(plan) == f"{name}:positions={convention}@0.5"
        assert CATALOGUE.plan(str(plan)) == plan


def test_positions_are_the_usual_ones_unless_asked_for() -> None:
    assert positions_of(CATALOGUE.build("divprune"), "renumbered") == "renumbered"
    assert positions_of(CATALOGUE.build("divprune"), "original") == "original"
    asked = CATALOGUE.build("divprune", {"positions": "original"})
    assert positions_of(asked, "renumbered") == "original"
    with pytest.raises(InvalidParameter, match="positions takes original, renumbered, got 'gone'"):
        CATALOGUE.plan("divprune:positions=gone@4")


def test_a_class_token_stands_at_the_beginning_of_its_view() -> None:
    grid = TokenGrid((View(1, 2, (0, 0, 2, 1)), View(2, 2, (2, 0, 4, 2))), (2, 4))
    # the [CLS] of both views, token 4, and [CLS] of the first view together with tokens 3 and 5, which are at row 0.5
    made = Selection.merge(6, [-1, -1, 4, -1], [([6], [1]), ([7], [1]), ([4], [1]), ([6, 3, 5], [1, 1, 1])], extra=2)
    assert places_on(grid, made).tolist() == [0, 2, 4, 5]
