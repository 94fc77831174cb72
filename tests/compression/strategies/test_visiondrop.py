"""VisionDrop's stage after the encoder against loops, and its released split."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.grid import TokenGrid
from compression.strategies.visiondrop import VisionDrop
from compression.tokens import Signal, VisualTokens
from tests.contracts.toys import toy_grid, toy_tokens


def slow_visiondrop(tokens: VisualTokens, d: int, c: int, *, mean: bool = False) -> list[list[float]]:
    """[CLS], the d patches of largest summed [CLS] attention ascending, and c contextual tokens of the rest."""
    features = tokens.features.double().tolist()
    heads = tokens.signals[Signal.CLS_ATTENTION].double().tolist()
    keys = tokens.signals[Signal.KEYS].double().tolist()
    unit = [[value / math.hypot(*key) for value in key] for key in keys]
    dominant: list[int] = []
    for _ in range(d):
        rest = [i for i in range(len(features)) if i not in dominant]
        dominant.append(max(rest, key=lambda i: (sum(head[i] for head in heads), -i)))
    outputs = tokens.signals[Signal.CLS_FEATURE].double().tolist() + [features[i] for i in sorted(dominant)]
    rest = [i for i in range(len(features)) if i not in dominant]
    targets = [rest[place] for place in range(0, len(rest), max(1, len(rest) // c))][:c]
    groups: dict[int, list[int]] = {target: [] for target in targets}
    for i in rest:
        if i not in groups:
            groups[max(targets, key=lambda t: sum(a * b for a, b in zip(unit[i], unit[t], strict=True)))].append(i)
    for target, joined in groups.items():
        dims = range(len(features[0]))
        if mean:
            outputs.append([sum(features[i][n] for i in [target, *joined]) / (1 + len(joined)) for n in dims])
        else:
            average = [sum(features[i][n] for i in joined) / max(1, len(joined)) for n in dims]
            outputs.append([features[target][n] + average[n] for n in dims])
    return outputs


@pytest.mark.parametrize("merge", ["sum", "mean"])
@pytest.mark.parametrize("seed", [0, 1])
def test_48_outputs_are_those_of_the_slow_reference(seed: int, merge: str) -> None:
    tokens = toy_tokens(toy_grid((9, 10)), seed=seed, dtype=torch.float64)
    selection = VisionDrop(merge=merge).compress(tokens, 48, Context())
    outputs = selection.apply(tokens.features, tokens.signals[Signal.CLS_FEATURE])
    expected = slow_visiondrop(tokens, 41, 6, mean=merge == "mean")
    np.testing.assert_allclose(outputs.numpy(), expected, atol=1e-6)


def test_the_released_split_counts_the_class_token() -> None:
    selection = VisionDrop().compress(toy_tokens(toy_grid((24, 24))), 48, Context())
    assert len(selection) == 48
    assert selection.anchor[0] == -1
    assert (np.diff(selection.anchor[1:42]) > 0).all()
    assert (np.diff(selection.anchor[42:]) > 0).all()
    assert np.bincount(selection.weight_output)[:42].tolist() == [1] * 42


def test_two_dominant_and_one_contextual_by_hand() -> None:
    # [CLS] and the best patch 1 are dominant; of 0 2 3 the first is the target, and 2 and 3 join it.
    signals = {
        Signal.CLS_ATTENTION: torch.tensor([[0.1, 0.2, 0.1, 0.1], [0.1, 0.3, 0.0, 0.1]]),
        Signal.KEYS: torch.ones(4, 2),
        Signal.CLS_FEATURE: torch.tensor([[100.0]]),
    }
    tokens = VisualTokens.whole(torch.tensor([[1.0], [2.0], [4.0], [8.0]]), TokenGrid.single(2, 2, (2, 2)), signals)
    selection = VisionDrop(share=1 / 3).compress(tokens, 3, Context())
    outputs = selection.apply(tokens.features, signals[Signal.CLS_FEATURE])
    assert outputs[:, 0].tolist() == [100, 2, 1 + (4 + 8) / 2]
    np.testing.assert_allclose(selection.scores, [0.2, 0.5, 0.1, 0.2], atol=1e-6)


@pytest.mark.parametrize("merge", ["sum", "mean"])
def test_weights_within_a_cluster_sum_as_the_rule_says(tokens_4x6: VisualTokens, merge: str) -> None:
    selection = VisionDrop(merge=merge).compress(tokens_4x6, 12, Context())
    sums = np.bincount(selection.weight_output, weights=selection.weight_value)
    np.testing.assert_allclose(sums[:10], 1)
    np.testing.assert_allclose(sums[10:], 2 if merge == "sum" else 1, rtol=1e-6)


def test_without_the_class_token_all_outputs_are_patches(tokens_4x6: VisualTokens) -> None:
    selection = VisionDrop(cls=False).compress(tokens_4x6, 12, Context())
    assert (selection.anchor >= 0).all()
    assert selection.extra == 0


def test_views_share_the_budget_or_compete() -> None:
    tokens = toy_tokens(toy_grid((4, 6), (3, 3)))
    apart = VisionDrop().compress(tokens, 8, Context())
    assert [(-1 if anchor < 0 else int(anchor >= 24)) for anchor in apart.anchor] == [-1, 0, 0, 0, -1, 1, 1, 1]
    together = VisionDrop(per="image").compress(tokens, 8, Context())
    assert together.anchor[:2].tolist() == [-1, -1]
    assert (np.diff(together.anchor[2:7]) > 0).all()
