"""Strategies inside the language model: where they act, and how many tokens each act may leave."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from compression.budget import checked_layer
from compression.compressor import Context, Parameter, Strategy
from compression.errors import InvalidBudget, InvalidParameter, MissingSignal
from compression.layer import Heads, LayerState
from compression.positions import Positions, positions_of
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens

HALVINGS = 60  # of the interval that a schedule's share is searched in: finer than any count of tokens


@dataclass(frozen=True)
class Act:
    """One act of a strategy: what is left from a layer on.

    Args:
        layer: The layer before which it acts; layers 0..layer-1 process what was there before.
        keep: Visual tokens, merged ones included, that the layer and those behind it process.
        returns: Whether all tokens that entered the language model are there again, `keep` being their number: those
            that were left out are as they entered the layer from which on they were.
    """

    layer: int
    keep: int
    returns: bool = False


def mean_over_layers(acts: Sequence[Act], total: int, layers: int) -> float:
    """Mean number of visual tokens that a layer processes.

    >>> mean_over_layers([Act(2, 144)], 576, 32)
    171.0
    """
    return sum(tokens_per_layer(acts, total, layers)) / layers


def tokens_per_layer(acts: Sequence[Act], total: int, layers: int) -> tuple[int, ...]:
    """Visual tokens that each layer processes; an act leaves no more than it finds, unless tokens return.

    >>> tokens_per_layer([Act(3, 2), Act(1, 5)], 8, 4)
    (8, 5, 5, 2)
    >>> tokens_per_layer([Act(0, 3), Act(1, 8, returns=True), Act(3, 2)], 8, 4)
    (3, 8, 8, 2)
    """
    counts = [total] * layers
    for act in sorted(acts, key=lambda act: act.layer):
        left = act.keep if act.returns else min(act.keep, counts[act.layer])
        counts[act.layer :] = [left] * (layers - act.layer)
    return tuple(counts)


def spread(published: Sequence[int], layers: int, of: int = 32) -> tuple[int, ...]:
    """Layers of a published model, moved to a model of another depth: distinct, ascending, in 1..layers-1.

    Where the model has fewer layers than there are acts, the last acts fall away.

    >>> spread((8, 16, 24), 6)
    (2, 3, 5)
    >>> spread((3, 7, 16), 2)
    (1,)
    """
    moved: list[int] = []
    for one in published:
        moved.append(max(moved[-1] + 1 if moved else 1, math.floor(one * layers / of + 0.5)))
    return tuple(layer for layer in moved if layer <= layers - 1)


class DecoderStrategy(Strategy):
    """Base of the strategies inside the language model.

    A strategy says before which layers it acts (`cut_layers`) and how many tokens each act leaves when it spends a
    share of its range (`keeps`); the share that meets a requested mean over the layers follows.
    """

    published: ClassVar[tuple[int, ...]]  # layers before which it acts in a model of 32 layers
    released_positions: ClassVar[Positions] = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        stages: str | None = getattr(self, "stages", None)
        if stages is not None:
            read_stages(stages)

    def compress(self, tokens: VisualTokens, budget: int | None, context: Context) -> Selection:
        """Decide what one act leaves: `budget` of the tokens that are there; see `Compressor.compress`."""
        raise NotImplementedError

    def cut_layers(self, layers: int) -> tuple[int, ...]:
        """The layers before which it acts on a language model of `layers` layers, ascending.

        Those asked for in its parameter `stages` or `layer`; left out, the published ones moved to that depth.

        Raises:
            InvalidParameter: a layer asked for is outside 1..layers-1.
        """
        if len(self.published) > 1:
            return cuts_of(getattr(self, "stages", None), self.published, layers)
        return one_cut(getattr(self, "layer", None), self.published[0], layers)

    def keeps(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> Sequence[int]:
        """Tokens that each act leaves: the least possible at share 0, `total` at share 1, never falling between.

        The default keeps the same number after every act.
        """
        return [max(1, math.floor(total * share))] * len(cuts)

    def teacher_layer(self, layers: int) -> int | None:
        """The layer whose attention in a full first pass it asks for (`Context.teacher`), or None for no such pass."""
        return None

    def cached(self, heads: Heads, visual: Tensor, behind: Tensor, keep: int) -> Tensor | None:
        """Visual tokens that one layer's cache keeps for decoding: int64 [kv heads, kept] ascending, or None for all.

        Args:
            heads: Queries and keys of the layer, of the whole prompt.
            visual: int64 [tokens], positions of the visual tokens there.
            behind: int64 [words], positions behind the picture.
            keep: What the strategy's last act leaves of them.
        """
        return None

    def schedule(self, total: int, average: int, layers: int, others: Sequence[Act] = ()) -> tuple[Act, ...]:
        """What each act leaves, so that the mean over the layers is as near below the request as whole tokens allow.

        Args:
            total: N, visual tokens that enter the language model.
            average: T, the mean over the layers that was asked for, from 1 to the mean without this strategy.
            layers: L, language-model layers.
            others: Acts of other strategies in the same pass, which count in the mean.

        Raises:
            InvalidBudget: the average is out of range, or not reachable; `lowest` says what is.
            InvalidParameter: a layer asked for is outside 1..layers-1.
        """
        cuts = self.cut_layers(layers)
        lowest = self.lowest(total, layers, others)
        highest = -(-sum(tokens_per_layer(others, total, layers)) // layers)
        if not 1 <= average <= highest:
            left = (
                "visual tokens" if highest == total else "visual tokens, the mean that the steps in front of it leave"
            )
            raise InvalidBudget(
                f"budget must be 1..{highest} {left}, got {average}; write a count up to {highest} or a ratio of the "
                "image's visual tokens that is no more",
                lowest=lowest,
            )
        if average < lowest:
            where = f"a cut before layer {cuts[0]}" if len(cuts) == 1 else f"cuts from layer {cuts[0]} on"
            # A cut before layer 0 would be none inside the model.
            earlier = ", or cut at an earlier layer" if cuts[0] > 1 else ""
            raise InvalidBudget(
                f"{where} of {layers} leave{'s' if len(cuts) == 1 else ''} a mean of at least {lowest} of {total} "
                f"visual tokens, got a budget of {average}; write at least {lowest}{earlier}",
                lowest=lowest,
            )

        def mean(share: float) -> float:
            return mean_over_layers([*others, *self._acts(total, share, cuts, layers)], total, layers)

        low, high = 0.0, 1.0
        if mean(high) <= average:
            return self._acts(total, high, cuts, layers)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if mean(middle) <= average else (low, middle)
        return self._acts(total, low, cuts, layers)

    def lowest(self, total: int, layers: int, others: Sequence[Act] = ()) -> int:
        """The smallest mean over the layers that it can reach on `total` tokens, in whole visual tokens."""
        acts = [*others, *self._acts(total, 0.0, self.cut_layers(layers), layers)]
        return -(-sum(tokens_per_layer(acts, total, layers)) // layers)

    def _acts(self, total: int, share: float, cuts: tuple[int, ...], layers: int) -> tuple[Act, ...]:
        acts: list[Act] = []
        for layer, keep in zip(cuts, self.keeps(total, share, cuts, layers), strict=True):
            acts.append(Act(layer, min(keep, acts[-1].keep if acts else total)))
        return tuple(acts)

    @property
    def convention(self) -> Positions:
        """Whether what is left keeps its position ids, or moves up: as asked for, else as released."""
        return positions_of(self, self.released_positions)

    def state(self, tokens: VisualTokens, context: Context) -> LayerState:
        """What the language model holds before the layer of this act.

        Raises:
            MissingSignal: the context does not say, or speaks of other tokens.
        """
        if context.state is None or len(context.state.visual) != len(tokens):
            told = "none" if context.state is None else f"one of {len(context.state.visual)}"
            raise MissingSignal(
                f"{self.info.name} needs the signal {Signal.LAYER_STATE.value!r}, the state of a layer with "
                f"{len(tokens)} visual tokens, got {told}; choose another model"
            )
        return context.state


def scaled(split: Sequence[float], total: int, share: float, stages: int) -> list[int]:
    """Sizes of stages in a fixed proportion, for `DecoderStrategy.keeps`: all tokens at share 1, at least one each.

    Stages beyond the split are as small as its last.

    >>> scaled((0.5, 0.25), 64, 0.25, 3)
    [32, 16, 16]
    """
    if share == 1.0:
        return [total] * stages  # the least part times its own inverse may fall just short of one
    factor = share / split[-1]
    parts = [split[min(stage, len(split) - 1)] for stage in range(stages)]
    return [max(1, min(total, math.floor(total * part * factor))) for part in parts]


def stages_parameter(meaning: str) -> Parameter:
    """The parameter `stages`: layers joined by "/", left out for those that scale with the depth of the model."""
    return Parameter("stages", None, meaning, kind=str)


def read_stages(text: str) -> tuple[int, ...]:
    """The layers that a value such as "8/16/24" names.

    >>> read_stages("8/16/24")
    (8, 16, 24)

    Raises:
        InvalidParameter: not whole numbers, ascending from 1, joined by "/".
    """
    parts = text.split("/")
    found = tuple(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 5)
    if len(found) != len(parts) or found[0] < 1 or any(b <= a for a, b in itertools.pairwise(found)):
        raise InvalidParameter(f"stages are ascending layers from 1 on, joined by '/', such as 8/16/24, got {text!r}")
    return found


def cuts_of(stages: str | None, published: Sequence[int], layers: int) -> tuple[int, ...]:
    """The layers asked for, each checked; or the published ones moved to a model of `layers` layers.

    Raises:
        InvalidParameter: a layer asked for is outside 1..layers-1.
    """
    asked = spread(published, layers) or published if stages is None else read_stages(stages)
    return tuple(checked_layer(layer, layers) for layer in asked)


def one_cut(layer: int | None, published: int, layers: int) -> tuple[int]:
    """The single layer asked for, checked; or the published one of 32 moved to a model of `layers` layers.

    Raises:
        InvalidParameter: the layer asked for is outside 1..layers-1.
    """
    return (checked_layer(layer if layer is not None else max(1, round(published * layers / 32)), layers),)
