"""Parent maps of tokens: where following the parents ends, and where it never ends.

A parent map is int64 [tokens]; each token points at one token, perhaps itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def jump(parent: NDArray[np.int64], rounds: int) -> NDArray[np.int64]:
    """Follow the parents by pointer jumping, root = root[root], until nothing changes or the rounds are used up.

    After t rounds a token has followed 2^t parents. A map without cycles is settled after ceil(log2(tokens)) rounds.

    >>> jump(np.array([0, 0, 1, 2]), 12).tolist()
    [0, 0, 0, 0]
    """
    root = parent
    for _ in range(rounds):
        following = root[root]
        if np.array_equal(following, root):
            break
        root = following
    return root


def count_cycles(parent: NDArray[np.int64]) -> int:
    """The number of cycles of at least two tokens.

    >>> count_cycles(np.array([1, 0, 1, 3]))
    1
    """
    smallest = np.arange(len(parent))  # within 2^t steps: one name per cycle once 2^t reaches its length
    ahead = parent
    for _ in range(max(1, len(parent).bit_length())):
        smallest = np.minimum(smallest, smallest[ahead])
        ahead = ahead[ahead]
    ends = np.unique(ahead)  # more steps than tokens were made, so only cycles and fixed points are left
    return len(np.unique(smallest[ends[parent[ends] != ends]]))
