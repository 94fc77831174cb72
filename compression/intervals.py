"""How sure a measured share is."""

from __future__ import annotations

import math

Z_95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


def wilson_interval(right: int, questions: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson score interval of a share; without a question, everything from 0 to 1.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).

    >>> tuple(round(bound, 3) for bound in wilson_interval(9, 10))
    (0.596, 0.982)

    Args:
        right: Questions answered right, 0..questions.
        questions: Questions asked, independent of each other.
        z: Quantile of the standard normal distribution.
    """
    if questions == 0:
        return 0.0, 1.0
    share, spread = right / questions, z * z / questions
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
