"""I_min: the specific information that both sources give about each label."""

from __future__ import annotations

import numpy as np

from pid.atoms import Atoms
from pid.joint import Array, Joint


def imin(joint: Joint) -> Atoms:
    """Redundancy as the expected least specific information.

    s_i(y) = Σ_x P(x_i = x | y) log2 [P(y | x_i = x) / P(y)]; redundancy = Σ_y P(y) min(s_1(y), s_2(y)).
    It takes equal amounts for equal content: two independent copied bits share one bit. Atoms are never negative.
    Source: Williams, Beer, Nonnegative decomposition of multivariate information, 2010, arXiv:1004.2515, eq. 2 and 4.
    """
    labels = joint.labels
    redundancy = float((labels * np.minimum(*(specific_information(one) for one in (joint.first, joint.second)))).sum())
    first, second = joint.information_1, joint.information_2
    return Atoms.from_union((first, second, joint.information_12), first + second - redundancy, measure="imin")


def specific_information(pairs: Array) -> Array:
    """s(y) in bits of a pair table [symbols, labels]; 0 for a label that never occurs."""
    symbols, labels = pairs.sum(1, keepdims=True), pairs.sum(0)
    positive = pairs > 0
    ratio = np.divide(pairs, symbols, out=np.ones_like(pairs), where=positive)
    ratio = np.divide(ratio, labels, out=np.ones_like(pairs), where=positive)
    given = np.divide(pairs, labels, out=np.zeros_like(pairs), where=positive)
    return np.asarray((given * np.log2(ratio)).sum(0))
