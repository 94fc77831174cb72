"""Posteriors of samples drawn from a known table: what a model that knew it would answer in three passes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def answers(p: Array, n: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """p(y|x1), p(y|x2), p(y|x1,x2) [n, labels] of n pairs drawn from p(x1, x2, y)."""
    pairs = p.sum(2)
    places = np.random.default_rng(seed).choice(pairs.size, n, p=pairs.ravel())
    x1, x2 = places // pairs.shape[1], places % pairs.shape[1]
    one, two = p.sum(1), p.sum(0)
    return (
        one[x1] / one[x1].sum(1, keepdims=True),
        two[x2] / two[x2].sum(1, keepdims=True),
        p[x1, x2] / pairs[x1, x2, None],
    )


def expected_answers(p: Array) -> tuple[Array, Array, Array, Array]:
    """The three posteriors of every pair that can occur, and its probability as the weight."""
    pairs = p.sum(2)
    x1, x2 = np.nonzero(pairs)
    one, two = p.sum(1), p.sum(0)
    rows = (one[x1] / one[x1].sum(1, keepdims=True), two[x2] / two[x2].sum(1, keepdims=True))
    return (*rows, p[x1, x2] / pairs[x1, x2, None], pairs[x1, x2])


def softmax(logits: Array) -> Array:
    """Rows that sum to 1."""
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


def loose_answers(n: int, options: int = 4, seed: int = 0) -> tuple[Array, Array, Array]:
    """Three passes of a model whose averages differ, with no two rows alike."""
    rng = np.random.default_rng(seed)
    u, v = rng.normal(0, 1.5, (n, options)), rng.normal(0, 1.5, (n, options))
    shift = np.linspace(-0.3, 0.3, options)
    return softmax(u), softmax(v + 0.4 * u + shift), softmax(u + v)
