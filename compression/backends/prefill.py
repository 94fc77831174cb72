"""One prefill with compression before and inside the language model; the same for every family."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compression.backends import attention
from compression.backends.axes import Axes
from compression.backends.base import Architecture, Probe, Prompt, SequenceLayout
from compression.backends.caching import cut_cache
from compression.backends.hooks import Cut, Entering, cut_between, synchronise
from compression.backends.inside import Inside, entering_sizes, received
from compression.backends.placing import original_ids, told
from compression.backends.planning import acts_of, guidance_layers
from compression.calibration import attention_of, logit_bias
from compression.compressor import Cancel, Context, Plan, Router, Stage
from compression.errors import Cancelled
from compression.grid import TokenGrid
from compression.layer import Heads
from compression.positions import Positions, positions_of
from compression.selection import Selection
from compression.sight import looking
from compression.tokens import Signal, VisualTokens


class Family(Protocol):
    """What a family's backend gives to a prefill."""

    architecture: Architecture
    device: str
    router: Router | None
    image_id: int
    entering_positions: Positions

    @property
    def decoder_layers(self) -> Sequence[nn.Module]:
        """The language model's layers in order."""

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last layer."""

    @property
    def rotary(self) -> nn.Module:
        """The rotary embedding of the language model."""

    def heads_of(self, layer: int, entering: Entering) -> Heads:
        """Queries and keys that a decoder layer makes of what enters it."""

    def project(self, features: Tensor) -> Tensor:
        """Encoder features [tokens, encoder dim] as the language model reads them, [tokens, dim]."""

    def embed_question(self, prompt: Prompt) -> Tensor:
        """The question's words in the language model's embeddings, [words, dim]."""

    def blocks(self, selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
        """Outputs that stand for each placeholder, in the order in which the model reads them."""

    def lay_out(
        self, prompt: Prompt, blocks: Sequence[NDArray[np.int64]], grid: TokenGrid
    ) -> tuple[Tensor, SequenceLayout]:
        """Input ids int64 [1, length] and their layout."""

    def place(self, ids: Tensor, entering: Selection, grid: TokenGrid) -> Axes | None:
        """The position ids of a sequence where they have several axes; None where the library counts."""

    def given(self, features: Tensor, entering: Selection, tokens: VisualTokens) -> Tensor:
        """All that the language model is given of outputs with these projected features, [outputs, dim or more]."""

    def forward(
        self,
        ids: Tensor,
        features: Tensor,
        blocks: Sequence[NDArray[np.int64]],
        *,
        inside: Inside | None = None,
        **kwargs: Any,
    ) -> Any:
        """One pass of the stock model with our visual tokens in place of its own.

        Args:
            ids: int64 [1, length].
            features: What `given` made.
            blocks: Its outputs for each placeholder.
            inside: What acts on them between the layers; None where nothing does.
            kwargs: Told to the stock model.
        """


@dataclass
class Pass:
    """What one prefill left behind.

    Args:
        logits: float32 [vocabulary] of the token that follows the prompt.
        cache: The library's key-value cache.
        entering: What entered the language model.
        selection: What was left after its last layer.
        features: Float [outputs, dim or more], what the language model was given of the outputs that entered.
        acts: Layer -> what the step before it decided about the visual tokens that were there.
        shifts: For each layer, what decoding steps subtract from the library's position; see `moved_up`.
        biases: For each layer, what is added to the logits of each key of its cache; see `compression.calibration`.
        cached: Layer -> visual tokens there that its cache keeps, int64 [kv heads, kept]; all where none.
        axes: The position ids of what entered, where they have several axes.
    """

    logits: Tensor
    cache: Any
    entering: Selection
    selection: Selection
    features: Tensor
    acts: Mapping[int, Selection]
    tokens_per_layer: tuple[int, ...]
    sequence_per_layer: tuple[int, ...]
    shifts: tuple[int, ...]
    biases: tuple[Tensor | None, ...]
    cached: Mapping[int, Tensor]
    compress_seconds: float
    prefill_seconds: float
    axes: Axes | None = None


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
    features = family.given(features, entering, tokens)
    synchronise(family.device)
    compressed = time.perf_counter()
    blocks = family.blocks(entering, tokens.grid)
    ids, layout = family.lay_out(prompt, blocks, tokens.grid)
    axes = family.place(ids, entering, tokens.grid)
    kept = original_ids(family, prompt, ids, layout, entering, tokens.grid) if axes is None else None
    places = told(axes, kept)
    steps = acts_of(plan, len(tokens.grid), len(entering), layers)
    looked = time.perf_counter()
    bias = logit_bias(layout.length, layout.visual, entering_sizes(entering)[layout.outputs], ids.device)
    with attention.calibrated(lambda _layer: bias):
        teachers = look_ahead(family, ids, features, blocks, layout, places, guidance_layers(steps, layers))
    inside = Inside(
        steps=steps,
        teachers=teachers,
        grid=tokens.grid,
        context=context,
        layout=layout,
        entering=entering,
        family=family,
        axes=axes,
        counted=None if kept is None else torch.arange(len(kept), device=kept.device),
        signals=signals_of(tokens, entering),
        seconds=time.perf_counter() - looked,
    )

    def hear(layer: int, heads: Heads) -> None:
        inside.hear(layer, heads)
        if probe is not None:
            wanted = torch.from_numpy(np.concatenate([[inside.layout.answer], inside.layout.question]))
            probe.attention(layer, heads.rows(wanted).mean(0), inside.layout)

    def before(layer: int, coming: Entering) -> Cut | None:
        stop_if(cancel)
        return inside.before(layer, coming)

    with (
        cut_between(family.decoder_layers, before),
        attention.calibrated(lambda layer: inside.biases[layer]),
        attention.listening(hear),
    ):
        output = family.forward(ids, features, blocks, inside=inside, **places, use_cache=True, logits_to_keep=1)
        logits = output.logits[0, -1].float()
        cut_cache(output.past_key_values, inside.slots)
        synchronise(family.device)
    end = time.perf_counter()
    return Pass(
        logits=logits,
        cache=output.past_key_values,
        entering=entering,
        selection=inside.over_all(),
        features=features,
        acts=inside.acts,
        tokens_per_layer=tuple(inside.tokens_per_layer),
        sequence_per_layer=tuple(inside.sequence_per_layer),
        shifts=inside.shifts_in_decoding(),
        biases=inside.biases_in_decoding(),
        cached=inside.cached,
        compress_seconds=compressed - start + inside.seconds,
        prefill_seconds=end - compressed - inside.seconds,
        axes=axes,
    )


def signals_of(tokens: VisualTokens, entering: Selection) -> dict[Signal, Tensor]:
    """Signals of the encoder that a strategy may still ask for before layer 0, by output that entered.

    There is none where an output has no place of its own on the image.
    """
    if Signal.CLS_ATTENTION not in tokens.signals or (entering.anchor < 0).any():
        return {}
    looked = tokens.signals[Signal.CLS_ATTENTION]
    return {Signal.CLS_ATTENTION: looked[:, torch.from_numpy(entering.anchor).to(looked.device)]}


def look_ahead(
    family: Family,
    ids: Tensor,
    features: Tensor,
    blocks: Sequence[NDArray[np.int64]],
    layout: SequenceLayout,
    places: Mapping[str, Any],
    layers: set[int],
) -> dict[int, Tensor]:
    """What the question attends to in some layers of a full pass: layer -> float32 [outputs]; no layers, no pass.

    `places` is what the library is told of position ids.
    """
    found: dict[int, Tensor] = {}

    def hear(layer: int, heads: Heads) -> None:
        if layer in layers:
            found[layer] = received(heads, layout)

    if layers:
        with attention.listening(hear):
            family.forward(ids, features, blocks, **places, use_cache=False, logits_to_keep=1)
        synchronise(family.device)
    return found


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
    if looks := looking(plan):
        looks.compress(tokens, None, context)  # it says that it needs the image
    projected = tokens.signals[Signal.PROJECTED]
    steps = [step for step in plan.steps if step.stage is Stage.ENCODER]
    if not steps:
        conventions = {"positions": "original", "attention": "plain"}
        return Selection.prune(len(tokens), np.arange(len(tokens)), diagnostics=conventions), projected
    compressor = steps[0].compressor
    decided = compressor.compress(tokens, steps[0].budget.tokens(len(tokens)), context)
    conventions = {
        "positions": positions_of(compressor, family.entering_positions),
        "attention": attention_of(compressor),
    }
    selection = replace(decided, diagnostics={**decided.diagnostics, **conventions})
    if compressor.info.acts_on == "encoder" and not (selection.is_pruning and not selection.extra):
        return selection, family.project(selection.apply(tokens.features, tokens.signals.get(Signal.CLS_FEATURE)))
    return selection, selection.apply(projected)
