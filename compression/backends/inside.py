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
from compression.backends.axes import Axes
from compression.backends.base import SequenceLayout
from compression.backends.caching import slots_of
from compression.backends.hooks import Cut, Entering
from compression.backends.planning import Planned
from compression.backends.sequence import rearranged
from compression.calibration import attention_of, logit_bias, sizes_after
from compression.compressor import Context
from compression.errors import AttentionUnavailable
from compression.grid import TokenGrid
from compression.layer import Heads, LayerState, behind_picture
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens


class Decoder(Protocol):
    """What a family's backend tells about its language model."""

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last layer."""

    @property
    def rotary(self) -> nn.Module:
        """The rotary embedding of the language model."""

    def heads_of(self, layer: int, entering: Entering) -> Heads:
        """Queries and keys that a decoder layer makes of what enters it."""


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


@dataclass(frozen=True)
class _Start:
    """What entered the language model: its layout, hidden states [length, dim] and position ids [length].

    `moved` is by how many places what follows the picture stood further up, negative where there were gaps.
    """

    layout: SequenceLayout
    hidden: Tensor
    positions: Tensor
    moved: int
    axes: Axes | None


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
    axes: Axes | None = None  # the ids of the present sequence where they have several axes
    counted: Tensor | None = None  # int64 [length], position ids without gaps; None where what enters has none
    signals: Mapping[Signal, Tensor] = field(default_factory=dict)  # of the encoder, [heads, outputs that entered]
    teachers: Mapping[int, Tensor] = field(default_factory=dict)  # guidance layer -> [outputs that entered]
    frozen: Mapping[int, Selection] = field(default_factory=dict)  # by layer
    acts: dict[int, Selection] = field(default_factory=dict)  # by layer
    seconds: float = 0.0
    tokens_per_layer: list[int] = field(default_factory=list)
    sequence_per_layer: list[int] = field(default_factory=list)
    biases: list[Tensor | None] = field(default_factory=list)  # by layer: what is added to the logits of each key
    cached: dict[int, Tensor] = field(default_factory=dict)  # by layer: visual tokens in its cache, [kv heads, kept]
    slots: dict[int, Tensor] = field(default_factory=dict)  # by layer: positions in its cache, [kv heads, kept]
    moved: list[int] = field(default_factory=list)  # by layer: places that what follows the picture has moved up
    _selection: Selection = field(init=False)  # over the outputs that entered
    _sizes: NDArray[np.float64] = field(init=False)  # what each visual token counts as
    _heads: dict[int, Heads] = field(init=False, default_factory=dict)
    _start: _Start = field(init=False)
    _places: Tensor = field(init=False)  # of the present sequence, in that which entered
    _closed: Tensor = field(init=False)  # position ids of the present sequence, had all acts closed their gaps

    def __post_init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._selection = Selection.prune(len(self.entering), self.layout.outputs)
        self._sizes = entering_sizes(self.entering)[self.layout.outputs]

    @property
    def left(self) -> Selection:
        """What is left so far, over the outputs that entered."""
        return self._selection

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
        told: dict[str, Any] = {
            "acts": [[layer, len(decision)] for layer, decision in sorted(self.acts.items())],
            "positions": "+".join(dict.fromkeys(conventions)),
            "attention": "proportional" if "proportional" in attended else "plain",
        }
        if self.cached:
            present = enumerate(self.tokens_per_layer)
            told["cached"] = [self.cached[at].shape[1] if at in self.cached else every for at, every in present]
        made = self.entering.then(self._selection)
        return replace(made, diagnostics={**made.diagnostics, **told})

    def hear(self, layer: int, heads: Heads) -> None:
        """Remember a layer's queries and keys where the act behind it needs them; called within every layer.

        Here each layer's cache is decided upon too, where a strategy compresses it.
        """
        if layer + 1 in self.steps:
            self._heads[layer] = heads
        last = {planned.strategy: planned.act.keep for _, planned in sorted(self.steps.items())}
        here, device = self.layout, heads.key.device
        visual = torch.from_numpy(here.visual).to(device)
        behind = torch.from_numpy(behind_picture(here.visual, here.separators, here.length)).to(device)
        began = time.perf_counter()
        for strategy, keep in last.items():
            if keep == len(self.entering):
                continue
            kept = strategy.cached(heads, visual, behind, keep)
            if kept is not None:
                self.cached[layer], self.slots[layer] = kept, slots_of(self.layout, kept)
        self.seconds += time.perf_counter() - began

    def before(self, layer: int, coming: Entering) -> Cut | None:
        """How the sequence goes on from this layer, or None where it stays; called before every layer."""
        if layer == 0:
            self._closed, moved = coming.positions, 0
            if self.counted is not None:
                self._closed = self.counted
                moved = int(self.counted[-1] - coming.positions[-1])
            self._start = _Start(self.layout, coming.hidden[0], coming.positions, moved, self.axes)
            self._places = torch.arange(self.layout.length, device=coming.hidden.device)
        cut, moved = None, self.moved[-1] if self.moved else self._start.moved
        if layer in self.steps:
            began = time.perf_counter()
            cut, moved = self._act(layer, coming, moved)
            self._heads.pop(layer - 1, None)
            self.seconds += time.perf_counter() - began
        self.biases.append(self._bias(coming.hidden.device))
        self.tokens_per_layer.append(len(self.layout.visual))
        self.sequence_per_layer.append(self.layout.length)
        self.moved.append(moved)
        return cut

    def _bias(self, device: torch.device) -> Tensor | None:
        return logit_bias(self.layout.length, self.layout.visual, self._sizes, device)

    def shifts_in_decoding(self) -> tuple[int, ...]:
        """By layer: what decoding steps subtract from the position that follows from the length of layer 0's cache."""
        held = self.slots[0].shape[1] if 0 in self.slots else self.sequence_per_layer[0]
        lacking = self._start.layout.length - held
        return tuple(moved - lacking for moved in self.moved)

    def biases_in_decoding(self) -> tuple[Tensor | None, ...]:
        """By layer: what is added to the logits of each key that its cache keeps."""
        return tuple(
            bias if bias is None or layer not in self.slots else bias[self.slots[layer]]
            for layer, bias in enumerate(self.biases)
        )

    def _return(self, layer: int, coming: Entering) -> tuple[Cut, int]:
        """All that entered is there again: what was left out as it entered, the rest as it comes."""
        start = self._start
        every = np.arange(len(start.layout.visual))
        told = {"positions": "original", "attention": attention_of(self.steps[layer].strategy)}
        self.acts[layer] = Selection.prune(len(every), every, diagnostics=told)
        hidden = start.hidden.clone()
        hidden[self._places] = coming.hidden[0]
        self.layout, self.axes = start.layout, start.axes
        self._begin()
        self._places = torch.arange(len(hidden), device=hidden.device)
        self._closed = start.positions if self.counted is None else self.counted
        return Cut(hidden[None], self._places, start.positions, returns=True), start.moved

    def _act(self, layer: int, coming: Entering, moved: int) -> tuple[Cut, int]:
        """One act: the sequence from this layer on, and by how many places what follows the picture has moved up."""
        if self.steps[layer].act.returns:
            return self._return(layer, coming)
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
        self._places = self._places[source]
        hidden = coming.hidden[:, source]
        if not decision.is_pruning:
            visual = torch.from_numpy(here.visual).to(device)
            hidden[0, torch.from_numpy(self.layout.visual).to(device)] = decision.apply(coming.hidden[0, visual])
        renumbers = self.steps[layer].strategy.convention == "renumbered"
        cos, sin = (part[:, source] for part in coming.rotary)
        if self.axes is not None:
            axes = self.axes.taken(source)
            if renumbers:
                axes = axes.closed_up(self.layout.visual)
                cos, sin = self.family.rotary(hidden, position_ids=axes.ids[:, None])
            gained, self.axes = self.axes.following - axes.following, axes
            return Cut(hidden, slots, coming.positions[source], (cos, sin)), moved + gained
        gone = slots - torch.arange(len(slots), device=device)  # how many in front of each are no more
        self._closed = self._closed[slots] - gone
        if not renumbers:
            return Cut(hidden, slots, coming.positions[source], (cos, sin)), moved
        # Gaps that steps of the other convention left are closed with its own.
        cos, sin = self.family.rotary(hidden, position_ids=self._closed[None])
        return Cut(hidden, slots, self._closed, (cos, sin)), self._start.layout.length - self.layout.length

    def _decide(self, layer: int, coming: Entering) -> Selection:
        strategy, act = self.steps[layer].strategy, self.steps[layer].act
        here, device = self.layout, coming.hidden.device
        visual = torch.from_numpy(here.visual).to(device)
        context, signals = replace(self.context, layer=layer), {}
        if layer == 0:  # no layer has looked yet; what the encoder saw is still there
            at = torch.from_numpy(here.outputs).to(device)
            signals = {name: value[:, at.to(value.device)] for name, value in self.signals.items()}
        else:
            context = replace(context, **self._seen(layer, coming, visual))
        guide = strategy.teacher_layer(self.context.layers)
        if guide is not None:
            context = replace(context, teacher=self.teachers[guide][torch.from_numpy(self._selection.anchor)])
        present = len(here.visual)
        places = self.entering.anchor[self._selection.anchor]
        decision = strategy.compress(
            VisualTokens(coming.hidden[0, visual], self.grid, places, signals),
            min(present, act.keep),
            context,
        )
        told = {"positions": strategy.convention, "attention": attention_of(strategy)}
        return replace(decision, diagnostics={**decision.diagnostics, **told})

    def _seen(self, layer: int, coming: Entering, visual: Tensor) -> dict[str, Any]:
        """The state between two layers, and the rows of the one before where the strategy needs them."""
        if layer - 1 not in self._heads:
            raise AttentionUnavailable(
                f"layer {layer - 1} gave no queries and keys; the language model must use {attention.NAME}"
            )
        here, heads, bias = self.layout, self._heads[layer - 1], self._bias(visual.device)
        cos, sin = coming.rotary
        state = LayerState(
            hidden=coming.hidden[0],
            visual=here.visual,
            separators=here.separators,
            question=here.question,
            previous=heads,
            upcoming=lambda: replace(self.family.heads_of(layer, coming), bias=bias),
            norm=self.family.final_norm,
            entered=self._start.hidden,
            entered_visual=self._start.layout.visual,
            rotary=(cos[0], sin[0]),
        )
        if Signal.LAYER_ATTENTION not in self.steps[layer].strategy.info.needs:
            return {"state": state}
        asking = torch.from_numpy(np.concatenate([[here.answer], here.question]))
        return {"state": state, "attention": heads.rows(asking)[:, :, visual]}
