"""The router: which part of the budget goes to objects, which to the geometry of the scene, and how large it is.

The paper trains a router of about a million parameters on top of the host model's word embeddings. Its weights are not
public. A model may come with one trained for it in the paper's shape (`LearnedRouter`); without one the words of the
question decide by rule. The run says which.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from compression.compressor import Route

GEOMETRY: Final = (
    *("route", "path", "road network", "network", "connected", "boundary", "edge", "border"),
    *("between", "adjacent", "next to", "relative to", "along", "across", "distance"),
    *("layout", "plan", "region", "land use", "land cover", "largest"),
    *("direction", "north", "south", "east", "west", "left", "right"),
    *("where", "position", "located", "corner", "quarter", "side"),
)
OBJECTS: Final = (
    *("how many", "count", "number", "is there", "are there"),
    *("colour", "color", "coloured", "colored"),
    *("what is", "what are", "classify", "identify", "type", "kind", "category", "object"),
    *("motion state", "moving", "parked", "anomaly", "damaged", "around", "surrounding"),
)

GEOMETRY_LAMBDA: Final = 0.8
OBJECT_LAMBDA: Final = 0.2
OPEN_LAMBDA: Final = 0.5
OBJECT_RATIO: Final = 0.10
GEOMETRY_RATIO: Final = 0.25
OPEN_RATIO: Final = 0.25


def rule_router(question: str) -> tuple[float, str]:
    """The paper's lambda by rule and the words that decided: 0.8 for geometry, 0.2 for objects, else 0.5.

    >>> rule_router("Which quarter has the most buildings?")
    (0.8, 'geometry words: quarter')
    >>> rule_router("How many ships are there?")
    (0.2, 'object words: how many, are there')
    """
    geometry, objects = _found(question, GEOMETRY), _found(question, OBJECTS)
    if geometry and not objects:
        return GEOMETRY_LAMBDA, f"geometry words: {', '.join(geometry)}"
    if objects and not geometry:
        return OBJECT_LAMBDA, f"object words: {', '.join(objects)}"
    if geometry:
        return OPEN_LAMBDA, f"geometry words: {', '.join(geometry)}; object words: {', '.join(objects)}"
    return OPEN_LAMBDA, "no word of either kind"


def rule_ratio(lam: float) -> float:
    """The retention ratio by rule: 0.10 where objects are asked for, else 0.25.

    Objects are few and survive merging; a route over the scene needs room, and an open question gets as much.
    """
    if lam < OPEN_LAMBDA:
        return OBJECT_RATIO
    return GEOMETRY_RATIO if lam > OPEN_LAMBDA else OPEN_RATIO


def _found(question: str, words: tuple[str, ...]) -> list[str]:
    """The words that the question holds, singular or plural, in the order of `words`."""
    return [word for word in words if re.search(rf"\b{_inflected(word)}\b", question, re.IGNORECASE)]


def _inflected(word: str) -> str:
    """A pattern for a word and its plural."""
    return f"{re.escape(word[:-1])}(?:y|ies)" if word.endswith("y") else f"{re.escape(word)}s?"


class LearnedRouter(nn.Module):
    """The paper's shape: the mean word embedding, two hidden layers, and a sigmoid head each for lambda and rho.

    Args:
        dim: Width of the host model's word embeddings.
        hidden: Width of the hidden layers; 256 gives 0.98 million weights at dim 3,584.
        rho_min: Smallest ratio that it can choose; rho = rho_min + (1 - rho_min) * sigmoid(z).
    """

    def __init__(self, dim: int, hidden: int = 256, rho_min: float = 0.02) -> None:
        super().__init__()
        self.rho_min = rho_min
        self.body = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU())
        self.lam = nn.Linear(hidden, 1)
        self.rho = nn.Linear(hidden, 1)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> LearnedRouter:
        """A router of these weights, in float32."""
        hidden, dim = weights["body.0.weight"].shape
        router = cls(dim, hidden)
        router.load_state_dict({name: value.float() for name, value in weights.items()})
        return router.eval().requires_grad_(False)

    def forward(self, means: Tensor) -> tuple[Tensor, Tensor]:
        """Mean word embeddings [questions, dim] → logits of lambda and of rho, [questions] each."""
        read = self.body(means)
        return self.lam(read)[:, 0], self.rho(read)[:, 0]

    @torch.no_grad()
    def route(self, text: Tensor) -> Route:
        """Read one question, float [words, dim]."""
        lam, rho = (value.item() for value in self(text.float().mean(0, keepdim=True).cpu()))
        ratio = self.rho_min + (1 - self.rho_min) * torch.sigmoid(torch.tensor(rho)).item()
        return Route(torch.sigmoid(torch.tensor(lam)).item(), ratio, {"lambda": lam, "rho": rho})
