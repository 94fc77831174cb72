"""Strategies that look at the image themselves, on every family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis import imagery
from analysis.recorder import Recorder
from analysis.sight import ImageSight
from compression.backends import load_model
from compression.compressor import Context
from compression.errors import InvalidBudget, InvalidStrategyText, MissingSignal
from compression.merging import Merging
from compression.registry import Registry
from compression.sight import looking
from compression.strategies import CATALOGUE
from compression.strategies.downsample import Downsample
from compression.strategies.tome import ToMe
from compression.tokens import Signal
from tests.compression.backends.test_families import (
    ONE_EACH,
    Case,
    case,  # noqa: F401 (fixture)
    each_family,
    each_size,
    prompt,
)
from tests.compression.backends.test_llava import hooks_on


@pytest.fixture
def sight(case: Case, tmp_path: Path) -> ImageSight:  # noqa: F811
    """The case's picture as a file."""
    path = tmp_path / "picture.png"
    Image.fromarray(case.image).save(path)
    return ImageSight(path, case.size, case.vlm)


@each_size
def test_the_prospect_counts_what_the_encoding_has(case: Case, sight: ImageSight) -> None:  # noqa: F811
    assert sight.prospect.total == len(sight.encode()) == case.vlm.count_tokens(case.size)
    assert sight.prospect.image_size == case.size


@each_size
def test_every_number_of_tokens_that_a_family_makes_can_be_asked(case: Case, sight: ImageSight) -> None:  # noqa: F811
    ahead = sight.prospect
    height, width = case.size
    made = {ahead.count((max(1, height * part // 12), max(1, width * part // 12))) for part in range(1, 13)}
    for count in sorted(one for one in made if one <= ahead.total):
        looked = Downsample().look(sight, count, Context())
        grid = looked.tokens.grid
        assert len(looked.tokens) <= count
        assert grid.image_size == case.size
        boxes = grid.boxes()
        assert (boxes[:, 0] < width).all()
        assert (boxes[:, 1] < height).all()
        assert boxes[:, 2].max() > 0.7 * width  # a margin without tokens, but no picture in a corner
        assert boxes[:, 3].max() > 0.7 * height
        plan = looked.rest(CATALOGUE.plan(f"downsample@{count}"), ahead.total)
        said = case.vlm.generate(looked.tokens, prompt("a", "b"), plan, probe=Recorder())
        assert np.isfinite(said.log_probabilities).all()
        assert set(said.tokens_per_layer) == {len(looked.tokens)}


@each_size
def test_a_reduced_image_is_read_like_an_image_of_that_size(
    case: Case,  # noqa: F811
    sight: ImageSight,
    tmp_path: Path,
) -> None:
    size = max(1, case.size[0] // 2), max(1, case.size[1] // 3)
    tokens, small = sight.encode(size=size), imagery.read_rgb(tmp_path / "picture.png", size=size).rgb
    assert tokens.grid.shown_size == size
    assert tokens.grid.image_size == case.size
    assert len(tokens) == case.vlm.count_reduced(size)
    if case.vlm.count_reduced(size) < case.vlm.count_tokens(size):
        assert case.family.name.startswith("qwen")  # which enlarge a small image, but not a copy that was made smaller
        return
    plain = case.vlm.encode(small, size)
    assert torch.equal(tokens.features, plain.features)
    assert case.vlm.patches_per_view(tokens.grid) == case.vlm.patches_per_view(plain.grid)


@each_size
def test_merging_leaves_exactly_the_budget_where_the_tower_can(case: Case, sight: ImageSight) -> None:  # noqa: F811
    strategy, ahead = ToMe(), sight.prospect
    if Signal.ENCODER_BLOCKS not in case.vlm.provides:
        assert ahead.blocks == 0
        with pytest.raises(MissingSignal, match="tome needs encoder_blocks"):
            case.vlm.check(CATALOGUE.plan("tome@0.5"), ahead.total, case.size)
        with pytest.raises(MissingSignal, match="cannot be merged inside the encoder"):
            sight.encode_merged(Merging(()))
        return
    assert ahead.blocks == 2
    lowest = strategy.lowest(ahead)
    for budget in sorted({lowest, (lowest + ahead.total) // 2, ahead.total}):
        looked = strategy.look(sight, budget, Context())
        assert len(looked.selection) == budget
        assert looked.tokens.grid == case.tokens.grid
        plan = looked.rest(CATALOGUE.plan(f"tome@{budget}"), ahead.total)
        assert case.vlm.generate(looked.tokens, prompt("a", "b"), plan).tokens_per_layer == (budget,) * 4
    stock = sight.encode()
    for signal in (Signal.FEATURES, Signal.PROJECTED, Signal.CLS_FEATURE):
        torch.testing.assert_close(looked.tokens.signals[signal], stock.signals[signal], atol=1e-5, rtol=0)


@pytest.mark.parametrize("case", ONE_EACH[:2], indirect=True)
def test_no_hook_survives_a_block_that_fails(case: Case, sight: ImageSight) -> None:  # noqa: F811
    before = hooks_on(case.vlm)

    def fail(*_args):
        raise FloatingPointError("an MLP that fails")

    layer = case.vlm.model.model.vision_tower.encoder.layers[1]
    for module in (layer.mlp, layer.self_attn):
        handle = module.register_forward_hook(fail)
        with pytest.raises(FloatingPointError):
            ToMe().look(sight, sight.prospect.total - 4, Context())
        handle.remove()
        assert hooks_on(case.vlm) == before


@each_family
def test_what_cannot_be_reached_is_refused_before_anything_is_read(case: Case) -> None:  # noqa: F811
    total = case.vlm.count_tokens(case.size)
    lowest = Downsample().lowest(case.vlm.prospect(case.size))
    if lowest == 1:
        assert case.family.name.startswith("qwen")  # of a copy of any size they make as few tokens as it has
    else:
        with pytest.raises(InvalidBudget, match=f"cannot reach {lowest - 1}") as raised:
            case.vlm.check(CATALOGUE.plan(f"downsample@{lowest - 1}"), total, case.size)
        assert raised.value.lowest == lowest
    case.vlm.check(CATALOGUE.plan(f"downsample@{lowest}"), total, case.size)
    if case.family.name == "llava":
        assert lowest == total
        with pytest.raises(InvalidBudget, match="this model makes 16 of an image of any size; use 16"):
            case.vlm.check(CATALOGUE.plan("downsample@0.25"), total, case.size)


def test_the_embedded_model_reads_a_reduced_image_on_cells_that_it_need_not_fill():
    vlm = load_model("embedded", device="cpu")
    ahead = vlm.prospect((1024, 1024))
    assert ahead.total == 4096
    assert [ahead.count((side, side)) for side in (1024, 512, 320, 256, 128, 1)] == [4096, 1024, 400, 256, 64, 1]
    assert Downsample().lowest(ahead) == 1
    assert ToMe().lowest(ahead) == 256  # four blocks leave a sixteenth
    tokens = vlm.encode_reduced(np.zeros((320, 128, 3), np.uint8))
    assert [(view.rows, view.cols, view.name) for view in tokens.grid.views] == [(16, 8, "a1"), (4, 8, "a2")]
    assert vlm.prospect((3000, 3000)).count((3000, 3000)) == 4096


def test_a_strategy_that_looks_comes_first():
    fastv, reduced = CATALOGUE.plan("fastv@0.5"), CATALOGUE.plan("downsample@0.5")
    assert looking(fastv) is None
    assert isinstance(looking(type(fastv)(reduced.steps + fastv.steps)), Downsample)
    with pytest.raises(InvalidStrategyText, match="downsample acts before the language model and cannot follow"):
        type(fastv)(fastv.steps + reduced.steps)
    assert Registry().register(Downsample).plan("downsample@0.5") == reduced
