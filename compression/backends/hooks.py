"""Hooks that cannot be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

BeforeLayer = Callable[[int, Tensor], Tensor | None]
"""Told the layer index and its hidden states [1, length, dim]; returns int64 positions to keep, or None for all."""


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
    """Shorten the sequence between decoder layers during prefill, exactly.

    At a layer where `before` returns positions, the hidden states, rotary embeddings, position ids and mask are cut to
    them, for that layer and all later ones, so each token keeps its original position (convention of FastV). Decoding
    steps pass untouched: the caches of later layers are shorter, and the library continues from layer 0's length, which
    is never cut: a cut before layer 0 is compression before the language model.
    """
    kept: dict[str, Tensor] = {}

    def hook(
        index: int,
    ) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], tuple[tuple[Any, ...], dict[str, Any]] | None]:
        def shorten(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            hidden = args[0] if args else kwargs["hidden_states"]
            if hidden.shape[1] == 1:
                return None
            positions = before(index, hidden)
            if positions is not None:
                hidden = hidden[:, positions]
                kept["all"] = positions if "all" not in kept else kept["all"][positions]
            if "all" not in kept:
                return None
            cut, changed = kept["all"], dict(kwargs)
            cos, sin = kwargs["position_embeddings"]
            changed["position_embeddings"] = (cos[:, cut], sin[:, cut])
            if kwargs.get("position_ids") is not None:
                changed["position_ids"] = kwargs["position_ids"][:, cut]
            mask = kwargs.get("attention_mask")
            if mask is not None:
                changed["attention_mask"] = mask[:, :, cut][:, :, :, cut]
            if args:
                return (hidden, *args[1:]), changed
            changed["hidden_states"] = hidden
            return args, changed

        return shorten

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
