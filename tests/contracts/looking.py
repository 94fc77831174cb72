"""What every strategy promises that looks at the image itself, beside what holds for all.

Each check takes a configured strategy and raises AssertionError where a promise is broken; `ToySight` is the image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Budget, Compressor, Context, Plan, Step
from compression.errors import InvalidBudget, MissingSignal, NeedsSight
from compression.selection import Fate, Selection
from compression.sight import Decided, Looked, LookingStrategy
from compression.strategies import CATALOGUE
from compression.tokens import Signal
from tests.contracts.checks import (
    check_declaration_is_complete,
    check_parameters_rebuild_an_equal_object,
    check_text_round_trips,
)
from tests.contracts.sights import ToySight, toy_sights
from tests.contracts.toys import QUESTION, toy_grid, toy_tokens

CONTEXT = Context(question=QUESTION)


def _looking(strategy: Compressor) -> LookingStrategy:
    assert isinstance(strategy, LookingStrategy)
    return strategy


def looks(compressor: Compressor) -> Iterator[tuple[str, ToySight, int, Looked]]:
    """What the strategy looks at on all images with all budgets that it can reach, with a label for messages."""
    strategy = _looking(compressor)
    for name, sight in toy_sights():
        total, lowest = sight.prospect.total, strategy.lowest(sight.prospect)
        for budget in sorted(
            {lowest, (lowest + total) // 2, max(lowest, -(-total // 3)), max(lowest, total - 1), total}
        ):
            yield f"{name}, budget {budget}", sight, budget, strategy.look(sight, budget, CONTEXT)


def check_outputs_fit_the_budget(compressor: Compressor) -> None:
    """At least one output and never more than asked for; as many where the strategy merges or prunes."""
    for label, _, budget, looked in looks(compressor):
        assert 1 <= len(looked.selection) <= budget, label
        if compressor.info.reduces != "encodes fewer":
            assert len(looked.selection) == budget, label


def check_the_selection_lies_on_the_grid_of_its_tokens(compressor: Compressor) -> None:
    """Fates partition the strategy's own grid, targets are kept, anchors ascend."""
    for label, _, _, looked in looks(compressor):
        selection, tokens = looked.selection, looked.tokens
        assert selection.tokens == len(tokens) == len(tokens.grid), label
        assert sum(selection.counts().values()) == len(tokens), label
        assert (np.diff(selection.anchor) > 0).all() or compressor.info.own_order, label
        kept = set(np.flatnonzero(selection.fate == Fate.KEPT).tolist())
        assert set(selection.target[selection.target >= 0].tolist()) <= kept, label


def check_boxes_are_in_original_pixels(compressor: Compressor) -> None:
    """The grid is one of the original image, every token lies on it, and together they cover what was looked at."""
    for label, sight, _, looked in looks(compressor):
        boxes = looked.tokens.grid.boxes()
        assert looked.tokens.grid.image_size == sight.size, label
        height, width = sight.size
        assert (boxes[:, :2] >= 0).all(), label
        assert (boxes[:, 0] < width).all(), label
        assert (boxes[:, 1] < height).all(), label


def check_all_tokens_are_the_image_as_the_model_reads_it(compressor: Compressor) -> None:
    """Budget = tokens gives the shared encoding, to the bit where nothing lies on padding."""
    if not compressor.info.identity_at_full:
        return
    for label, sight in toy_sights():
        looked = _looking(compressor).look(sight, sight.prospect.total, CONTEXT)
        plain = sight.encode()
        assert looked.selection.is_pruning, label
        assert len(looked.selection) == len(plain), label
        torch.testing.assert_close(looked.tokens.features, plain.features, atol=1e-5, rtol=0)
        assert looked.tokens.grid == plain.grid, label


def check_weights_of_an_output_sum_to_one(compressor: Compressor) -> None:
    """An output is a mean: it neither grows nor shrinks; features of members are those of their output."""
    for label, _, _, looked in looks(compressor):
        selection = looked.selection
        sums = np.bincount(selection.weight_output, weights=selection.weight_value, minlength=len(selection))
        np.testing.assert_allclose(sums, 1, atol=1e-6, err_msg=label)
        made = selection.apply(looked.tokens.features)
        assert made.dtype == looked.tokens.features.dtype, label
        assert made.isfinite().all(), label


def check_the_same_look_gives_the_same_answer(compressor: Compressor) -> None:
    """Two looks are equal down to the features, and leave the global generators and the image alone."""
    for label, sight, budget, looked in looks(compressor):
        pixels, chance = sight.pixels.clone(), torch.get_rng_state()
        again = _looking(compressor).look(sight, budget, CONTEXT)
        assert again.selection == looked.selection, label
        assert torch.equal(again.tokens.features, looked.tokens.features), label
        assert torch.equal(sight.pixels, pixels), label
        assert torch.equal(torch.get_rng_state(), chance), label


def check_a_budget_that_cannot_be_reached_is_refused_before_anything_is_read(compressor: Compressor) -> None:
    """Below the lowest, zero, too many and missing: our error with the value and the lowest in it, nothing encoded."""
    strategy = _looking(compressor)
    for fixed in (False, True):
        sight = ToySight(fixed=fixed)
        total, lowest = sight.prospect.total, strategy.lowest(sight.prospect)
        for budget in {0, -3, total + 1, lowest - 1}:
            with pytest.raises(InvalidBudget, match=rf"(got|reach) {budget}\b") as raised:
                strategy.look(sight, budget, CONTEXT)
            assert raised.value.lowest == lowest
        if not compressor.info.adaptive:
            with pytest.raises(InvalidBudget, match="needs a budget"):
                strategy.look(sight, None, CONTEXT)
        assert sight.encoded == 0
        assert len(strategy.look(sight, lowest, CONTEXT).selection) <= lowest


def check_what_the_model_cannot_do_is_named(compressor: Compressor) -> None:
    """A tower without a needed signal is refused by that name, at any budget that it could reach."""
    for signal, sight in (
        (Signal.ENCODER_BLOCKS, ToySight(has_blocks=False)),
        (Signal.CROPS, ToySight(has_crops=False)),
    ):
        if signal in compressor.info.needs:
            with pytest.raises(MissingSignal, match=signal.value):
                _looking(compressor).look(sight, sight.prospect.total, CONTEXT)
            assert sight.encoded == 0


def check_visual_tokens_are_refused(compressor: Compressor) -> None:
    """Given tokens instead of the image, the error says what to do."""
    with pytest.raises(NeedsSight, match=rf"{compressor.info.name} reads the image itself.*look\(\)"):
        compressor.compress(toy_tokens(toy_grid((4, 6))), 6, CONTEXT)


def check_the_rest_of_the_plan_finds_the_decision(compressor: Compressor) -> None:
    """For the model the look is a decision before the language model."""
    for label, sight, budget, looked in looks(compressor):
        plan = Plan((Step(compressor, Budget(count=budget)),))
        [first] = looked.rest(plan, sight.prospect.total).steps
        assert isinstance(first.compressor, Decided), label
        assert first.compressor.compress(looked.tokens, None, CONTEXT) == looked.selection, label


def check_a_later_step_is_asked_for_no_more_than_there_is(compressor: Compressor) -> None:
    """Its ratio is of the image as the model reads it whole, its count at most what is left."""
    sight, fastv = ToySight(), CATALOGUE.plan("fastv@0.9").steps[0]
    total = sight.prospect.total
    budget = max(total // 2, _looking(compressor).lowest(sight.prospect))
    looked = _looking(compressor).look(sight, budget, CONTEXT)
    plan = Plan((Step(compressor, Budget(count=budget)), fastv))
    there = min(round(0.9 * total), len(looked.selection))
    assert looked.rest(plan, total).steps[1].budget == Budget(count=there)
    few = Plan((Step(compressor, Budget(count=budget)), replace(fastv, budget=Budget(ratio=0.25))))
    assert looked.rest(few, sight.prospect.total).steps[1].budget == Budget(count=15)


def check_a_look_that_ignores_the_question_is_the_same_for_all(compressor: Compressor) -> None:
    """Where declared, one look serves all questions about an image."""
    strategy, sight = _looking(compressor), ToySight()
    if strategy.reads_question:
        return
    budget = sight.prospect.total // 2
    one, other = (strategy.look(sight, budget, Context(question=words)) for words in ("How many?", "What colour?"))
    assert one.selection == other.selection
    assert torch.equal(one.tokens.features, other.tokens.features)


def check_a_look_survives_storage(compressor: Compressor) -> None:
    """Selection and grid come back from JSON and arrays."""
    for label, _, _, looked in looks(compressor):
        plain = json.loads(json.dumps(looked.selection.to_json(), allow_nan=False))
        assert Selection.from_json(plain, looked.selection.arrays()) == looked.selection, label
        grid = looked.tokens.grid
        assert type(grid).from_json(json.loads(json.dumps(grid.to_json()))) == grid, label


LOOKING_CHECKS: tuple[Callable[[Compressor], None], ...] = (
    check_outputs_fit_the_budget,
    check_the_selection_lies_on_the_grid_of_its_tokens,
    check_boxes_are_in_original_pixels,
    check_all_tokens_are_the_image_as_the_model_reads_it,
    check_weights_of_an_output_sum_to_one,
    check_the_same_look_gives_the_same_answer,
    check_a_budget_that_cannot_be_reached_is_refused_before_anything_is_read,
    check_what_the_model_cannot_do_is_named,
    check_visual_tokens_are_refused,
    check_the_rest_of_the_plan_finds_the_decision,
    check_a_later_step_is_asked_for_no_more_than_there_is,
    check_a_look_that_ignores_the_question_is_the_same_for_all,
    check_a_look_survives_storage,
    check_parameters_rebuild_an_equal_object,
    check_text_round_trips,
    check_declaration_is_complete,
)
"""All checks, in reading order."""
