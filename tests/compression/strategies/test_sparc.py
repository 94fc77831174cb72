from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from compression.compressor import Context
from compression.errors import InvalidBudget
from compression.grid import Box
from compression.sight import Looked
from compression.strategies.sparc import SPARC
from compression.zooming.lens import joined
from compression.zooming.search import FROM_ATTENTION, UNWRITTEN
from compression.zooming.written import Coordinates
from tests.contracts.lenses import ToyLens
from tests.contracts.sights import ToySight

CONTEXT = Context(question="Where is the ship?")


@dataclass
class Scripted(ToyLens):
    """The toy, with the texts that it writes given: one list for each picture that it is asked about."""

    texts: list[list[str]] = field(default_factory=list)

    def write(self, tokens, request, *, count, temperature, seed):
        self.wrote.append(len(tokens))
        self.request, self.temperature = request, temperature
        return self.texts[len(self.wrote) - 1][:count]


def written(*boxes: Box, label: str = "") -> str:
    return json.dumps([{"bbox_2d": box, "label": label} for box in boxes])


def sighted(*texts: list[str], size: tuple[int, int] = (60, 60), coordinates=Coordinates.THOUSAND) -> ToySight:
    """A sight whose model writes these texts; coordinates are thousandths."""
    sight = ToySight(size, coordinates=coordinates)
    sight.__dict__["lens"] = Scripted(sight, coordinates, list(texts))
    return sight


def crops(looked: Looked, overview: int) -> Sequence[Box]:
    return [view.box for view in looked.tokens.grid.views[overview:]]


def test_a_box_that_most_attempts_saw_comes_first():
    rare, common = (0, 0, 200, 200), (500, 500, 900, 900)
    texts = [written(rare, common)] + [written(common)] * 5 + ["I see nothing.", written()]
    looked = SPARC().look(sighted(texts), None, CONTEXT)
    _, first, second = looked.turns
    assert first.box == pytest.approx((30, 30, 54, 54))
    assert (first.confidence, second.confidence) == (6 / 8, 1 / 8)
    assert first.is_accepted
    assert second.is_accepted


def test_the_answer_is_given_the_overview_and_the_crops_in_reading_order():
    texts = [written((500, 500, 900, 900), (0, 0, 200, 200))]
    sight = sighted(texts)
    looked = SPARC(rollouts=1, overview="256").look(sight, None, CONTEXT)
    overview = sight.encode(size=(60, 60))
    assert looked.tokens.grid.views[: len(overview.grid.views)] == overview.grid.views
    assert looked.crops == ((0, 0, 12, 12), (30, 30, 54, 54))
    for crop in looked.crops:
        assert joined([sight.encode(crop)]).grid.views[0] in looked.tokens.grid.views
    assert len(looked.selection) == len(looked.tokens) == len(overview) + 9 + 36


def test_a_single_attempt_takes_the_likeliest_and_several_are_sampled():
    for rollouts, temperature in ((1, 0.0), (2, 0.7)):
        sight = sighted([written((0, 0, 200, 200))] * 2)
        SPARC(rollouts=rollouts).look(sight, None, CONTEXT)
        assert sight.lens.temperature == temperature


def test_the_model_is_told_its_own_convention_and_not_to_answer():
    sight = sighted([""])
    SPARC(rollouts=1).look(sight, None, CONTEXT)
    assert "Do not answer" in sight.lens.request
    assert "thousandths" in sight.lens.request
    assert CONTEXT.question in sight.lens.request
    assert '{"bbox_2d": [left, top, right, bottom]' in sight.lens.request


def test_at_most_six_crops_are_shown_and_the_most_confident_ones():
    places = [(100 * at, 0, 100 * at + 90, 90) for at in range(9)]
    texts = [written(*places[: 9 - at]) for at in range(8)]  # the first ones are seen most often
    looked = SPARC().look(sighted(texts), None, CONTEXT)
    assert len(looked.crops) == 6
    assert [turn.is_accepted for turn in looked.turns] == [True] * 7
    fewer = SPARC(crops=2).look(sighted(texts), None, CONTEXT)
    assert fewer.crops == looked.crops[:2]
    assert fewer.turns[3].reason == "2 crops are the most"


@pytest.mark.parametrize("text", ["", "The ship is red.", "[1, 2", "[9000, 9000, 9001, 9001]"])
def test_without_a_box_the_overview_is_all(text):
    sight = sighted([text])
    looked = SPARC(rollouts=1).look(sight, None, CONTEXT)
    assert len(looked.tokens) == len(sight.encode(size=(60, 60)))
    assert looked.crops == ()
    notes = looked.selection.diagnostics["notes"]
    assert any("the overview is all that the model sees" in note for note in notes)
    assert len(looked.turns) == 1


def test_a_crop_that_does_not_fit_the_budget_is_a_turn_that_says_so():
    sight = sighted([written((0, 0, 200, 200), (500, 500, 900, 900))])
    total, overview = sight.prospect.total, len(sight.encode(size=(60, 60)))
    assert total == overview
    # An image larger than the overview, so that there is room for something.
    sight = sighted([written((0, 0, 100, 100), (500, 500, 900, 900))], size=(512, 512))
    lowest = SPARC().lowest(sight.prospect)
    looked = SPARC(rollouts=1).look(sight, lowest + 200, CONTEXT)
    _, first, second = looked.turns
    assert (first.is_accepted, first.tokens) == (True, 13 * 13)
    assert (second.is_accepted, second.tokens, second.reason) == (False, 0, "does not fit the budget")
    assert len(looked.tokens) == lowest + 13 * 13


def test_without_room_for_any_crop_the_run_says_why():
    sight = sighted([written((0, 0, 100, 100))], size=(512, 512))
    looked = SPARC(rollouts=1).look(sight, SPARC().lowest(sight.prospect), CONTEXT)
    notes = looked.selection.diagnostics["notes"]
    assert "Nothing was added to the overview: the best box does not fit the budget." in notes


def test_a_budget_without_room_for_the_overview_is_refused_before_anything_is_read():
    sight = sighted([], size=(512, 512))
    lowest = SPARC().lowest(sight.prospect)
    with pytest.raises(InvalidBudget, match=f"its overview alone has {lowest} .* use at least {lowest}"):
        SPARC().look(sight, lowest - 1, CONTEXT)
    assert sight.encoded == 0


def test_boxes_of_tiles_lie_where_the_tiles_lie():
    texts = [[""], [written((500, 0, 1000, 500))], [""], [""]]
    looked = SPARC(rollouts=1, tiles=2).look(sighted(*texts, size=(64, 64)), None, CONTEXT)
    assert looked.turns[1].box == pytest.approx((48, 0, 64, 16))
    assert looked.turns[0].tokens == 4 * 8 * 8  # four tiles of 32 pixels


@pytest.mark.parametrize(("size", "tiles"), [((2048, 2048), 1), ((2304, 100), 2), ((8192, 8192), 3)])
def test_very_large_images_are_searched_on_several_overviews(size, tiles):
    prospect = ToySight((8, 8)).prospect
    assert SPARC()._tiles(type(prospect)(size, prospect.views, size, prospect.count)) == tiles


def test_boxes_of_a_model_that_cannot_write_come_from_its_attention_and_the_run_says_so():
    for boxes, said in (("auto", FROM_ATTENTION), ("written", UNWRITTEN)):
        sight = ToySight((60, 60))
        looked = SPARC(boxes=boxes).look(sight, None, CONTEXT)
        assert said in looked.selection.diagnostics["notes"]
        overview = sight.encode(size=(60, 60))
        reply = ToyLens(sight).ask(overview)
        strongest = overview.grid.boxes()[int(reply.looked.argmax())]
        hit = [turn.box for turn in looked.turns[1:] if turn.box[0] <= strongest[0] < turn.box[2]]
        assert any(box[1] <= strongest[1] < box[3] for box in hit)
        assert looked.turns[0].after == reply.answer
        assert all(turn.before == reply.answer for turn in looked.turns[1:])


def test_confidences_of_attention_are_shares_of_it():
    looked = SPARC(boxes="attention", share=0.5).look(ToySight((60, 60)), None, CONTEXT)
    shares = [turn.confidence for turn in looked.turns[1:]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1


def test_a_model_that_writes_can_be_read_by_its_attention_instead():
    sight = sighted()
    looked = SPARC(boxes="attention").look(sight, None, CONTEXT)
    assert sight.lens.wrote == []
    assert FROM_ATTENTION in looked.selection.diagnostics["notes"]


def test_signals_of_the_pictures_stay_with_their_tokens():
    sight = ToySight((60, 60))
    looked = SPARC().look(sight, None, CONTEXT)
    assert all(len(value) == len(looked.tokens) for name, value in looked.tokens.signals.items() if "cls" not in name)
    crop = sight.encode(looked.crops[-1])
    np.testing.assert_array_equal(looked.tokens.features[-len(crop) :], crop.features)
