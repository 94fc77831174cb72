"""Texts that a model writes on a picture, several of them from one reading of it."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from compression.backends.base import Prompt, Written
from compression.backends.decoding import step
from compression.backends.hooks import synchronise
from compression.backends.prefill import Family, Pass, prefill, stop_if
from compression.compressor import Cancel
from compression.sight import as_it_is
from compression.tokens import VisualTokens


class Writing(Family, Protocol):
    """What a family's backend gives beyond a prefill."""

    model: Any
    tokenizer: Any

    def continuing(self, last: Pass) -> AbstractContextManager[None]:
        """What holds while the library decodes behind a prefill."""


@torch.no_grad()
def write(
    family: Writing,
    tokens: VisualTokens,
    prompt: Prompt,
    *,
    count: int,
    temperature: float,
    seed: int,
    most: int = 256,
    cancel: Cancel | None = None,
) -> Written:
    """Write `count` texts of at most `most` tokens.

    Args:
        family: The backend.
        tokens: The picture.
        prompt: What the model is told.
        count: How many texts; the picture is read once for all of them.
        temperature: Of the sampling; 0 takes the likeliest token.
        seed: Each text draws from a generator of its own, on the CPU, so that every device draws the same.
        most: Longest text in tokens.
        cancel: Asked before every step.

    Raises:
        Cancelled: `cancel` said so.
    """
    read = prefill(family, tokens, prompt, as_it_is(len(tokens)), cancel=cancel)
    named = family.model.generation_config.eos_token_id
    stops = {named} if isinstance(named, int) else set(named or ())
    texts, steps = [], []
    for number in range(count):
        draw = torch.Generator().manual_seed(seed + number)
        cache, scored, ids = copy.deepcopy(read.cache), read.logits, list[int]()
        while len(ids) < most:
            stop_if(cancel)
            token = _drawn(scored, temperature, draw)
            if token in stops:
                break
            ids.append(token)
            if len(ids) < most:
                with family.continuing(read):
                    scored, _ = step(family.model, token, cache, family.device)
        texts.append(str(family.tokenizer.decode(ids, skip_special_tokens=True)).strip())
        steps.append(min(len(ids), most - 1))
    synchronise(family.device)
    return Written(tuple(texts), read.sequence_per_layer, tuple(steps))


def _drawn(scored: Tensor, temperature: float, draw: torch.Generator) -> int:
    """The likeliest token, or one drawn by its probability at a temperature."""
    if temperature <= 0:
        return int(scored.argmax())
    chances = (scored.double() / temperature).softmax(-1).cpu()
    return int(torch.multinomial(chances, 1, generator=draw))
