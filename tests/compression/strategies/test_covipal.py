"""CoViPAL's teacher by hand, and its layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.decoder import Act
from compression.errors import InvalidParameter, MissingSignal
from compression.strategies.covipal import CoViPAL
from compression.tokens import VisualTokens
from tests.contracts.toys import toy_context, toy_grid, toy_tokens


@pytest.mark.parametrize("budget", [1, 7, 24])
def test_it_keeps_what_the_slow_reference_keeps(tokens_4x6: VisualTokens, budget: int) -> None:
    teacher = toy_context(tokens_4x6).teacher
    assert teacher is not None
    total = sum(teacher.tolist())
    scores = [value / total for value in teacher.tolist()]
    selection = CoViPAL().compress(tokens_4x6, budget, Context(teacher=teacher))
    assert selection.anchor.tolist() == sorted(sorted(range(24), key=lambda token: (-scores[token], token))[:budget])
    np.testing.assert_allclose(selection.scores, scores, atol=1e-6)


def test_the_most_attended_stay_by_hand() -> None:
    tokens = toy_tokens(toy_grid((1, 4)))
    selection = CoViPAL().compress(tokens, 2, Context(teacher=torch.tensor([0.0, 3.0, 0.0, 1.0])))
    assert selection.anchor.tolist() == [1, 3]
    assert selection.scores is not None
    assert selection.scores.tolist() == [0.0, 0.75, 0.0, 0.25]
    nothing = CoViPAL().compress(tokens, 2, Context(teacher=torch.zeros(4)))
    assert nothing.anchor.tolist() == [0, 1]


def test_layers_scale_with_depth() -> None:
    assert CoViPAL().schedule(576, 192, 32) == (Act(2, 166),)
    assert [CoViPAL().teacher_layer(layers) for layers in (32, 6)] == [16, 3]
    assert (CoViPAL(layer=4).cut_layers(6), CoViPAL(guidance=4).teacher_layer(6)) == ((4,), 4)
    with pytest.raises(InvalidParameter, match="got layer 8"):
        CoViPAL(guidance=8).cut_layers(8)


def test_a_teacher_of_other_tokens_is_refused(tokens_4x6: VisualTokens) -> None:
    with pytest.raises(MissingSignal, match=r"'teacher_attention' over 24 visual tokens, got one of 9"):
        CoViPAL().compress(tokens_4x6, 3, Context(teacher=torch.ones(9)))


@pytest.mark.parametrize(("layer", "guidance", "layers"), [(20, 3, 32), (4, 4, 6), (5, None, 6)])
def test_a_guidance_layer_that_is_not_behind_the_cut_is_refused(layer: int, guidance: int | None, layers: int) -> None:
    with pytest.raises(InvalidParameter, match=f"behind the cut before layer {layer} of {layers}"):
        CoViPAL(layer=layer, guidance=guidance).cut_layers(layers)


def test_the_layer_that_is_left_out_lies_on_its_side_of_the_one_that_is_given() -> None:
    early, late = CoViPAL(guidance=2), CoViPAL(layer=20)
    assert (early.cut_layers(32), early.teacher_layer(32)) == ((1,), 2)
    assert (late.cut_layers(32), late.teacher_layer(32)) == ((20,), 21)
