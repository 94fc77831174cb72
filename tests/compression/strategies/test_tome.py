"""ToMe: its schedule, and the tower's pass with merging against one written with loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from compression.compressor import Context
from compression.errors import InvalidBudget, MissingSignal
from compression.merging import Merging
from compression.selection import Fate
from compression.sight import Prospect
from compression.strategies.tome import ToMe
from tests.compression.backends.conftest import photo, tiny_folder, tiny_vlm  # noqa: F401 (fixtures)
from tests.contracts.sights import ToySight


def prospect(*views: int, blocks: int = 24) -> Prospect:
    return Prospect((336, 336), views, (336, 336), lambda size: 576, blocks)


# ---------------------------------------------------------------- schedule
def test_the_papers_sixteen_a_block_leave_192_of_576():
    assert ToMe().reductions(576, 192, 24) == [16] * 24


def test_what_a_whole_r_merges_too_much_is_given_back_at_the_end():
    # r = 17 would leave 168 of 576 after 24 blocks; the 22 too many come from the last two blocks.
    assert ToMe().reductions(576, 190, 24) == [17] * 22 + [12, 0]


def test_no_block_merges_more_than_half():
    assert ToMe().reductions(16, 4, 3) == [4, 4, 4]
    assert ToMe().reductions(16, 3, 3) == [5, 5, 3]
    assert ToMe().reductions(16, 2, 3) == [8, 4, 2]
    assert ToMe().lowest(prospect(16, blocks=3)) == 2
    assert ToMe().lowest(prospect(15, blocks=3)) == 2  # 15 -> 8 -> 4 -> 2


@pytest.mark.parametrize(
    ("inflection", "schedule"), [(0.0, [8] * 5), (1.0, [0, 4, 8, 12, 16]), (-1.0, [16, 12, 8, 4, 0])]
)
def test_inflection_tilts_the_schedule_as_in_the_released_code(inflection, schedule):
    assert ToMe(inflection=inflection).schedule(8, 5) == schedule


def test_one_block_has_a_schedule_too():
    assert ToMe().schedule(8, 1) == [8]


@pytest.mark.parametrize("inflection", [-1.0, -0.3, 0.0, 0.5, 1.0])
@pytest.mark.parametrize("tokens", [1, 2, 7, 256, 577])
@pytest.mark.parametrize("blocks", [1, 4, 23])
def test_exactly_the_budget_is_left_down_to_the_lowest(inflection, tokens, blocks):
    strategy = ToMe(inflection=inflection)
    lowest = strategy.lowest(prospect(tokens, blocks=blocks))
    for budget in sorted({lowest, (lowest + tokens) // 2, max(lowest, tokens - 1), tokens}):
        left = tokens
        for count in strategy.reductions(tokens, budget, blocks):
            assert 0 <= count <= left // 2
            left -= count
        assert left == budget


def test_views_share_the_budget_by_their_sizes_and_none_gets_less_than_it_can_reach():
    seen = []

    class Noting(ToySight):
        prospect = prospect(36, 24, 9, 1, blocks=2)

        def encode_merged(self, merging: Merging):
            seen.append(
                [tokens - sum(counts) for tokens, counts in zip((36, 24, 9, 1), merging.reductions, strict=True)]
            )
            return ToySight().encode_merged(Merging(((0, 0), (0, 0))))

    ToMe().look(Noting(), 35, Context())
    ToMe().look(Noting(), 19, Context())
    assert seen == [[17, 12, 5, 1], [9, 6, 3, 1]]


def test_what_cannot_be_reached_is_refused_with_the_lowest():
    with pytest.raises(InvalidBudget, match="2 blocks leave at least 15 of 60") as raised:
        ToMe().look(ToySight(), 14, Context())
    assert raised.value.lowest == 15
    with pytest.raises(MissingSignal, match="encoder_blocks"):
        ToMe().look(ToySight(has_blocks=False), 60, Context())


# ---------------------------------------------------------------- the tower
def test_without_merging_the_tower_is_the_stock_tower_to_the_bit(tiny_vlm, photo):  # noqa: F811
    stock = tiny_vlm.encode(photo, (32, 32))
    tokens, selection = tiny_vlm.encode_merged(photo, (32, 32), Merging(((0, 0),)))
    assert torch.equal(tokens.features, stock.features)
    assert all(torch.equal(value, stock.signals[name]) for name, value in tokens.signals.items())
    assert selection.is_pruning
    assert tokens.grid == stock.grid


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("reductions", [(1, 0), (0, 3), (5, 2), (8, 4)])
def test_the_tower_with_merging_is_the_one_written_with_loops(tiny_vlm, photo, reductions, proportional):  # noqa: F811
    tokens, selection = tiny_vlm.encode_merged(photo, (32, 32), Merging((reductions,), proportional))
    features, groups = tower_with_loops(tiny_vlm, photo, reductions, proportional)
    assert [sorted(np.flatnonzero(selection.target == anchor).tolist()) for anchor in selection.anchor] == groups
    for output, members in enumerate(groups):
        for member in members:
            torch.testing.assert_close(tokens.features[member].double(), features[output], atol=1e-4, rtol=1e-4)
    made = selection.apply(tokens.features).double()
    torch.testing.assert_close(made, torch.stack(features), atol=1e-4, rtol=1e-4)
    assert len(selection) == 16 - sum(reductions)


def test_the_two_ways_of_attending_differ_once_something_is_merged(tiny_vlm, photo):  # noqa: F811
    one, _ = tiny_vlm.encode_merged(photo, (32, 32), Merging(((8, 0),), True))
    other, _ = tiny_vlm.encode_merged(photo, (32, 32), Merging(((8, 0),), False))
    assert not torch.allclose(one.features, other.features)


def tower_with_loops(vlm, image, reductions, proportional):
    """Features of the groups and their members, groups by their anchor: attention, merging and MLP token by token."""
    tower = vlm.model.model.vision_tower
    hidden = tower.pre_layrnorm(tower.embeddings(vlm.pixels([image])))[0].double()
    # each a feature, its members, and its anchor; the class token first
    states = [(hidden[0], [], -1)] + [(row, [at], at) for at, row in enumerate(hidden[1:])]
    for layer, count in zip(tower.encoder.layers, reductions, strict=False):
        attention, sizes = layer.self_attn, [max(1, len(members)) for _, members, _ in states]
        normed = [layer.layer_norm1(row.float()).double() for row, _, _ in states]
        heads, width = attention.num_heads, attention.head_dim
        query, key, value = (
            [part(row.float()).double().reshape(heads, width) for row in normed]
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        attended = []
        for at, (row, members, anchor) in enumerate(states):
            mixed = []
            for head in range(heads):
                logits = torch.stack([query[at][head] @ one[head] / math.sqrt(width) for one in key])
                if proportional:
                    logits = logits + torch.tensor(sizes, dtype=torch.float64).log()
                shares = logits.softmax(0)
                mixed.append(sum(share * one[head] for share, one in zip(shares, value, strict=True)))
            attended.append((row + attention.out_proj(torch.cat(mixed).float()).double(), members, anchor))
        keys = [one.mean(0) for one in key]
        states = merge_with_loops(attended, keys, count)
        states = [(row + layer.mlp(layer.layer_norm2(row.float())).double(), *rest) for row, *rest in states]
    ordered = sorted(states[1:], key=lambda state: state[2])
    return [row for row, _, _ in ordered], [sorted(members) for _, members, _ in ordered]


def merge_with_loops(states, keys, count):
    """The strongest links of the even places to the odd ones; the class token is at place 0 and takes no part."""
    if count == 0:
        return states
    even, odd = range(2, len(states), 2), range(1, len(states), 2)
    links = []
    for a in even:
        similar = [float(torch.nn.functional.cosine_similarity(keys[a], keys[b], dim=0)) for b in odd]
        links.append((max(similar), a, odd[int(np.argmax(similar))]))
    joins = {a: b for _, a, b in sorted(links, key=lambda link: -link[0])[:count]}
    made = [states[0]] + [states[a] for a in even if a not in joins]
    for b in odd:
        parts = [states[b]] + [states[a] for a in even if joins.get(a) == b]
        size = sum(len(members) for _, members, _ in parts)
        row = sum(len(members) * row for row, members, _ in parts) / size
        made.append((row, [one for _, members, _ in parts for one in members], states[b][2]))
    return made


def test_padding_is_never_merged():
    looked = ToMe().look(ToySight(), 20, Context())  # the second tile holds 24 tokens and 12 of padding
    assert looked.selection.tokens == 60
    assert len(looked.selection) == 20
    assert not (looked.selection.fate == Fate.DROPPED).any()
    view = looked.tokens.grid.view_indices()
    assert (view[looked.selection.target] == view).all()


def test_what_was_done_is_told():
    told = ToMe().look(ToySight(), 30, Context()).selection.diagnostics["merged per block"]
    assert told == [[9, 9], [6, 6]]


def test_each_parameter_changes_what_is_merged():
    plain, rising, flat = (
        one.look(ToySight((48, 48)), 90, Context()).tokens.features
        for one in (ToMe(), ToMe(inflection=1.0), ToMe(proportional=False))
    )
    assert not torch.allclose(plain, rising)
    assert not torch.allclose(plain, flat)
