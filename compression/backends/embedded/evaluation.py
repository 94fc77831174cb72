"""Measure a checkpoint on scenes it never saw: accuracy per task with intervals, beside what a blind model would get.

python -m compression.backends.embedded.evaluation CHECKPOINT [--per-task 200] [--write-card]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from compression.backends.embedded.card import model_card
from compression.backends.embedded.questions import LETTERS, TASKS, Question, ask, prompt
from compression.backends.embedded.scenes import Scene, make_scene
from compression.backends.embedded.templates import FAMILY_OF

# Held-out scenes: below data.FIRST_TRAINING_SEED, apart from the small seeds that samples use.
FIRST_SCENE_SEED = 500_000
MEAN_TOKEN_SEED = 600_000
MEAN_TOKEN_SCENES = 64
MOST_PER_SCENE = 3
TIMED_QUESTIONS = 30


@dataclass(frozen=True)
class TaskFigure:
    """How one task went.

    Attributes:
        task: name of the task, or "lettered" and "one word" for the two forms of answer.
        family: its question family, empty for a form of answer.
        questions: how many were asked.
        right: how many were answered right with the image.
        blind_right: how many with every visual token replaced by the mean token.
        majority: share of the most frequent right answer among the one-word questions.
    """

    task: str
    family: str
    questions: int
    right: int
    blind_right: int
    majority: float

    @property
    def accuracy(self) -> float:
        """Share answered right, 0..1."""
        return self.right / self.questions

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson 95 % interval of the accuracy."""
        return wilson_interval(self.right, self.questions)

    @property
    def blind_accuracy(self) -> float:
        """Share answered right without the image, 0..1."""
        return self.blind_right / self.questions


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one checkpoint.

    Attributes:
        tasks: a figure per task.
        forms: a figure per form of answer.
        scenes: number of scenes.
        question_seconds: median time of one question, image processing and encoding included, on one thread.
        parameters: number of weights.
        weight_bytes: size of the weight file.
        command: what made these figures.
    """

    tasks: tuple[TaskFigure, ...]
    forms: tuple[TaskFigure, ...]
    scenes: int
    question_seconds: float
    parameters: int
    weight_bytes: int
    command: str

    @property
    def questions(self) -> int:
        """Questions over all tasks."""
        return sum(figure.questions for figure in self.tasks)


def wilson_interval(right: int, questions: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a share.

    >>> tuple(round(bound, 3) for bound in wilson_interval(9, 10))
    (0.596, 0.982)
    """
    share, spread = right / questions, z * z / questions
    centre = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return centre - half, centre + half


def held_out_questions(per_task: int, tasks: Sequence[str] = TASKS) -> list[tuple[Scene, list[Question]]]:
    """Ask `per_task` questions of every task about held-out scenes, at most three of a task about one scene."""
    left = dict.fromkeys(tasks, per_task)
    seed = FIRST_SCENE_SEED
    out = []
    while any(left.values()):
        scene = make_scene(seed)
        open_tasks = [task for task in tasks if left[task]]
        chosen: list[Question] = []
        seen: Counter[str] = Counter()
        for question in ask(scene, np.random.default_rng((seed, 11)), 24, tasks=open_tasks):
            if left[question.task] and seen[question.task] < MOST_PER_SCENE:
                left[question.task] -= 1
                seen[question.task] += 1
                chosen.append(question)
        if chosen:
            out.append((scene, chosen))
        seed += 1
    return out


class _Reader:
    """A checkpoint opened as any LLaVA is, that answers with or without the image."""

    def __init__(self, checkpoint: Path) -> None:
        # from_pretrained puts the model into evaluation mode.
        self.model: Any = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32)
        self.processor: Any = AutoProcessor.from_pretrained(checkpoint)
        self.mean = self._mean_token()

    def features(self, image: np.ndarray) -> Any:
        pixels = self.processor.image_processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
        return self.model.get_image_features(pixels)

    def _mean_token(self) -> Tensor:
        tokens = [
            self.features(make_scene(MEAN_TOKEN_SEED + index).image).pooler_output[0]
            for index in range(MEAN_TOKEN_SCENES)
        ]
        return torch.stack(tokens).mean((0, 1))

    def answer(self, features: Any, question: Question, *, blind: bool) -> str:
        tokens = features.pooler_output[0]
        if blind:
            tokens = self.mean.expand_as(tokens)
        text = self.processor.tokenizer("<image> " * len(tokens) + prompt(question.text), return_tensors="pt")
        given = type(features)(pooler_output=[tokens])
        logits = self.model(
            input_ids=text["input_ids"], mm_encoder_outputs={"image": given}, logits_to_keep=1, use_cache=False
        ).logits
        return str(self.processor.tokenizer.convert_ids_to_tokens(int(logits[0, -1].argmax())))

    def seconds(self, scene: Scene, question: Question) -> float:
        began = time.perf_counter()
        inputs = self.processor(
            images=Image.fromarray(scene.image), text=f"<image> {prompt(question.text)}", return_tensors="pt"
        )
        self.model.generate(**inputs, max_new_tokens=1, do_sample=False)
        return time.perf_counter() - began


@torch.inference_mode()
def evaluate(checkpoint: Path, per_task: int = 200) -> Evaluation:
    """Answer held-out questions with a checkpoint; the likeliest word of the whole vocabulary counts.

    Args:
        checkpoint: a directory as `train` writes it.
        per_task: questions per task, at least 1.

    Raises:
        ValueError: for fewer than one question per task.
    """
    if per_task < 1:
        raise ValueError(f"per_task must be 1 or larger, got {per_task}")
    reader = _Reader(checkpoint)
    asked = held_out_questions(per_task)
    rows: list[tuple[Question, bool, bool]] = []
    for scene, questions in asked:
        features = reader.features(scene.image)
        for question in questions:
            right = reader.answer(features, question, blind=False) == question.answer
            rows.append((question, right, reader.answer(features, question, blind=True) == question.answer))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timed = [(scene, questions[0]) for scene, questions in asked[: TIMED_QUESTIONS + 3]]
        seconds = [reader.seconds(scene, question) for scene, question in timed][3:]
    finally:
        torch.set_num_threads(threads)
    lettered = [row for row in rows if row[0].answer in LETTERS]
    plain = [row for row in rows if row[0].answer not in LETTERS]
    return Evaluation(
        tasks=tuple(_figure(task, FAMILY_OF[task], [row for row in rows if row[0].task == task]) for task in TASKS),
        forms=tuple(_figure(name, "", part) for name, part in (("one word", plain), ("lettered", lettered)) if part),
        scenes=len(asked),
        question_seconds=statistics.median(seconds) if seconds else math.nan,
        parameters=sum(weight.numel() for weight in reader.model.parameters()),
        weight_bytes=(checkpoint / "model.safetensors").stat().st_size,
        command=f"python -m compression.backends.embedded.evaluation {_shown(checkpoint)} --per-task {per_task}",
    )


def _shown(path: Path) -> str:
    """The path as a reader of the repository would type it."""
    here = Path(__file__).resolve().parents[3]
    resolved = path.resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else resolved.name


def _figure(task: str, family: str, rows: list[tuple[Question, bool, bool]]) -> TaskFigure:
    answers = Counter(question.answer for question, _, _ in rows if question.answer not in LETTERS)
    if not answers:
        answers = Counter(question.answer for question, _, _ in rows)
    return TaskFigure(
        task=task,
        family=family,
        questions=len(rows),
        right=sum(right for _, right, _ in rows),
        blind_right=sum(blind for _, _, blind in rows),
        majority=max(answers.values()) / answers.total(),
    )


def write_card(checkpoint: Path, evaluation: Evaluation, log: Path | None = None) -> None:
    """Write the model card from measured figures, with the key lines of the training log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log is not None and log.exists() else []
    (checkpoint / "README.md").write_text(model_card(evaluation, lines), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; prints JSON."""
    parser = argparse.ArgumentParser(description="Measure a checkpoint of the embedded model on held-out scenes.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-task", type=int, default=200)
    parser.add_argument("--write-card", action="store_true", help="write README.md of the checkpoint anew")
    options = parser.parse_args(arguments)
    evaluation = evaluate(options.checkpoint, options.per_task)
    if options.write_card:
        write_card(options.checkpoint, evaluation, options.checkpoint / "training.log")
    sys.stdout.write(json.dumps(asdict(evaluation), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
