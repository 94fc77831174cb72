"""ApET's stage inside the language model against loops, its slots by hand, and the released mean."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.decoder import Act
from compression.grid import TokenGrid
from compression.selection import Fate
from compression.strategies.apet_stage import ApETStage
from compression.tokens import VisualTokens
from tests.compression.strategies.test_apet import slow_basis, slow_errors
from tests.contracts.toys import toy_context, toy_grid, toy_state, toy_tokens


def slow_stage(
    features: list[list[float]], budget: int, basis: list[int], ridge: float, blend: float, scaling: float
) -> list[list[float]]:
    """The stage inside the language model: slot order[K-M+j] receives basis j; outputs by place."""
    tokens, dims = range(len(features)), range(len(features[0]))
    error = slow_errors(features, basis, ridge)
    order = sorted(tokens, key=lambda i: (-error[i], i))[:budget]
    filled = min(len(basis), budget - 1)
    worst, slots = order[: budget - filled], order[budget - filled :]

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    # A basis token that has a place among the outputs anyway is not put there twice.
    outputs = {}
    for at, place in enumerate(slots):
        new = features[basis[at] if basis[at] not in order else place]
        outputs[place] = [(1 - blend) * new[d] + blend * features[place][d] for d in dims]
    for place in worst:
        group = []
        for i in tokens:
            if i not in order and max(worst, key=lambda w: cosine(features[i], features[w])) == place:
                group.append(i)
        own = scaling if group else 1.0
        outputs[place] = [
            (own * features[place][d] + sum(features[i][d] for i in group)) / (own + len(group)) for d in dims
        ]
    return [outputs[place] for place in sorted(outputs)]


@pytest.mark.parametrize(
    "changed", [{}, {"basis": 4}, {"blend": 0.5, "ridge": 0.1}, {"scaling": 0.0}, {"scaling": 3.0, "basis": 4}]
)
@pytest.mark.parametrize("budget", [1, 2, 10, 11, 20, 39])
def test_outputs_are_those_of_the_slow_reference(budget: int, changed: dict[str, float]) -> None:
    tokens = toy_tokens(toy_grid((5, 8)), dim=24, dtype=torch.float64)
    strategy = ApETStage(start="first", **changed)  # type: ignore[arg-type]
    selection = strategy.compress(tokens, budget, toy_context(tokens))
    features = tokens.features.tolist()
    basis = slow_basis(features, strategy.basis, 0)
    expected = slow_stage(features, budget, basis, strategy.ridge, strategy.blend, strategy.scaling)
    np.testing.assert_allclose(selection.apply(tokens.features).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(selection.scores, slow_errors(features, basis, strategy.ridge), atol=1e-4)
    assert len(set(selection.anchor.tolist())) == budget


def test_slots_are_filled_in_the_order_of_their_errors_by_hand() -> None:
    # With token 0 as the basis the errors are the second coordinates: 0, 1, 4, 2, 3. Of three outputs tokens 2 and 4
    # are kept for their error and 3 is the slot of the basis; token 1 and the basis join 4, which is more like them.
    features = torch.tensor([[10.0, 0.0], [5.0, 1.0], [0.0, 4.0], [1.0, 2.0], [6.0, 3.0]])
    tokens = VisualTokens.whole(features, TokenGrid.single(1, 5, (1, 5)))
    selection = ApETStage(basis=1, start="first").compress(tokens, 3, Context(state=toy_state(tokens)))
    np.testing.assert_allclose(selection.scores, [0, 1, 4, 2, 3], atol=1e-5)
    expected = torch.tensor([[0.0, 4.0], [10.0, 0.0], [(6 + 10 + 5) / 3, (3 + 0 + 1) / 3]])
    torch.testing.assert_close(selection.apply(features), expected)
    assert selection.anchor.tolist() == [2, 0, 4]
    assert selection.fate.tolist() == [Fate.KEPT, Fate.MERGED, Fate.KEPT, Fate.DROPPED, Fate.KEPT]


def test_the_start_is_that_of_the_seed_the_mean_or_the_first() -> None:
    tokens = toy_tokens(toy_grid((5, 8)), dim=24)
    context = toy_context(tokens)

    def first(start: str, seed: int = 0) -> int:
        made = ApETStage(start=start).compress(tokens, 20, replace(context, seed=seed))
        return int(made.diagnostics["basis"][0])

    assert first("first") == 0
    assert first("mean") == int((tokens.features - tokens.features.mean(0)).norm(dim=1).argmax())
    assert first("random", 3) == first("random", 3)
    assert len({first("random", seed) for seed in range(8)}) > 2


def test_a_basis_of_density_peaks_has_one_state_of_each_heap() -> None:
    heaps = torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0], [0, 0, 9.0, 0]]).repeat_interleave(6, dim=0)
    draw = torch.randn(18, 4, generator=torch.Generator().manual_seed(3))
    tokens = VisualTokens.whole(heaps + 0.1 * draw, TokenGrid.single(3, 6, (3, 6)))
    context = Context(state=toy_state(tokens))
    selection = ApETStage(by="density", basis=3).compress(tokens, 8, context)
    assert sorted(token // 6 for token in selection.diagnostics["basis"]) == [0, 1, 2]


def test_a_random_basis_is_drawn_from_the_seed() -> None:
    tokens = toy_tokens(toy_grid((5, 8)), dim=24)
    context = toy_context(tokens)
    drawn = ApETStage(by="random").compress(tokens, 20, replace(context, seed=4)).diagnostics["basis"]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(4))[:10].tolist()
    assert drawn == [token for token in order if token in drawn]
    assert len(drawn) == 10


def test_the_released_64_is_96_tokens_and_32_behind_layer_16_of_32() -> None:
    assert ApETStage().schedule(96, 64, 32) == (Act(16, 32),)
    assert ApETStage(layer=2).cut_layers(6) == (2,)
    assert ApETStage().convention == "renumbered"
