"""What every compressor promises, one public function each. A strategy of your own passes them too.

Each takes a configured compressor and raises AssertionError where a promise is broken. Which promises hold follows from
what the strategy declares in its `info`; nothing here knows a strategy by name.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compression.compressor import Budget, Compressor, Context, Plan, Stage, Step, Strategy
from compression.decoder import DecoderStrategy, mean_over_layers
from compression.errors import InvalidBudget, MissingSignal
from compression.registry import Registry
from compression.selection import Fate, Selection
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import PER_HEAD, awkward_tokens, toy_context, toy_grid, toy_tokens

IN_CONTEXT: dict[Signal, str] = {
    Signal.LAYER_ATTENTION: "attention",
    Signal.LAYER_STATE: "state",
    Signal.TEACHER_ATTENTION: "teacher",
}
"""Signals that come in the context, and their field there."""


def budgets(compressor: Compressor, total: int) -> list[int | None]:
    """Budgets that the compressor must take on that many tokens."""
    if compressor.info.reduces == "nothing":
        return [total]
    counts: list[int | None] = sorted({1, min(2, total), min(3, total), -(-total // 3), max(1, total - 1), total})
    return counts + ([None] if compressor.info.adaptive else [])


@cache
def inputs() -> tuple[tuple[str, VisualTokens], ...]:
    """Ordinary and awkward tokens, by name."""
    return (
        ("random", toy_tokens(toy_grid((4, 6)))),
        ("without text", toy_tokens(toy_grid((5, 5)), seed=1, with_text=False)),
        *awkward_tokens(),
    )


@cache
def selections(compressor: Compressor) -> tuple[tuple[str, VisualTokens, int | None, Selection], ...]:
    """Selections over all inputs and budgets, with a label for messages."""
    return tuple(
        (f"{name}, budget {budget}", tokens, budget, compressor.compress(tokens, budget, toy_context(tokens)))
        for name, tokens in inputs()
        for budget in budgets(compressor, len(tokens))
    )


def check_fates_partition_the_grid(compressor: Compressor) -> None:
    """Every token is kept, merged or dropped; kept ones are anchors, and a target is a kept token."""
    for label, tokens, _, selection in selections(compressor):
        assert selection.tokens == len(tokens), label
        assert sum(selection.counts().values()) == len(tokens), label
        kept = set(np.flatnonzero(selection.fate == Fate.KEPT).tolist())
        assert kept == set(selection.anchor[selection.anchor >= 0].tolist()), label
        targets = selection.target
        assert set(targets[targets >= 0].tolist()) <= kept, label
        assert (targets[selection.fate == Fate.DROPPED] == -1).all(), label


def check_outputs_number_at_most_the_budget(compressor: Compressor) -> None:
    """No more outputs than asked for, and at least one."""
    for label, tokens, budget, selection in selections(compressor):
        assert 1 <= len(selection) <= (len(tokens) if budget is None else budget), label


def check_outputs_number_exactly_the_budget(compressor: Compressor) -> None:
    """As many outputs as asked for, unless the strategy declares itself adaptive."""
    for label, _, budget, selection in selections(compressor):
        if budget is not None and not compressor.info.adaptive:
            assert len(selection) == budget, label


def check_order_is_raster_unless_declared(compressor: Compressor) -> None:
    """Anchors ascend and are unique, unless the method has its own order."""
    for label, _, _, selection in selections(compressor):
        if not compressor.info.own_order:
            assert (np.diff(selection.anchor) > 0).all(), label
            assert selection.anchor[0] >= 0, label


def check_budget_of_all_tokens_is_the_identity_where_declared(compressor: Compressor) -> None:
    """Budget = tokens changes no bit, where declared."""
    if not compressor.info.identity_at_full:
        return
    for label, tokens in inputs():
        selection = compressor.compress(tokens, len(tokens), toy_context(tokens))
        assert selection.is_pruning, label
        assert torch.equal(selection.apply(tokens.features), tokens.features), label


def check_same_seed_gives_the_same_answer(compressor: Compressor) -> None:
    """Two calls give equal selections, down to scores and diagnostics."""
    for label, tokens, budget, selection in selections(compressor)[::3]:
        assert compressor.compress(tokens, budget, toy_context(tokens)) == selection, label


def check_global_chance_is_neither_read_nor_moved(compressor: Compressor) -> None:
    """The global generators are left as they were, and do not matter."""
    tokens = toy_tokens(toy_grid((4, 6)))
    budget = budgets(compressor, len(tokens))[-1]
    first = compressor.compress(tokens, budget, toy_context(tokens))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        before = torch.get_rng_state()
        assert compressor.compress(tokens, budget, toy_context(tokens)) == first
        assert torch.equal(torch.get_rng_state(), before)


def check_inputs_are_unmodified(compressor: Compressor) -> None:
    """Features, signals and what the language model holds are as before."""
    for _, tokens in inputs():
        features, signals = tokens.features.clone(), {name: value.clone() for name, value in tokens.signals.items()}
        context = toy_context(tokens)
        given = {name: value.clone() for name, value in _arrays(context).items()}
        for budget in budgets(compressor, len(tokens)):
            compressor.compress(tokens, budget, context)
        assert torch.equal(tokens.features, features)
        assert all(torch.equal(tokens.signals[name], value) for name, value in signals.items())
        assert all(torch.equal(value, given[name]) for name, value in _arrays(context).items())


def check_outputs_can_be_differentiated(compressor: Compressor) -> None:
    """Features and signals may carry gradients; the decision cuts them, the outputs pass them on."""
    tokens = toy_tokens(toy_grid((4, 6)))
    signals = {name: value.clone().requires_grad_() for name, value in tokens.signals.items()}
    live = replace(tokens, features=tokens.features.clone().requires_grad_(), signals=signals)
    budget = budgets(compressor, len(tokens))[-1]
    selection = compressor.compress(live, budget, toy_context(tokens))
    assert selection == compressor.compress(tokens, budget, toy_context(tokens))
    _outputs(selection, live).sum().backward()
    assert live.features.grad is not None


def check_dtype_is_preserved(compressor: Compressor) -> None:
    """Outputs have the features' dtype and are finite; half precision chooses nearly the same tokens."""
    grid = toy_grid((6, 10))
    kept = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
        tokens = toy_tokens(grid, dtype=dtype)
        budget = budgets(compressor, len(tokens))[0 if compressor.info.reduces == "nothing" else 3]
        selection = compressor.compress(tokens, budget, toy_context(tokens))
        outputs = _outputs(selection, tokens)
        assert outputs.dtype == dtype
        assert outputs.isfinite().all()
        kept[dtype] = set(np.flatnonzero(selection.fate == Fate.KEPT).tolist())
    overlap = len(kept[torch.float32] & kept[torch.float16]) / len(kept[torch.float32])
    assert overlap >= 0.95, f"half precision keeps {overlap:.0%} of the same tokens"


def check_scores_follow_a_permutation_where_declared(compressor: Compressor) -> None:
    """A position-free method scores and keeps the same tokens wherever they lie."""
    if not compressor.info.position_free:
        return
    tokens = toy_tokens(toy_grid((4, 6)))
    order = np.random.default_rng(0).permutation(len(tokens))
    at = torch.from_numpy(order)
    context = toy_context(tokens)
    signals = {
        name: value[:, at] if name in PER_HEAD else value[at] if len(value) == len(tokens) else value
        for name, value in tokens.signals.items()
    }
    moved = replace(tokens, features=tokens.features[at], signals=signals)
    moved_context = _permuted(context, order)
    for budget in (1, 5, 23):
        here = compressor.compress(tokens, budget, context)
        there = compressor.compress(moved, budget, moved_context)
        assert here.scores is not None
        assert there.scores is not None
        np.testing.assert_allclose(there.scores, here.scores[order], atol=1e-6)
        assert set(order[there.anchor].tolist()) == set(here.anchor.tolist())


def check_choice_ignores_the_image_where_declared(compressor: Compressor) -> None:
    """Where declared, other features give the same selection."""
    if not compressor.info.ignores_image:
        return
    grid = toy_grid((4, 6), (3, 3))
    first, second = toy_tokens(grid, seed=1), toy_tokens(grid, seed=2)
    for budget in budgets(compressor, len(grid)):
        context = toy_context(first)
        assert compressor.compress(first, budget, context) == compressor.compress(second, budget, context)


def check_parameters_rebuild_an_equal_object(compressor: Compressor) -> None:
    """A stored run can re-create its strategy from the declared parameters alone."""
    assert type(compressor)(**compressor.parameters) == compressor
    assert set(compressor.parameters) <= {parameter.name for parameter in compressor.info.parameters}
    assert hash(type(compressor)(**compressor.parameters)) == hash(compressor)


def check_text_round_trips(compressor: Compressor) -> None:
    """The canonical text of a strategy reads back as an equal plan and writes the same text again."""
    assert isinstance(compressor, Strategy)
    registry = Registry().register(type(compressor))
    for budget in (Budget(ratio=0.25), Budget(ratio=1.0), Budget(count=64)):
        plan = Plan((Step(compressor, budget),))
        assert registry.plan(str(plan)) == plan
        assert str(registry.plan(str(plan))) == str(plan)


def check_missing_signals_are_named(compressor: Compressor) -> None:
    """Without a needed signal the error is ours and names the strategy and the signal."""
    tokens = toy_tokens(toy_grid((4, 6)))
    context = toy_context(tokens)
    budget = budgets(compressor, len(tokens))[0]
    unneeded = {signal for signal, other in compressor.info.instead.items() if other is None}
    for signal in compressor.info.needs - unneeded - {Signal.FEATURES}:
        # Undeclared signals go too: an optional one may stand in for a needed one.
        left = compressor.info.needs - {signal}
        poorer = replace(tokens, signals={name: value for name, value in tokens.signals.items() if name in left})
        blind = replace(context, **{IN_CONTEXT[signal]: None}) if signal in IN_CONTEXT else context
        with pytest.raises(MissingSignal, match=rf"{compressor.info.name}.*{signal.value}"):
            compressor.compress(poorer, budget, blind)


def check_undeclared_signals_do_not_matter(compressor: Compressor) -> None:
    """With the declared signals and no others the method works."""
    tokens = toy_tokens(toy_grid((4, 6)))
    needed = {name: value for name, value in tokens.signals.items() if name in compressor.info.needs}
    context = toy_context(tokens)
    for signal in IN_CONTEXT.keys() - compressor.info.needs:
        context = replace(context, **{IN_CONTEXT[signal]: None})
    for budget in budgets(compressor, len(tokens)):
        compressor.compress(replace(tokens, signals=needed), budget, context)


def check_a_stand_in_does(compressor: Compressor) -> None:
    """With what stands in for needed signals, and without these, the method works and the declaration says so."""
    info = compressor.info
    given = info.needs - info.instead.keys() | {other for other in info.instead.values() if other is not None}
    assert not info.missing(given)
    for grid in (toy_grid((4, 6)), toy_grid((3, 5), (2, 2))):
        tokens = toy_tokens(grid)
        poorer = replace(tokens, signals={name: value for name, value in tokens.signals.items() if name in given})
        for budget in budgets(compressor, len(tokens)):
            selection = compressor.compress(poorer, budget, toy_context(tokens))
            assert len(selection) <= (budget or len(tokens))
            assert Signal.CLS_FEATURE in given or not selection.extra


def check_bad_budgets_are_refused(compressor: Compressor) -> None:
    """Zero, negative, too many, and a missing budget where one is needed raise our error with the value in it."""
    tokens = toy_tokens(toy_grid((4, 6)))
    for budget in (0, -3, len(tokens) + 1):
        with pytest.raises(InvalidBudget, match=rf"got.* {budget}\b"):
            compressor.compress(tokens, budget, toy_context(tokens))
    if not compressor.info.adaptive and compressor.info.reduces != "nothing":
        with pytest.raises(InvalidBudget, match="needs a budget"):
            compressor.compress(tokens, None, toy_context(tokens))


def check_weights_reproduce_the_outputs(compressor: Compressor) -> None:
    """The sparse weights as a dense matrix times the sources are the outputs, to 1e-5."""
    for label, tokens, _, selection in selections(compressor):
        dense = np.zeros((len(selection), selection.tokens + selection.extra))
        np.add.at(dense, (selection.weight_output, selection.weight_token), selection.weight_value)
        sources = tokens.features.double().numpy()
        if selection.extra:
            sources = np.concatenate([sources, tokens.signals[Signal.CLS_FEATURE].double().numpy()])
        np.testing.assert_allclose(dense @ sources, _outputs(selection, tokens).numpy(), atol=1e-5, err_msg=label)


def check_scores_are_finite(compressor: Compressor) -> None:
    """A declared score is given for every token and finite; without a declaration there is none."""
    for label, _, _, selection in selections(compressor):
        assert (selection.scores is not None) == bool(compressor.info.score), label
        if selection.scores is not None:
            assert np.isfinite(selection.scores).all(), label


def check_selection_survives_storage(compressor: Compressor) -> None:
    """JSON and arrays give the selection back, diagnostics included."""
    for label, _, _, selection in selections(compressor):
        plain = json.loads(json.dumps(selection.to_json(), allow_nan=False))
        assert Selection.from_json(plain, selection.arrays()) == selection, label


def check_declaration_is_complete(compressor: Compressor) -> None:
    """The class tells what it is: score, deviations, source; ranges, labels, fields and parameters agree."""
    info = compressor.info
    text = inspect.getdoc(type(compressor)) or ""
    first = text.splitlines()[0]
    assert first.endswith("."), "the first line is a sentence"
    for part in ("Score:", "Differs from the paper:", "Source:"):
        assert f"\n{part} " in text, f"the docstring lacks its part {part!r}"
    assert type(compressor).__module__.split(".")[-1] == info.name, "the module carries the strategy's name"
    fields = inspect.signature(type(compressor)).parameters
    assert {name: field.default for name, field in fields.items()} == {p.name: p.default for p in info.parameters}
    assert info.paper or not info.deviations, "a baseline has no paper to deviate from"
    for parameter in info.parameters:
        assert parameter.meaning.endswith("."), parameter.name
        if parameter.default is not None:
            assert parameter.check(parameter.default) == parameter.default
    if any(parameter.reconstructed for parameter in info.parameters):
        assert any(label.startswith("reconstruction: ") for label in info.labels), (
            "reconstructed parameters have a label"
        )
    assert (info.stage is Stage.DECODER) == bool(IN_CONTEXT.keys() & info.needs)
    assert (info.stage is Stage.DECODER) == isinstance(compressor, DecoderStrategy)


def check_acts_inside_the_language_model_meet_the_mean(compressor: Compressor) -> None:
    """The schedule realises the asked mean within one token per layer, and each act leaves what it is told."""
    if not isinstance(compressor, DecoderStrategy):
        return
    layers, total = 32, 60
    lowest = compressor.lowest(total, layers)
    with pytest.raises(InvalidBudget, match=f"at least {lowest}"):
        compressor.schedule(total, lowest - 1, layers)
    for average in (lowest, (lowest + total) // 2, total):
        tokens = toy_tokens(toy_grid((6, 10)))
        acts = compressor.schedule(total, average, layers)
        assert average - 1 < mean_over_layers(acts, total, layers) <= average
        for act in acts:
            if act.returns:
                tokens = toy_tokens(toy_grid((1, act.keep)), seed=act.layer)
                continue
            decided = compressor.compress(tokens, act.keep, replace(toy_context(tokens), layer=act.layer))
            assert len(decided) == act.keep
            tokens = toy_tokens(toy_grid((1, act.keep)), seed=act.layer)


def _arrays(context: Context) -> dict[str, torch.Tensor]:
    """The tensors of a context by name."""
    named = {"attention": context.attention, "teacher": context.teacher}
    if (state := context.state) is not None:
        named |= {"hidden": state.hidden, "entered": state.entered, "query": state.next.query, "key": state.next.key}
        named |= {"query before": state.previous.query, "key before": state.previous.key}
    return {name: value for name, value in named.items() if value is not None}


def _permuted(context: Context, order: NDArray[np.int64]) -> Context:
    """The same context for visual tokens in another order."""
    at = torch.from_numpy(order)
    state = context.state
    return replace(
        context,
        attention=None if context.attention is None else context.attention[..., at],
        teacher=None if context.teacher is None else context.teacher[at],
        state=None if state is None else replace(state, visual=state.visual[order]),
    )


def _outputs(selection: Selection, tokens: VisualTokens) -> torch.Tensor:
    extra = tokens.signals[Signal.CLS_FEATURE] if selection.extra else None
    return selection.apply(tokens.features, extra)


CHECKS: tuple[Callable[[Compressor], None], ...] = (
    check_fates_partition_the_grid,
    check_outputs_number_at_most_the_budget,
    check_outputs_number_exactly_the_budget,
    check_order_is_raster_unless_declared,
    check_budget_of_all_tokens_is_the_identity_where_declared,
    check_same_seed_gives_the_same_answer,
    check_global_chance_is_neither_read_nor_moved,
    check_inputs_are_unmodified,
    check_outputs_can_be_differentiated,
    check_dtype_is_preserved,
    check_scores_follow_a_permutation_where_declared,
    check_choice_ignores_the_image_where_declared,
    check_parameters_rebuild_an_equal_object,
    check_text_round_trips,
    check_missing_signals_are_named,
    check_undeclared_signals_do_not_matter,
    check_a_stand_in_does,
    check_bad_budgets_are_refused,
    check_weights_reproduce_the_outputs,
    check_scores_are_finite,
    check_selection_survives_storage,
    check_declaration_is_complete,
    check_acts_inside_the_language_model_meet_the_mean,
)
"""All checks, in reading order."""
