"""What follows the prompt: the tokens of an answer, their probabilities, and greedy continuation."""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from compression.backends.base import Prompt
from compression.backends.hooks import synchronise
from compression.backends.prefill import stop_if
from compression.compressor import Cancel
from compression.errors import InvalidQuestion


def answer_ids(tokenizer: Any, prompt: Prompt, answer: str) -> list[int]:
    """Token ids of an answer as they follow the prompt.

    Raises:
        InvalidQuestion: the answer has no token.
    """
    before = tokenizer(prompt.text)["input_ids"]
    joined = tokenizer(f"{prompt.text} {answer}")["input_ids"]
    same = next((at for at, (a, b) in enumerate(zip(before, joined, strict=False)) if a != b), len(before))
    ids = [int(token) for token in joined[same:]]
    if not ids:
        raise InvalidQuestion(f"the choice {answer!r} has no token; write a word")
    return ids


def step(model: Any, token: int, cache: Any, device: str) -> tuple[Tensor, float]:
    """One decoding step: log-probabilities of the next token, and the seconds it took. The cache grows."""
    synchronise(device)
    start = time.perf_counter()
    output = model(input_ids=torch.tensor([[token]], device=device), past_key_values=cache, use_cache=True)
    scored = output.logits[0, -1].float().log_softmax(-1)
    synchronise(device)
    return scored, time.perf_counter() - start


def log_probability(model: Any, ids: Sequence[int], first: Tensor, cache: Any, device: str) -> float:
    """Log-probability of a whole answer: its first token from the prompt, the others from decoding steps."""
    total = float(first[ids[0]])
    branch = copy.deepcopy(cache) if len(ids) > 1 else None
    for token, following in itertools.pairwise(ids):
        scored, _ = step(model, token, branch, device)
        total += float(scored[following])
    return total


def continue_greedily(
    model: Any, token: int, cache: Any, device: str, most: int, cancel: Cancel | None
) -> tuple[list[int], list[float]]:
    """A greedy answer of at most `most` tokens from its first, without the stop token; and each step's seconds."""
    named = model.generation_config.eos_token_id
    stops = {named} if isinstance(named, int) else set(named or ())
    ids, seconds = [token], []
    while len(ids) < most and ids[-1] not in stops:
        stop_if(cancel)
        scored, took = step(model, ids[-1], cache, device)
        seconds.append(took)
        ids.append(int(scored.argmax()))
    return [one for one in ids if one not in stops], seconds
