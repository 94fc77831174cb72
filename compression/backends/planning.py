"""Which acts a plan makes inside the language model, and what it can reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compression.compressor import Budget, Plan, Stage, Step
from compression.decoder import Act, DecoderStrategy
from compression.errors import InvalidBudget, InvalidStrategyText


@dataclass(frozen=True)
class Planned:
    """One act of a step: which strategy acts, and what it is to leave."""

    strategy: DecoderStrategy
    act: Act


def decoder_strategy(step: Step) -> DecoderStrategy:
    """The strategy of a step inside the language model.

    Raises:
        InvalidStrategyText: it does not say where it acts.
    """
    if not isinstance(step.compressor, DecoderStrategy):
        raise InvalidStrategyText(
            f"{step.compressor.info.name} acts inside the language model but has no schedule; derive it from "
            "DecoderStrategy"
        )
    return step.compressor


def asked(step: Step, total: int) -> int:
    """The budget of a step that must have one, in visual tokens.

    Raises:
        InvalidBudget: it has none.
    """
    budget = step.budget.tokens(total)
    if budget is None:
        name = step.compressor.info.name
        raise InvalidBudget(f"{name} needs a budget; write {name}@0.25")
    return budget


def acts_of(plan: Plan, total: int, entering: int, layers: int) -> dict[int, Planned]:
    """Every act of a plan inside the language model, by the layer before which it happens.

    Args:
        plan: What was asked for, in tokens of the image; see `Plan`.
        total: Visual tokens of the image.
        entering: Visual tokens that enter the language model: what the step before it left.
        layers: Language-model layers.

    Raises:
        InvalidBudget, InvalidParameter: as `DecoderStrategy.schedule` says.
        InvalidStrategyText: two steps act before the same layer, or one in front of another that lets tokens return.
    """
    planned: dict[int, Planned] = {}
    for step in plan.steps:
        if step.stage is not Stage.DECODER:
            continue
        strategy = decoder_strategy(step)
        for layer in strategy.cut_layers(layers):
            if layer in planned:
                raise InvalidStrategyText(f"two steps act before layer {layer}; give each a layer of its own")
        others = [one.act for one in planned.values()]
        acts = strategy.schedule(entering, asked(step, total), layers, others)
        planned |= {act.layer: Planned(strategy, act) for act in acts}
    for one in planned.values():
        early = [layer for layer, other in planned.items() if other.strategy is not one.strategy]
        if one.act.returns and any(layer < one.act.layer for layer in early):
            raise InvalidStrategyText(
                f"{one.strategy.info.name} lets all tokens return before layer {one.act.layer}, and another step acts "
                f"before layer {min(early)}; give that one a layer behind"
            )
    return planned


def check_reachable(plan: Plan, total: int, layers: int) -> None:
    """Refuse a plan that cannot run on `total` visual tokens, as far as that is known before it runs.

    Where the step before the language model chooses how many tokens it leaves, what the others can reach shows then.

    Raises:
        InvalidBudget, InvalidParameter, InvalidStrategyText: as `acts_of` says.
    """
    first = plan.steps[0]
    if first.compressor.info.reduces == "nothing" and first.budget.tokens(total) not in (None, total):
        raise InvalidBudget(
            f"{first.compressor.info.name} keeps all {total} visual tokens, got a budget of "
            f"{first.budget.tokens(total)}; write {first.compressor.info.name}@1.0 or choose another strategy",
            lowest=total,
        )
    if first.stage is Stage.DECODER:
        acts_of(plan, total, total, layers)
    elif first.budget != Budget() or not first.compressor.info.adaptive:
        acts_of(plan, total, asked(first, total), layers)
    else:
        for step in plan.steps[1:]:
            decoder_strategy(step).cut_layers(layers)
            asked(step, total)


def lowest_of(plan: Plan, total: int, layers: int) -> int:
    """The smallest budget in visual tokens that the last step of a plan can reach on an image of `total` tokens.

    Raises:
        InvalidBudget, InvalidParameter, InvalidStrategyText: an earlier step cannot run.
    """
    *earlier, last = plan.steps
    if last.stage is not Stage.DECODER:
        return 1
    entering, others = total, []
    if earlier:
        known = earlier[0].budget.tokens(total) if earlier[0].stage is not Stage.DECODER else None
        entering = total if known is None else known
        others = [one.act for one in acts_of(Plan(tuple(earlier)), total, entering, layers).values()]
    return decoder_strategy(last).lowest(entering, layers, others)


def guidance_layers(steps: Mapping[int, Planned], layers: int) -> set[int]:
    """The layers whose attention in a full first pass some act asks for."""
    wanted = {planned.strategy.teacher_layer(layers) for planned in steps.values()}
    return {layer for layer in wanted if layer is not None}
