"""Bipartite matching between two halves of a block, by hand and against the rule written with loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from compression.errors import InvalidBudget
from compression.merging import Groups, grouped, merge_within
from compression.selection import Fate


def by_hand() -> Groups:
    """Five tokens whose only feature is their number."""
    return Groups.single(torch.arange(5.0)[None, :, None])


def test_the_strongest_links_are_merged_by_hand():
    # Behind a class token, tokens 1 and 3 are linked to tokens 0, 2, 4. Token 1 is as token 4, token 3 nearly as 0.
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.1], [0.0, 2.0]]])
    groups = by_hand().merged(keys, 1)
    # The link 1-4 is the strongest: left are 3, then 0, 2 and the mean of 4 and 1.
    assert groups.hidden[0, :, 0].tolist() == [3.0, 0.0, 2.0, 2.5]
    assert groups.size[0].tolist() == [1, 1, 1, 2]
    assert groups.anchor[0].tolist() == [3, 0, 2, 4]
    assert groups.owner[0].tolist() == [1, 3, 2, 0, 3]
    both = by_hand().merged(keys, 2)
    assert both.hidden[0, :, 0].tolist() == [1.5, 2.0, 2.5]
    assert both.anchor[0].tolist() == [0, 2, 4]


def test_a_merged_token_weighs_as_many_as_it_is_made_of():
    keys = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.1], [0.0, 2.0]]])
    once = by_hand().merged(keys, 2)  # (0, 3), 2, (4, 1)
    twice = once.merged(torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]]), 1)  # the group at 1 joins that at 0
    assert twice.hidden[0, :, 0].tolist() == pytest.approx([(0 + 3 + 2) / 3, 2.5])
    assert twice.size[0].tolist() == [3, 2]
    assert twice.owner[0].tolist() == [0, 1, 0, 0, 1]


def test_equal_links_go_to_the_lower_index():
    keys = torch.ones(1, 6, 2)
    groups = Groups.single(torch.arange(6.0)[None, :, None]).merged(keys, 2)
    assert groups.owner[0].tolist() == [1, 1, 2, 1, 3, 0]  # 1 and 3 join 0; 5 stays


def test_zero_keys_give_numbers():
    groups = Groups.single(torch.ones(1, 4, 3)).merged(torch.zeros(1, 4, 2), 2)
    assert groups.hidden.isfinite().all()
    assert groups.size.sum() == 4


@pytest.mark.parametrize("count", [-1, 3])
def test_more_than_half_is_refused(count):
    with pytest.raises(InvalidBudget, match=f"at most half of its 5 tokens, got {count}"):
        by_hand().merged(torch.ones(1, 5, 2), count)


def test_merging_nothing_is_the_same_object():
    groups = by_hand()
    assert groups.merged(torch.ones(1, 5, 2), 0) is groups


@pytest.mark.parametrize("count", [0, 1, 4, 8])
def test_the_rule_with_loops_gives_the_same_groups(count):
    draw = torch.Generator().manual_seed(count)
    hidden, keys = torch.randn(2, 17, 5, generator=draw), torch.randn(2, 17, 3, generator=draw)
    groups = Groups.single(hidden).merged(keys, count)
    for view in range(2):
        owner, made = one_merge(hidden[view].double().numpy(), keys[view].double().numpy(), count)
        assert groups.owner[view].tolist() == owner
        np.testing.assert_allclose(groups.hidden[view].numpy(), made, atol=1e-6)


def one_merge(hidden, keys, count):
    """The rule as it is written: links, the strongest of them, unmerged tokens of the first set, then the second."""
    if count == 0:
        return list(range(len(keys))), hidden
    first, second = range(1, len(keys), 2), range(0, len(keys), 2)
    links = []
    for a in first:
        similar = [keys[a] @ keys[b] / np.linalg.norm(keys[a]) / np.linalg.norm(keys[b]) for b in second]
        best = max(range(len(similar)), key=lambda at: (similar[at], -at))
        links.append((similar[best], a, second[best]))
    strongest = sorted(links, key=lambda link: (-link[0], link[1]))[:count]
    joins = {a: b for _, a, b in strongest}
    outputs = [a for a in first if a not in joins] + list(second)
    owner = [outputs.index(joins.get(token, token)) for token in range(len(keys))]
    made = [np.mean([hidden[t] for t in range(len(keys)) if owner[t] == at], axis=0) for at in range(len(outputs))]
    return owner, made


class Sum:
    """A block whose attention adds the bias of every key, and whose MLP counts."""

    def __init__(self) -> None:
        self.heard: list[list[float] | None] = []
        self.fed: list[int] = []

    def attend(self, hidden, bias):
        self.heard.append(None if bias is None else bias[0, 0, 0].exp().round().int().tolist())
        return hidden, hidden

    def feed(self, hidden):
        self.fed.append(hidden.shape[1])
        return hidden


def test_sizes_are_told_to_the_attention_of_later_blocks_only():
    block = Sum()
    hidden = torch.tensor([[9.0, 1.0, 1.0, -1.0, 1.0, 7.0]])[..., None]  # class token, four tokens, one of padding
    front, groups = merge_within([block, block], hidden, 4, [2, 0])
    assert block.heard == [None, [1, 3, 1, 1]]
    assert block.fed == [4, 4]
    assert front.flatten().tolist() == [9.0]
    assert groups.hidden.flatten().tolist() == [1.0, -1.0]
    plain = Sum()
    merge_within([plain, plain], hidden, 4, [2, 0], proportional=False)
    assert plain.heard == [None, None]


def test_groups_become_a_selection_in_raster_order():
    selection = grouped(np.array([4, 1, 1, 4, 4]))
    assert selection.anchor.tolist() == [1, 4]
    assert selection.fate.tolist() == [Fate.MERGED, Fate.KEPT, Fate.MERGED, Fate.MERGED, Fate.KEPT]
    assert selection.target.tolist() == [4, 1, 1, 4, 4]
    assert selection.apply(torch.tensor([[3.0], [1.0], [2.0], [6.0], [9.0]])).flatten().tolist() == [1.5, 6.0]
