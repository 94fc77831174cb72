from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from compression.compressor import Context
from compression.strategies.zoom import Zoom
from compression.zooming.boxes import encloses
from compression.zooming.lens import Reply
from tests.contracts.lenses import ToyLens
from tests.contracts.sights import ToySight

CONTEXT = Context(question="Where is the ship?")
SIZE = (512, 512)


@dataclass
class Scripted(ToyLens):
    """The toy, with what it answers, how sure it is and which place it looks at given for each time it is asked."""

    script: list[tuple[str, float, tuple[float, float]]] = field(default_factory=list)

    def ask(self, tokens):
        answer, confidence, (x, y) = self.script[len(self.asked)]
        self.asked.append(len(tokens))
        boxes = tokens.grid.boxes()
        inside = (boxes[:, 0] <= x) & (x < boxes[:, 2]) & (boxes[:, 1] <= y) & (y < boxes[:, 3])
        return Reply(answer, confidence, inside.astype(np.float64))


def sighted(*script: tuple[str, float, tuple[float, float]]) -> ToySight:
    sight = ToySight(SIZE)
    sight.__dict__["lens"] = Scripted(sight, None, list(script))
    return sight


def test_the_model_that_is_sure_is_not_shown_more():
    sight = sighted(("red", 0.95, (100, 100)))
    looked = Zoom(sure=0.9).look(sight, None, CONTEXT)
    assert len(looked.turns) == 1
    assert looked.turns[0].after == "red"
    assert sight.lens.asked == [len(looked.tokens)] == [64 * 64]
    assert "The zoom ended: the model gave its answer a probability of 0.95." in looked.selection.diagnostics["notes"]


def test_each_turn_records_box_tokens_and_the_answers_before_and_after():
    sight = sighted(("red", 0.3, (100, 100)), ("blue", 0.95, (100, 100)))
    looked = Zoom().look(sight, None, CONTEXT)
    first, second = looked.turns
    assert (first.number, first.box, first.tokens) == (1, (0, 0, 512, 512), 64 * 64)
    assert (second.number, second.before, second.after) == (2, "red", "blue")
    # One token of the overview is 8 pixels: expanded to 28 around its centre at (100, 100).
    assert second.box == (86, 86, 114, 114)
    assert second.reason == "expanded to 28 pixels a side"
    assert second.tokens == 7 * 7
    assert second.confidence == 1.0
    assert looked.crops == ((86, 86, 114, 114),)


def test_a_turn_inside_the_crop_that_is_the_previous_box_again_ends_the_zoom():
    sight = sighted(("red", 0.3, (100, 100)), ("red", 0.4, (100, 100)))
    looked = Zoom().look(sight, None, CONTEXT)
    assert [turn.is_accepted for turn in looked.turns] == [True, True, False]
    assert looked.turns[2].reason == "is the previous box again"
    assert "The zoom ended: there was no box left to look at." in looked.selection.diagnostics["notes"]


def test_boxes_lie_inside_each_other_and_there_are_at_most_three():
    @dataclass
    class Nested(Scripted):
        """Looks at the middle half of what it was shown last."""

        def ask(self, tokens):
            self.asked.append(len(tokens))
            left, top, right, bottom = tokens.grid.views[-1].box
            if len(self.asked) == 1:
                left, top, right, bottom = 0, 0, 512, 512
            width, height = right - left, bottom - top
            boxes = tokens.grid.boxes()
            x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
            inside = (abs(x - left - width / 2) < width / 4) & (abs(y - top - height / 2) < height / 4)
            return Reply("red", 0.1, inside.astype(np.float64))

    sight = ToySight(SIZE)
    sight.__dict__["lens"] = Nested(sight, None)
    looked = Zoom(share=1.0).look(sight, None, CONTEXT)
    accepted = [turn.box for turn in looked.turns if turn.is_accepted]
    assert len(accepted) > 2
    shown = [accepted[0], *looked.crops]
    for outer, inner in zip(shown, accepted[1:], strict=False):
        assert encloses(outer, inner)
    assert len(looked.crops) <= 3
    assert len(sight.lens.asked) <= 3, "the last crop is asked about by the answer itself"


def test_a_crop_that_does_not_fit_the_budget_ends_the_zoom():
    sight = sighted(("red", 0.3, (100, 100)))
    looked = Zoom().look(sight, 64 * 64 + 48, CONTEXT)
    assert looked.turns[1].reason == "does not fit the budget"
    assert not looked.turns[1].is_accepted
    assert len(looked.tokens) == 64 * 64


def test_what_the_answer_is_given_is_the_overview_and_every_crop():
    sight = sighted(("red", 0.3, (100, 100)), ("blue", 0.95, (100, 100)))
    looked = Zoom().look(sight, None, CONTEXT)
    assert len(looked.selection) == len(looked.tokens) == 64 * 64 + 7 * 7
    assert looked.selection.is_pruning


@pytest.mark.parametrize("zooms", [1, 2])
def test_no_more_crops_are_taken_than_asked_for(zooms):
    sight = sighted(*[("red", 0.1, (100, 100))] * 3)
    assert len(Zoom(zooms=zooms).look(sight, None, CONTEXT).crops) <= zooms
