"""PruMerge+ against the loops of PruMerge, and its spaced tokens by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.strategies.prumerge_plus import PruMergePlus
from compression.tokens import Signal, VisualTokens
from tests.compression.strategies.test_prumerge import slow_merge, slow_outliers
from tests.contracts.toys import toy_grid, toy_tokens


def slow_choice(attention: list[float]) -> list[int]:
    """The released adaptive choice: outliers, then 0, s, 2s, ... below N - 1 with s = int(int(1/ratio)/3)."""
    total = len(attention)
    count = slow_outliers(attention)
    best = sorted(range(total), key=lambda i: (-attention[i], i))[:count]
    step = int(int(1 / (count / total)) / 3)
    return best + [i for i in range(0, total - 1, step) if i not in best]


@pytest.mark.parametrize("seed", range(5))
def test_without_a_budget_outputs_are_those_of_the_slow_reference(seed: int) -> None:
    tokens = toy_tokens(toy_grid((8, 8)), seed=seed, dtype=torch.float64)
    kept = slow_choice(tokens.signals[Signal.LAST_CLS_ATTENTION].float().tolist())
    selection = PruMergePlus().compress(tokens, None, Context())
    assert selection.anchor.tolist() == [*kept, -1]
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), slow_merge(tokens, kept), atol=1e-6)


def line(*attention: float) -> VisualTokens:
    """One row of tokens with this attention."""
    tokens = toy_tokens(toy_grid((1, len(attention))))
    told = {**tokens.signals, Signal.LAST_CLS_ATTENTION: torch.tensor(attention)}
    return VisualTokens.whole(tokens.features, tokens.grid, told)


def test_one_outlier_of_twelve_adds_every_fourth_token_by_hand() -> None:
    # one outlier: int(12/1) = 12, s = 4: positions 0, 4, 8 below 11, of which 8 is the outlier
    attention = [0.05] * 12
    attention[8] = 0.4
    assert PruMergePlus().compress(line(*attention), None, Context()).anchor.tolist() == [8, 0, 4, -1]


def test_with_a_budget_half_are_attended_and_half_are_spaced_by_hand() -> None:
    # 4 kept and the rest: 3 and 0 are attended; of 1 2 4 5 6 7 the places (1, 3) * 6 // 4 = 1 and 4
    tokens = line(0.3, 0.05, 0.05, 0.4, 0.05, 0.05, 0.05, 0.05)
    assert PruMergePlus().compress(tokens, 5, Context()).anchor.tolist() == [3, 0, 2, 6, -1]


@pytest.mark.parametrize(("share", "expected"), [(0.0, [1, 3, 5, 7]), (1.0, [3, 0, 1, 2]), (0.25, [3, 1, 4, 6])])
def test_the_share_says_how_many_are_attended(share: float, expected: list[int]) -> None:
    tokens = line(0.3, 0.05, 0.05, 0.4, 0.05, 0.05, 0.05, 0.05)
    assert PruMergePlus(share=share).compress(tokens, 5, Context()).anchor.tolist() == [*expected, -1]


@pytest.mark.parametrize("budget", range(1, 25))
def test_no_token_is_kept_twice(tokens_4x6: VisualTokens, budget: int) -> None:
    anchors = PruMergePlus().compress(tokens_4x6, budget, Context()).anchor
    kept = anchors[anchors >= 0]
    assert len(set(kept.tolist())) == len(kept)
    assert len(anchors) == budget


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_few_tokens_have_an_adaptive_result(tokens: int) -> None:
    flat = line(*[1 / (tokens + 1)] * tokens)
    anchors = PruMergePlus().compress(flat, None, Context()).anchor
    assert anchors[anchors >= 0].tolist() == list(range(max(1, tokens - 1)))


def test_in_raster_order_attended_and_spaced_tokens_mix() -> None:
    tokens = line(0.3, 0.05, 0.05, 0.4, 0.05, 0.05, 0.05, 0.05)
    assert PruMergePlus(order="raster").compress(tokens, 5, Context()).anchor.tolist() == [0, 2, 3, 6, -1]
