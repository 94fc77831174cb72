"""BROJA: what the sources must tell together, given only what each tells alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pid.atoms import Atoms
from pid.joint import Joint, mutual_information
from pid.solver import TARGET, solve

ROUNDING = 1e-12
"""Bits by which a bound made of mutual information alone is moved outwards, for its own rounding."""


def broja(joint: Joint) -> Atoms:
    """Union information as the least I_Q(X1,X2;Y) over all Q with the pair marginals of P, certified.

    I∪ = min {I_Q(X1,X2;Y) : Q(x1,y) = P(x1,y), Q(x2,y) = P(x2,y)}; redundancy = I1 + I2 − I∪, unique_1 = I∪ − I2,
    unique_2 = I∪ − I1, synergy = I12 − I∪. The enclosure [lower, upper] is a proof, at most 1e-6 bits wide.
    No atom is negative; redundancy and the unique atoms depend on the pair marginals only.
    Source: Bertschinger, Rauh, Olbrich, Jost, Ay, Quantifying unique information, Entropy 16 (2014) 2161, eq. 1–4.
    """
    return broja_many([joint])[0]


def broja_many(joints: Sequence[Joint], target: float = TARGET) -> list[Atoms]:
    """BROJA of tables of one shape, solved together; `target` is the width in bits that is aimed at."""
    tables = np.stack([joint.table for joint in joints])
    a, b = tables.sum(2), tables.sum(1)
    union = solve(a, b, target)
    first, second = mutual_information(a), mutual_information(b)
    both = mutual_information(tables.reshape(len(tables), -1, tables.shape[3]))
    # Three more bounds need no solver: I∪ ≥ I1 and I2; P itself is feasible, and so is a·b/p(y), whose I is ≤ I1 + I2.
    lower = np.maximum(union.lower, np.maximum(first, second) - ROUNDING)
    upper = np.minimum(union.upper, np.minimum(both, first + second) + ROUNDING)
    value = np.clip((lower + upper) / 2, np.maximum(first, second), np.minimum(both, first + second))
    return [
        Atoms.from_union((one, two, whole), middle, (low, high), "broja")
        for one, two, whole, middle, low, high in zip(first, second, both, value, lower, upper, strict=True)
    ]
