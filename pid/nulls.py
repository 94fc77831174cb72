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
from pid.certificate import feasible
from pid.errors import InvalidSetting
from pid.joint import Array, mutual_information
from pid.replicates import TableReplicator
from pid.solver import solve

SWEEPS = 500


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
    has the same pair marginals and no synergy; "unique_1" the p closest to the data in which x1 is a garbling of x2,
    and likewise "unique_2"; "redundancy" both p(x1) p(x2,y) and p(x2) p(x1,y), since one uninformative source
    suffices: the larger p-value counts.

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
    """The likeliest p(x1,y) that is a garbling of p(x2,y), with x1 and x2 as dependent as in p.

    Expectation–maximisation of Σ p(x1,y) ln Σ_x2 G(x1|x2) p(x2,y) over channels G, a concave problem. p is then scaled
    to the pair marginals (Gb, b) label by label: how x1 and x2 err together decides what unique_1 is by chance.
    """
    a, b = p.sum(1), p.sum(0)
    pairs = _coupling(p).sum(2)
    # A channel that starts at 0 stays there; the coupling is a good start, but not for every symbol.
    channel = 0.9 * np.divide(pairs, pairs.sum(0), out=np.zeros_like(pairs), where=pairs.sum(0) > 0) + 0.1 / len(p)
    channel /= channel.sum(0)
    for _ in range(SWEEPS):
        fitted = channel @ b
        channel = channel * (np.divide(a, fitted, out=np.zeros_like(a), where=fitted > 0) @ b.T)
        total = channel.sum(0)
        channel = np.where(total > 0, channel / np.where(total > 0, total, 1.0), 1 / len(p))
    return [_scaled(p, channel @ b, b)]


def _scaled(p: Array, a: Array, b: Array) -> Array:
    """P scaled in turn to the pair marginals a and b; a little of their product makes every scaling possible."""
    labels = b.sum(0)
    product = np.divide(a[:, None] * b[None], labels, out=np.zeros_like(p), where=labels > 0)
    q = 0.999 * p + 0.001 * product
    for _ in range(SWEEPS):
        sums = q.sum(1)
        q = q * np.divide(a, sums, out=np.zeros_like(a), where=sums > 0)[:, None]
        sums = q.sum(0)
        q = q * np.divide(b, sums, out=np.zeros_like(b), where=sums > 0)[None]
    return np.asarray(feasible(a[None], b[None], q[None])[0])


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
