"""Atoms of many reweighted samples at once: what bootstrap, subsampling and jackknife ask for."""

from __future__ import annotations

import numpy as np

from pid.coherence import calibrate, fit
from pid.joint import Array, entropy, mutual_information
from pid.posteriors import Posteriors
from pid.quantise import quantise
from pid.solver import solve

TARGET = 1e-6
"""Width in bits that replicates are solved to: far below the spread of any bootstrap."""
BOOTSTRAP_POINTS = 12
"""Points of a cloud in replicates. Intervals use differences between replicates and the value at the same points."""
BLOCK = 256
"""Replicates per batch."""


class TableReplicator:
    """Atoms and total of tables of counts over the cells of one shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __call__(self, weights: Array) -> Array:
        """[replicates, 5] of weights over cells [replicates, cells], which need not sum to 1."""
        tables = (weights / weights.sum(1, keepdims=True)).reshape(-1, *self.shape)
        a, b = tables.sum(2), tables.sum(1)
        both = mutual_information(tables.reshape(len(tables), -1, self.shape[2]))
        return _atoms(a, b, both)


class CloudReplicator:
    """Atoms and total of reweighted samples: codebook and calibrated rows stay, weights and p(y) change.

    Calibrated rows are merged to a few points; a replicate reweighs the members of each, takes p(y) anew as the
    average of p12, and makes the points coherent with it again.
    """

    def __init__(self, said: Posteriors, points: int = BOOTSTRAP_POINTS) -> None:
        self.parts = []
        for _, places, rows in said.by_option_count():
            weights = said.weights[places]
            if weights.sum() <= 0:
                continue
            weights = weights / weights.sum()
            labels = weights @ rows[2]
            spread = []
            for one in rows[:2]:
                moved, _ = calibrate(one, weights, labels)
                place = quantise(moved, weights, points).place
                member = np.zeros((len(places), place.max() + 1, rows.shape[2]))
                member[np.arange(len(places)), place] = moved
                spread.append(member)
            self.parts.append((places, spread, rows[2], entropy(rows[2])))

    def __call__(self, weights: Array) -> Array:
        """[replicates, 5] of weights over samples [replicates, samples], which need not sum to 1."""
        blocks = np.array_split(weights, max(1, -(-len(weights) // BLOCK)))
        return np.concatenate([self._block(block) for block in blocks])

    def _block(self, weights: Array) -> Array:
        weights = weights / weights.sum(1, keepdims=True)
        atoms = np.zeros((len(weights), 5))
        for places, spread, rows, surprise in self.parts:
            share = weights[:, places].sum(1)
            some = share > 0
            own = weights[some][:, places] / share[some, None]
            labels = own @ rows
            clouds = [_coherent(own, member, labels) for member in spread]
            both = np.maximum(entropy(labels) - own @ surprise, 0.0)
            atoms[some] += share[some, None] * _atoms(clouds[0], clouds[1], both)
        return atoms


def _coherent(weights: Array, member: Array, labels: Array) -> Array:
    """Pair tables [replicates, points, options] whose label marginals are `labels`."""
    count, points, options = member.shape
    pairs = (weights @ member.reshape(count, -1)).reshape(len(weights), points, options)
    mass = pairs.sum(2)
    rows = np.divide(pairs, mass[..., None], out=np.full_like(pairs, 1 / options), where=mass[..., None] > 0)
    off = np.abs(pairs.sum(1) - labels).sum(1) > 1e-12
    if off.any():
        rows[off] = fit(rows[off], mass[off], labels[off])[0]
    pairs = rows * mass[..., None]
    sums = pairs.sum(1)
    return np.asarray(pairs * np.divide(labels, sums, out=np.zeros_like(sums), where=sums > 0)[:, None])


def _atoms(a: Array, b: Array, both: Array) -> Array:
    """[replicates, 5] by BROJA: four atoms and the total."""
    union = solve(a, b, TARGET)
    first, second = mutual_information(a), mutual_information(b)
    middle = np.clip((union.lower + union.upper) / 2, np.maximum(first, second), first + second)
    return np.stack([first + second - middle, middle - second, middle - first, both - middle, both], axis=1)
