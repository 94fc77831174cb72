"""Qwen2.5-VL and Qwen3-VL: what their towers, their position ids and their deep-stack planes ask for beyond the checks
of every family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from analysis.recorder import Recorder
from compression.backends.axes import Axes, places_on
from compression.backends.base import Intervention, Prompt
from compression.backends.prefill import prefill
from compression.decoder import DecoderStrategy
from compression.errors import ModelUnavailable
from compression.grid import TokenGrid, View
from compression.selection import Fate, Selection
from compression.strategies import CATALOGUE
from compression.tokens import Signal, VisualTokens
from compression.zooming.lens import joined
from tests.compression.backends.families import FAMILIES, Family, Size, ids_of_axes
from tests.compression.backends.test_families import QUESTION, TEXT, WORDS, Case, gradient, prompt, said_logs
from tests.compression.backends.test_inside import RETURNING, WHOLE
from tests.compression.backends.test_llava import hooks_on

QWEN = tuple(family for family in FAMILIES if family.axes == 3)
INSIDE = tuple(kind.info.name for kind in CATALOGUE if issubclass(kind, DecoderStrategy))
STRATEGIES = tuple(
    f"{name}:{','.join(filter(None, [f'positions={way}', WHOLE.get(name)]))}@{budget}"
    for name in INSIDE
    if name not in RETURNING  # asks for what a tower without [CLS] cannot give
    for way in ("original", "renumbered")
    for budget in (CATALOGUE.build(name).lowest(18, 4), 14)  # the first empties whole rows and columns
)
SMALL: Size = (50, 100)
EVERY = Selection.prune(30, np.arange(30))
_CASES: dict[tuple[str, Size], Case] = {}


def made(family: Family, size: Size, factory: pytest.TempPathFactory) -> Case:
    if (family.name, size) not in _CASES:
        _CASES[family.name, size] = Case(family, size, family.save(factory.mktemp(family.name)))
    return _CASES[family.name, size]


@pytest.fixture(params=QWEN, ids=lambda family: family.name)
def qwen(request, tmp_path_factory) -> Case:
    """Either family on a picture of 3 x 6 tokens."""
    return made(request.param, SMALL, tmp_path_factory)


@pytest.fixture(
    params=[(family, size) for family in QWEN for size in family.sizes], ids=lambda one: f"{one[0].name}-{one[1]}"
)
def sized(request, tmp_path_factory) -> Case:
    """Either family on a picture of each size."""
    return made(*request.param, tmp_path_factory)


@pytest.fixture
def qwen3(tmp_path_factory) -> Case:
    """Qwen3-VL on a picture of 3 x 6 tokens."""
    return made(QWEN[1], SMALL, tmp_path_factory)


# ---------------------------------------------------------------------- tower
def window_order(rows: int, cols: int, window: int) -> list[int]:
    """Tokens in the order of the tower: window by window, each row by row."""
    found = []
    for top in range(0, rows, window):
        for left in range(0, cols, window):
            for row in range(top, min(top + window, rows)):
                found += [row * cols + col for col in range(left, min(left + window, cols))]
    return found


@torch.no_grad()
def test_signals_are_those_of_the_last_block_that_sees_the_whole_image(sized: Case) -> None:
    """The rows are those of the queries and keys that the kernel itself was given."""
    seen: dict[Any, list[tuple[Tensor, Tensor, float]]] = {}

    def spy(module, query, key, value, attention_mask, scaling=None, **kwargs):
        seen.setdefault(module, []).append((query, key, scaling))
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)

    AttentionInterface.register("spying", spy)
    watched = sized.family.model.from_pretrained(
        sized.folder, attn_implementation={"vision_config": "spying", "text_config": "sdpa"}
    ).eval()
    tower = watched.model.visual
    linear: dict[Any, Tensor] = {}
    for block in tower.blocks:
        block.attn.qkv.register_forward_hook(lambda module, _, output: linear.__setitem__(module, output))
    watched.get_image_features(**sized.family.read(sized.folder, sized.image), return_dict=True)
    view = sized.tokens.grid.views[0]
    patches = 4 * len(view)
    whole = [block.attn for block in tower.blocks if seen[block.attn][0][0].shape[2] == patches]
    if sized.family.name == "qwen2_5_vl":
        order = window_order(view.rows, view.cols, 4)
        if max(view.rows, view.cols) > 4:
            assert [len(seen[block.attn]) > 1 for block in tower.blocks] == [False, True, False, True]
        last = tower.blocks[2].attn
    else:
        order = list(range(len(view)))
        last = tower.blocks[3].attn
    assert last in whole
    ((query, key, scaling),) = seen[last]
    weights = (query[0] @ key[0].mT * scaling).softmax(-1)
    assert torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-5)
    keys = linear[last.qkv].unflatten(1, (3, 4, 8))[:, 1]  # [patches, heads, head dim]
    for place, token in enumerate(order):
        mine = slice(4 * place, 4 * place + 4)
        received = sized.tokens.signals[Signal.RECEIVED_ATTENTION][token]
        assert float(received) == pytest.approx(float(weights.mean((0, 1))[mine].sum()), abs=1e-6)
        assert torch.allclose(sized.tokens.signals[Signal.KEYS][token], keys[mine].mean((0, 1)), atol=1e-6)
    assert float(sized.tokens.signals[Signal.RECEIVED_ATTENTION].sum()) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_features_are_what_the_merger_reads(sized: Case) -> None:
    projected = sized.tokens.signals[Signal.PROJECTED]
    assert torch.equal(projected, sized.packed())
    assert torch.allclose(sized.vlm.project(sized.tokens.features), projected, atol=1e-5)


@pytest.mark.parametrize("size", [(400, 400), (500, 1000), (910, 370), (300, 1900), (37, 50), (641, 830)], ids=str)
def test_boxes_say_which_pixels_a_token_was_made_of(qwen: Case, size: Size) -> None:
    grid = qwen.vlm.grid(size)
    patches = qwen.vlm.patches(gradient(size), grid)
    mean, std = (
        torch.tensor(part).view(3, 1) for part in (qwen.vlm.processor.image_mean, qwen.vlm.processor.image_std)
    )
    colours = patches.unflatten(0, (-1, 4)).unflatten(2, (3, 2 * 8 * 8)) * std + mean
    found = colours[:, :, :2].mean((1, 3)).numpy()  # share of the width, share of the height
    boxes = grid.boxes()
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 / [size[1], size[0]]
    assert len(grid.views) == 1
    assert (boxes[-1, 2], boxes[-1, 3]) == (size[1], size[0])
    # One part in 255 of the colour; the filter's reach at the border is less than a pixel of what the tower reads.
    assert np.abs(centres - found).max() < 1 / 255 + 0.5 / min(qwen.vlm.resized(size))


@pytest.mark.parametrize("size", [(5000, 3100), (1333, 2000)], ids=str)
def test_a_decimated_copy_gives_the_patches_of_the_originals_grid(qwen: Case, size: Size) -> None:
    whole, smaller = gradient(size), gradient(qwen.vlm.wanted_size(size))
    assert smaller.shape < whole.shape
    exact, near = (qwen.vlm.patches(image, qwen.vlm.grid(size)) for image in (whole, smaller))
    assert exact.shape == near.shape
    assert float((exact - near).abs().max()) < 0.05


def test_a_copy_that_was_made_smaller_is_not_enlarged_again(qwen: Case) -> None:
    small = gradient((20, 34))
    assert qwen.vlm.count_tokens((20, 34)) == 12  # enlarged to 48 * 48 pixels at least
    tokens = qwen.vlm.encode_reduced(small)
    assert len(tokens) == qwen.vlm.count_reduced((20, 34)) == 2
    assert (tokens.grid.views[0].rows, tokens.grid.views[0].cols) == (1, 2)
    assert qwen.vlm.count_reduced((3, 5)) == 1
    large = gradient((200, 150))
    assert torch.equal(qwen.vlm.encode_reduced(large).features, qwen.vlm.encode(large, (200, 150)).features)


def test_an_image_is_told_to_be_stretched_only_where_it_is(qwen: Case) -> None:
    assert qwen.vlm.notices((64, 96)) == ()
    assert qwen.vlm.notices((50, 100)) == ()  # both edges to 0.96
    assert "48 × 48 pixels" in qwen.vlm.notices((41, 48))[0]


def test_a_tower_in_which_every_patch_keeps_to_its_window_is_refused(tmp_path_factory) -> None:
    case = made(QWEN[0], SMALL, tmp_path_factory)
    blocks = case.vlm.config.vision_config.fullatt_block_indexes
    case.vlm.config.vision_config.fullatt_block_indexes = []
    with pytest.raises(ModelUnavailable, match="got none in fullatt_block_indexes; choose another checkpoint"):
        case.vlm.encode(case.image, case.size)
    case.vlm.config.vision_config.fullatt_block_indexes = blocks


def test_the_architecture_says_what_the_towers_blocks_do(qwen: Case) -> None:
    blocks, told = qwen.stock.model.visual.blocks, qwen.vlm.architecture
    linear = [part.weight.numel() for part in blocks[0].mlp.modules() if isinstance(part, torch.nn.Linear)]
    assert sum(linear) == (3 if told.encoder_is_gated else 2) * told.encoder_dim * told.encoder_ffn
    assert (told.encoder_layers, told.encoder_has_cls) == (len(blocks), False)
    windows = (2, 64) if qwen.family.name == "qwen2_5_vl" else (0, 0)
    assert (told.encoder_windowed_layers, told.encoder_window) == windows


# ---------------------------------------------------------------------- position ids
def test_position_ids_are_those_of_the_whole_grid_of_which_the_kept_tokens_keep_theirs(sized: Case) -> None:
    count = len(sized.tokens)
    view = sized.tokens.grid.views[0]
    whole = sized.ids(range(count))[0].tolist()
    wanted, start = ids_of_axes(whole, (view.rows, view.cols))[:, 0], whole.index(4)
    for kept in (list(range(count)), [0], [count - 1, 2, 5], list(range(0, count, 3))):
        axes = sized.vlm.place(sized.ids(range(len(kept))), Selection.prune(count, np.array(kept)), sized.tokens.grid)
        places = [*range(start), *(start + token for token in kept), *range(start + count, len(whole))]
        assert torch.equal(axes.ids, wanted[:, places])
        assert axes.following == int(wanted.max()) + 1
        assert torch.equal(axes.for_library()[1:, 0], axes.ids)
        assert axes.for_library()[0, 0].tolist() == list(range(len(places)))


def test_rows_and_columns_without_tokens_close_up_by_hand() -> None:
    # two words, a picture of 4 x 5 tokens that begins at 2, two words behind it: the longer edge is 5, so 7 and 8
    ids = ids_of_axes([0, 0, *[4] * 20, 0, 0], (4, 5))[:, 0]
    assert ids[:, -1].tolist() == [8, 8, 8]
    # what is left lies in rows 1 and 3 and in columns 0, 2 and 4
    tokens = [5, 7, 19]
    left = Axes(ids, 9).taken(torch.tensor([0, 1, *(2 + token for token in tokens), 22, 23]))
    closed = left.closed_up(np.array([2, 3, 4]))
    assert closed.ids.tolist() == [
        [0, 1, 2, 2, 2, 5, 6],
        [0, 1, 2, 2, 3, 5, 6],
        [0, 1, 2, 3, 4, 5, 6],
    ]
    assert closed.following == 7
    assert left.ids[:, 2].tolist() == [2, 3, 2]  # as it was


def test_one_row_of_tokens_closes_up_as_ordinary_ids_do() -> None:
    ids = ids_of_axes([0, *[4] * 6, 0], (1, 6))[:, 0]
    left = Axes(ids, 8).taken(torch.tensor([0, 1, 4, 6, 7])).closed_up(np.array([1, 2, 3]))
    assert left.ids[2].tolist() == [0, 1, 2, 3, 4]
    assert left.following == 5


def test_a_picture_at_the_end_moves_what_comes_next() -> None:
    ids = ids_of_axes([0, *[4] * 6], (2, 3))[:, 0]
    left = Axes(ids, 4).taken(torch.tensor([0, 1, 6])).closed_up(np.array([1, 2]))
    assert left.ids.tolist() == [[0, 1, 1], [0, 1, 2], [0, 1, 2]]
    assert left.following == 3


def test_several_pictures_close_up_one_after_the_other() -> None:
    # a word, a picture of 2 x 2, a word, one of 1 x 3, a word, one of 3 x 1, a word; then the second is gone
    ids = ids_of_axes([0, *[4] * 4, 0, *[4] * 3, 0, *[4] * 3, 0], (2, 2), (1, 3), (3, 1))[:, 0]
    assert ids[1].tolist() == [0, 1, 1, 2, 2, 3, 4, 4, 4, 7, 8, 9, 10, 11]
    left = Axes(ids, 12).taken(torch.tensor([0, 1, 3, 5, 9, 11, 12, 13]))
    closed = left.closed_up(np.array([1, 2, 5, 6]))
    assert closed.ids.tolist() == [
        [0, 1, 1, 3, 4, 5, 5, 7],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 1, 1, 3, 4, 5, 5, 7],
    ]
    assert closed.following == 8
    assert torch.equal(closed.closed_up(np.array([1, 2, 5, 6])).ids, closed.ids)


def test_a_sum_without_a_place_stands_at_the_centre_of_its_sources() -> None:
    grid = TokenGrid.single(3, 4, (30, 40))
    # rows 0, 2 and 2, columns 1, 1 and 3: 4/3 and 5/3
    summed = Selection.merge(12, [0, -1], [([0], [1.0]), ([1, 9, 11], [1 / 3, 1 / 3, 1 / 3])])
    assert places_on(grid, summed).tolist() == [0, 1 * 4 + 2]


@torch.no_grad()
def test_a_merged_token_has_the_ids_of_its_anchor(qwen: Case) -> None:
    ours = qwen.vlm.generate(qwen.tokens, prompt("a", "b"), CATALOGUE.plan("average_pool@6"))
    assert not ours.selection.is_pruning
    view = qwen.tokens.grid.views[0]
    wanted = ids_of_axes(qwen.ids(range(len(qwen.tokens)))[0].tolist(), (view.rows, view.cols))[:, 0]
    start = qwen.ids([0])[0].tolist().index(4)
    axes = qwen.vlm.place(qwen.ids(range(len(ours.selection))), ours.selection, qwen.tokens.grid)
    for output, anchor in enumerate(ours.selection.anchor.tolist()):
        assert torch.equal(axes.ids[:, start + output], wanted[:, start + anchor])


# ---------------------------------------------------------------------- inside the language model
def renumber(triples: list[tuple[int, int, int]], ids: list[int], present: list[int]) -> None:
    """Number a sequence anew in which only some visual tokens are left, as if the pictures had been that small."""
    coming = place = 0
    while place < len(ids):
        if ids[place] != 4:
            triples[place] = (coming, coming, coming)
            coming, place = coming + 1, place + 1
            continue
        end = place
        while ids[end] == 4:
            end += 1
        left = [one for one in range(place, end) if one in present]
        rows, cols = (sorted({triples[one][axis] for one in left}) for axis in (1, 2))
        for one in left:
            _, row, col = triples[one]
            triples[one] = (coming, coming + rows.index(row), coming + cols.index(col))
        coming, place = coming + max(len(rows), len(cols)), end


@torch.no_grad()
def masked(
    case: Case,
    ids: Tensor,
    features: Tensor,
    acts: dict[int, Selection],
    *,
    renumbered: bool | frozenset[int],
    grid: TokenGrid | None = None,
    cached: Mapping[int, Tensor] | None = None,
    asked: int = 0,
) -> Tensor:
    """Logits [length, vocabulary] of a model that processes all positions in all layers, with three ids for each.

    What an act left out is attended by nobody from then on; what it merged is the weighted sum, also of the planes that
    are added later. Order in the sequence is a number for each position, and positions from `asked` on see of a layer
    in `cached` the tokens named there alone, as in `test_inside`.
    """
    language = case.stock.model.language_model
    shapes = [(view.rows, view.cols) for view in (grid or case.tokens.grid).views]
    dim = language.embed_tokens.weight.shape[1]
    entered, *planes = features.split(dim, dim=1)
    hidden = language.embed_tokens(ids).clone()
    visual = (ids[0] == 4).nonzero()[:, 0].tolist()
    hidden[0, visual] = entered
    length = ids.shape[1]
    wide = [torch.zeros(length, dim) for _ in planes]
    for plane, rows in zip(wide, planes, strict=True):
        plane[visual] = rows
    alive, order = [True] * length, [float(place) for place in range(length)]
    triples = [tuple(one) for one in ids_of_axes(ids[0].tolist(), *shapes)[:, 0].T.tolist()]
    present = list(visual)
    for index, block in enumerate(language.layers):
        if index in acts:
            decision, before = acts[index], hidden.clone()
            planes_before = [plane.clone() for plane in wide]
            left = [present[anchor] for anchor in decision.anchor]
            for place in present:
                alive[place] = False
            for rank, place in enumerate(left):
                # Behind what precedes the picture in which its anchor is, in the strategy's order.
                start = max([one for one in range(place) if ids[0, one] != 4], default=-1)
                alive[place], order[place] = True, start + 0.5 + rank / 1000
                entries = [
                    (present[source], float(weight))
                    for output, source, weight in zip(
                        decision.weight_output, decision.weight_token, decision.weight_value, strict=True
                    )
                    if output == rank
                ]
                hidden[0, place] = sum(weight * before[0, source] for source, weight in entries)
                for plane, old in zip(wide, planes_before, strict=True):
                    plane[place] = sum(weight * old[source] for source, weight in entries)
            present = left
            if renumbered is True or (renumbered and index in renumbered):
                renumber(triples, ids[0].tolist(), present)
        mask = torch.full((length, length), float("-inf"))
        for row in range(length):
            for column in range(length):
                if alive[column] and order[column] <= order[row]:
                    mask[row, column] = 0.0
            mask[row, row] = 0.0  # rows that nobody reads must not be empty
        masks = mask[None].repeat(language.config.num_attention_heads, 1, 1)
        for head in range(len(masks) if cached and index in cached else 0):
            kept = cached[index][head * len(cached[index]) // len(masks)].tolist()
            masks[head, asked:, [place for at, place in enumerate(present) if at not in kept]] = float("-inf")
        positions = torch.tensor(triples).T[:, None]
        rotary = language.rotary_emb(hidden, positions)
        hidden = block(hidden, attention_mask=masks[None], position_embeddings=rotary)
        if index < len(wide):
            for place in present:
                hidden[0, place] += wide[index][place]
    return case.stock.lm_head(language.norm(hidden))[0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_prefill_and_decoding_equal_a_model_in_which_what_left_is_masked(qwen: Case, strategy: str) -> None:
    plan, choices = CATALOGUE.plan(strategy), ("north east ship", "west", "the red b")
    ours = qwen.vlm.generate(qwen.tokens, prompt(*choices), plan)
    given = qwen.vlm.give(qwen.tokens, prompt(*choices), plan)
    assert f"positions={ours.selection.diagnostics['positions']}" in strategy
    ids = qwen.ids(range(len(qwen.tokens)))
    for choice, told in zip(choices, ours.log_probabilities, strict=True):
        words = qwen.vlm.tokenizer.convert_tokens_to_ids(choice.split())
        whole = torch.cat([ids, torch.tensor([words])], dim=1)
        logits = masked(qwen, whole, given.features, dict(given.acts), renumbered="renumbered" in strategy)
        logits = logits.log_softmax(-1)
        said = sum(float(logits[ids.shape[1] - 1 + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)


@pytest.mark.parametrize("positions", ["original", "renumbered"])
def test_decoding_sees_what_each_layers_cache_keeps(qwen: Case, positions: str) -> None:
    plan, choices = CATALOGUE.plan(f"fastkv:positions={positions}@12"), ("north east ship", "the red b")
    ours = qwen.vlm.generate(qwen.tokens, prompt(*choices), plan)
    given = qwen.vlm.give(qwen.tokens, prompt(*choices), plan)
    assert given.cached
    ids = qwen.ids(range(len(qwen.tokens)))
    for choice, told in zip(choices, ours.log_probabilities, strict=True):
        words = qwen.vlm.tokenizer.convert_tokens_to_ids(choice.split())
        whole = torch.cat([ids, torch.tensor([words])], dim=1)
        logits = masked(
            qwen,
            whole,
            given.features,
            dict(given.acts),
            renumbered=positions == "renumbered",
            cached=given.cached,
            asked=ids.shape[1],
        ).log_softmax(-1)
        said = sum(float(logits[ids.shape[1] - 1 + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)


@pytest.mark.parametrize(
    ("plan", "renumbered"),
    [
        ("fastv:layer=1,positions=original@16+dart:layer=2,positions=renumbered@10", frozenset({2})),
        ("fastv:layer=1,positions=renumbered@16+dart:layer=2,positions=original@10", frozenset({1})),
        ("fastv:layer=1,positions=renumbered@16+dart:layer=2,positions=renumbered@10", frozenset({1, 2})),
    ],
)
def test_steps_of_either_convention_follow_one_another(qwen: Case, plan: str, renumbered: frozenset[int]) -> None:
    choices = ("north east ship", "the red b")
    ours = qwen.vlm.generate(qwen.tokens, prompt(*choices), CATALOGUE.plan(plan))
    given = qwen.vlm.give(qwen.tokens, prompt(*choices), CATALOGUE.plan(plan))
    assert len(given.acts) == 2
    ids = qwen.ids(range(len(qwen.tokens)))
    for choice, told in zip(choices, ours.log_probabilities, strict=True):
        words = qwen.vlm.tokenizer.convert_tokens_to_ids(choice.split())
        whole = torch.cat([ids, torch.tensor([words])], dim=1)
        logits = masked(qwen, whole, given.features, dict(given.acts), renumbered=renumbered).log_softmax(-1)
        said = sum(float(logits[ids.shape[1] - 1 + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_replay_and_the_recording_are_those_of_the_pass(qwen: Case, strategy: str) -> None:
    plan, asked, recorder = CATALOGUE.plan(strategy), prompt("north", "south east", "red"), Recorder()
    alone = qwen.vlm.generate(qwen.tokens, asked, plan, probe=recorder)
    replayed = qwen.vlm.ask(qwen.vlm.give(qwen.tokens, asked, plan), [asked, prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], alone.log_probabilities, atol=3e-5)
    recording = recorder.finish(alone.entering)
    np.testing.assert_allclose(np.nansum(recording.answer, axis=1), recording.answer_mass, atol=2e-3)
    present = ~np.isnan(recording.answer[-1].astype(float))
    assert (present == (alone.selection.fate != Fate.DROPPED)).all()


@pytest.mark.parametrize("layer", [1, 2])
def test_what_follows_moves_up_as_far_as_the_picture_shrinks(qwen: Case, layer: int) -> None:
    plan = CATALOGUE.plan(f"fastv:layer={layer},positions=renumbered@{5 * layer + 1}")
    passed = prefill(qwen.vlm, qwen.tokens, prompt("a"), plan)
    rows, cols = (line[passed.selection.anchor] for line in qwen.tokens.grid.rows_cols())
    moved = 6 - max(len(set(rows.tolist())), len(set(cols.tolist())))
    assert moved > 0
    assert passed.shifts == (0,) * layer + (moved,) * (4 - layer)


@pytest.mark.parametrize("name", INSIDE)
def test_all_tokens_are_the_identity_bit_for_bit(qwen: Case, name: str) -> None:
    whole = qwen.vlm.generate(qwen.tokens, prompt("north east", "b"), CATALOGUE.plan("identity"))
    ours = qwen.vlm.generate(qwen.tokens, prompt("north east", "b"), CATALOGUE.plan(f"{name}@1.0"))
    assert ours.log_probabilities == whole.log_probabilities


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["trim@0.5", "average_pool@6", "segpruner@0.5", "vir@0.5"])
def test_what_is_merged_before_the_model_enters_at_its_anchors_with_its_planes(qwen: Case, strategy: str) -> None:
    ours = qwen.vlm.generate(qwen.tokens, prompt("a", "b", "c"), CATALOGUE.plan(strategy))
    given = qwen.vlm.give(qwen.tokens, prompt("a", "b", "c"), CATALOGUE.plan(strategy))
    ids = qwen.ids(range(len(ours.selection)))
    axes = qwen.vlm.place(ids, ours.selection, qwen.tokens.grid)
    weights = torch.zeros(len(ours.selection), len(qwen.tokens))
    weights[ours.selection.weight_output, ours.selection.weight_token] = torch.from_numpy(ours.selection.weight_value)
    dim = qwen.tokens.signals[Signal.PROJECTED].shape[1]
    language = qwen.stock.model.language_model
    embedded = language.embed_tokens(ids).clone()
    embedded[0, (ids[0] == 4).nonzero()[:, 0]] = given.features[:, :dim]
    more: dict[str, Any] = {}
    if Signal.DEEPSTACK in qwen.tokens.signals:
        planes = (weights @ qwen.tokens.signals[Signal.DEEPSTACK]).split(dim, dim=1)
        assert torch.allclose(given.features[:, dim:], torch.cat(planes, dim=1), atol=1e-5)
        more = {"visual_pos_masks": ids == 4, "deepstack_visual_embeds": list(planes)}
    hidden = language(inputs_embeds=embedded, position_ids=axes.ids[:, None], **more).last_hidden_state
    logs = qwen.stock.lm_head(hidden)[0, -1].log_softmax(-1)
    words = qwen.vlm.tokenizer.convert_tokens_to_ids(["a", "b", "c"])
    np.testing.assert_allclose(ours.log_probabilities, logs[words], atol=1e-5)


@torch.no_grad()
def test_the_heads_of_the_coming_layer_are_those_that_it_will_have(qwen: Case) -> None:
    heard: dict[int, list[Tensor]] = {}

    class Both:
        def attention(self, layer, rows, layout):
            heard.setdefault(layer, []).append(rows)

    plan = CATALOGUE.plan("pyramiddrop:stages=2@1.0")  # all stay, so that layer 2 sees what was foreseen
    ours = qwen.vlm.generate(qwen.tokens, prompt("a", "b"), plan, probe=Both())
    start = qwen.ids([0])[0].tolist().index(4)
    visual = slice(start, start + len(qwen.tokens))
    np.testing.assert_allclose(ours.selection.scores, heard[2][0][0, visual], atol=1e-6)


def test_an_answer_is_the_same_whatever_was_asked_before(qwen: Case) -> None:
    """The library keeps a difference between positions and the cache on the model."""
    free, plan = prompt(), CATALOGUE.plan("uniform_grid@7")
    first = qwen.vlm.generate(qwen.tokens, free, plan, max_new_tokens=6)
    other = qwen.vlm.encode(qwen.image[:, :50], (50, 50))
    qwen.vlm.generate(other, free, CATALOGUE.plan("identity"), max_new_tokens=6)
    again = qwen.vlm.generate(qwen.tokens, free, plan, max_new_tokens=6)
    assert (again.text, again.log_probabilities) == (first.text, first.log_probabilities)
    assert qwen.vlm.model.model.rope_deltas is None


def test_nothing_stays_behind_a_decoding_step_that_raises(qwen: Case) -> None:
    def fail(_module, args, kwargs):
        if (args[0] if args else kwargs["hidden_states"]).shape[1] == 1:
            raise FloatingPointError("a layer that fails")

    before = hooks_on(qwen.vlm)
    handle = qwen.vlm.decoder_layers[3].register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(FloatingPointError):
            qwen.vlm.generate(qwen.tokens, prompt("north east", "b"), CATALOGUE.plan("pyramiddrop@0.75"))
    finally:
        handle.remove()
    assert hooks_on(qwen.vlm) == before
    assert qwen.vlm.model.model.rope_deltas is None


# ---------------------------------------------------------------------- several pictures
class Pictures:
    """Two pictures in one prompt, as a zoom shows them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        images = [case.image, np.random.default_rng(8).integers(0, 256, (64, 48, 3), dtype=np.uint8)]
        parts = [case.vlm.encode(image, image.shape[:2]) for image in images]
        self.grid = TokenGrid((parts[0].grid.views[0], View(4, 3, (0.0, 0.0, 30.0, 40.0), "crop")), case.size)
        signals = {name: torch.cat([part.signals[name] for part in parts]) for name in parts[0].signals}
        self.tokens = VisualTokens.whole(torch.cat([part.features for part in parts]), self.grid, signals)
        read = [case.family.read(case.folder, image) for image in images]
        self.read = {name: torch.cat([one[name] for one in read]) for name in read[0]}
        coded = case.vlm.tokenizer(TEXT.replace("<image>", case.family.picture * 2))["input_ids"]
        lengths = iter([18, 12])
        self.ids = torch.tensor([[token for one in coded for token in ([4] * next(lengths) if one == 4 else [one])]])


@torch.no_grad()
def test_two_pictures_are_read_as_the_stock_model_reads_them(qwen: Case) -> None:
    two = Pictures(qwen)
    types = (two.ids == 4).int()
    ours = qwen.vlm.generate(two.tokens, prompt(*WORDS), CATALOGUE.plan("identity"))
    theirs = qwen.stock(input_ids=two.ids, mm_token_type_ids=types, **two.read).logits[0, -1]
    np.testing.assert_allclose(ours.log_probabilities, said_logs(theirs), atol=1e-5)
    free = qwen.vlm.generate(two.tokens, prompt(), CATALOGUE.plan("identity"), max_new_tokens=16)
    made = qwen.stock.generate(
        input_ids=two.ids, mm_token_type_ids=types, **two.read, max_new_tokens=16, do_sample=False
    )
    assert free.text == qwen.vlm.tokenizer.decode(made[0, two.ids.shape[1] :], skip_special_tokens=True).strip() != ""


@torch.no_grad()
@pytest.mark.parametrize(
    "strategy",
    [
        "uniform_grid@9",
        "average_pool@12",
        "fastv:layer=1,positions=original@12",
        "fastkv:positions=renumbered,cache=whole@20",
        "fastv:layer=1,positions=renumbered@12",
        "fastv:layer=1,positions=renumbered@9",
        "pyramiddrop:positions=renumbered@16",
        "sparsevlm:positions=renumbered@18",
    ],
)
def test_tokens_of_two_pictures_leave_as_if_they_were_masked(qwen: Case, strategy: str) -> None:
    two, plan, choices = Pictures(qwen), CATALOGUE.plan(strategy), ("north east ship", "west")
    ours = qwen.vlm.generate(two.tokens, prompt(*choices), plan)
    given = qwen.vlm.give(two.tokens, prompt(*choices), plan)
    acts, features = dict(given.acts), given.features
    if len(given.entering) < 30:
        acts = {0: given.entering}
        features = qwen.vlm.given(two.tokens.signals[Signal.PROJECTED], EVERY, two.tokens)
    for choice, told in zip(choices, ours.log_probabilities, strict=True):
        words = qwen.vlm.tokenizer.convert_tokens_to_ids(choice.split())
        whole = torch.cat([two.ids, torch.tensor([words])], dim=1)
        logits = masked(qwen, whole, features, acts, renumbered="renumbered" in strategy, grid=two.grid)
        logits = logits.log_softmax(-1)
        said = sum(float(logits[two.ids.shape[1] - 1 + place, word]) for place, word in enumerate(words))
        assert told == pytest.approx(said, abs=3e-5)
    replayed = qwen.vlm.ask(given, [prompt(*choices), prompt("a", "b")])
    np.testing.assert_allclose(replayed[0][0], ours.log_probabilities, atol=3e-5)


@torch.no_grad()
def test_a_text_that_is_written_is_what_the_stock_model_generates(qwen: Case) -> None:
    written = qwen.vlm.write(qwen.tokens, QUESTION, count=2, temperature=0.0, seed=0)
    asked = qwen.vlm.prompt(QUESTION)
    ids, _ = qwen.vlm.lay_out(asked, [np.arange(len(qwen.tokens))], qwen.tokens.grid)
    made = qwen.stock.generate(**qwen.inputs(ids), max_new_tokens=256, do_sample=False)[0, ids.shape[1] :]
    assert written.texts == (qwen.vlm.tokenizer.decode(made, skip_special_tokens=True).strip(),) * 2
    assert written.texts[0]


def test_an_overview_and_a_crop_stand_beside_each_other(qwen: Case) -> None:
    overview = qwen.vlm.encode_overview(gradient((40, 70)))
    assert overview.grid.shown_size == (32, 64)  # what the tower reads, of which boxes are written
    crop = qwen.vlm.encode_crop(gradient((50, 60)), (10.0, 5.0, 40.0, 30.0), (40, 70))
    both = joined([overview, crop])
    assert len(both) == len(overview) + len(crop)
    said = qwen.vlm.generate(both, prompt("a", "b"), CATALOGUE.plan("identity"))
    assert np.isfinite(said.log_probabilities).all()


# ---------------------------------------------------------------------- asking
@pytest.mark.parametrize("strategy", ["identity", "uniform_grid@7", "fastv:layer=1@0.7", "pyramiddrop@0.75"])
def test_questions_asked_together_do_not_see_each_other(qwen: Case, strategy: str) -> None:
    frozen = qwen.vlm.give(qwen.tokens, prompt("north", "the red ship"), CATALOGUE.plan(strategy))
    asked = [
        replace(prompt("north", "the red ship"), question=words, text=TEXT.replace("where is the red ship", words))
        for words in ("where is the red ship", "what is north", "where is a ship")
    ]
    together = qwen.vlm.ask(frozen, asked, layers=True)
    for one, said in zip(asked, together, strict=True):
        np.testing.assert_allclose(said, qwen.vlm.ask(frozen, [one], layers=True)[0], atol=2e-5)
        np.testing.assert_allclose(said[-1:], qwen.vlm.ask(frozen, [one])[0], atol=2e-5)


@pytest.mark.parametrize("strategy", ["identity", "uniform_grid@7", "fastv:layer=1@0.7"])
def test_replaced_and_hidden_visual_tokens_tell_nothing_of_the_picture(qwen: Case, strategy: str) -> None:
    frozen = qwen.vlm.give(qwen.tokens, prompt("a", "b"), CATALOGUE.plan(strategy))
    elsewhere = replace(frozen, features=torch.randn_like(frozen.features))
    assert (
        np.abs(qwen.vlm.ask(frozen, [prompt("a", "b")])[0] - qwen.vlm.ask(elsewhere, [prompt("a", "b")])[0]).max()
        > 1e-4
    )
    for what in (Intervention(visual=torch.full((1, frozen.features.shape[1]), 0.1)), Intervention(hides_visual=True)):
        here, there = (qwen.vlm.ask(one, [prompt("a", "b")], intervention=what)[0] for one in (frozen, elsewhere))
        np.testing.assert_allclose(here, there, atol=1e-6)


@pytest.mark.parametrize("what", [Intervention(words=torch.full((1, 24), 0.1)), Intervention(hides_words=True)])
def test_without_its_words_one_question_is_as_good_as_another(qwen: Case, what: Intervention) -> None:
    frozen = qwen.vlm.give(qwen.tokens, prompt("a", "b"), CATALOGUE.plan("fastv:layer=2@0.8"))
    asked = [
        Prompt(words, ("a", "b"), TEXT.replace("where is the red ship", words))
        for words in ("where is the red ship", "what is a north ship")
    ]
    first, second = qwen.vlm.ask(frozen, asked, intervention=what)
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_a_score_has_the_gradient_that_finite_differences_have(qwen: Case) -> None:
    projected = qwen.tokens.signals[Signal.PROJECTED].clone().requires_grad_()
    score = qwen.vlm.score(projected, qwen.tokens, prompt("a", "b"), "north east")
    (gradient_of,) = torch.autograd.grad(score, projected)
    assert torch.isfinite(gradient_of).all()
    way = gradient_of / gradient_of.norm()
    step = 1e-2
    ahead, behind = (
        float(qwen.vlm.score(projected.detach() + sign * step * way, qwen.tokens, prompt("a", "b"), "north east"))
        for sign in (1, -1)
    )
    assert (ahead - behind) / (2 * step) == pytest.approx(float(gradient_of.norm()), rel=2e-2)


# ---------------------------------------------------------------------- deep-stack planes
@torch.no_grad()
def test_the_planes_are_those_of_the_stock_model(qwen3: Case) -> None:
    made = qwen3.stock.get_image_features(**qwen3.family.read(qwen3.folder, qwen3.image), return_dict=True)
    planes = torch.cat([torch.cat(list(plane)) for plane in made.deepstack_features], dim=1)
    assert torch.equal(qwen3.tokens.signals[Signal.DEEPSTACK], planes)
    assert planes.shape == (18, 2 * 24)


def test_the_planes_change_the_answer(qwen3: Case) -> None:
    """Otherwise none of the proofs above would notice that they were left out."""
    signals = {**qwen3.tokens.signals, Signal.DEEPSTACK: torch.zeros(18, 48)}
    without = replace(qwen3.tokens, signals=signals)
    plan = CATALOGUE.plan("fastv:layer=1@0.8")
    here, there = (qwen3.vlm.generate(tokens, prompt("a", "b"), plan) for tokens in (qwen3.tokens, without))
    assert np.abs(np.subtract(here.log_probabilities, there.log_probabilities)).max() > 1e-3
