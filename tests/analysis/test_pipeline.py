"""From a file and words to runs, on the embedded model and real scenes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from analysis.errors import ImageError
from analysis.imagery import write_geotiff
from analysis.pipeline import OUT_OF_DOMAIN, SYNTHETIC_TAG, Inquiry, compare, execute, open_image
from analysis.run import Run
from compression.backends import load_model
from compression.backends.base import VLM
from compression.backends.embedded.questions import ask
from compression.backends.embedded.scenes import make_scene
from compression.errors import Cancelled, InvalidQuestion
from compression.selection import Fate
from compression.sight import looking
from compression.strategies import CATALOGUE


@pytest.fixture(scope="session")
def embedded() -> VLM:
    """The model of this repository."""
    return load_model("embedded", device="cpu")


@pytest.fixture
def inquiry(tmp_path: Path) -> Inquiry:
    """A question about a scene, written as a georeferenced file that declares itself synthetic."""
    scene = make_scene(11)
    question = next(
        one for one in ask(scene, np.random.default_rng(1), 20, lettered_share=0.0) if one.task == "quarter"
    )
    path = tmp_path / "scene.tif"
    write_geotiff(path, scene.image, scene.crs, scene.transform, tags={SYNTHETIC_TAG: "seed 11"})
    return Inquiry(path, open_image(path), question.text, question.choices, question.answer, question.evidence)


@pytest.mark.parametrize(
    "strategy",
    [
        "identity",
        "dualcomp",
        # An overview of so small an image is all of it.
        *(
            f"{name}@{'1.0' if name in ('sparc', 'zoom') else '0.6'}"
            for name in CATALOGUE.names()
            if name != "identity"
        ),
    ],
)
def test_a_run_keeps_every_promise_of_its_record(embedded, inquiry, strategy):
    plan = CATALOGUE.plan(strategy)
    run = execute(inquiry, plan, embedded, repeats=1)
    total = sum(run.selection.counts().values())
    assert total == run.tokens_encoded == len(run.grid)
    assert run.tokens_total == 256
    assert run.grid == embedded.encode(np.zeros((256, 256, 3), np.uint8), (256, 256)).grid or looking(plan)
    assert run.retention_ratio == pytest.approx(np.mean(run.tokens_per_layer) / 256)
    assert run.tokens_kept == len(run.selection) <= 256
    assert len(run.tokens_per_layer) == embedded.architecture.layers
    if run.tokens_requested is not None:
        assert run.tokens_realised <= run.tokens_requested
    assert sum(run.answer.probabilities) == pytest.approx(1)
    assert 0 < run.answer.choice_mass <= 1
    assert run.answer.text in inquiry.choices
    assert run.answer.is_correct == (run.answer.text == inquiry.expected)
    assert run.recording.answer.shape == (embedded.architecture.layers, len(run.grid))
    sums = np.nansum(run.recording.answer.astype(np.float64), axis=1)
    # What falls on outputs without a patch, such as a kept [CLS], is in the mass and on no patch.
    assert (sums <= run.recording.answer_mass + 2e-3).all()
    if not (run.selection.anchor < 0).any():
        assert np.allclose(sums, run.recording.answer_mass, atol=2e-3)
    dropped = run.selection.fate == Fate.DROPPED
    assert np.isnan(run.recording.answer[-1][dropped]).all()
    assert run.cost.prefill.median > 0
    assert run.cost.prefill_flops > 0
    assert run.cost.kv_cache_bytes > 0
    assert 0 <= run.evidence_recall <= 1
    assert OUT_OF_DOMAIN not in run.labels
    assert Run.from_json(json.loads(json.dumps(run.to_json())), run.arrays()) == run


def test_a_plan_of_two_steps_is_one_run_that_tells_both(embedded, inquiry):
    plan = CATALOGUE.plan("visiondrop:merge=mean@0.5+visiondrop_stages@0.25")
    run = execute(inquiry, plan, embedded, repeats=1)
    assert run.request.strategy == str(plan) == "visiondrop:merge=mean@0.5+visiondrop_stages@0.25"
    assert run.strategy_name == "visiondrop+visiondrop_stages"
    assert run.request.strategy_version == sum(step.compressor.info.version for step in plan.steps)
    assert run.tokens_requested == 64
    assert 63 < run.tokens_realised <= 64
    assert run.tokens_per_layer[0] == 128
    assert run.tokens_kept == run.tokens_per_layer[-1] < 64
    assert not any("only" in label for label in run.labels), "neither stage is left out"
    assert run.selection.counts()["merged"] > 0
    assert sum(run.selection.counts().values()) == 256
    assert Run.from_json(json.loads(json.dumps(run.to_json())), run.arrays()) == run


def test_labels_and_notices_of_every_step_travel(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("cdpruner@0.5+covipal@0.25"), embedded, repeats=1)
    assert any("teacher's attention from a full first pass" in label for label in run.labels)
    assert any(label in run.labels for label in CATALOGUE.get("cdpruner").info.labels)
    assert any("full first pass" in notice for notice in run.notices)
    assert any("language" in notice for notice in run.notices)


def test_a_run_says_how_many_of_its_outputs_are_class_tokens(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("visionzip@1"), embedded, repeats=1, record=())
    assert (
        "1 of the 1 tokens after compression is the [CLS] token of a view, without a place on the map." in run.notices
    )
    plain = execute(inquiry, CATALOGUE.plan("divprune@64"), embedded, repeats=1, record=())
    assert not any("[CLS]" in notice for notice in plain.notices)


def test_an_adaptive_first_step_chooses_what_enters_and_the_last_one_the_mean(embedded, inquiry):
    run = execute(inquiry, CATALOGUE.plan("dualcomp+fastkv@40"), embedded, repeats=1)
    assert run.tokens_requested == 40
    assert 39 < run.tokens_realised <= 40
    assert run.selection.router is not None


def test_a_plan_out_of_reach_is_refused_with_the_lowest_budget_of_its_last_step(embedded, inquiry):
    [outcome] = compare(inquiry, [CATALOGUE.plan("visionzip@0.5+fastkv@32")], embedded, repeats=1)
    assert (outcome.stage, outcome.lowest) == ("refused", 65)  # (3 * 128 + 3 * 1) / 6 = 64.5 in six layers


def test_a_plan_whose_steps_clash_is_refused_and_not_failed(embedded, inquiry):
    [outcome] = compare(inquiry, [CATALOGUE.plan("fastv:layer=3@0.8+fastkv@0.7")], embedded, repeats=1)
    assert outcome.stage == "refused"
    assert "two steps act before layer 3" in outcome.reason


def test_fewer_tokens_cost_less(embedded, inquiry):
    full, quarter = (
        execute(inquiry, CATALOGUE.plan(text), embedded, repeats=1) for text in ("identity", "uniform_grid@0.25")
    )
    assert quarter.cost.prefill_flops < 0.3 * full.cost.prefill_flops
    assert quarter.cost.kv_cache_bytes < 0.3 * full.cost.kv_cache_bytes
    assert full.cost.compress is None
    assert quarter.tokens_kept == 64


def test_the_same_request_has_the_same_digest_and_another_run_another_id(embedded, inquiry):
    first, second, other = (
        execute(inquiry, CATALOGUE.plan("random_subset@0.5"), embedded, seed=seed, repeats=1) for seed in (1, 1, 2)
    )
    assert first.request.digest == second.request.digest != other.request.digest
    assert first.id != second.id
    assert first.selection == second.selection
    assert first.answer == second.answer


def test_a_strategy_that_is_refused_does_not_stop_the_others(embedded, inquiry):
    plans = [CATALOGUE.plan(text) for text in ("identity", "fastv@2", "uniform_grid@16")]
    told: list[tuple[str, float]] = []
    outcomes = list(
        compare(inquiry, plans, embedded, repeats=1, progress=lambda words, share: told.append((words, share)))
    )
    assert [outcome.run is not None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].stage == "refused"
    assert outcomes[1].lowest == 44
    assert "at least 44" in outcomes[1].reason
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[0][0] == "Encoding the image"


def test_a_cancelled_comparison_says_so_for_what_did_not_run(embedded, inquiry):
    outcomes = list(compare(inquiry, [CATALOGUE.plan("identity")], embedded, repeats=1, cancel=lambda: True))
    assert [outcome.stage for outcome in outcomes] == ["cancelled"]
    with pytest.raises(Cancelled):
        execute(inquiry, CATALOGUE.plan("identity"), embedded, repeats=1, cancel=lambda: True)


def test_a_photograph_is_labelled_as_outside_the_models_domain(embedded, tmp_path):
    path = tmp_path / "photo.tif"
    write_geotiff(path, np.random.default_rng(0).integers(0, 255, (300, 500, 3), dtype=np.uint8), None, None)
    run = execute(
        Inquiry(path, open_image(path), "How many ships are there?"),
        CATALOGUE.plan("dualcomp@0.1"),
        embedded,
        repeats=1,
    )
    assert OUT_OF_DOMAIN in run.labels
    assert any("not on photographs" in notice for notice in run.notices)
    assert any("resized from 500 × 300 to 427 × 256 pixels: 1 × 2 cells" in notice for notice in run.notices)
    # The last patch begins on the image and ends on the padding of its cell.
    patch = 16 * 300 / 256
    assert run.grid.boxes()[-1].tolist() == pytest.approx([26 * patch, 15 * patch, 27 * patch, 300])
    assert run.answer.is_correct is None
    assert run.evidence_recall is None
    assert run.task == "count"


@pytest.mark.parametrize(
    ("question", "message"),
    [("", "is empty"), ("   ", "is empty"), ("xyzzy plugh", "knows no word")],
    ids=["empty", "blank", "unknown words only"],
)
def test_a_question_that_cannot_be_asked_is_refused_before_anything_runs(embedded, inquiry, question, message):
    with pytest.raises(InvalidQuestion, match=message):
        next(compare(Inquiry(inquiry.path, inquiry.image, question), [CATALOGUE.plan("identity")], embedded))


def test_an_unknown_word_is_a_notice_and_the_rest_is_asked(embedded, inquiry):
    run = execute(
        Inquiry(inquiry.path, inquiry.image, "How many gigantic ships are there?"),
        CATALOGUE.plan("identity"),
        embedded,
        repeats=1,
    )
    assert any("gigantic" in notice for notice in run.notices)
    assert run.answer.choices[0] == "zero"


def test_a_question_outside_the_templates_gets_the_five_likeliest_words(embedded, inquiry):
    run = execute(
        Inquiry(inquiry.path, inquiry.image, "red ship north"), CATALOGUE.plan("identity"), embedded, repeats=1
    )
    assert run.request.choices == ()
    assert len(run.answer.choices) == 5
    assert list(run.answer.probabilities) == sorted(run.answer.probabilities, reverse=True)
    assert any("means little" in notice for notice in run.notices)


def test_a_missing_image_is_an_image_error(tmp_path):
    with pytest.raises(ImageError):
        open_image(tmp_path / "nothing.png")
