"""Fixtures that many tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

from compression.grid import TokenGrid
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_tokens

# The same examples on every machine and every day: a failure can be repeated.
settings.register_profile("keepmap", derandomize=True, deadline=None, database=None)
settings.load_profile("keepmap")


@pytest.fixture
def grid_4x6() -> TokenGrid:
    """One view of 4 rows and 6 columns over an image of 40 x 60 pixels."""
    return TokenGrid.single(4, 6, (40, 60))


@pytest.fixture
def tokens_4x6(grid_4x6: TokenGrid) -> VisualTokens:
    """Random tokens on `grid_4x6` with every signal."""
    return toy_tokens(grid_4x6)
