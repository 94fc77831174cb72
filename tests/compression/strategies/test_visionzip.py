"""VisionZip against loops, and its order, counts and weights by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.selection import Fate
from compression.strategies.visionzip import VisionZip
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_visionzip(tokens: VisualTokens, dominant: int, contextual: int) -> list[list[float]]:
    """The released rule for one view: [CLS] and dominant - 1 patches in raster order, then `contextual` sums."""
    features = tokens.features.double().tolist()
    attention = tokens.signals[Signal.CLS_ATTENTION].double().tolist()
    keys = tokens.signals[Signal.KEYS].double().tolist()
    total = [sum(head[i] for head in attention) for i in range(len(features))]
    best = sorted(range(len(features)), key=lambda i: (-total[i], i))[: dominant - 1]
    outputs = [tokens.signals[Signal.CLS_FEATURE][0].double().tolist()] + [features[i] for i in sorted(best)]
    rest = [i for i in range(len(features)) if i not in best]
    step = max(1, len(rest) // contextual) if contextual else 1
    targets = [rest[j * step] for j in range(contextual)]
    joined: dict[int, list[int]] = {target: [] for target in targets}

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    for i in rest if contextual else []:
        if i not in targets:
            joined[max(targets, key=lambda target: cosine(keys[i], keys[target]))].append(i)
    for target in targets:
        members = joined[target]
        mean = [sum(features[i][d] for i in members) / max(1, len(members)) for d in range(len(features[0]))]
        outputs.append([a + b for a, b in zip(features[target], mean, strict=True)])
    return outputs


@pytest.mark.parametrize(("budget", "contextual"), [(1, 0), (2, 0), (3, 0), (4, 1), (10, 2), (16, 3), (24, 4), (25, 4)])
@pytest.mark.parametrize("seed", [0, 1])
def test_outputs_are_those_of_the_slow_reference(seed: int, budget: int, contextual: int) -> None:
    tokens = toy_tokens(toy_grid((5, 5)), seed=seed, dtype=torch.float64)
    selection = VisionZip().compress(tokens, budget, Context())
    outputs = selection.apply(tokens.features, tokens.signals[Signal.CLS_FEATURE])
    expected = slow_visionzip(tokens, budget - contextual, contextual)
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("budget", "dominant", "contextual"), [(64, 54, 10), (128, 108, 20), (192, 162, 30)])
def test_the_usual_budgets_split_as_released(budget: int, dominant: int, contextual: int) -> None:
    tokens = toy_tokens(toy_grid((24, 24)))
    selection = VisionZip().compress(tokens, budget, Context())
    sizes = np.bincount(selection.weight_output, minlength=budget)
    assert (selection.anchor[:dominant] == -1).sum() == 1
    assert (np.diff(selection.anchor[:dominant]) > 0).all()
    assert (sizes[:dominant] == 1).all()
    assert sizes[dominant:].sum() == 576 - (dominant - 1)
    assert len(selection) - dominant == contextual


def by_hand() -> VisualTokens:
    """Six tokens in a row; attention prefers 4; the key of 1 is like that of 0, those of 3 and 5 like that of 2."""
    grid = TokenGrid.single(1, 6, (1, 6))
    keys = torch.tensor([[1.0, 0.0], [0.9, 0.1], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.1, 1.0]])
    signals = {
        Signal.CLS_ATTENTION: torch.tensor([[0.1, 0.1, 0.1, 0.1, 0.4, 0.1]]),
        Signal.KEYS: keys,
        Signal.CLS_FEATURE: torch.tensor([[100.0]]),
    }
    return VisualTokens.whole(torch.tensor([[1.0], [2.0], [4.0], [8.0], [16.0], [32.0]]), grid, signals)


def test_four_tokens_by_hand() -> None:
    # share .5 of 4: two contextual. Dominant [CLS] and 4; of 0 1 2 3 5 every second is a target: 0 and 2;
    # 1 joins 0, and 3 and 5 join 2.
    tokens = by_hand()
    selection = VisionZip(share=0.5).compress(tokens, 4, Context())
    assert selection.anchor.tolist() == [-1, 4, 0, 2]
    outputs = selection.apply(tokens.features, tokens.signals[Signal.CLS_FEATURE])
    assert outputs[:, 0].tolist() == [100, 16, 1 + 2, 4 + (8 + 32) / 2]
    averaged = VisionZip(share=0.5, merge="mean").compress(tokens, 4, Context())
    expected = torch.tensor([100, 16, (1 + 2) / 2, (4 + 8 + 32) / 3])
    torch.testing.assert_close(averaged.apply(tokens.features, tokens.signals[Signal.CLS_FEATURE])[:, 0], expected)


def test_without_cls_the_budget_is_patches_only() -> None:
    tokens = by_hand()
    selection = VisionZip(share=0.5, cls=False).compress(tokens, 4, Context())
    assert selection.extra == 0
    assert (selection.anchor >= 0).all()
    assert len(selection) == 4


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_contextual_weights_sum_as_the_rule_says(tokens_4x6: VisualTokens, merge: str) -> None:
    selection = VisionZip(merge=merge).compress(tokens_4x6, 10, Context())
    sums = np.bincount(selection.weight_output, weights=selection.weight_value)
    # target + mean(joined) weighs two, an average one
    np.testing.assert_allclose(sums[-2:], 2.0 if merge == "sum" else 1.0, rtol=1e-6)


def test_with_a_contextual_token_nothing_is_dropped(tokens_4x6: VisualTokens) -> None:
    assert VisionZip().compress(tokens_4x6, 4, Context()).counts()["dropped"] == 0


def test_a_budget_of_one_is_the_class_token_alone(tokens_4x6: VisualTokens) -> None:
    selection = VisionZip().compress(tokens_4x6, 1, Context())
    assert selection.anchor.tolist() == [-1]
    assert (selection.fate == Fate.DROPPED).all()


def test_views_share_the_budget_and_bring_their_own_class_token() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3)))
    selection = VisionZip().compress(tokens, 13, Context())
    alone = VisionZip().compress(toy_view(tokens, 0), 7, Context())
    assert selection.anchor[:7].tolist() == alone.anchor.tolist()
    assert selection.weight_token[selection.weight_token >= 33].tolist() == [33, 34]
    assert selection.extra == 2


def test_over_the_image_views_compete() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3)))
    hot = {**tokens.signals, Signal.CLS_ATTENTION: torch.cat([torch.zeros(1, 24), torch.ones(1, 9)], dim=1)}
    selection = VisionZip(per="image", share=0.0).compress(
        VisualTokens(tokens.features, tokens.grid, tokens.index, hot), 8, Context()
    )
    assert selection.anchor.tolist() == [-1, -1, 24, 25, 26, 27, 28, 29]


def toy_view(tokens: VisualTokens, view: int) -> VisualTokens:
    """One view of the tokens as an image of its own."""
    part = tokens.view_slices()[view]
    shape = tokens.grid.views[view]
    signals = {
        Signal.CLS_ATTENTION: tokens.signals[Signal.CLS_ATTENTION][:, part],
        Signal.KEYS: tokens.signals[Signal.KEYS][part],
        Signal.CLS_FEATURE: tokens.signals[Signal.CLS_FEATURE][view : view + 1],
    }
    return VisualTokens.whole(tokens.features[part], toy_grid((shape.rows, shape.cols)), signals)
