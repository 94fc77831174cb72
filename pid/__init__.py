"""Partial information decomposition of what picture and question tell about an answer: exact, certified, in bits.

`decompose` splits the information in a table, `clouds` that in a model's posteriors; both come with a proven enclosure.
The published estimator that they are compared with needs torch, and is imported by itself: `pid.batch`.
"""

from pid.atoms import ATOMS, Atoms
from pid.bias import Bias, cloud_bias, table_bias
from pid.bootstrap import Interval, paired_differences, table_intervals
from pid.clouds import CloudEstimate, Part, clouds, estimate
from pid.coherence import Coherence
from pid.decompose import decompose, decompose_many
from pid.errors import PidError
from pid.gates import GATES, Gate
from pid.joint import Joint
from pid.measures import CATALOGUE
from pid.measures.gaussian import gaussian
from pid.nulls import NullTest, null_test
from pid.posteriors import ByPass, Posteriors

__all__ = [
    "ATOMS",
    "CATALOGUE",
    "GATES",
    "Atoms",
    "Bias",
    "ByPass",
    "CloudEstimate",
    "Coherence",
    "Gate",
    "Interval",
    "Joint",
    "NullTest",
    "Part",
    "PidError",
    "Posteriors",
    "cloud_bias",
    "clouds",
    "decompose",
    "decompose_many",
    "estimate",
    "gaussian",
    "null_test",
    "paired_differences",
    "table_bias",
    "table_intervals",
]
