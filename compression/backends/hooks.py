"""Hooks that cannot be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Changed = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments of a layer."""
PreHook = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Changed | None]


@dataclass(frozen=True)
class Entering:
    """What enters a decoder layer during prefill.

    Args:
        hidden: Float [1, length, dim].
        positions: int64 [length], position ids; those of the whole sequence are 0, 1, … where a place has several
            ids (`Axes`).
        rotary: Cosine and sine of the positions, each [1, length, head dim].
        mask: Additive or boolean [1, 1, length, length], or None for plain causal attention.
    """

    hidden: Tensor
    positions: Tensor
    rotary: tuple[Tensor, Tensor]
    mask: Tensor | None


@dataclass(frozen=True)
class Cut:
    """How the sequence goes on from a layer.

    Args:
        hidden: Float [1, length from here on, dim].
        slots: int64 [length from here on] ascending, places in the sequence so far whose rows and columns of the mask
            are taken.
        positions: int64 [length from here on], position ids.
        rotary: Cosine and sine, each [1, length from here on, head dim]; None for those that the whole sequence has at
            `positions`, each of which it then has.
        returns: Whether the whole sequence is there again, so that the slots are places in it.
    """

    hidden: Tensor
    slots: Tensor
    positions: Tensor
    rotary: tuple[Tensor, Tensor] | None = None
    returns: bool = False


BeforeLayer = Callable[[int, Entering], Cut | None]
"""Told the layer index and what enters it; returns how the sequence goes on, or None where it stays."""


@contextmanager
def tapped(modules: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Collect the output of each module's next forward pass under its name; the hooks come off even when it raises."""
    heard: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
            heard[name] = output

        return hook

    handles = []
    try:
        handles += [module.register_forward_hook(listen(name)) for name, module in modules.items()]
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def cut_between(layers: Sequence[nn.Module], before: BeforeLayer) -> Iterator[None]:
    """Shorten the sequence between decoder layers during prefill, or let it be whole again, exactly.

    From a layer where `before` returns a cut, the layer and all later ones get its hidden states, and the rotary
    embeddings, position ids and mask that belong to them. Decoding steps pass untouched: each layer has the cache of
    what it processed, and the library continues from the length of layer 0's. Where that was cut, or where a cut gave
    other position ids, decoding needs `moved_up` too.
    """
    held: dict[str, Any] = {}  # slots, positions and rotary embeddings of the present sequence, once it was cut

    def hook(index: int) -> PreHook:
        def shorten(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed | None:
            hidden = args[0] if args else kwargs["hidden_states"]
            if hidden.shape[1] == 1:
                return None
            whole = kwargs
            if held:
                kwargs = _cut_to(**held, kwargs=whole)
            positions, mask = kwargs["position_ids"][0], kwargs.get("attention_mask")
            cut = before(index, Entering(hidden, positions, kwargs["position_embeddings"], mask))
            if cut is not None:
                hidden = cut.hidden
                slots = held["slots"][cut.slots] if held and not cut.returns else cut.slots
                held.update(slots=slots, positions=cut.positions, rotary=cut.rotary)
                kwargs = _cut_to(**held, kwargs=whole)
            if not held:
                return None
            return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

        return shorten

    with _hooked(layers, hook):
        yield


def _cut_to(
    slots: Tensor, positions: Tensor, rotary: tuple[Tensor, Tensor] | None, kwargs: dict[str, Any]
) -> dict[str, Any]:
    """A layer's arguments for a part of the sequence: the mask of some slots, the rotary embeddings of some ids."""
    if rotary is None:
        ordered, order = kwargs["position_ids"][0].sort(stable=True)
        place = order[torch.searchsorted(ordered, positions)]
        cos, sin = kwargs["position_embeddings"]
        rotary = cos[:, place], sin[:, place]
    mask = kwargs.get("attention_mask")
    return {
        **kwargs,
        "position_embeddings": rotary,
        "position_ids": positions[None],
        "attention_mask": None if mask is None else mask[:, :, slots][:, :, :, slots],
    }


@contextmanager
def added_behind(layers: Sequence[nn.Module], addend: Callable[[int], tuple[Tensor, Tensor]]) -> Iterator[None]:
    """Add to what some layers put out during prefill, before the next one gets it.

    Args:
        layers: The layers, in order.
        addend: Told the layer index; returns positions int64 [places], each once, and what is added there, float
            [places, dim].
    """

    def hook(index: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def add(_module: nn.Module, _args: Any, hidden: Tensor) -> Tensor:
            places, rows = addend(index)
            return hidden.index_add(1, places, rows[None].to(hidden))

        return add

    handles = []
    try:
        handles += [layer.register_forward_hook(hook(index)) for index, layer in enumerate(layers)]
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def moved_up(layers: Sequence[nn.Module], rotary: nn.Module, shifts: Sequence[int]) -> Iterator[None]:
    """Let decoding steps continue at the right position: each layer subtracts its shift from that of the library.

    Args:
        layers: The language model's layers.
        rotary: Its rotary embedding, called with hidden states and position ids.
        shifts: For each layer, by how many places what followed the visual tokens has moved up, less the places that
            layer 0's cache lacks.
    """

    def hook(index: int) -> PreHook:
        def shift(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed | None:
            if not shifts[index]:
                return None
            hidden = args[0] if args else kwargs["hidden_states"]
            ids = kwargs["position_ids"] - shifts[index]
            return args, {**kwargs, "position_ids": ids, "position_embeddings": rotary(hidden, position_ids=ids)}

        return shift

    with _hooked(layers if any(shifts) else [], hook):
        yield


@contextmanager
def with_word_ids(language: nn.Module) -> Iterator[None]:
    """Let a language model whose ids have several axes tell its layers, while decoding, the id of the word.

    Such a model tells its layers the first row of what it is given, where there is one more row than axes.
    """

    def repeat(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Changed:
        ids = kwargs["position_ids"]
        return args, {**kwargs, "position_ids": torch.cat([ids[:1], ids])}

    with _hooked([language], lambda _: repeat):
        yield


@contextmanager
def _hooked(layers: Sequence[nn.Module], hook: Callable[[int], PreHook]) -> Iterator[None]:
    """Pre-hooks on every layer while the block runs."""
    handles = []
    try:
        handles += [
            layer.register_forward_pre_hook(hook(index), with_kwargs=True) for index, layer in enumerate(layers)
        ]
        yield
    finally:
        for handle in handles:
            handle.remove()


def synchronise(device: str) -> None:
    """Wait for a GPU, so that a clock read afterwards is honest."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
