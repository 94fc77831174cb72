"""The model card: what the embedded model is for, what it scored, and what it cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compression.backends.embedded.vocabulary import VOCABULARY

if TYPE_CHECKING:
    from compression.backends.embedded.evaluation import Evaluation, TaskFigure

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
words.
"""

_FIGURES = """
## Accuracy

{questions} questions about {scenes} held-out scenes (seeds that training never uses), the likeliest word of the whole
vocabulary counted as the answer. "Blind" replaces every visual token by the mean token; "majority" is the share of the
most frequent right answer among the one-word questions. Intervals are Wilson's, 95 %.

| family | task | questions | accuracy | 95 % interval | blind | majority |
|---|---|---|---|---|---|---|
{rows}

One question takes {milliseconds:.0f} ms on one thread of the CPU that measured this, image processing and encoding
included (median of 30). Made by

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
- One view of 256 x 256 pixels; larger images are squashed to it.
- Knowledge questions repeat the facts it was trained on: they measure what text alone gives, not generalisation.
- [CLS] was trained on the presence of objects, so attention from [CLS] is object-centric by construction. Strategies
  that keep what [CLS] attends to therefore do well on object questions here; that is our choice, not a finding.
- It was trained on full and on reduced sets of visual tokens (random, uniform, by [CLS] attention, objects first), so
  fewer tokens do not surprise it.
- Tracing roads is not taught and not offered.
- The weakest task of this checkpoint is {weakest}, at {lowest:.3f}.
"""


def model_card(evaluation: Evaluation, log: Sequence[str] = ()) -> str:
    """Write the card from measured figures.

    Args:
        evaluation: what was measured.
        log: lines of the training log, from which the key figures are taken.
    """
    weakest = min(evaluation.tasks, key=lambda figure: figure.accuracy)
    rows = [_row(figure) for figure in (*evaluation.tasks, *evaluation.forms)]
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
            milliseconds=1000 * evaluation.question_seconds,
            command=evaluation.command,
        ),
        _USE.format(weakest=weakest.task, lowest=weakest.accuracy),
    ]
    if log:
        parts.append(_training(log))
    return "".join(parts)


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
    for stage in ("vision", "align", "language"):
        key.extend([line for line in log if line.startswith(f"{stage} ")][-1:])
    body = "\n".join(f"    {line}" for line in key)
    return (
        "\n## Training\n\n"
        "`keepmap train-embedded`: dense labels for the vision tower, then language on frozen features with word\n"
        "alignment, supervised attention and positions beside the answer; Muon and AdamW, bfloat16 with float32\n"
        "master weights. Weights, scenes and questions come from the seed; the steps below repeat the run. Accuracies\n"
        "in these lines are on training batches, with reduced visual tokens among them.\n\n"
        f"{body}\n"
    )
