"""Random tables of every awkward kind, drawn from a seed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

KINDS = ("spread", "sparse", "peaked", "zeros", "floored", "deterministic", "nearly deterministic", "equal posteriors")
SHAPES = ((1, 1, 1), (1, 4, 3), (5, 1, 2), (3, 4, 1), (2, 2, 2), (3, 4, 3), (6, 2, 4), (10, 10, 5))


def random_table(rng: np.random.Generator, shape: tuple[int, int, int], kind: str = "spread") -> Array:
    """A table p(x1, x2, y) of that shape and kind."""
    alpha = {"spread": 1.0, "sparse": 0.3, "peaked": 0.05}.get(kind, 0.5)
    p = rng.dirichlet(np.full(int(np.prod(shape)), alpha)).reshape(shape)
    if kind == "zeros":
        p = p * (rng.random(shape) > 0.6)
    elif kind == "floored":
        p = np.where(rng.random(shape) > 0.5, 1e-9, p)
    elif kind.endswith("deterministic"):
        labels = rng.integers(0, shape[2], shape[:2])
        p = np.zeros(shape)
        np.put_along_axis(p, labels[..., None], rng.dirichlet(np.ones(shape[0] * shape[1])).reshape(*shape[:2], 1), 2)
        if kind.startswith("nearly"):
            p = p + 1e-6 * rng.random(shape)
    elif kind == "equal posteriors":
        p[-1] = 0.3 * p[0]
    if p.sum() == 0:
        p.flat[0] = 1.0
    return np.asarray(p / p.sum())


def mixed_with_noise(table: Array, share: float) -> Array:
    """The table with a share of the uniform one."""
    return (1 - share) * table + share / table.size
