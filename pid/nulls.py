"""Null tests: how large an atom, or an information, comes out where there is none.

Estimates of what cannot be negative are positive by chance. Each test draws as many observations as there are from a
distribution that has nothing of the quantity and resembles the data otherwise, and estimates it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike

from pid.bootstrap import QUANTITIES, read_counts
from pid.errors import InvalidSetting
from pid.joint import Array, mutual_information
from pid.replicates import TableReplicator
from pid.solver import solve


@dataclass(frozen=True)
class NullTest:
    """Whether a quantity is more than chance makes of nothing."""

    quantity: str
    observed: float
    """Bits."""
    p_value: float
    """(1 + null values at least as large) / (1 + replicates): never 0; of several nulls, that of the worst."""
    null_mean: float
    """Mean of the null values in bits: what a table of this size shows although nothing is there."""
    null_95: float
    """Their 0.95 quantile in bits."""
    replicates: int


def null_test(counts: ArrayLike, quantity: str, *, replicates: int = 999, seed: int = 0) -> NullTest:
    """Test one quantity of a table of counts [first, second, labels] against a distribution that has none of it.

    Nulls, of the empirical p: "information_1" p(x1) p(x2,y), "information_2" p(x2) p(x1,y), "total" p(x1,x2) p(y), as
    if the label (or a source) had been permuted; "synergy" the coupling Q* that attains the union information, which
    has the same pair marginals and no synergy; "unique_1" Q*(x2,y) Q*(x1|x2), in which x1 is a garbling of x2, and
    likewise "unique_2"; "redundancy" both p(x1) p(x2,y) and p(x2) p(x1,y), since one uninformative source suffices: the
    larger p-value counts.

    Raises:
        InvalidTable: no table of counts.
        TooFewSamples: fewer than two observations.
        InvalidSetting: a quantity that there is not, or fewer than 19 replicates.
    """
    if quantity not in NULLS:
        raise InvalidSetting(f"no null is known for {quantity!r}; known: {', '.join(NULLS)}")
    if replicates < 19:
        raise InvalidSetting(f"{replicates} replicates cannot show p = 0.05; at least 19 are needed, and 999 are usual")
    array = read_counts(counts)
    n, p = int(array.sum()), array / array.sum()
    observed = float(_values(p[None], quantity)[0])
    rng = np.random.default_rng(seed)
    tests = []
    for null in NULLS[quantity](p):
        drawn = rng.multinomial(n, (null / null.sum()).ravel(), replicates).reshape(-1, *p.shape)
        values = _values(drawn / n, quantity)
        # Of an atom that is 0 in both, the solver's last digits must not decide.
        p_value = float((1 + (values >= observed - 1e-7).sum()) / (1 + replicates))
        tests.append(
            NullTest(quantity, observed, p_value, float(values.mean()), float(np.quantile(values, 0.95)), replicates)
        )
    return max(tests, key=lambda test: test.p_value)


def _values(tables: Array, quantity: str) -> Array:
    """One quantity in bits of tables [replicates, first, second, labels]."""
    if quantity == "information_1":
        return mutual_information(tables.sum(2))
    if quantity == "information_2":
        return mutual_information(tables.sum(1))
    if quantity == "total":
        return mutual_information(tables.reshape(len(tables), -1, tables.shape[3]))
    atoms = TableReplicator(tables.shape[1:])(tables.reshape(len(tables), -1))
    return np.asarray(atoms[:, QUANTITIES.index(quantity)])


def _without_1(p: Array) -> list[Array]:
    return [p.sum((1, 2))[:, None, None] * p.sum(0)[None]]


def _without_2(p: Array) -> list[Array]:
    return [p.sum((0, 2))[None, :, None] * p.sum(1)[:, None]]


def _without_both(p: Array) -> list[Array]:
    return [p.sum(2, keepdims=True) * p.sum((0, 1))]


def _coupling(p: Array) -> Array:
    return np.asarray(solve(p.sum(1)[None], p.sum(0)[None]).coupling[0])


def _without_synergy(p: Array) -> list[Array]:
    return [_coupling(p)]


def _garbled(p: Array) -> list[Array]:
    """Q*(x2, y) Q*(x1 | x2): whatever x1 tells, x2 tells too."""
    pairs = _coupling(p).sum(2)
    given = np.divide(pairs, pairs.sum(0), out=np.zeros_like(pairs), where=pairs.sum(0) > 0)
    return [given[..., None] * p.sum(0)[None]]


def _garbled_2(p: Array) -> list[Array]:
    return [null.swapaxes(0, 1) for null in _garbled(p.swapaxes(0, 1))]


NULLS: Mapping[str, Callable[[Array], list[Array]]] = MappingProxyType(
    {
        "redundancy": lambda p: _without_1(p) + _without_2(p),
        "unique_1": _garbled,
        "unique_2": _garbled_2,
        "synergy": _without_synergy,
        "total": _without_both,
        "information_1": _without_1,
        "information_2": _without_2,
    }
)
"""Distributions without the quantity, made from an empirical p [first, second, labels]."""
