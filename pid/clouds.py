"""The posterior-cloud estimator: what a model said in three passes, decomposed exactly.

Redundancy and unique atoms depend on a source only through its posteriors p(y|x): symbols with equal posteriors can be
merged or split without changing them. So, once the posteriors are given, neither embeddings nor a learnt alignment are
needed: the answer is BROJA between two clouds of points on the simplex, one per source, each sample with its weight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pid.atoms import Atoms
from pid.bootstrap import Interval, Resampling, intervals
from pid.coherence import Coherence, calibrate
from pid.errors import InvalidSetting
from pid.joint import Array, mutual_information
from pid.measures.broja import ROUNDING
from pid.posteriors import ByPass, Posteriors
from pid.quantise import Cloud, quantise
from pid.replicates import CloudReplicator
from pid.solver import solve

GATE = 0.3
"""Least probability that the options must have together (Xiu, Luo, Nakayama 2026, arXiv:2603.29676)."""
MAX_POINTS = 64


@dataclass(frozen=True)
class Part:
    """What the samples with one number of options gave."""

    options: int
    n: int
    weight: float
    """Share of the weight of all samples."""
    atoms: Atoms


@dataclass(frozen=True)
class CloudEstimate:
    """Atoms of a model's answers, with everything that has to be shown beside them."""

    atoms: Atoms
    """Pooled over numbers of options; `lower` and `upper` hold whatever quantisation and solver left open."""
    information_1: float
    """I(X1;Y) in bits."""
    information_2: float
    """I(X2;Y) in bits."""
    n: int
    """Samples."""
    groups: int
    """Groups that the bootstrap draws: samples, unless several share an image."""
    gate: float
    gated_fraction: ByPass
    """Share of samples whose options had less probability than the gate, and were made uniform."""
    incoherence_bits: float
    """Bits by which the union information exceeds I(X1,X2;Y); the synergy is then below 0 and stays so."""
    coherence_1: Coherence
    coherence_2: Coherence
    quantisation_loss: float
    """ℓ1 + ℓ2 in bits, already inside `atoms.upper`."""
    max_points: int
    points: tuple[int, int]
    """Largest numbers of points of the two clouds."""
    parts: tuple[Part, ...]
    """One for each number of options."""
    intervals: tuple[Interval, ...]
    """One for each atom and the total; empty if no replicates were asked for."""
    notes: tuple[str, ...]
    """Sentences about what makes this result weak; empty if nothing does."""
    estimator: str = "clouds"


def clouds(
    p1: ArrayLike,
    p2: ArrayLike,
    p12: ArrayLike,
    *,
    confidences: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    gate: float = GATE,
    max_points: int = MAX_POINTS,
    options: ArrayLike | None = None,
    replicates: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> CloudEstimate:
    """Decompose what two sources tell about a model's own answer, from its posteriors [samples, options] in bits.

    >>> xor = [[1, 0], [0, 1], [0, 1], [1, 0]]
    >>> half = [[0.5, 0.5]] * 4
    >>> round(clouds(half, half, xor).atoms.synergy, 6)
    1.0

    1. Rows whose confidence is below `gate` become uniform. 2. p(y) is the average of p12. 3. p1 and p2 are made
    coherent with it (pid.coherence). 4. Clouds of more than `max_points` posteriors are quantised, which loses ℓ1 and
    ℓ2 bits (pid.quantise). 5. BROJA of the two clouds, solved with its enclosure; I∪ lies in [lower, upper + ℓ1 + ℓ2].
    The lesser unique atom is that of the quantised clouds, which is exact where it is 0. I(X1,X2;Y) is H(p(y)) −
    average H(p12). Samples are analysed for each number of options apart and pooled by weight, since a padded option
    would tell how many there are.

    Args:
        p1: p(y|x1) of each sample; NaN where it has no such option.
        p2: p(y|x2).
        p12: p(y|x1,x2).
        confidences: [3, samples], the probability that each pass put on the options.
        weights: [samples]; equal if not given.
        groups: [samples] labels of what the bootstrap draws as one, or [samples, 2] of two crossed labels.
        gate: least confidence, 0 to switch the gate off.
        max_points: most points of a cloud.
        options: number of options of each sample, where rows are padded with zeros.
        replicates: bootstrap replicates for intervals; 0 for none.
        level: nominal coverage of the intervals.
        seed: of the bootstrap.

    Raises:
        InvalidPosteriors: arrays that contradict each other, or rows that are no distributions.
        InvalidSetting: a gate, level, number of points or of replicates outside its range.
        TooFewSamples: intervals of fewer than two groups.
        SolverStalled: an enclosure stayed wider than 1e-6 bits.

    Source: Bertschinger et al. 2014 for the measure; gate and passes as in arXiv:2603.29676, whose defects this avoids.
    """
    said = Posteriors.read(p1, p2, p12, confidences=confidences, weights=weights, groups=groups, options=options)
    return estimate(said, gate=gate, max_points=max_points, replicates=replicates, level=level, seed=seed)


def estimate(
    said: Posteriors,
    *,
    gate: float = GATE,
    max_points: int = MAX_POINTS,
    replicates: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> CloudEstimate:
    """`clouds` of posteriors that were read before, as `Posteriors.of_pairs` gives them."""
    if max_points < 1:
        raise InvalidSetting(f"max_points is {max_points}; a cloud has at least 1 point: 64 is usual")
    gated, fraction = said.gated(gate)
    found = []
    for options, places, rows in gated.by_option_count():
        weight = float(gated.weights[places].sum())
        if weight > 0:
            found.append((options, len(places), weight, _part(rows, gated.weights[places] / weight, max_points)))
    share = np.array([weight for _, _, weight, _ in found])

    def pooled(name: str) -> float:
        return float(share @ [getattr(one, name) for *_, one in found])

    informations = (pooled("information_1"), pooled("information_2"), pooled("information_12"))
    atoms = Atoms.from_union(informations, pooled("union"), (pooled("lower"), pooled("upper")))
    drawn: tuple[Interval, ...] = ()
    if replicates:
        resampling = Resampling.of_groups(gated.groups, gated.weights)
        drawn = intervals(
            (*atoms.values, atoms.total),
            resampling,
            CloudReplicator(gated),
            level=level,
            replicates=replicates,
            seed=seed,
            most=float(share @ np.log2([options for options, *_ in found])),
        )
    return CloudEstimate(
        atoms=atoms,
        information_1=informations[0],
        information_2=informations[1],
        n=len(said),
        groups=int(gated.groups.max(0).max()) + 1,
        gate=gate,
        gated_fraction=fraction,
        incoherence_bits=max(0.0, -atoms.synergy),
        coherence_1=_pooled_coherence(share, [one.coherence[0] for *_, one in found]),
        coherence_2=_pooled_coherence(share, [one.coherence[1] for *_, one in found]),
        quantisation_loss=pooled("loss"),
        max_points=max_points,
        points=(max(one.points[0] for *_, one in found), max(one.points[1] for *_, one in found)),
        parts=tuple(Part(options, n, weight, one.atoms()) for options, n, weight, one in found),
        intervals=drawn,
        notes=_notes(gated, fraction),
    )


@dataclass(frozen=True)
class _Solved:
    """One number of options, solved; bits."""

    information_1: float
    information_2: float
    information_12: float
    union: float
    lower: float
    upper: float
    loss: float
    points: tuple[int, int]
    coherence: tuple[Coherence, Coherence]

    def atoms(self) -> Atoms:
        informations = (self.information_1, self.information_2, self.information_12)
        return Atoms.from_union(informations, self.union, (self.lower, self.upper))


def _part(rows: Array, weights: Array, max_points: int) -> _Solved:
    labels = weights @ rows[2]
    calibrated = [calibrate(one, weights, labels) for one in rows[:2]]
    first, second = (quantise(one, weights, max_points) for one, _ in calibrated)
    union = solve(_summing_to(first, labels)[None], _summing_to(second, labels)[None])
    loss = first.loss + second.loss
    floor, ceiling = max(first.information, second.information), first.information + second.information
    # Of the values in the enclosure, the one that leaves the lesser unique atom as the quantised clouds have it.
    known = max(first.information - first.loss, second.information - second.loss)
    value = floor + max(0.0, float(union.lower[0] + union.upper[0]) / 2 - known)
    lower = max(float(union.lower[0]), floor - ROUNDING)
    upper = min(float(union.upper[0]) + loss, ceiling + ROUNDING)
    return _Solved(
        information_1=first.information,
        information_2=second.information,
        information_12=float(mutual_information(rows[2] * weights[:, None])),
        union=min(max(value, lower, floor), upper, ceiling),
        lower=lower,
        upper=upper,
        loss=loss,
        points=(len(first.pairs), len(second.pairs)),
        coherence=(calibrated[0][1], calibrated[1][1]),
    )


def _summing_to(cloud: Cloud, labels: Array) -> Array:
    """The cloud's pair table with p(y) as its label marginal to the last digit; calibration leaves 1e-11."""
    sums = cloud.pairs.sum(0)
    return np.asarray(cloud.pairs * np.divide(labels, sums, out=np.zeros_like(sums), where=sums > 0))


def _pooled_coherence(share: Array, reports: list[Coherence]) -> Coherence:
    return Coherence(
        kl_bits=float(share @ [one.kl_bits for one in reports]),
        bias=max(one.bias for one in reports),
        moved=float(share @ [one.moved for one in reports]),
    )


def _notes(said: Posteriors, fraction: ByPass) -> tuple[str, ...]:
    notes = []
    for name, value in (("p1", fraction.p1), ("p2", fraction.p2), ("p12", fraction.p12)):
        if value > 0.5:
            notes.append(f"{value:.0%} of the rows of {name} were gated and made uniform: its pass says little")
    padded = 0
    for _, places, rows in said.by_option_count():
        empty = (rows[:, :, -1] == 0).all(0)
        padded += int(empty.sum()) if not empty.all() else 0
        if len(places) < 30:
            notes.append(f"{len(places)} samples with {rows.shape[2]} options are few: the bias may exceed the atoms")
    if padded:
        notes.append(
            f"the last option of {padded} rows is 0 in all passes: if it was not offered, the number of options is "
            "counted as information; pad with NaN, or pass options"
        )
    return tuple(notes)
