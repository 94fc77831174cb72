"""What a merged token counts as, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression.calibration import attention_of, logit_bias, sizes_after
from compression.compressor import Strategy
from compression.layer import Heads
from compression.selection import Selection
from compression.sight import LookingStrategy
from compression.strategies import CATALOGUE
from compression.strategies.visionzip import VisionZip


def test_an_output_counts_as_all_that_it_holds() -> None:
    # token 1 is in two outputs, a weight of zero holds nothing, and [CLS] is one more source
    made = Selection.merge(
        4,
        [0, 2, -1, -1],
        [([0, 1], [0.5, 0.5]), ([1, 2, 3], [0.2, 0.8, 0.0]), ([4], [1.0]), ([3, 0], [0.1, 0.9])],
        extra=1,
    )
    before = np.array([1.0, 2.0, 3.0, 4.0])
    assert sizes_after(made, before, "proportional").tolist() == [3.0, 5.0, 1.0, 5.0]
    assert sizes_after(made, before, "plain").tolist() == [1.0, 3.0, 1.0, 1.0]


def test_sizes_of_two_merges_multiply() -> None:
    pairs = Selection.merge(4, [0, 2], [([0, 1], [0.5, 0.5]), ([2, 3], [0.5, 0.5])])
    whole = Selection.merge(2, [0], [([0, 1], [0.5, 0.5])])
    first = sizes_after(pairs, np.ones(4), "proportional")
    assert sizes_after(whole, first, "proportional").tolist() == [4.0]
    assert sizes_after(pairs.then(whole), np.ones(4), "proportional").tolist() == [4.0]


def test_the_bias_stands_at_the_places_of_the_tokens() -> None:
    bias = logit_bias(5, np.array([3, 1]), np.array([4.0, 1.0]), torch.device("cpu"))
    assert bias is not None
    assert bias.tolist() == pytest.approx([0, 0, 0, np.log(4), 0])
    assert logit_bias(5, np.array([3, 1]), np.ones(2), torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("sees", "sees_of_many"),
    [(None, None), (torch.tensor([0, 2]), torch.tensor([0, 5]))],
    ids=["causal", "and what follows"],
)
def test_a_key_of_size_four_is_attended_as_four_equal_keys(
    sees: torch.Tensor | None, sees_of_many: torch.Tensor | None
) -> None:
    draw = torch.Generator().manual_seed(3)
    query, key = torch.randn(2, 3, 4, generator=draw), torch.randn(1, 3, 4, generator=draw)
    one = Heads(query, key, 0.5, bias=torch.tensor([0.0, np.log(4), 0.0], dtype=torch.float32))
    four = [0, 1, 1, 1, 1, 2]
    many = Heads(query[:, four], key[:, four], 0.5)
    rows = one.rows(torch.tensor([1]), sees=sees)
    spread = many.rows(torch.tensor([4]), sees=sees_of_many)
    torch.testing.assert_close(rows[:, 0, 1], spread[:, 0, 1:5].sum(-1))
    torch.testing.assert_close(rows[:, 0, [0, 2]], spread[:, 0, [0, 5]])


@pytest.mark.parametrize("kind", list(CATALOGUE), ids=lambda kind: kind.info.name)
def test_every_strategy_that_merges_visual_tokens_can_be_calibrated_and_no_other(kind: type[Strategy]) -> None:
    merges = "merges" in kind.info.reduces and not issubclass(kind, LookingStrategy)
    assert any(parameter.name == "attention" for parameter in kind.info.parameters) == merges


def test_attention_is_plain_unless_asked_for() -> None:
    assert attention_of(VisionZip()) == attention_of(CATALOGUE.build("divprune")) == "plain"
    assert attention_of(VisionZip(attention="proportional")) == "proportional"
