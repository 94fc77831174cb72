"""The result of a decomposition: four atoms in bits, with the enclosure of the union information that proves them."""

from __future__ import annotations

from dataclasses import dataclass

ATOMS = ("redundancy", "unique_1", "unique_2", "synergy")
"""Names of the atoms in reading order."""


@dataclass(frozen=True)
class Atoms:
    """What two sources tell about a target, split into four atoms; everything in bits.

    redundancy + unique_1 = I(X1;Y), redundancy + unique_2 = I(X2;Y), and all four sum to `total` = I(X1,X2;Y)
    (Williams & Beer 2010, arXiv:1004.2515). The union information redundancy + unique_1 + unique_2 lies between `lower`
    and `upper`; each atom is off by at most that width.
    """

    redundancy: float
    """Told by either source alone."""
    unique_1: float
    """Told by the first source only."""
    unique_2: float
    """Told by the second source only."""
    synergy: float
    """Told by both together and by none alone."""
    total: float
    """I(X1,X2;Y)."""
    lower: float
    """Proven lower bound of the union information I(X1;Y) + unique_2."""
    upper: float
    """Proven upper bound of the union information."""
    residual: float
    """Largest amount by which an identity between atoms and mutual information fails; rounding, 1e-12 at most."""
    measure: str
    """Name of the measure in the catalogue."""

    @classmethod
    def from_union(
        cls,
        informations: tuple[float, float, float],
        union: float,
        bounds: tuple[float, float] | None = None,
        measure: str = "broja",
    ) -> Atoms:
        """Atoms of (I(X1;Y), I(X2;Y), I(X1,X2;Y)) and the union information, by the identities above."""
        first, second, both = (float(value) for value in informations)
        redundancy, unique_1, unique_2, synergy = first + second - union, union - second, union - first, both - union
        lower, upper = bounds or (union, union)
        parts = (
            redundancy + unique_1 - first,
            redundancy + unique_2 - second,
            redundancy + unique_1 + unique_2 + synergy - both,
        )
        residual = max(abs(part) for part in parts)
        return cls(
            float(redundancy), float(unique_1), float(unique_2), float(synergy), both,
            float(lower), float(upper), float(residual), measure,
        )  # fmt: skip

    @property
    def union(self) -> float:
        """Union information: redundancy + unique_1 + unique_2, what the two sources tell without being combined."""
        return self.total - self.synergy

    @property
    def width(self) -> float:
        """Width of the enclosure, upper − lower."""
        return self.upper - self.lower

    @property
    def values(self) -> tuple[float, float, float, float]:
        """The four atoms in the order of `ATOMS`."""
        return (self.redundancy, self.unique_1, self.unique_2, self.synergy)
