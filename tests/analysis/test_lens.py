"""Zooms on files: what they record, and what they count."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.cost import decode_flops, prefill_flops
from analysis.errors import AnalysisError
from analysis.imagery import write_geotiff
from analysis.pipeline import SYNTHETIC_TAG, Inquiry, execute, look, open_image
from analysis.retention import evidence_shown
from analysis.sight import ImageSight
from compression.backends import load_model
from compression.backends.base import Seconds
from compression.backends.embedded.scenes import make_scene
from compression.errors import InvalidBudget
from compression.strategies import CATALOGUE
from tests.compression.backends.families import FAMILIES


@pytest.fixture(scope="module")
def embedded():
    return load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def inquiry(tmp_path_factory):
    """A question about 2 x 2 scenes side by side, 512 x 512 pixels."""
    scene = make_scene(11)
    image = np.tile(scene.image, (2, 2, 1))
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    write_geotiff(path, image, scene.crs, scene.transform, tags={SYNTHETIC_TAG: "seed 11"})
    return Inquiry(
        path, open_image(path), "In which cell is the red ship?", expected="a1", evidence=((10.0, 10.0, 26.0, 26.0),)
    )


def test_the_answer_reads_the_overview_and_the_crops_and_the_budget_counts_them(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("sparc@600"), embedded, repeats=1, warmup=0)
    assert [view.name for view in run.grid.views] == ["map", run.turns[1].view]
    assert run.grid.image_size == (512, 512)
    assert run.grid.views[0].box == (0, 0, 512, 512)
    assert (run.tokens_realised, run.tokens_requested, run.tokens_total) == (512, 600, 1024)
    assert run.retention_ratio == 0.5


def test_turns_say_where_the_model_looked_and_what_it_answered_before_and_after(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("sparc@600"), embedded, repeats=1, warmup=0)
    overview, *crops = run.turns
    assert overview.box == (0, 0, 512, 512)
    assert overview.tokens == 256
    accepted = [turn for turn in crops if turn.is_accepted]
    assert [turn.tokens for turn in accepted] == [256]
    assert {turn.before for turn in crops} == {overview.after}
    assert [turn.after for turn in accepted] == [run.answer.text]
    assert all(turn.reason for turn in crops if not turn.is_accepted)
    assert "Boxes were brought onto the cells that the model knows by name." in run.notices


def test_operations_of_all_passes_are_summed(embedded, inquiry):
    plan = CATALOGUE.plan("sparc@600")
    run = execute(inquiry, plan, embedded, repeats=1, warmup=0)
    encoded, _ = look(inquiry, plan, embedded, repeats=1, warmup=0)
    assert (encoded.spent.passes, encoded.spent.tokens) == (1, 256)
    prompt = embedded.prompt(inquiry.question)
    words = len(prompt.text.replace("<image>", "").split())
    architecture = embedded.architecture
    # <bos> and "map" before the overview; <bos> and two names before overview and crop.
    looking, answer = 2 + 256 + words, 3 + 512 + words
    expected = sum(prefill_flops(architecture, [length] * architecture.layers) for length in (looking, answer))
    assert run.cost.prefill_flops == expected
    assert run.cost.compress.median > 0
    assert any("SPARC looked in 1 pass of the language model over 256 visual tokens" in note for note in run.notices)
    single = execute(inquiry, CATALOGUE.plan("downsample@256"), embedded, repeats=1, warmup=0)
    assert run.cost.encode_flops == 2 * single.cost.encode_flops


def test_the_pass_that_turns_out_to_be_the_answers_own_is_not_counted_twice(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("zoom:sure=0@1.0"), embedded, repeats=1, warmup=0)
    single = execute(inquiry, CATALOGUE.plan("zoom:sure=0@256"), embedded, repeats=1, warmup=0)
    assert len(run.turns) == 1
    assert run.turns[0].after == run.answer.text
    assert run.cost.compress is None
    assert run.cost.prefill_flops == single.cost.prefill_flops
    assert not any("looked in" in note for note in run.notices)


def test_a_zoom_reads_each_crop_once_and_asks_again(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("zoom:sure=1,zooms=1"), embedded, repeats=1, warmup=0)
    accepted = [turn for turn in run.turns if turn.is_accepted]
    assert run.tokens_realised == sum(turn.tokens for turn in accepted)
    assert accepted[-1].after == run.answer.text
    assert run.tokens_requested is None


def test_the_evidence_of_a_zoom_is_what_it_shows_at_full_resolution(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("sparc@256"), embedded, repeats=1, warmup=0)
    assert run.evidence_recall == 0
    crop = (0.0, 0.0, 20.0, 40.0)
    assert evidence_shown([crop], [(10.0, 10.0, 30.0, 30.0)]) == 0.5
    assert evidence_shown([crop, crop, (20.0, 0.0, 40.0, 40.0)], [(10.0, 10.0, 30.0, 30.0), (50, 50, 60, 60)]) == 0.5
    assert evidence_shown([crop], []) is None


def test_the_same_zoom_twice_is_the_same_run(embedded, inquiry):
    plan = CATALOGUE.plan("sparc:tiles=2@1.0")
    one, other = (execute(inquiry, plan, embedded, repeats=1, warmup=0) for _ in range(2))
    assert one.turns == other.turns
    assert one.selection == other.selection
    assert one.answer == other.answer


def test_a_budget_below_the_overview_is_refused_and_the_lowest_is_named(embedded, inquiry):
    with pytest.raises(InvalidBudget, match="use at least 256") as raised:
        execute(inquiry, CATALOGUE.plan("zoom@100"), embedded, repeats=1)
    assert raised.value.lowest == 256


def test_a_model_that_writes_no_box_still_answers_on_the_overview(inquiry, tmp_path):
    vlm = load_model(str(FAMILIES[0].save(tmp_path)), device="cpu")
    run = execute(inquiry, CATALOGUE.plan("sparc:rollouts=3"), vlm, repeats=1, warmup=0)
    assert run.tokens_realised == 16
    assert len(run.turns) == 1
    assert "The model wrote no box that could be read." in run.notices
    assert run.cost.compress is not None
    assert run.turns[0].after == run.answer.text
    looked = execute(inquiry, CATALOGUE.plan("sparc:boxes=attention,crops=1"), vlm, repeats=1, warmup=0)
    assert looked.tokens_realised == 16 * 2
    assert looked.retention_ratio == 2.0
    assert all(left < right for left, _, right, _ in (view.box for view in looked.grid.views))


def test_a_sight_without_a_question_has_no_lens(embedded, inquiry):
    sight = ImageSight(inquiry.path, (512, 512), embedded)
    with pytest.raises(AnalysisError, match="give the sight a prompt"):
        _ = sight.lens


def test_decoding_steps_are_prefills_of_one_position_that_sees_all(embedded):
    architecture = embedded.architecture
    assert decode_flops(architecture, (10, 20), 0) == 0
    by_hand = 0
    for held in (10, 20):
        for step in range(1, 4):
            linear = architecture.dim * architecture.head_dim * (2 * architecture.heads + 2 * architecture.kv_heads)
            linear += 3 * architecture.dim * architecture.ffn
            by_hand += 2 * (linear + 2 * (held + step) * architecture.heads * architecture.head_dim)
    assert decode_flops(architecture, (10, 20), 3) == by_hand


def test_times_of_things_done_one_after_the_other_add_up():
    assert Seconds.total([Seconds(2, 1, 3, 5), Seconds(10, 10, 10, 1)]) == Seconds(12, 11, 13, 1)
