"""Strategies inside the language model, as one pass goes through its layers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compression.backends import attention
from compression.backends.base import SequenceLayout
from compression.backends.hooks import Cut, Entering
from compression.backends.sequence import rearranged
from compression.calibration import attention_of, logit_bias, sizes_after
from compression.compressor import Budget, Context, Plan, Stage, Step
from compression.decoder import Act, DecoderStrategy
from compression.errors import AttentionUnavailable, InvalidBudget, InvalidStrategyText
from compression.grid import TokenGrid
from compression.layer import Heads, LayerState
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens


class Decoder(Protocol):
    """What a family's backend tells about its language model."""

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last layer."""

    def heads_of(self, layer: int, entering: Entering) -> Heads:
        """Queries and keys that a decoder layer makes of what enters it."""


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
        InvalidStrategyText: two steps act before the same layer.
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


def entering_sizes(entering: Selection) -> NDArray[np.float64]:
    """What each token that enters the language model counts as in its attention, float64 [outputs]."""
    return sizes_after(entering, np.ones(entering.tokens), entering.diagnostics.get("attention", "plain"))


def received(heads: Heads, layout: SequenceLayout) -> Tensor:
    """Attention of the question's words to each output that entered, summed over heads and words.

    A question without words leaves the answer position to look.

    Returns:
        float32 [outputs] on the CPU, in the order of the selection, in which a model need not read its tokens.
    """
    words = layout.question if len(layout.question) else np.array([layout.answer])
    rows = heads.rows(torch.from_numpy(words)).sum(dim=(0, 1)).cpu()
    found = torch.zeros(len(layout.outputs))
    found[torch.from_numpy(layout.outputs)] = rows[torch.from_numpy(layout.visual)]
    return found


@dataclass
class Inside:
    """The acts inside the language model, and what they have done so far in this pass.

    An act whose decision is in `frozen` repeats it; every decision is noted in `acts`.
    """

    steps: Mapping[int, Planned]  # by the layer before which each acts
    grid: TokenGrid
    context: Context
    layout: SequenceLayout
    entering: Selection
    family: Decoder
    teachers: Mapping[int, Tensor] = field(default_factory=dict)  # guidance layer -> [outputs that entered]
    frozen: Mapping[int, Selection] = field(default_factory=dict)  # by layer
    acts: dict[int, Selection] = field(default_factory=dict)  # by layer
    seconds: float = 0.0
    tokens_per_layer: list[int] = field(default_factory=list)
    sequence_per_layer: list[int] = field(default_factory=list)
    biases: list[Tensor | None] = field(default_factory=list)  # by layer: what is added to the logits of each key
    shifts: list[int] = field(default_factory=list)  # by layer: places that what follows the picture has moved up
    _selection: Selection = field(init=False)  # over the outputs that entered
    _sizes: NDArray[np.float64] = field(init=False)  # what each visual token counts as
    _heads: dict[int, Heads] = field(init=False, default_factory=dict)
    _entered: tuple[Tensor, Any] = field(init=False)
    _length: int = field(init=False)  # of the sequence that entered
    _closed: Tensor = field(init=False)  # position ids of the present sequence, had all acts closed their gaps

    def __post_init__(self) -> None:
        self._selection = Selection.prune(len(self.entering), self.layout.outputs)
        self._sizes = entering_sizes(self.entering)[self.layout.outputs]

    def over_all(self) -> Selection:
        """What is left so far, over the original grid."""
        if not self.acts:
            return self.entering
        # The convention of each step that left something out, in their order.
        conventions = [decision.diagnostics["positions"] for _, decision in sorted(self.acts.items())]
        if len(self.entering) < self.entering.tokens:
            conventions.insert(0, self.entering.diagnostics["positions"])
        decisions = [self.entering, *self.acts.values()]
        attended = {decision.diagnostics.get("attention", "plain") for decision in decisions}
        told = {
            "acts": [[layer, len(decision)] for layer, decision in sorted(self.acts.items())],
            "positions": "+".join(dict.fromkeys(conventions)),
            "attention": "proportional" if "proportional" in attended else "plain",
        }
        made = self.entering.then(self._selection)
        return replace(made, diagnostics={**made.diagnostics, **told})

    def hear(self, layer: int, heads: Heads) -> None:
        """Remember a layer's queries and keys where the act behind it needs them; called within every layer."""
        if layer + 1 in self.steps:
            self._heads[layer] = heads

    def before(self, layer: int, coming: Entering) -> Cut | None:
        """How the sequence goes on from this layer, or None where it stays; called before every layer."""
        if layer == 0:
            self._entered = coming.hidden[0], self.layout.visual
            self._closed = coming.positions
            self._length = self.layout.length
        cut, moved = None, self.shifts[-1] if self.shifts else 0
        if layer in self.steps:
            began = time.perf_counter()
            cut, moved = self._act(layer, coming, moved)
            self._heads.pop(layer - 1, None)
            self.seconds += time.perf_counter() - began
        self.biases.append(self._bias(coming.hidden.device))
        self.tokens_per_layer.append(len(self.layout.visual))
        self.sequence_per_layer.append(self.layout.length)
        self.shifts.append(moved)
        return cut

    def _bias(self, device: torch.device) -> Tensor | None:
        return logit_bias(self.layout.length, self.layout.visual, self._sizes, device)

    def _act(self, layer: int, coming: Entering, moved: int) -> tuple[Cut, int]:
        """One act: the sequence from this layer on, and by how many places what follows the picture has moved up."""
        decision = self.frozen[layer] if layer in self.frozen else self._decide(layer, coming)
        self.acts[layer] = decision
        here, device = self.layout, coming.hidden.device
        found, self.layout = rearranged(here, decision)
        self._selection = self._selection.then(decision)
        self._sizes = sizes_after(decision, self._sizes, decision.diagnostics["attention"])
        if not self._selection.is_pruning:
            self.layout = replace(self.layout, lineage=self._selection)
        source = torch.from_numpy(found).to(device)
        slots = source.sort().values
        hidden = coming.hidden[:, source]
        if not decision.is_pruning:
            visual = torch.from_numpy(here.visual).to(device)
            hidden[0, torch.from_numpy(self.layout.visual).to(device)] = decision.apply(coming.hidden[0, visual])
        gone = slots - torch.arange(len(slots), device=device)  # how many in front of each are no more
        self._closed = self._closed[slots] - gone
        if self.steps[layer].strategy.convention == "original":
            return Cut(hidden, slots, coming.positions[source]), moved
        # Gaps that steps of the other convention left are closed with its own.
        return Cut(hidden, slots, self._closed), self._length - self.layout.length

    def _decide(self, layer: int, coming: Entering) -> Selection:
        if layer - 1 not in self._heads:
            raise AttentionUnavailable(
                f"layer {layer - 1} gave no queries and keys; the language model must use {attention.NAME}"
            )
        strategy, act = self.steps[layer].strategy, self.steps[layer].act
        here, heads = self.layout, self._heads[layer - 1]
        visual = torch.from_numpy(here.visual).to(coming.hidden.device)
        rows = None
        if Signal.LAYER_ATTENTION in strategy.info.needs:
            rows = heads.rows(torch.from_numpy(np.concatenate([[here.answer], here.question])))[:, :, visual]
        bias = self._bias(coming.hidden.device)
        entered, entered_visual = self._entered
        cos, sin = coming.rotary
        state = LayerState(
            hidden=coming.hidden[0],
            visual=here.visual,
            question=here.question,
            previous=heads,
            upcoming=lambda: replace(self.family.heads_of(layer, coming), bias=bias),
            norm=self.family.final_norm,
            entered=entered,
            entered_visual=entered_visual,
            rotary=(cos[0], sin[0]),
        )
        guide, teacher = strategy.teacher_layer(self.context.layers), None
        if guide is not None:
            teacher = self.teachers[guide][torch.from_numpy(self._selection.anchor)]
        present = len(here.visual)
        decision = strategy.compress(
            VisualTokens(coming.hidden[0, visual], self.grid, np.arange(present)),
            min(present, act.keep),
            replace(self.context, layer=layer, attention=rows, state=state, teacher=teacher),
        )
        told = {"positions": strategy.convention, "attention": attention_of(strategy)}
        return replace(decision, diagnostics={**decision.diagnostics, **told})
