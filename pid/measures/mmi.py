"""MMI: the lesser of the two mutual informations."""

from __future__ import annotations

from pid.atoms import Atoms
from pid.joint import Joint


def mmi(joint: Joint) -> Atoms:
    """Redundancy as min(I(X1;Y), I(X2;Y)), the largest that any non-negative decomposition allows.

    One unique atom is always 0. For a jointly Gaussian scalar Y it is what every measure gives whose redundancy depends
    on the pair marginals only.
    Source: Barrett, Exploration of synergistic and redundant information sharing, Phys. Rev. E 91 (2015)
    052802, eq. 17.
    """
    first, second = joint.information_1, joint.information_2
    return Atoms.from_union((first, second, joint.information_12), max(first, second), measure="mmi")
