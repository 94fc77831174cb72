"""The model card: what the embedded model is for, what it scored, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compression.backends.embedded.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from compression.backends.embedded.evaluation import BudgetFigure, Evaluation, TaskFigure

FULL_SHARE = "Of the steps on cells, 6 % read all tokens."
_HEAD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
language: en
---
# Keepmap's embedded model

A very small LLaVA that Keepmap trains on its own procedural overhead scenes, so that strategies can be compared on real
answers without a download. An ordinary checkpoint directory: `AutoModelForImageTextToText` and `AutoProcessor` open it.

{parameters:.2f} million weights, {megabytes:.1f} MB in bfloat16: a CLIP vision tower (4 layers, [CLS] kept, 256 pixels
in patches of 16, so 256 visual tokens), a two-layer projector, and a Llama decoder (6 layers, width 192) with {words}
words. It reads one view, or up to 4 x 4 cells of 256 pixels (4,096 visual tokens), each behind its name: `a1 <image> b1
<image> ... d4 <image> question : ...`, the letter for the column and the digit for the row.
"""

_FIGURES = """
## Accuracy

Held-out scenes (seeds that training never uses), the likeliest word of the whole vocabulary counted as the answer.
"Blind" replaces every visual token by the mean token; "majority" is the share of the most frequent right answer among
the one-word questions. Intervals are Wilson's, 95 %.

### One view, {questions:,} questions about {scenes:,} scenes of 256 pixels

| family | task | questions | accuracy | 95 % interval | blind | majority |
|---|---|---|---|---|---|---|
{rows}

One question takes {milliseconds:.0f} ms on one thread of the CPU that measured this, image processing and encoding
included (median of 30).

### 4 x 4 cells, {cell_questions:,} questions about {cell_scenes:,} scenes of 1,024 pixels, all 4,096 visual tokens

| family | task | questions | accuracy | 95 % interval | blind | majority |
|---|---|---|---|---|---|---|
{cell_rows}

### The same questions under fewer tokens per cell

"Mixture" is a third as a lattice and the rest by [CLS] attention. "thumbnail" is the whole scene on one view.

| tokens | chosen by | all | {names} |
|---|---|---|{lines}|
{budget_rows}

One prefill on one thread: {prefill}. 16,384 tokens are what 8 x 8 cells would be; the model is not taught them.
Made by

    {command} --write-card
"""

_USE = """
## How to ask

The vocabulary is closed: lower-case words with spaces between, `question : what colour is the ship ? answer :`, and the
answer is the next word. `compression.backends.embedded.questions` writes prompts, brings free text onto the templates
and lists unknown words. Lettered options are asked as `... ? options : A red B blue answer :`.

## Intended use

Comparing visual-token compression strategies, tests and demonstrations. Nothing else: it is no general assistant.

## Limits

- Scenes are synthetic. It was not trained on photographs, and what it says about one means nothing.
- The vocabulary is closed and answers are one word. Unknown words become `<unk>`.
- Up to 4 x 4 cells; larger images are resized to 1,024 pixels first. Objects never cross a cell's border in training.
- Knowledge questions repeat the facts it was trained on: they measure what text alone gives, not generalisation.
- [CLS] was trained on the presence of objects, so attention from [CLS] is object-centric by construction. Strategies
  that keep what [CLS] attends to therefore do well on object questions here; that is our choice, not a finding.
- It was trained on full and on reduced sets of visual tokens (random, lattice, by [CLS] attention, objects first), so
  fewer tokens do not surprise it. {full_share}
- Tracing roads is not taught and not offered.
- The weakest task of this checkpoint is {weakest}, at {lowest:.3f}.
"""
_ROUTER = """
## The router

`router.safetensors`, {parameters:,} weights in the shape of DualComp's router, on the mean word embedding of the
question. lambda is taught from the question's family, rho from the smallest retention on a ladder from which on the
answer behind DualComp stays right. On {questions:,} questions about held-out scenes of one view and of 4 x 4 cells:

| figure | value |
|---|---|
| family read from lambda | {family:.3f} |
| mean retention that it chooses, for the {answerable:,} questions that can be answered at all | {retention:.3f} |
| mean retention that they needed | {needed:.3f} |
| answers lost at its choice | {lost:.3f} |
| answers lost when each question gets its mean retention instead | {fixed:.3f} |
"""


def model_card(evaluation: Evaluation, log: Sequence[str] = (), router: Mapping[str, float] | None = None) -> str:
    """Write the card from measured figures.

    Args:
        evaluation: what was measured.
        log: lines of the training log, from which the key figures are taken.
        router: the figures of the router, where there is one.
    """
    weakest = min((*evaluation.tasks, *evaluation.cells), key=lambda figure: figure.accuracy)
    where = "one view" if weakest in evaluation.tasks else "4 x 4 cells"
    rows = [_row(figure) for figure in (*evaluation.tasks, *evaluation.forms)]
    cell_rows = [_row(figure) for figure in (*evaluation.cells, *evaluation.cell_forms)]
    names = list(evaluation.budgets[0].right)
    parts = [
        _HEAD.format(
            parameters=evaluation.parameters / 1e6,
            megabytes=evaluation.weight_bytes / 1e6,
            words=len(VOCABULARY),
        ),
        _FIGURES.format(
            questions=evaluation.questions,
            scenes=evaluation.scenes,
            rows="\n".join(rows),
            cell_questions=evaluation.cell_questions,
            cell_scenes=evaluation.cell_scenes,
            cell_rows="\n".join(cell_rows),
            names=" | ".join(names),
            lines="|".join("---" for _ in names),
            budget_rows="\n".join(_budget_row(figure) for figure in evaluation.budgets),
            prefill=", ".join(
                f"{count:,} tokens {seconds:.3f} s" for count, seconds in evaluation.prefill_seconds.items()
            ),
            milliseconds=1000 * evaluation.question_seconds,
            command=evaluation.command,
        ),
        _USE.format(weakest=f"{weakest.task} on {where}", lowest=weakest.accuracy, full_share=FULL_SHARE),
    ]
    if router:
        parts.append(_ROUTER.format(**router))
    if log:
        parts.append(_training(log))
    return "".join(parts)


def _budget_row(figure: BudgetFigure) -> str:
    tokens = 256 if figure.choice == "thumbnail" else 384 if figure.choice == "blind" else 16 * figure.per_cell
    shares = " | ".join(f"{figure.right[task] / figure.questions[task]:.2f}" for task in figure.right)
    return f"| {tokens:,} | {figure.choice} | {figure.accuracy:.3f} | {shares} |"


def _row(figure: TaskFigure) -> str:
    low, high = figure.interval
    family = figure.family or "(all)"
    return (
        f"| {family} | {figure.task} | {figure.questions} | {figure.accuracy:.3f} | {low:.3f} to {high:.3f} "
        f"| {figure.blind_accuracy:.3f} | {figure.majority:.3f} |"
    )


def _training(log: Sequence[str]) -> str:
    """The lines that let a reader repeat the run, and the last one of each stage."""
    key = list(dict.fromkeys(line for line in log if line.startswith(("measured ", "seed ", "resumed "))))
    for stage in ("vision", "align", "language", "polish"):
        key.extend([line for line in log if line.startswith(f"{stage} ")][-1:])
    body = "\n".join(f"    {line}" for line in key)
    return (
        "\n## Training\n\n"
        "`keepmap train-embedded`: dense labels for the vision tower, then language on frozen features with word\n"
        "alignment, supervised attention and read-outs at the nouns; Muon and AdamW, bfloat16 with float32\n"
        "master weights. Weights, scenes and questions come from the seed; the steps below repeat the run. Accuracies\n"
        "in these lines are on training batches, with reduced visual tokens among them.\n\n"
        f"{body}\n"
    )
