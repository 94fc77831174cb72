"""Proportional attention: a token that many were merged into is attended as that many.

After merging, one key stands where several stood, and the softmax gives it the weight of one. Adding the logarithm of
its size to every logit of that key gives it the weight of its members, had they all the same key:
softmax(q.k + log s) = s*exp(q.k) / sum of s_j*exp(q.k_j). Source: ToMe, arXiv 2210.09461, eq. 1.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.compressor import Compressor, Parameter
from compression.selection import Selection

Attention = Literal["plain", "proportional"]


def attention_parameter() -> Parameter:
    """The parameter `attention` of every strategy that merges; the model that reads the outputs follows it."""
    return Parameter(
        "attention",
        "plain",
        "Whether the language model attends to a merged token as to one (plain), or adds the logarithm of the number "
        "of its members to the logits of its key, as in ToMe (proportional).",
        choices=("plain", "proportional"),
    )


def attention_of(compressor: Compressor) -> Attention:
    """How the outputs of a strategy are attended; plain where it has no such parameter."""
    return "proportional" if compressor.parameters.get("attention") == "proportional" else "plain"


def sizes_after(decision: Selection, sizes: NDArray[np.float64], attention: str) -> NDArray[np.float64]:
    """How many tokens each output of a decision counts as, float64 [outputs].

    With proportional attention it is the sum over its sources of positive weight, area-less ones such as [CLS] counted
    as one; a token in two outputs counts in both. With plain attention an output counts as much as the token whose
    place it takes, and as one where it has none.

    Args:
        decision: Over tokens.
        sizes: What each of them counted as before, float64 [tokens].
        attention: "plain" or "proportional".
    """
    if attention == "plain":
        return np.where(decision.anchor >= 0, sizes[decision.anchor], 1.0)
    before = np.concatenate([sizes, np.ones(decision.extra)])
    counts = decision.weight_value > 0
    return np.bincount(
        decision.weight_output[counts], weights=before[decision.weight_token[counts]], minlength=len(decision)
    ).clip(min=1.0)


def logit_bias(
    length: int, places: NDArray[np.int64], sizes: NDArray[np.float64], device: torch.device
) -> Tensor | None:
    """What is added to all logits of each key, float32 [length]; None where every token counts as one.

    Args:
        length: Positions of the sequence.
        places: int64 [tokens], where the visual tokens lie in it.
        sizes: What each of them counts as, float64 [tokens], at least 1.
        device: Where the language model runs.
    """
    if (sizes == 1).all():
        return None
    bias = np.zeros(length, dtype=np.float32)
    bias[places] = np.log(sizes)
    return torch.from_numpy(bias).to(device)
