"""How far an estimate is off because samples are few, by formula where there is one and by extrapolation otherwise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pid.bootstrap import QUANTITIES, Statistic, read_counts
from pid.joint import Array
from pid.posteriors import Posteriors
from pid.replicates import CloudReplicator, TableReplicator

DRAWS = 64
"""Subsamples of each size, whose mean is extrapolated."""


@dataclass(frozen=True)
class Bias:
    """An estimate as it is, and what is thought to be bias in it; bits."""

    quantity: str
    raw: float
    bias: float
    method: str
    """ "miller-madow", "posterior-average" or "extrapolation"."""

    @property
    def corrected(self) -> float:
        """What is left of the raw value. Not clipped: below 0 it says that the estimate is within its bias."""
        return self.raw - self.bias


def table_bias(counts: ArrayLike, *, seed: int = 0) -> tuple[Bias, ...]:
    """Bias of the atoms, the total and both informations of a table of counts [first, second, labels].

    Informations: (K_xy − K_x − K_y + 1) / (2 N ln 2) bits with K the occupied cells (Miller 1955, Madow; Panzeri &
    Treves 1996). Atoms: the value at infinite N of the quadratic in 1/N through the means at N, N/2 and N/4 (Strong et
    al., Phys. Rev. Lett. 80 (1998) 197).

    Raises:
        InvalidTable: no table of counts.
        TooFewSamples: fewer than two observations.
    """
    array = read_counts(counts)
    n = array.sum()
    rng = np.random.default_rng(seed)

    def fewer(share: float) -> Array:
        size = max(1, round(share * n))
        drawn = rng.multivariate_hypergeometric(array.ravel().astype(np.int64), size, DRAWS, method="marginals")
        return drawn.astype(np.float64)

    found = _extrapolated(TableReplicator(array.shape), array.reshape(1, -1), fewer(0.5), fewer(0.25))
    atoms = dict(zip(QUANTITIES, found, strict=True))
    informations = (
        ("information_1", array.sum(1), atoms["redundancy"].raw + atoms["unique_1"].raw),
        ("information_2", array.sum(0), atoms["redundancy"].raw + atoms["unique_2"].raw),
        ("total", array.reshape(-1, array.shape[2]), atoms["total"].raw),
    )
    formula = {name: Bias(name, raw, miller_madow(pairs), "miller-madow") for name, pairs, raw in informations}
    return (
        *(formula.get(name, one) for name, one in atoms.items()),
        formula["information_1"],
        formula["information_2"],
    )


def miller_madow(pairs: ArrayLike) -> float:
    """Bias in bits of the plug-in mutual information of pair counts [symbols, labels].

    >>> round(miller_madow([[50, 0], [0, 50]]), 6)
    -0.007213
    """
    counts = np.array(pairs, dtype=np.float64)
    occupied = (counts > 0).sum() - (counts.sum(1) > 0).sum() - (counts.sum(0) > 0).sum() + 1
    return float(occupied / (2 * counts.sum() * np.log(2)))


def cloud_bias(said: Posteriors, *, seed: int = 0) -> tuple[Bias, ...]:
    """Bias of the atoms and the total of posteriors, which are gated already.

    The total H(average p) − average H(p) is off by −Σ_y Var(p_y) / (2 N P_y ln 2), second order of the entropy at the
    average. Atoms: extrapolation as in `table_bias`, over subsets of samples.
    """
    rng = np.random.default_rng(seed)
    count = len(said)

    def fewer(share: float) -> Array:
        size = max(1, round(share * count))
        chosen = rng.random((DRAWS, count)).argsort(1).argsort(1) < size
        drawn = chosen * said.weights
        return np.where(drawn.sum(1, keepdims=True) > 0, drawn, said.weights)

    found = _extrapolated(CloudReplicator(said), said.weights[None], fewer(0.5), fewer(0.25))
    bias = 0.0
    for _, places, rows in said.by_option_count():
        share = said.weights[places].sum()
        if share > 0:
            weights = said.weights[places] / share
            mean = weights @ rows[2]
            variance = weights @ (rows[2] - mean) ** 2
            some = mean > 0
            bias -= float(share * (weights**2).sum() * (variance[some] / mean[some]).sum() / (2 * np.log(2)))
    return (*found[:-1], Bias("total", found[-1].raw, bias, "posterior-average"))


def _extrapolated(statistic: Statistic, whole: Array, half: Array, quarter: Array) -> list[Bias]:
    """What lies above the limit: with y = c + a/N + b/N², c = (8 y(N) − 6 y(N/2) + y(N/4)) / 3."""
    raw, two, four = (statistic(weights).mean(0) for weights in (whole, half, quarter))
    limit = (8 * raw - 6 * two + four) / 3
    pairs = zip(QUANTITIES, raw, raw - limit, strict=True)
    return [Bias(name, float(value), float(bias), "extrapolation") for name, value, bias in pairs]
