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

from pid.atoms import ATOMS
from pid.bootstrap import QUANTITIES, read_counts
from pid.certificate import feasible
from pid.coherence import calibrate
from pid.errors import InvalidSetting, TooFewSamples
from pid.joint import Array, mutual_information
from pid.posteriors import Posteriors
from pid.quantise import quantise
from pid.replicates import BOOTSTRAP_POINTS, CloudReplicator, TableReplicator
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
    and one in which it is as good as x2; likewise "unique_2"; "redundancy" both p(x1) p(x2,y) and p(x2) p(x1,y), since
    one uninformative source suffices. Of two nulls the larger p-value counts.

    Raises:
        InvalidTable: no table of counts.
        TooFewSamples: fewer than two observations.
        InvalidSetting: a quantity that there is not, or fewer than 19 replicates.
    """
    if quantity not in NULLS:
        raise InvalidSetting(f"no null is known for {quantity!r}; known: {', '.join(NULLS)}")
    _check(replicates)
    array = read_counts(counts)
    n, p = int(array.sum()), array / array.sum()
    observed = float(_values(p[None], quantity)[0])
    rng = np.random.default_rng(seed)
    tests = []
    for null in NULLS[quantity](p):
        drawn = rng.multinomial(n, (null / null.sum()).ravel(), replicates).reshape(-1, *null.shape)
        values = _values(drawn / n, quantity)
        tests.append(_compared(quantity, observed, values))
    return max(tests, key=lambda test: test.p_value)


def cloud_null_test(said: Posteriors, quantity: str, *, replicates: int = 999, seed: int = 0) -> NullTest:
    """Test one atom of posteriors, which are gated already, against clouds that have none of it.

    The clouds are merged to the points of the bootstrap and the pairs of points counted. A null of `null_test` then
    gives each pair of points its p(y|x1,x2), and as many pairs are drawn from it as there are groups. Informations
    have no such test: a posterior is known without drawing labels.

    Raises:
        InvalidSetting: no atom, fewer than 19 replicates, or samples of several numbers of options.
        TooFewSamples: fewer than two groups.
    """
    if quantity not in ATOMS:
        raise InvalidSetting(f"no null of posteriors is known for {quantity!r}; known: {', '.join(ATOMS)}")
    _check(replicates)
    parts = list(said.by_option_count())
    if len(parts) > 1:
        raise InvalidSetting(
            f"the samples have {', '.join(str(count) for count, _, _ in parts)} options; test those of one number at a "
            "time"
        )
    groups = int(said.groups.max()) + 1
    if groups < 2:
        raise TooFewSamples(f"{len(said)} samples of 1 group; a test needs at least 2 groups: ask more questions")
    place = QUANTITIES.index(quantity)
    pairs = _pairs_of_points(said)
    rng = np.random.default_rng(seed)
    observed = float(CloudReplicator(said)(said.weights[None])[0, place])
    tests = []
    for null in NULLS[quantity](pairs):
        mass = null.sum(2)
        x1, x2 = np.nonzero(mass > 0)
        rows = (null.sum(1)[x1], null.sum(0)[x2], null[x1, x2])
        clouds = Posteriors.read(*(one / one.sum(1, keepdims=True) for one in rows), weights=mass[x1, x2])
        drawn = rng.multinomial(groups, clouds.weights, replicates).astype(np.float64)
        values = CloudReplicator(clouds, max(null.shape[:2]))(drawn)[:, place]
        tests.append(_compared(quantity, observed, values))
    return max(tests, key=lambda test: test.p_value)


def _pairs_of_points(said: Posteriors) -> Array:
    """p(point of x1, point of x2, y), with the calibrated clouds as its pair marginals."""
    rows, weights = said.rows, said.weights
    labels = weights @ rows[2]
    clouds = [quantise(calibrate(one, weights, labels)[0], weights, BOOTSTRAP_POINTS) for one in rows[:2]]
    table = np.zeros((len(clouds[0].pairs), len(clouds[1].pairs), rows.shape[2]))
    np.add.at(table, (clouds[0].place, clouds[1].place), rows[2] * weights[:, None])
    return _scaled(table, clouds[0].pairs, clouds[1].pairs)


def _compared(quantity: str, observed: float, values: Array) -> NullTest:
    # Of an atom that is 0 in both, the solver's last digits must not decide.
    p_value = float((1 + (values >= observed - 1e-6).sum()) / (1 + len(values)))
    return NullTest(quantity, observed, p_value, float(values.mean()), float(np.quantile(values, 0.95)), len(values))


def _check(replicates: int) -> None:
    if replicates < 19:
        raise InvalidSetting(f"{replicates} replicates cannot show p = 0.05; at least 19 are needed, and 999 are usual")


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
    """The likeliest p(x1,y) that is a garbling of p(x2,y), and p(x2,y) itself; x1 and x2 as dependent as in p.

    By chance unique_1 is largest where both sources are equally good, and noise may have made the fitted garbling worse
    than that: the second null has an x1 with the posteriors of x2, drawn by the optimal coupling Q*(x2|x1).

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
    given = np.divide(
        pairs, pairs.sum(1, keepdims=True), out=np.zeros_like(pairs), where=pairs.sum(1, keepdims=True) > 0
    )
    equal = np.einsum("ik,ijy->kjy", given, p)
    return [_scaled(p, channel @ b, b), _scaled(equal, b, b)]


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
