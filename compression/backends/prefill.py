"""One prefill with compression before and inside the language model; the same for every family."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compression.backends import attention
from compression.backends.base import Architecture, Probe, Prompt, SequenceLayout
from compression.backends.hooks import cut_between, synchronise
from compression.backends.sequence import blocks_of, without
from compression.budget import kept_after_cut
from compression.compressor import Cancel, Context, Plan, Router, Stage, Step
from compression.errors import AttentionUnavailable, Cancelled, InvalidBudget, InvalidStrategyText
from compression.grid import TokenGrid
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens


class Family(Protocol):
    """What a family's backend gives to a prefill."""

    architecture: Architecture
    device: str
    router: Router | None

    @property
    def decoder_layers(self) -> Sequence[nn.Module]:
        """The language model's layers in order."""

    def project(self, features: Tensor) -> Tensor:
        """Encoder features [tokens, encoder dim] as the language model reads them, [tokens, dim]."""

    def embed_question(self, prompt: Prompt) -> Tensor:
        """The question's words in the language model's embeddings, [words, dim]."""

    def lay_out(
        self, prompt: Prompt, blocks: Sequence[NDArray[np.int64]], grid: TokenGrid
    ) -> tuple[Tensor, SequenceLayout]:
        """Input ids int64 [1, length] and their layout."""

    def forward(self, ids: Tensor, features: Tensor, blocks: Sequence[NDArray[np.int64]], **kwargs: Any) -> Any:
        """One pass of the stock model with our visual tokens in place of its own."""


@dataclass
class Pass:
    """What one prefill left behind.

    Args:
        logits: float32 [vocabulary] of the token that follows the prompt.
        cache: The library's key-value cache.
        entering: What entered the language model.
        selection: What was left after its last layer.
        features: Float [outputs, dim] of the outputs that entered.
        acts: Layer -> what the step before it decided about the visual tokens that were there.
    """

    logits: Tensor
    cache: Any
    entering: Selection
    selection: Selection
    features: Tensor
    acts: Mapping[int, Selection]
    tokens_per_layer: tuple[int, ...]
    sequence_per_layer: tuple[int, ...]
    compress_seconds: float
    prefill_seconds: float


@dataclass
class Inside:
    """The steps inside the language model, and what they have done so far in this pass.

    A step whose decision is in `frozen` repeats it; every decision is noted in `acts`.
    """

    steps: dict[int, Step]  # by the layer before which each acts
    grid: TokenGrid
    context: Context
    layout: SequenceLayout
    selection: Selection
    frozen: Mapping[int, Selection] = field(default_factory=dict)  # by layer
    acts: dict[int, Selection] = field(default_factory=dict)  # by layer
    rows: dict[int, Tensor] = field(default_factory=dict)  # layer -> [heads, query, key]
    seconds: float = 0.0
    tokens_per_layer: list[int] = field(default_factory=list)
    sequence_per_layer: list[int] = field(default_factory=list)

    def before(self, layer: int, hidden: Tensor) -> Tensor | None:
        """Positions to keep from this layer on, or None for all; called before every layer."""
        keep = None
        if layer in self.steps:
            began = time.perf_counter()
            keep = self._cut(layer, hidden)
            self.seconds += time.perf_counter() - began
        self.tokens_per_layer.append(len(self.layout.visual))
        self.sequence_per_layer.append(self.layout.length)
        return keep

    def _cut(self, layer: int, hidden: Tensor) -> Tensor:
        decision = self.frozen[layer] if layer in self.frozen else self._decide(self.steps[layer], layer, hidden)
        self.acts[layer] = decision
        dropped = np.setdiff1d(np.arange(len(self.layout.visual)), decision.anchor)
        positions, self.layout = without(self.layout, dropped)
        self.selection = self.selection.then(decision)
        return torch.from_numpy(positions).to(hidden.device)

    def _decide(self, step: Step, layer: int, hidden: Tensor) -> Selection:
        if layer - 1 not in self.rows:
            raise AttentionUnavailable(
                f"layer {layer - 1} gave no attention rows; the language model must use {attention.NAME}"
            )
        total, present = len(self.grid), len(self.layout.visual)
        keep = min(present, kept_after_cut(asked(step, total), total, layer, self.context.layers))
        visual = torch.from_numpy(self.layout.visual).to(hidden.device)
        return step.compressor.compress(
            VisualTokens(hidden[0, visual], self.grid, np.arange(present)),
            keep,
            replace(self.context, layer=layer, attention=self.rows[layer - 1][:, :, visual]),
        )


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


def cut_layer(step: Step, layers: int) -> int:
    """The layer before which a step inside the language model acts.

    Raises:
        InvalidParameter: the layer asked for is not in the model.
    """
    layer: int = step.compressor.cut_layer(layers)  # type: ignore[attr-defined]
    return layer


def stop_if(cancel: Cancel | None) -> None:
    """Stop the work when the caller wants it.

    Raises:
        Cancelled: the caller does.
    """
    if cancel is not None and cancel():
        raise Cancelled("the run was cancelled")


def prefill(
    family: Family,
    tokens: VisualTokens,
    prompt: Prompt,
    plan: Plan,
    *,
    seed: int = 0,
    probe: Probe | None = None,
    cancel: Cancel | None = None,
) -> Pass:
    """Compress by the plan and read the prompt once.

    Raises:
        StrategyError, BackendError: as `VLM.generate` says.
    """
    stop_if(cancel)
    layers = family.architecture.layers
    context = context_of(family, prompt, seed)
    synchronise(family.device)
    start = time.perf_counter()
    entering, features = compress_before(family, tokens, plan, context)
    synchronise(family.device)
    compressed = time.perf_counter()
    blocks = blocks_of(entering, tokens.grid)
    ids, layout = family.lay_out(prompt, blocks, tokens.grid)
    inside = Inside(
        steps={cut_layer(step, layers): step for step in plan.steps if step.stage is Stage.DECODER},
        grid=tokens.grid,
        context=context,
        layout=layout,
        selection=Selection.prune(len(entering), np.arange(len(entering))),
    )
    wanted = {layer - 1 for layer in inside.steps}

    def rows(layer: int) -> Tensor | None:
        if layer not in wanted and probe is None:
            return None
        return torch.from_numpy(np.concatenate([[inside.layout.answer], inside.layout.question]))

    def hear(layer: int, weights: Tensor) -> None:
        if layer in wanted:
            inside.rows[layer] = weights
        if probe is not None:
            probe.attention(layer, weights.mean(0), inside.layout)

    def before(layer: int, hidden: Tensor) -> Tensor | None:
        stop_if(cancel)
        return inside.before(layer, hidden)

    with cut_between(family.decoder_layers, before), attention.listening(rows, hear):
        output = family.forward(ids, features, blocks, use_cache=True, logits_to_keep=1)
        logits = output.logits[0, -1].float()
        synchronise(family.device)
    end = time.perf_counter()
    return Pass(
        logits=logits,
        cache=output.past_key_values,
        entering=entering,
        selection=entering.then(inside.selection) if inside.steps else entering,
        features=features,
        acts=inside.acts,
        tokens_per_layer=tuple(inside.tokens_per_layer),
        sequence_per_layer=tuple(inside.sequence_per_layer),
        compress_seconds=compressed - start + inside.seconds,
        prefill_seconds=end - compressed - inside.seconds,
    )


def context_of(family: Family, prompt: Prompt, seed: int) -> Context:
    """What a compressor may look at beside the visual tokens."""
    return Context(
        question=prompt.question,
        seed=seed,
        text=family.embed_question(prompt),
        layers=family.architecture.layers,
        router=family.router,
    )


def compress_before(family: Family, tokens: VisualTokens, plan: Plan, context: Context) -> tuple[Selection, Tensor]:
    """All steps before the language model: the selection, and the projected features [outputs, dim] of its outputs."""
    projected = tokens.signals[Signal.PROJECTED]
    steps = [step for step in plan.steps if step.stage is Stage.ENCODER]
    if not steps:
        return Selection.prune(len(tokens), np.arange(len(tokens)), diagnostics={"positions": "original"}), projected
    if len(steps) > 1:
        raise InvalidStrategyText(f"a plan has one step before the language model, got {len(steps)}; leave one")
    compressor = steps[0].compressor
    decided = compressor.compress(tokens, steps[0].budget.tokens(len(tokens)), context)
    selection = replace(decided, diagnostics={**decided.diagnostics, "positions": "renumbered"})
    if compressor.info.acts_on == "encoder" and not (selection.is_pruning and not selection.extra):
        return selection, family.project(selection.apply(tokens.features, tokens.signals[Signal.CLS_FEATURE]))
    return selection, selection.apply(projected)
