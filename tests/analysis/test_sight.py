"""A sight of an image file: parts of it, in original pixels, and what looking costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.cost import encode_flops, merged_encode_flops
from analysis.errors import AnalysisError
from analysis.imagery import write_geotiff
from analysis.pipeline import Inquiry, compare, encode, execute, look, open_image
from analysis.sight import ImageSight, timed
from compression.backends import load_model
from compression.backends.base import VLM
from compression.backends.embedded.scenes import make_scene
from compression.errors import InvalidStrategyText
from compression.merging import Merging
from compression.strategies import CATALOGUE


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene of 512 x 512 pixels: 1,024 tokens on 2 x 2 cells."""
    scene = make_scene(5, 512)
    path = tmp_path_factory.mktemp("sight") / "scene.tif"
    write_geotiff(path, scene.image, scene.crs, scene.transform)
    return path


def test_a_part_is_read_as_an_image_of_its_own_with_boxes_of_the_whole(vlm, picture):
    sight = ImageSight(picture, (512, 512), vlm)
    part = sight.encode((256.0, 0.0, 512.0, 256.0))
    assert part.grid.views[0].box == (256.0, 0.0, 512.0, 256.0)
    assert part.grid.image_size == (512, 512)
    whole = sight.encode()
    assert whole.grid.read_size is None
    # The second cell of the whole is this part.
    torch.testing.assert_close(part.features, whole.features[256:512], atol=1e-4, rtol=1e-4)


def test_a_box_between_pixels_takes_the_pixels_that_it_touches(vlm, picture):
    tokens = ImageSight(picture, (512, 512), vlm).encode((-3.0, 9.5, 100.2, 600.0), (64, 64))
    assert tokens.grid.views[0].box == (0.0, 9.0, 101.0, 512.0)
    assert len(tokens) == 16


def test_what_is_encoded_adds_up(vlm, picture):
    sight = ImageSight(picture, (512, 512), vlm, repeats=2)
    with pytest.raises(AnalysisError, match="encoded nothing"):
        _ = sight.seconds
    sight.encode()
    once, flops = sight.seconds, sight.flops
    assert flops == encode_flops(vlm.architecture, (256,) * 4)
    sight.encode(size=(256, 256))
    assert sight.flops == flops + encode_flops(vlm.architecture, (256,))
    assert sight.seconds.median > once.median
    assert sight.seconds.repeats == 2


def test_merging_costs_what_each_block_attends_to_and_feeds(vlm, picture):
    a = vlm.architecture
    counts = ((64, 64, 64, 0),) * 4
    sight = ImageSight(picture, (512, 512), vlm)
    sight.encode_merged(Merging(counts))
    by_hand = 0
    for entering, leaving in ((257, 193), (193, 129), (129, 65), (65, 65)):
        by_hand += 4 * entering * a.encoder_dim**2 + 2 * entering**2 * a.encoder_dim
        by_hand += 2 * leaving * a.encoder_dim * a.encoder_ffn
    assert sight.flops == 2 * 4 * by_hand
    assert merged_encode_flops(a, (256,), ((0,) * 4,)) == encode_flops(a, (256,))


def test_work_that_is_measured_no_times_is_refused():
    with pytest.raises(AnalysisError, match="repeats must be at least 1, got 0"):
        timed(lambda: None, repeats=0, warmup=1)


def test_a_plan_that_looks_is_counted_of_the_whole_image(vlm, picture):
    inquiry = Inquiry(picture, open_image(picture), "How many ships are there?")
    run = execute(inquiry, CATALOGUE.plan("downsample@0.25"), vlm, repeats=1)
    assert (run.tokens_total, run.tokens_encoded, run.tokens_kept, run.tokens_requested) == (1024, 256, 256, 256)
    assert run.retention_ratio == 0.25
    assert run.cost.encode_flops == encode_flops(vlm.architecture, (256,))
    assert run.cost.compress is None
    assert "The image was encoded at 256 × 256 pixels instead of 512 × 512." in run.notices  # one view has no name
    assert run.grid.image_size == (512, 512)
    assert run.grid.boxes()[-1].tolist() == [480, 480, 512, 512]


def test_the_shared_encoding_is_made_for_those_that_use_it_and_is_not_touched(vlm, picture):
    inquiry = Inquiry(picture, open_image(picture), "How many ships are there?")
    told: list[str] = []
    plans = [CATALOGUE.plan(text) for text in ("downsample@0.25", "tome@0.25")]
    outcomes = list(compare(inquiry, plans, vlm, repeats=1, progress=lambda words, _share: told.append(words)))
    assert all(outcome.run for outcome in outcomes)
    assert "Encoding the image" not in told
    shared = encode(inquiry, vlm, repeats=1)
    before = shared.tokens.features.clone()
    [own, plain] = compare(inquiry, [plans[0], CATALOGUE.plan("identity")], vlm, repeats=1, encoded=shared)
    assert (own.run.tokens_encoded, plain.run.tokens_encoded) == (256, 1024)
    assert torch.equal(shared.tokens.features, before)


def test_a_refusal_names_the_lowest_and_does_not_stop_the_others(vlm, picture):
    inquiry = Inquiry(picture, open_image(picture), "How many ships are there?")
    plans = [CATALOGUE.plan(text) for text in ("tome@10", "uniform_grid@16")]
    refused, other = compare(inquiry, plans, vlm, repeats=1)
    assert (refused.stage, refused.lowest) == ("refused", 64)
    assert "4 blocks leave at least 64 of 1024" in refused.reason
    assert other.run is not None
    with pytest.raises(InvalidStrategyText, match="uniform_grid@16 reads the shared encoding"):
        look(inquiry, plans[1], vlm)


def test_evidence_is_found_on_a_grid_of_its_own(vlm, picture):
    image = open_image(picture)
    inquiry = Inquiry(picture, image, "How many ships are there?", evidence=((100.0, 100.0, 130.0, 130.0),))
    run = execute(inquiry, CATALOGUE.plan("downsample@0.25"), vlm, repeats=1)
    assert run.evidence_recall == 1.0
    assert np.isfinite(run.recording.answer.astype(float)).all()


@pytest.mark.parametrize(("first", "encoded"), [("downsample@0.25", 256), ("tome@0.25", 1024)])
def test_a_step_inside_the_language_model_may_follow_a_look(vlm, picture, first, encoded):
    inquiry = Inquiry(picture, open_image(picture), "How many ships are there?")
    run = execute(inquiry, CATALOGUE.plan(f"{first}+fastv@0.15"), vlm, repeats=1)
    assert (run.tokens_total, run.tokens_encoded, run.tokens_requested) == (1024, encoded, 154)
    assert run.tokens_per_layer[0] == 256
    assert 153 < run.tokens_realised <= 154
    assert run.retention_ratio == pytest.approx(np.mean(run.tokens_per_layer) / 1024)
    assert run.cost.compress is not None


def test_a_step_that_cannot_be_reached_behind_a_look_is_refused_before_anything_is_read(vlm, picture):
    inquiry = Inquiry(picture, open_image(picture), "How many ships are there?")
    [outcome] = compare(inquiry, [CATALOGUE.plan("downsample@0.25+fastv@10")], vlm, repeats=1)
    assert outcome.stage == "refused"
    assert outcome.lowest == 44
