"""Canonical distributions whose atoms are known, to test measures and estimators with.

The BROJA atoms are exact. Where they have a closed form it is written out; the decimals of the others, and the
redundancies of I_min, MMI and I_CCS, are those of public implementations (dit, BROJA_2PID; I_CCS of one only).

Sources: AND, XOR, UNQ, RDN, RDNXOR, RDNUNQXOR, IMPERFECTRDN: Griffith & Koch, Quantifying synergistic mutual
information, 2014, arXiv:1205.4265. BOOM, NOTTWO, PNTUNQ, DIFF, REDUCEDOR: as collected in James, Emenheiser,
Crutchfield, Unique information via dependency constraints, J. Phys. A 52 (2019) 014002, and in the package dit.
COPYCORR: Harder, Salge, Polani, Bivariate measure of redundant information, Phys. Rev. E 87 (2013) 012130.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import log2

import numpy as np

from pid.joint import Array, xlogx

Outcome = tuple[int, int, int]


@dataclass(frozen=True)
class Gate:
    """A distribution with known atoms in bits."""

    name: str
    outcomes: Mapping[Outcome, float]
    """Probability of each (x1, x2, y)."""
    redundancy: float
    unique_1: float
    unique_2: float
    synergy: float
    imin: float
    """Redundancy by I_min."""
    mmi: float
    """Redundancy by MMI."""
    iccs: float
    """Redundancy by I_CCS."""

    @property
    def table(self) -> Array:
        """p(x1, x2, y) [first, second, labels]."""
        table = np.zeros([1 + max(axis) for axis in zip(*self.outcomes, strict=True)])
        for outcome, mass in self.outcomes.items():
            table[outcome] = mass
        return table

    @property
    def values(self) -> tuple[float, float, float, float]:
        """The BROJA atoms in the order of `pid.atoms.ATOMS`."""
        return (self.redundancy, self.unique_1, self.unique_2, self.synergy)


def binary_entropy(p: float) -> float:
    """h(p) = −p log2 p − (1−p) log2 (1−p) in bits."""
    return float(-xlogx(np.array([p, 1 - p])).sum())


def _gate(
    name: str, listed: str | Mapping[Outcome, float], atoms: tuple[float, ...], others: tuple[float, ...]
) -> Gate:
    """A gate from "x1x2y" words of equal probability, or from probabilities."""
    if isinstance(listed, str):
        words = listed.split()
        listed = {(int(word[0]), int(word[1]), int(word[2])): 1 / len(words) for word in words}
    return Gate(name, listed, *atoms, *others)


def _composed(bits: int, first: str, second: str, target: str) -> dict[Outcome, float]:
    """Uniform bits; each variable is the tuple of the listed bits, of which "a^b" is one."""

    def read(words: str, drawn: Mapping[str, int]) -> int:
        value = 0
        for word in words.split():
            value = 2 * value + (sum(drawn[letter] for letter in word.split("^")) % 2)
        return value

    outcomes: dict[Outcome, float] = {}
    for number in range(2**bits):
        drawn = {letter: number >> place & 1 for place, letter in enumerate("abruv"[:bits])}
        outcome = (read(first, drawn), read(second, drawn), read(target, drawn))
        outcomes[outcome] = outcomes.get(outcome, 0.0) + 2.0**-bits
    return outcomes


_AND = binary_entropy(0.25) - 0.5
_THIRD = log2(3)
_NOISY = {(a, b, y): 0.25 * (0.9 if y == a ^ b else 0.1) for a in (0, 1) for b in (0, 1) for y in (0, 1)}
_UNIFORM = {(a, b, y): 0.125 for a in (0, 1) for b in (0, 1) for y in (0, 1)}
_RDNXOR = _composed(3, "r a", "r b", "r a^b")
_RDNUNQXOR = _composed(5, "r u a", "r v b", "r u v a^b")
_IMPERFECT = {(0, 0, 0): 0.499, (0, 1, 0): 0.001, (1, 1, 1): 0.5}
_REDUCEDOR = {(0, 0, 0): 0.5, (0, 1, 1): 0.25, (1, 0, 1): 0.25}

GATES = (
    _gate("RDN", "000 111", (1, 0, 0, 0), (1, 1, 1)),
    _gate("UNQ", "000 011 102 113", (0, 1, 1, 0), (1, 1, 0)),
    _gate("UNQ1", "000 010 101 111", (0, 1, 0, 0), (0, 0, 0)),
    _gate("XOR", "000 011 101 110", (0, 0, 0, 1), (0, 0, 0)),
    _gate("AND", "000 010 100 111", (_AND, 0, 0, 0.5), (_AND, _AND, 0.103759)),
    _gate("SUM", "000 011 101 112", (0.5, 0, 0, 1), (0.5, 0.5, 0)),
    _gate("XORAND", "000 012 102 111", (0.5, 0, 0, 1), (0.5, 0.5, 0)),
    _gate("IMPERFECTRDN", _IMPERFECT, (0.989590, 0.010410, 0, 0), (0.989590, 0.989590, 0.997559)),
    _gate("RDNXOR", _RDNXOR, (1, 0, 0, 1), (1, 1, 1)),
    _gate("RDNUNQXOR", _RDNUNQXOR, (1, 1, 1, 1), (2, 2, 1)),
    _gate(
        "COPYCORR", "000 011 112",
        (log2(3) - 4 / 3, 2 / 3, 2 / 3, 0), (_THIRD - 1, _THIRD - 2 / 3, 0.389975),
    ),
    _gate("REDUCEDOR", _REDUCEDOR, (_AND, 0, 0, 1 - _AND), (_AND, _AND, 0)),
    _gate("BOOM", "020 100 111 121 201 210", (0, 0.207519, 0, 0.792481), (0, 0, 0)),
    _gate("DIFF", "000 001 010 101", (0.122556, 0.188722, 0.188722, 0), (0.207519, _AND, 0.207519)),
    _gate("NOTTWO", "000 001 010 011 100 111", (0, 0, 0.081704, 0.251629), (0, 0, 0)),
    _gate("PNTUNQ", "011 101 022 202", (0.5, 0, 0, 0.5), (0.5, 0.5, 0)),
    _gate("NOISYXOR", _NOISY, (0, 0, 0, 1 - binary_entropy(0.1)), (0, 0, 0)),
    _gate("RND", _UNIFORM, (0, 0, 0, 0), (0, 0, 0)),
)  # fmt: skip
"""The gates in reading order."""
