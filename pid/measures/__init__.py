"""The catalogue: every measure of a table by name, in reading order.

The Gaussian decomposition reads a covariance instead of a table; it is `pid.gaussian`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from pid.atoms import Atoms
from pid.errors import UnknownMeasure
from pid.joint import Joint
from pid.measures.broja import broja
from pid.measures.iccs import iccs
from pid.measures.imin import imin
from pid.measures.mmi import mmi

Measure = Callable[[Joint], Atoms]

CATALOGUE: Mapping[str, Measure] = MappingProxyType({"broja": broja, "imin": imin, "mmi": mmi, "iccs": iccs})
"""The measures of this package. No atom of broja, imin or mmi is negative; those of iccs can be."""

__all__ = ["CATALOGUE", "Measure", "find"]


def find(name: str) -> Measure:
    """The measure of that name.

    Raises:
        UnknownMeasure: there is none.
    """
    if name not in CATALOGUE:
        near = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UnknownMeasure(f"no measure is named {name!r}; {hint}known: {', '.join(CATALOGUE)}")
    return CATALOGUE[name]
