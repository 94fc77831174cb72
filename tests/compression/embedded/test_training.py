"""Training: repeatable, resumable, and its checkpoint opens like any LLaVA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from compression.backends.embedded.data import (
    FIRST_TRAINING_SEED,
    assemble,
    choose_tokens,
    labels_of,
    pack,
    vision_batch,
)
from compression.backends.embedded.evaluation import FIRST_SCENE_SEED, MEAN_TOKEN_SEED, evaluate, held_out_questions
from compression.backends.embedded.model import TOKENS, ModelSize, encode_views
from compression.backends.embedded.questions import VOCABULARY, ask, prompt
from compression.backends.embedded.scenes import make_scene
from compression.backends.embedded.schedule import Schedule, budget_at
from compression.backends.embedded.training import train

TINY = ModelSize(dim=32, heads=2, vision_layers=1, vision_mlp=32, text_layers=4, text_mlp=32)
STEPS = Schedule(vision=3, align=2, language=4)


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
    assert "seed 3, steps {'vision': 3, 'align': 2, 'language': 4}" in log
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
        embedded, mask, positions = assemble(words, projected, everything, text, original_positions=False)
        hidden = model.model.language_model(
            inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False
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


def test_an_evaluation_counts_every_task(trained: Path) -> None:
    evaluation = evaluate(trained / "checkpoint", per_task=1)
    assert evaluation.questions == 12
    assert all(0 <= figure.interval[0] <= figure.accuracy <= figure.interval[1] <= 1 for figure in evaluation.tasks)


def test_vision_batches_repeat_and_differ_by_step() -> None:
    assert np.array_equal(vision_batch(0, 5, 16)[0], vision_batch(0, 5, 16)[0])
    assert not np.array_equal(vision_batch(0, 5, 16)[0], vision_batch(0, 6, 16)[0])


def test_cells_of_a_large_scene_keep_their_labels() -> None:
    images, labels = vision_batch(0, 0, 16)
    scene = make_scene(FIRST_TRAINING_SEED + 5_000_000, 1024)
    assert np.array_equal(images[6], scene.image[256:512, 512:768])
    assert np.array_equal(labels[6, :, 0].reshape(16, 16), scene.cover[16:32, 32:48])


@pytest.mark.parametrize("policy", ["oracle", "random", "uniform", "saliency"])
def test_kept_tokens_are_ascending_and_unique(policy: str) -> None:
    labels = torch.as_tensor(labels_of(make_scene(1))[None]).long()
    keep = choose_tokens(np.random.default_rng(0), labels, torch.rand(1, TOKENS), 40, policy)
    assert keep.shape == (1, 40)
    assert (keep.diff() > 0).all()


def test_the_oracle_keeps_every_object() -> None:
    labels = torch.as_tensor(labels_of(make_scene(1))[None]).long()
    keep = choose_tokens(np.random.default_rng(0), labels, torch.rand(1, TOKENS), 40, "oracle")
    assert set(torch.argwhere(labels[0, :, 1] > 0).flatten().tolist()) <= set(keep[0].tolist())


def test_training_reads_few_tokens_first_and_mostly_all_in_the_end() -> None:
    rng = np.random.default_rng(0)
    assert budget_at(0.0, rng) == (48, "oracle")
    late = [budget_at(0.9, rng)[0] == TOKENS for _ in range(400)]
    assert 0.65 < np.mean(late) < 0.8


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


@pytest.mark.parametrize("text", ["", "1,2", "a,b,c", "1,2,3,4"])
def test_steps_that_are_not_three_numbers_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="three whole numbers"):
        Schedule.parse(text)


def test_a_stage_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        Schedule(0, 1, 1)
