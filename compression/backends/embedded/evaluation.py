"""Measure a checkpoint on scenes it never saw: accuracy per task with intervals, beside what a blind model would get.

python -m compression.backends.embedded.evaluation CHECKPOINT [--per-task 300] [--write-card]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from compression.backends.embedded.backend import ROUTER
from compression.backends.embedded.card import model_card
from compression.backends.embedded.cells import MOST_CELLS
from compression.backends.embedded.choosing import grid_tokens
from compression.backends.embedded.questions import CELL_TASKS, LETTERS, TASKS, Question, ask, split_options
from compression.backends.embedded.reading import Prefix, Reader
from compression.backends.embedded.scenes import COVERS, VIEW, Scene, make_scene
from compression.backends.embedded.templates import FAMILY_OF
from compression.intervals import wilson_interval
from compression.selection import Selection
from compression.strategies import CATALOGUE
from compression.tokens import Signal, VisualTokens

# Held-out scenes: below pools.FIRST_TRAINING_SEED, apart from the small seeds that samples use.
FIRST_SCENE_SEED = 500_000
MEAN_TOKEN_SEED = 600_000
MEAN_TOKEN_SCENES = 64
MOST_PER_SCENE = 3
TIMED_QUESTIONS = 30
LARGE = MOST_CELLS * VIEW
PER_CELL = (64, 24, 8)
"""Visual tokens kept of each cell in the table of budgets."""
CHOICES = ("saliency", "uniform", "random", "mixture", "dualcomp")
"""How they are chosen: by [CLS] attention, as a lattice, by chance, a third as a lattice and the rest by [CLS]
attention, and by DualComp, whose lambda comes from the question."""
SINGLE_TASKS = tuple(task for task in TASKS if task not in CELL_TASKS)


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
class BudgetFigure:
    """Accuracy on 4 x 4 cells under one choice of tokens.

    Attributes:
        choice: one of CHOICES, "full", "thumbnail" (the whole scene on one view) or "blind" (the mean token).
        per_cell: visual tokens kept of each cell.
        right: answered right, per task.
        questions: asked, per task.
    """

    choice: str
    per_cell: int
    right: dict[str, int]
    questions: dict[str, int]

    @property
    def accuracy(self) -> float:
        """Share of all questions answered right, 0..1."""
        return sum(self.right.values()) / sum(self.questions.values())


@dataclass(frozen=True)
class Evaluation:
    """What was measured on one checkpoint.

    Attributes:
        tasks: a figure per task, one view.
        forms: a figure per form of answer, one view.
        scenes: number of scenes of one view.
        cells: a figure per task on 4 x 4 cells, all tokens.
        cell_forms: a figure per form of answer on 4 x 4 cells.
        cell_scenes: number of scenes of 4 x 4 cells.
        budgets: what is left under fewer tokens, on 4 x 4 cells.
        question_seconds: median time of one question on one view, image processing and encoding included, one thread.
        prefill_seconds: median prefill on 4 x 4 cells by visual tokens, one thread.
        parameters: number of weights.
        weight_bytes: size of the weight file.
        command: what made these figures.
    """

    tasks: tuple[TaskFigure, ...]
    forms: tuple[TaskFigure, ...]
    scenes: int
    cells: tuple[TaskFigure, ...]
    cell_forms: tuple[TaskFigure, ...]
    cell_scenes: int
    budgets: tuple[BudgetFigure, ...]
    question_seconds: float
    prefill_seconds: dict[int, float]
    parameters: int
    weight_bytes: int
    command: str

    @property
    def questions(self) -> int:
        """Questions over all tasks on one view."""
        return sum(figure.questions for figure in self.tasks)

    @property
    def cell_questions(self) -> int:
        """Questions over all tasks on 4 x 4 cells."""
        return sum(figure.questions for figure in self.cells)


def held_out_questions(
    per_task: int, tasks: Sequence[str] = SINGLE_TASKS, *, size: int = VIEW
) -> Iterator[tuple[Scene, list[Question]]]:
    """Ask `per_task` questions of every task about held-out scenes, at most three of a task about one scene.

    The cover of a cell is asked mostly where it differs from that of the whole.
    """
    left = dict.fromkeys(tasks, per_task)
    seed = FIRST_SCENE_SEED
    while any(left.values()):
        scene = make_scene(seed, size)
        open_tasks = [task for task in tasks if left[task]]
        chosen: list[Question] = []
        seen: Counter[str] = Counter()
        for question in ask(scene, np.random.default_rng((seed, 11)), 24 if size == VIEW else 48, tasks=open_tasks):
            if not _tells(scene, question):
                continue
            if left[question.task] and seen[question.task] < MOST_PER_SCENE:
                left[question.task] -= 1
                seen[question.task] += 1
                chosen.append(question)
        if chosen:
            yield scene, chosen
        seed += 1


def _tells(scene: Scene, question: Question) -> bool:
    """Whether a question is asked: of seven cells with the cover of the whole scene, one is.

    Most cells have that cover; a model that never looks at the cell would be right about all of these.
    """
    if question.task != "cellcover":
        return True
    _, options = split_options(question.text)
    answer = options[LETTERS.index(question.answer)] if options else question.answer
    if answer != COVERS[int(scene.cover_share.argmax())]:
        return True
    return (scene.seed + sum(question.text.encode())) % 7 == 0


@dataclass
class _Row:
    """One question and which of the ways of reading answered it right."""

    question: Question
    right: dict[tuple[str, int], bool]


FULL, BLIND, THUMBNAIL = ("full", 256), ("blind", 256), ("thumbnail", 16)


@torch.inference_mode()
def evaluate(checkpoint: Path, per_task: int = 300, *, say: Callable[[str], object] = lambda line: None) -> Evaluation:
    """Answer held-out questions with a checkpoint; the likeliest word of the whole vocabulary counts.

    Args:
        checkpoint: a directory as `train` writes it.
        per_task: questions per task, at least 1.
        say: told how far it is.

    Raises:
        ValueError: for fewer than one question per task.
    """
    if per_task < 1:
        raise ValueError(f"per_task must be 1 or larger, got {per_task}")
    reader = Reader(checkpoint)
    mean = mean_token(reader)
    single, scenes = _single_rows(reader, mean, per_task)
    say(f"one view: {len(single)} questions about {len(scenes)} scenes")
    cells, cell_scenes = [], 0
    for scene, questions in held_out_questions(per_task, TASKS, size=LARGE):
        cells += _cell_rows(reader, mean, scene, questions)
        cell_scenes += 1
        if cell_scenes % 50 == 0:
            say(f"4 x 4 cells: {len(cells)} questions about {cell_scenes} scenes")
    ways = list(dict.fromkeys(way for row in cells for way in row.right))
    return Evaluation(
        tasks=tuple(_figure(task, FAMILY_OF[task], single) for task in SINGLE_TASKS),
        forms=_forms(single),
        scenes=len(scenes),
        cells=tuple(_figure(task, FAMILY_OF[task], cells) for task in TASKS),
        cell_forms=_forms(cells),
        cell_scenes=cell_scenes,
        budgets=tuple(_budget(way, cells) for way in ways),
        question_seconds=_question_seconds(reader, scenes),
        prefill_seconds=_prefill_seconds(reader),
        parameters=sum(weight.numel() for weight in reader.model.parameters()),
        weight_bytes=(checkpoint / "model.safetensors").stat().st_size,
        command=f"python -m compression.backends.embedded.evaluation {_shown(checkpoint)} --per-task {per_task}",
    )


def mean_token(reader: Reader) -> torch.Tensor:
    """The mean projected token over scenes that are neither trained on nor asked about, [dim]."""
    looked = (reader.look(make_scene(MEAN_TOKEN_SEED + index).image) for index in range(MEAN_TOKEN_SCENES))
    return torch.stack([tokens.signals[Signal.PROJECTED].mean(0) for tokens in looked]).mean(0)


def _single_rows(
    reader: Reader, mean: torch.Tensor, per_task: int
) -> tuple[list[_Row], list[tuple[Scene, list[Question]]]]:
    rows, scenes = [], []
    for scene, questions in held_out_questions(per_task):
        tokens = reader.look(scene.image)
        read = {FULL: reader.read(tokens), BLIND: reader.prefix([mean.expand(len(tokens), -1)], ["image"])}
        rows += _answered(reader, read, questions)
        scenes.append((scene, questions))
    return rows, scenes


def _answered(reader: Reader, read: dict[tuple[str, int], Prefix], questions: list[Question]) -> list[_Row]:
    """Ask all questions of each prefix."""
    rows = [_Row(question, {}) for question in questions]
    texts = [question.text for question in questions]
    for way, prefix in read.items():
        for row, said in zip(rows, reader.answers(prefix, texts), strict=True):
            row.right[way] = said == row.question.answer
    return rows


def _cell_rows(reader: Reader, mean: torch.Tensor, scene: Scene, questions: list[Question]) -> list[_Row]:
    tokens = reader.look(scene.image)
    names = [view.name for view in tokens.grid.views]
    read = {
        FULL: reader.read(tokens),
        THUMBNAIL: reader.prefix([reader.thumbnail(scene.image)], ["map"]),
        # As many mean tokens as the usual budget: a longer prefix of equal tokens says no more.
        BLIND: reader.prefix([mean.expand(24, -1)] * len(names), names),
    }
    for per_cell in PER_CELL:
        for choice in CHOICES[:-1]:
            read[choice, per_cell] = reader.read(tokens, chosen(tokens, choice, per_cell, scene.seed))
    rows = _answered(reader, read, questions)
    return _dualcomp_rows(reader, tokens, rows)


def _dualcomp_rows(reader: Reader, tokens: VisualTokens, rows: list[_Row]) -> list[_Row]:
    """Add what is answered behind DualComp, at the lambda that its router reads from each question."""
    views = len(tokens.grid.views)
    for per_cell in PER_CELL:
        # DualComp reads the question: those with the same lambda share a selection.
        groups: dict[float, list[_Row]] = {}
        for row in rows:
            groups.setdefault(round(reader.vlm.route(row.question.text).lam, 1), []).append(row)
        for lam, group in groups.items():
            prefix = reader.read(tokens, CATALOGUE.plan(f"dualcomp:lam={lam:g}@{per_cell * views}"))
            said = reader.answers(prefix, [row.question.text for row in group])
            for row, answer in zip(group, said, strict=True):
                row.right["dualcomp", per_cell] = answer == row.question.answer
    return rows


def chosen(tokens: VisualTokens, choice: str, per_cell: int, seed: int) -> Selection:
    """Keep `per_cell` tokens of each view by one of CHOICES but the last."""
    rng = np.random.default_rng((seed, per_cell))
    saliency = tokens.signals[Signal.CLS_ATTENTION].mean(0).numpy()
    kept = []
    for part in tokens.view_slices():
        size = part.stop - part.start
        if choice == "uniform":
            places = grid_tokens(per_cell)
        elif choice == "random":
            places = rng.permutation(size)[:per_cell]
        else:
            score = saliency[part].copy()
            if choice == "mixture":
                score[grid_tokens(max(4, per_cell // 3))] += 10
            places = np.argsort(-score, kind="stable")[:per_cell]
        kept.append(part.start + np.sort(places))
    return Selection.prune(len(tokens), np.concatenate(kept))


def _question_seconds(reader: Reader, scenes: list[tuple[Scene, list[Question]]]) -> float:
    """Median seconds of one question on one view, on one thread."""
    plan = CATALOGUE.plan("identity")

    def once(scene: Scene, question: Question) -> float:
        began = time.perf_counter()
        reader.vlm.generate(reader.look(scene.image), reader.vlm.prompt(question.text), plan)
        return time.perf_counter() - began

    with one_thread():
        seconds = [once(scene, questions[0]) for scene, questions in scenes[: TIMED_QUESTIONS + 3]][3:]
    return statistics.median(seconds) if seconds else math.nan


def _prefill_seconds(reader: Reader) -> dict[int, float]:
    """Median seconds of one prefill on 4 x 4 cells, by visual tokens, on one thread; 16,384 as 8 x 8 cells would be."""
    tokens = reader.look(make_scene(FIRST_SCENE_SEED, LARGE).image)
    projected = tokens.signals[Signal.PROJECTED]
    measured = {}
    with one_thread():
        for count, repeats in ((len(tokens) // 256 * 24, 5), (len(tokens), 5), (4 * len(tokens), 1)):
            visual = projected.repeat(-(-count // len(tokens)), 1)[:count]
            embedded = reader.prefix([visual], ["image"]).embedded.unsqueeze(0)
            samples = []
            for _ in range(repeats + 1):
                began = time.perf_counter()
                reader.model.model.language_model(inputs_embeds=embedded, use_cache=True)
                samples.append(time.perf_counter() - began)
            measured[count] = statistics.median(samples[1:])
    return measured


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread, so that times of different machines can be compared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _budget(way: tuple[str, int], rows: list[_Row]) -> BudgetFigure:
    tasks = [task for task in TASKS if any(row.question.task == task for row in rows)]
    return BudgetFigure(
        choice=way[0],
        per_cell=way[1],
        right={task: sum(row.right[way] for row in rows if row.question.task == task) for task in tasks},
        questions={task: sum(row.question.task == task for row in rows) for task in tasks},
    )


def _forms(rows: list[_Row]) -> tuple[TaskFigure, ...]:
    parts = {"one word": False, "lettered": True}
    found = {name: [row for row in rows if (row.question.answer in LETTERS) == form] for name, form in parts.items()}
    return tuple(_figure(name, "", part) for name, part in found.items() if part)


def _shown(path: Path) -> str:
    """The path as a reader of the repository would type it."""
    here = Path(__file__).resolve().parents[3]
    resolved = path.resolve()
    return str(resolved.relative_to(here)) if resolved.is_relative_to(here) else resolved.name


def _figure(name: str, family: str, rows: list[_Row]) -> TaskFigure:
    """The figure of a task, or of all rows where no family is given."""
    rows = [row for row in rows if not family or row.question.task == name]
    answers = Counter(row.question.answer for row in rows if row.question.answer not in LETTERS)
    if not answers:
        answers = Counter(row.question.answer for row in rows)
    return TaskFigure(
        task=name,
        family=family,
        questions=len(rows),
        right=sum(row.right[FULL] for row in rows),
        blind_right=sum(row.right[BLIND] for row in rows),
        majority=max(answers.values()) / answers.total(),
    )


def write_card(checkpoint: Path, evaluation: Evaluation, log: Path | None = None) -> None:
    """Write the model card from measured figures, with the router's and the key lines of the training log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log is not None and log.exists() else []
    text = model_card(evaluation, lines, router_figures(checkpoint))
    (checkpoint / "README.md").write_text(text, encoding="utf-8")


def router_figures(checkpoint: Path) -> dict[str, float] | None:
    """What was measured of the router when it was trained; None where there is none."""
    path = checkpoint / ROUTER
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        figures: dict[str, float] = json.loads(file.metadata()["figures"])
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line; prints JSON."""
    parser = argparse.ArgumentParser(description="Measure a checkpoint of the embedded model on held-out scenes.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--per-task", type=int, default=300)
    parser.add_argument("--write-card", action="store_true", help="write README.md of the checkpoint anew")
    options = parser.parse_args(arguments)
    evaluation = evaluate(options.checkpoint, options.per_task, say=lambda line: sys.stderr.write(f"{line}\n"))
    if options.write_card:
        write_card(options.checkpoint, evaluation, options.checkpoint / "training.log")
    sys.stdout.write(json.dumps(asdict(evaluation), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
