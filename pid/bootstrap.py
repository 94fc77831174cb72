"""Intervals of atoms: resampling of samples, images or cells, and what to make of it where an atom is near 0.

An atom behaves like a minimum: resampling unbalances the two sources and pushes redundancy down and the unique atoms
up. The percentile interval of the bootstrap may then not even hold the estimate, and is not offered. Of the methods
below the default is the one whose coverage was best in tests/pid/test_coverage.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from pid.atoms import ATOMS
from pid.decompose import decompose
from pid.errors import InvalidSetting, InvalidTable, TooFewSamples
from pid.joint import Array, Indices, numbers
from pid.posteriors import Posteriors
from pid.replicates import CloudReplicator, TableReplicator

Method = Literal["basic", "bca", "subsampling"]
DEFAULT: Method = "basic"
QUANTITIES = (*ATOMS, "total")
BLOCKS = 50
"""Most groups of samples that the jackknife of BCa leaves out in turn."""
SUBSAMPLE = 0.25
"""Share of the groups in a subsample."""
NORMAL = NormalDist()

Statistic = Callable[[Array], Array]
"""Atoms and total [replicates, 5] of weights [replicates, samples]."""


@dataclass(frozen=True)
class Interval:
    """A confidence interval of one quantity, in bits."""

    quantity: str
    """An atom, or "total"."""
    value: float
    low: float
    high: float
    one_sided: bool
    """Whether both sides would reach 0, where every bootstrap of an atom is biased: then only `high` is a bound."""
    method: str
    level: float
    replicates: int


@dataclass(frozen=True, eq=False)
class Resampling:
    """How weights are drawn. Samples of a group are drawn together; with counts, a cell is a sample of many."""

    weights: Array
    """[samples], as they are in the estimate."""
    groups: Indices
    """[samples, 1], or [samples, 2] for crossed groups."""
    counts: Array | None = None
    """[cells] of a table of counts, which take the place of groups."""

    @classmethod
    def of_groups(cls, groups: Indices, weights: Array) -> Resampling:
        """Groups that are drawn with replacement, all with equal chance.

        Raises:
            TooFewSamples: fewer than two groups.
        """
        if (groups.max(0) < 1).any():
            raise TooFewSamples(
                f"{len(groups)} samples of {int(groups.max()) + 1} group; intervals need at least 2 groups: "
                "ask more questions, or leave the intervals out with replicates=0"
            )
        return cls(weights, groups)

    @classmethod
    def of_counts(cls, counts: Array) -> Resampling:
        """Cells of a table, resampled as the observations that they count."""
        return cls(counts / counts.sum(), np.zeros((len(counts), 1), dtype=np.intp), counts)

    def bootstrap(self, rng: np.random.Generator, replicates: int) -> Array:
        """[replicates, samples]: groups drawn with replacement, as many as there are."""
        if self.counts is not None:
            return rng.multinomial(int(self.counts.sum()), self.weights, replicates).astype(np.float64)

        def chosen(size: int) -> Array:
            return rng.multinomial(size, np.full(size, 1 / size), replicates).astype(np.float64)

        return self._weighted(rng, replicates, chosen)

    def subsamples(self, rng: np.random.Generator, replicates: int) -> Array:
        """[replicates, samples]: a quarter of the groups drawn without replacement."""
        if self.counts is not None:
            size = max(2, round(SUBSAMPLE * self.counts.sum()))
            drawn = rng.multivariate_hypergeometric(self.counts.astype(np.int64), size, replicates, method="marginals")
            return drawn.astype(np.float64)

        def chosen(size: int) -> Array:
            order = rng.random((replicates, size)).argsort(1)
            return (order < max(2, round(SUBSAMPLE * size))).astype(np.float64)

        return self._weighted(rng, replicates, chosen)

    def _weighted(self, rng: np.random.Generator, replicates: int, draw: Callable[[int], Array]) -> Array:
        drawn = np.ones((replicates, len(self.weights)))
        for column in self.groups.T:
            drawn = drawn * draw(int(column.max()) + 1)[:, column]
        drawn = drawn * self.weights
        # Of few crossed groups, or of groups without weight, nothing may be left: such a draw is taken from the others.
        empty = np.flatnonzero(drawn.sum(1) <= 0)
        full = np.flatnonzero(drawn.sum(1) > 0)
        if len(empty):
            drawn[empty] = drawn[rng.choice(full, len(empty))] if len(full) else self.weights
        return drawn

    def jackknife(self) -> tuple[Array, Array]:
        """[left out, samples] and how often each counts: observations of a cell, or blocks of groups."""
        if self.counts is not None:
            cells = np.flatnonzero(self.counts)
            fewer = np.repeat(self.counts[None], len(cells), axis=0)
            fewer[np.arange(len(cells)), cells] -= 1
            return fewer, self.counts[cells]
        left: list[Array] = []
        for column in self.groups.T:
            size = int(column.max()) + 1
            block = (np.arange(size) * min(BLOCKS, size) // size)[column]
            left += [np.where(block == one, 0.0, self.weights) for one in range(block.max() + 1)]
        kept = np.array([one for one in left if one.sum() > 0])
        return kept, np.ones(len(kept))


def intervals(
    values: tuple[float, ...],
    resampling: Resampling,
    statistic: Statistic,
    *,
    method: Method | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
    is_difference: bool = False,
    most: float = np.inf,
) -> tuple[Interval, ...]:
    """Intervals of `values`, from deviations of the statistic's replicates from its value at the weights as they are.

    basic: value − (upper and lower quantiles of the deviations), which reflects the bootstrap's bias (Davison &
    Hinkley 1997, eq. 5.6). bca: quantiles corrected for median bias and acceleration (Efron 1987, eq. 2.3; the
    acceleration from a jackknife over at most 50 blocks). subsampling: deviations of draws of a quarter without
    replacement, scaled by the square root of b/(n − b) (Politis, Romano, Wolf 1999, with the finite-population factor).

    An atom whose interval reaches 0 gets a one-sided one: from 0, or from its value if that is negative, to the upper
    bound at the same level. Differences keep both sides. Where an estimate lies at the ceiling, reflection would leave
    it outside: intervals end at `most`, what the labels can carry, and are widened to hold the estimate.
    """
    chosen: Method = method or DEFAULT
    _check(chosen, level, replicates)
    rng = np.random.default_rng(seed)
    centre = statistic(resampling.weights[None])[0]
    if chosen == "subsampling":
        size = SUBSAMPLE / (1 - SUBSAMPLE)
        deviations = np.sqrt(size) * (statistic(resampling.subsamples(rng, replicates)) - centre)
    else:
        deviations = statistic(resampling.bootstrap(rng, replicates)) - centre
    skewness = _acceleration(statistic, resampling) if chosen == "bca" else np.zeros(len(values))

    found = []
    for place, (name, value) in enumerate(zip(QUANTITIES, values, strict=True)):
        ends = [_bound(value, deviations[:, place], skewness[place], share, chosen) for share in _tails(level)]
        one_sided = not is_difference and ends[0] <= 1e-9
        if one_sided:
            ends = [min(0.0, value), _bound(value, deviations[:, place], skewness[place], level, chosen)]
        ends = [min(ends[0], value), max(min(ends[1], most), value)]
        found.append(Interval(name, float(value), ends[0], ends[1], one_sided, chosen, level, replicates))
    return tuple(found)


def table_intervals(
    counts: ArrayLike,
    *,
    method: Method | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[Interval, ...]:
    """Intervals of the BROJA atoms and the total of a table of counts [first, second, labels], in bits.

    Raises:
        InvalidTable: counts that are not whole numbers of at least 0 in three axes.
        TooFewSamples: fewer than two observations.
        InvalidSetting: a method, level or number of replicates that there is not.
    """
    array = read_counts(counts)
    atoms = decompose(array / array.sum())
    return intervals(
        (*atoms.values, atoms.total), Resampling.of_counts(array.ravel()), TableReplicator(array.shape),
        method=method, level=level, replicates=replicates, seed=seed,
        most=float(np.log2(array.shape[2])),
    )  # fmt: skip


def paired_differences(
    first: Posteriors,
    second: Posteriors,
    *,
    gate: float = 0.3,
    method: Method | None = None,
    level: float = 0.95,
    replicates: int = 1000,
    seed: int = 0,
) -> tuple[Interval, ...]:
    """Intervals of the atoms of `second` minus those of `first`, two strategies asked about the same samples.

    Both are resampled by the same draws, so that what the samples have in common cancels.

    Raises:
        InvalidSetting: other samples or groups in `second` than in `first`, or a setting outside its range.
    """
    if not (np.array_equal(first.groups, second.groups) and np.allclose(first.weights, second.weights, atol=1e-12)):
        raise InvalidSetting(
            f"{len(first)} and {len(second)} samples with different groups or weights cannot be paired; pass the "
            "answers of both to the same samples, in the same order"
        )
    from pid.clouds import estimate

    atoms = [estimate(one, gate=gate).atoms for one in (first, second)]
    before, after = (CloudReplicator(one.gated(gate)[0]) for one in (first, second))
    values = tuple(
        late - early for early, late in zip(*((*one.values, one.total) for one in atoms), strict=True)
    )  # fmt: skip
    return intervals(
        values, Resampling.of_groups(first.groups, first.weights), lambda weights: after(weights) - before(weights),
        method=method, level=level, replicates=replicates, seed=seed, is_difference=True,
    )  # fmt: skip


def read_counts(counts: ArrayLike) -> Array:
    """Whole numbers [first, second, labels] that count at least two observations.

    Raises:
        InvalidTable: no counts.
        TooFewSamples: fewer than two observations.
    """
    array = numbers(counts, "the table of counts")
    if array.ndim != 3 or (array != np.round(array)).any():
        raise InvalidTable(
            f"the table of shape {array.shape} is no table of counts; pass whole numbers [first, second, labels], "
            "not probabilities"
        )
    if array.sum() < 2:
        raise TooFewSamples(f"the table counts {array.sum():.0f} observations; intervals and tests need at least 2")
    return array


def _tails(level: float) -> tuple[float, float]:
    return (1 - level) / 2, (1 + level) / 2


def _bound(value: float, deviations: Array, acceleration: float, share: float, method: Method) -> float:
    """The end of an interval below which the truth lies with probability `share`."""
    if method != "bca":
        return float(value - np.quantile(deviations, 1 - share))
    # A half for ties, and away from 0 and 1, where the correction has no finite value.
    below = ((deviations < -1e-12).mean() + (deviations <= 1e-12).mean()) / 2
    bias = NORMAL.inv_cdf(float(np.clip(below, 0.5 / len(deviations), 1 - 0.5 / len(deviations))))
    z = bias + NORMAL.inv_cdf(share)
    return float(value + np.quantile(deviations, NORMAL.cdf(bias + z / max(1e-9, 1 - acceleration * z))))


def _acceleration(statistic: Statistic, resampling: Resampling) -> Array:
    """Σ u³ / (6 (Σ u²)^1.5) of the jackknife's influence u, for each quantity."""
    weights, times = resampling.jackknife()
    left = statistic(weights)
    u = np.average(left, axis=0, weights=times) - left
    squares = (times[:, None] * u**2).sum(0)
    return np.asarray((times[:, None] * u**3).sum(0) / np.maximum(6 * squares**1.5, 1e-300))


def _check(method: Method, level: float, replicates: int) -> None:
    if method not in get_args(Method):
        raise InvalidSetting(f"no interval is named {method!r}; known: {', '.join(get_args(Method))}")
    if not 0.5 <= level < 1:
        raise InvalidSetting(f"the level is {level:g}; it is at least 0.5 and below 1: 0.95 is usual")
    if replicates < 20 or replicates * (1 - level) < 1:
        raise InvalidSetting(
            f"{replicates} replicates are too few for level {level:g}; at least {max(20, round(1 / (1 - level)))} are "
            "needed, and 1000 are usual"
        )
