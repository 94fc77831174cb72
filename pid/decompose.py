"""From tables to atoms: one, or many at once."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from pid.atoms import Atoms
from pid.errors import InvalidTable
from pid.joint import Joint
from pid.measures import find
from pid.measures.broja import broja_many


def decompose(table: ArrayLike, measure: str = "broja") -> Atoms:
    """Split I(X1,X2;Y) of a table p(x1, x2, y) into redundancy, unique and synergistic information, in bits.

    >>> import numpy as np
    >>> xor = np.zeros((2, 2, 2))
    >>> for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
    ...     xor[a, b, a ^ b] = 0.25
    >>> round(decompose(xor).synergy, 6)
    1.0

    Args:
        table: probabilities [first, second, labels], at least 0, summing to 1 within 1e-6 (and then renormalised).
        measure: "broja" (certified), "imin", "mmi" or "iccs".

    Raises:
        InvalidTable: the table is no distribution.
        UnknownMeasure: no measure has that name.
        SolverStalled: an enclosure stayed wider than 1e-6 bits.
    """
    return find(measure)(Joint.read(table))


def decompose_many(tables: Sequence[ArrayLike] | ArrayLike, measure: str = "broja") -> tuple[Atoms, ...]:
    """`decompose` of many tables; those of one shape are solved together, at a fraction of the time.

    Raises:
        InvalidTable: a table is no distribution; its place is named.
        UnknownMeasure: no measure has that name.
        SolverStalled: an enclosure stayed wider than 1e-6 bits.
    """
    decomposed = find(measure)
    joints = []
    for place, table in enumerate(tables):  # type: ignore[arg-type]
        try:
            joints.append(Joint.read(table))
        except InvalidTable as error:
            raise InvalidTable(f"table {place}: {error}") from error
    if measure != "broja":
        return tuple(decomposed(joint) for joint in joints)
    found: dict[int, Atoms] = {}
    for shape in {joint.table.shape for joint in joints}:
        places = [place for place, joint in enumerate(joints) if joint.table.shape == shape]
        found.update(zip(places, broja_many([joints[place] for place in places]), strict=True))
    return tuple(found[place] for place in range(len(joints)))
