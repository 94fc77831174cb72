"""Partial information decomposition of what picture and question tell about an answer: exact, certified, in bits."""

from pid.atoms import ATOMS, Atoms
from pid.decompose import decompose, decompose_many
from pid.errors import PidError
from pid.gates import GATES, Gate
from pid.joint import Joint
from pid.measures import CATALOGUE
from pid.measures.gaussian import gaussian

__all__ = [
    "ATOMS",
    "CATALOGUE",
    "GATES",
    "Atoms",
    "Gate",
    "Joint",
    "PidError",
    "decompose",
    "decompose_many",
    "gaussian",
]
