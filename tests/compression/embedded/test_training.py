"""Training: repeatable, resumable, and its checkpoint opens like any LLaVA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from compression.backends.embedded.assembly import assemble
from compression.backends.embedded.cells import TOKENS, Layout
from compression.backends.embedded.choosing import POLICIES, choose_tokens
from compression.backends.embedded.evaluation import FIRST_SCENE_SEED, MEAN_TOKEN_SEED, evaluate, held_out_questions
from compression.backends.embedded.model import ModelSize, encode_views, new_vision_tower
from compression.backends.embedded.mosaics import join_cells, mosaic_of
from compression.backends.embedded.packing import pack
from compression.backends.embedded.pools import (
    FIRST_TRAINING_SEED,
    Pictures,
    ScenePool,
    labels_of,
    thumbnail_of,
    views_of,
    vision_batch,
)
from compression.backends.embedded.questions import TASKS, VOCABULARY, ask, prompt
from compression.backends.embedded.scenes import COVERS, make_scene
from compression.backends.embedded.schedule import MOMENTS, Schedule, reading_at
from compression.backends.embedded.training import train

TINY = ModelSize(dim=32, heads=2, vision_layers=1, vision_mlp=32, text_layers=4, text_mlp=32)
STEPS = Schedule(vision=3, align=2, language=3, polish=2)


def silent(line: str) -> None:
    """Take a line of the log and say nothing."""


def run(output: Path, *, resume: bool = False, stop_after: int | None = None) -> None:
    train(
        output,
        minutes=None,
        steps=STEPS,
        seed=3,
        device="cpu",
        resume=resume,
        log=silent,
        size=TINY,
        exports=1,
        questions_per_task=0,
        stop_after=stop_after,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    run(output)
    return output


def test_an_interrupted_run_ends_with_the_same_weights(trained: Path, tmp_path: Path) -> None:
    run(tmp_path, stop_after=2)
    run(tmp_path, resume=True, stop_after=4)
    assert not (tmp_path / "checkpoint" / "training.log").exists()
    run(tmp_path, resume=True)
    whole = load_file(trained / "checkpoint" / "model.safetensors")
    pieced = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert whole.keys() == pieced.keys()
    assert all(torch.equal(whole[name], pieced[name]) for name in whole)


def test_nothing_but_safetensors_json_and_text_is_written(trained: Path) -> None:
    endings = {path.suffix for path in trained.rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".md", ".log"}
    assert not list(trained.glob("checkpoint.*"))


def test_the_log_says_seed_and_steps(trained: Path) -> None:
    log = (trained / "train.log").read_text()
    assert "seed 3, steps {'vision': 3, 'align': 2, 'language': 3, 'polish': 2}" in log
    assert (trained / "checkpoint" / "training.log").read_text() == log


def test_training_heads_are_not_shipped(trained: Path) -> None:
    names = load_file(trained / "checkpoint" / "model.safetensors")
    assert not [name for name in names if "place" in name or "cls_head" in name]


def test_the_checkpoint_answers_as_training_saw_it(trained: Path) -> None:
    checkpoint = trained / "checkpoint"
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(checkpoint)
    scene = make_scene(7)
    questions = ask(scene, np.random.default_rng(0), 4)
    text = pack([questions])
    words = model.model.language_model.embed_tokens.weight
    with torch.no_grad():
        features, attention = encode_views(model.model.vision_tower, scene.image[None])
        projected = model.model.multi_modal_projector(features)
        everything = torch.arange(TOKENS)[None]
        read = assemble(words, projected, everything, Layout(), text, original_positions=False)
        hidden = model.model.language_model(
            inputs_embeds=read.embedded, attention_mask=read.mask, position_ids=read.positions, use_cache=False
        ).last_hidden_state
        packed = hidden[0, text.answer_place + TOKENS + 1] @ words.T
        for index, question in enumerate(questions):
            inputs = processor(
                images=Image.fromarray(scene.image), text=f"<image> {prompt(question.text)}", return_tensors="pt"
            )
            assert inputs["input_ids"].shape[1] == 1 + TOKENS + len(prompt(question.text).split())
            torch.testing.assert_close(model(**inputs).logits[0, -1], packed[index], rtol=1e-4, atol=1e-4)
    assert 0 < float(attention.sum()) < 1


def test_held_out_scenes_are_never_trained_on() -> None:
    seeds = [scene.seed for scene, _ in held_out_questions(2)]
    assert FIRST_SCENE_SEED <= min(seeds) <= max(seeds) < MEAN_TOKEN_SEED < FIRST_TRAINING_SEED


def test_held_out_questions_are_as_many_as_wanted() -> None:
    tasks = [question.task for _, part in held_out_questions(3, ("corner", "quarter")) for question in part]
    assert (tasks.count("corner"), tasks.count("quarter"), len(tasks)) == (3, 3, 6)


def test_held_out_cells_are_not_answered_by_the_cover_of_the_whole() -> None:
    asked = list(held_out_questions(24, ("cellcover",), size=1024))
    whole = [
        COVERS[int(scene.cover_share.argmax())] == one.answer
        for scene, part in asked
        for one in part
        if one.answer in COVERS
    ]
    assert len(whole) > 10
    assert np.mean(whole) < 0.7


def test_an_evaluation_counts_every_task(trained: Path) -> None:
    evaluation = evaluate(trained / "checkpoint", per_task=1)
    assert (evaluation.questions, evaluation.cell_questions) == (len(TASKS) - 2, len(TASKS))
    assert {figure.choice for figure in evaluation.budgets} > {"full", "blind", "thumbnail", "dualcomp"}
    assert all(figure.questions == evaluation.budgets[0].questions for figure in evaluation.budgets)
    assert all(0 <= figure.interval[0] <= figure.accuracy <= figure.interval[1] <= 1 for figure in evaluation.tasks)


def test_vision_batches_repeat_and_differ_by_step() -> None:
    assert np.array_equal(vision_batch(0, 5, 16)[0], vision_batch(0, 5, 16)[0])
    assert not np.array_equal(vision_batch(0, 5, 16)[0], vision_batch(0, 6, 16)[0])


def test_cells_of_a_large_scene_keep_their_labels() -> None:
    images, labels = vision_batch(0, 0, 16)
    scene = make_scene(FIRST_TRAINING_SEED + 5_000_000, 1024)
    assert np.array_equal(images[6], scene.image[256:512, 512:768])
    assert np.array_equal(labels[6, :, 0].reshape(16, 16), scene.cover[16:32, 32:48])


@pytest.fixture(scope="module")
def pool() -> ScenePool:
    return ScenePool(new_vision_tower(TINY, 0).bfloat16(), seed=0, size=6, large=2)


def test_the_cells_of_a_large_scene_are_put_together_again(pool: ScenePool) -> None:
    whole = Layout(4, 4, thumbnail=True)
    pictures = pool.coherent(np.array([1]), whole, np.zeros((1, 2), int))
    scene = make_scene(FIRST_TRAINING_SEED + 8_000_001, 1024)
    assert pictures.features.shape[:2] == (1, 17 * TOKENS)
    cells = pictures.labels[0, TOKENS:].numpy().reshape(4, 4, TOKENS, 4)
    assert np.array_equal(join_cells(cells), labels_of(scene))
    assert np.array_equal(pictures.labels[0, :TOKENS].numpy(), thumbnail_of(scene)[1])


def test_a_window_of_a_large_scene_asks_about_what_it_shows(pool: ScenePool) -> None:
    pictures = pool.coherent(np.array([0]), Layout(2, 3), np.array([[1, 1]]))
    scene = make_scene(FIRST_TRAINING_SEED + 8_000_000, 1024)
    assert np.array_equal(pictures.truths[0].cover, scene.cover[16:48, 16:64])
    shown = [item for item in scene.objects if 16 <= item.row < 48 and 16 <= item.col < 64]
    found = {(item.name, item.row + 16, item.col + 16) for item in pictures.truths[0].objects}
    assert found == {(item.name, item.row, item.col) for item in shown}


def test_remixed_cells_repeat_from_the_same_chance(pool: ScenePool) -> None:
    first, second = (pool.remixed(np.random.default_rng(4), 2, Layout(2, 2)) for _ in range(2))
    assert torch.equal(first.features, second.features)
    assert first.truths[1].objects == second.truths[1].objects


def test_labels_tell_what_the_scene_knows() -> None:
    scene = make_scene(9)
    truth = mosaic_of(labels_of(scene))
    assert {(item.name, item.row, item.col, item.on_road) for item in truth.objects} == {
        (item.name, item.row, item.col, item.on_road) for item in scene.objects
    }
    assert np.array_equal(truth.building, scene.building)


def pictures_of(layout: Layout) -> Pictures:
    """Drawn features and saliency over the real labels of one scene."""
    chance = torch.Generator().manual_seed(0)
    scene = make_scene(1, 1024)
    cells = views_of(scene)[1].reshape(4, 4, TOKENS, 4)[: layout.rows, : layout.cols].reshape(-1, TOKENS, 4)
    views = [thumbnail_of(scene)[1]] * layout.thumbnail + list(cells if layout.cells else [])
    labels = torch.as_tensor(np.concatenate(views)).long()
    drawn = torch.rand(1, len(labels), 8, generator=chance), torch.rand(1, len(labels), generator=chance)
    return Pictures(layout, *drawn, labels[None], [mosaic_of(labels_of(scene))])


LAYOUTS = [Layout(), Layout(2, 3), Layout(4, 4, thumbnail=True), Layout(4, 4, thumbnail=True, cells=False)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("policy", POLICIES)
def test_kept_tokens_are_ascending_and_unique(policy: str, layout: Layout) -> None:
    keep = choose_tokens(np.random.default_rng(0), pictures_of(layout), 40, policy)
    assert (keep.diff() > 0).all()
    if policy != "full":
        cells = layout.rows * layout.cols * layout.cells
        assert keep.shape == (1, 40 * cells + 64 * layout.thumbnail)


def test_a_global_choice_leaves_no_cell_without_tokens() -> None:
    pictures = pictures_of(Layout(4, 4))
    pictures.saliency[:, TOKENS:] = 0
    keep = choose_tokens(np.random.default_rng(0), pictures, 8, "global")
    assert torch.bincount(keep[0] // TOKENS).min() == 4


def test_the_oracle_keeps_every_object() -> None:
    pictures = pictures_of(Layout(4, 4))
    keep = choose_tokens(np.random.default_rng(0), pictures, 40, "oracle")
    assert set(torch.argwhere(pictures.labels[0, :, 1] > 0).flatten().tolist()) <= set(keep[0].tolist())


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_views_stand_behind_their_names_and_questions_behind_all_of_them(layout: Layout) -> None:
    pictures = pictures_of(layout)
    keep = choose_tokens(np.random.default_rng(0), pictures, 5, "saliency", thumbnail=5)
    text = pack([ask(pictures.truths[0], np.random.default_rng(1), 3)])
    words = torch.randn(len(VOCABULARY), 8)
    visual = pictures.features.gather(1, keep.unsqueeze(-1).expand(-1, -1, 8))
    read = assemble(words, visual, keep, layout, text, original_positions=False)
    expected = [words[VOCABULARY["<bos>"]]]
    for view, name in enumerate(layout.names):
        expected += [] if layout.is_single else [words[VOCABULARY[name]]]
        expected += list(visual[0, (keep[0] // TOKENS) == view])
    assert torch.equal(read.embedded[0, : read.prefix], torch.stack(expected))
    assert read.token[0][read.token[0] >= 0].tolist() == keep[0].tolist()
    assert read.positions[0, : read.prefix].tolist() == list(range(read.prefix))
    gaps = assemble(words, visual, keep, layout, text, original_positions=True)
    tokens_and_names = layout.tokens + (0 if layout.is_single else len(layout.names))
    assert int(gaps.positions[0, gaps.prefix]) == 1 + tokens_and_names
    assert (gaps.positions[0, : gaps.prefix].diff() > 0).all()


def test_training_reads_few_tokens_first_and_cells_beside_single_views_in_the_end() -> None:
    rng = np.random.default_rng(0)
    early = reading_at(0.0, rng)
    assert (early.source, early.count, early.policy) == ("single", 48, "oracle")
    late = [reading_at(0.9, rng) for _ in range(2000)]
    cells = [reading for reading in late if not reading.layout.is_single]
    assert 0.55 < len(cells) / len(late) < 0.65
    full = [reading for reading in cells if reading.policy == "full" and reading.layout.cells]
    assert 0.03 < len(full) / len(cells) < 0.09
    assert all(reading.layout.tokens * reading.images <= 17 * TOKENS for reading in full)
    assert any(reading.layout.thumbnail for reading in cells)


def test_weights_are_kept_at_moments_that_are_log_spaced() -> None:
    moments = Schedule(10, 10, 4600, 900).moments()
    assert len(moments) == MOMENTS
    assert moments[-1] == 5500
    ratios = np.divide(moments[1:-1], moments[:-2])
    assert ratios.max() / ratios.min() < 1.05


def test_packed_questions_end_before_their_answers() -> None:
    questions = ask(make_scene(2), np.random.default_rng(0), 18)
    batch = pack([questions])
    assert batch.ids.shape == (1, 256)
    assert {int(token) for token in batch.ids[0, batch.answer_place]} == {VOCABULARY[":"]}
    assert len(batch.tasks) == len(batch.answer_id)


@pytest.mark.parametrize("minutes", [None, 0, -1])
def test_training_without_time_or_steps_is_refused(tmp_path: Path, minutes: float | None) -> None:
    with pytest.raises(ValueError, match="minutes must be larger than 0"):
        train(tmp_path, minutes=minutes, log=silent, size=TINY)


def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to resume"):
        train(tmp_path, minutes=1, resume=True, log=silent)


@pytest.mark.parametrize("text", ["", "1,2", "a,b,c,d", "1,2,3", "1,2,3,4,5"])
def test_steps_that_are_not_four_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="four whole numbers"):
        Schedule.parse(text)


def test_a_stage_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Schedule(0, 1, 1, 1)
