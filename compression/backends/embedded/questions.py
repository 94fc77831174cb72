"""Questions about scenes, with balanced answers and their evidence.

Everything the page and the training need to know about questions is offered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compression.backends.embedded.drafts import DRAFTERS, Box, Draft
from compression.backends.embedded.facts import FACTS
from compression.backends.embedded.matching import Match, match
from compression.backends.embedded.mosaics import Truth
from compression.backends.embedded.prompts import prompt, split_options, with_options
from compression.backends.embedded.templates import (
    ANSWERS,
    CELL_TASKS,
    FAMILIES,
    FAMILY_OF,
    REGIME_TASKS,
    TASKS,
    TEMPLATES,
    Template,
    sentence,
)
from compression.backends.embedded.vocabulary import LETTERS, VOCABULARY, tokenise_text, unknown_words

__all__ = [
    "CELL_TASKS",
    "FAMILIES",
    "LETTERS",
    "REGIME_TASKS",
    "TASKS",
    "TEMPLATES",
    "VOCABULARY",
    "Match",
    "Question",
    "Template",
    "ask",
    "match",
    "prompt",
    "split_options",
    "tokenise_text",
    "unknown_words",
    "with_options",
]

LETTERED_SHARE = 0.2
# How often a task is tried; harder ones more often.
_TASK_SHARE = {
    "presence": 1.1,
    "count": 4.0,
    "colour": 1.0,
    "type": 1.3,
    "surround": 0.9,
    "dir": 1.7,
    "side": 1.6,
    "region": 1.3,
    "corner": 0.9,
    "dominant": 1.0,
    "quarter": 1.0,
    "cell": 1.6,
    "cellcover": 3.0,
    "told": 0.4,
    "knowledge": 1.0,
}
# Rejection that evens out the answers over many scenes: the share of drafts with this answer that is asked.
# Measured over 4,000 scenes; everything not listed is always asked.
_ACCEPTED: dict[tuple[str, str], float] = {
    ("presence", "no"): 0.88,
    ("count", "zero"): 0.25,
    ("count", "one"): 0.25,
    ("count", "two"): 0.33,
    ("count", "three"): 0.65,
    ("type", "truck"): 0.6,
    ("type", "car"): 0.6,
    ("type", "helipad"): 0.75,
    ("type", "tank"): 0.8,
    ("type", "plane"): 0.9,
}


@dataclass(frozen=True)
class Question:
    """A question with its right answer.

    Attributes:
        text: a sentence for people; a lettered question carries its options in it.
        choices: the one-word answers it is chosen from (letters for a lettered question).
        answer: the right one of them.
        family: one of FAMILIES.
        task: one of TASKS.
        evidence: pixel boxes (left, top, right, bottom) of the patches the right answer depends on.
    """

    text: str
    choices: tuple[str, ...]
    answer: str
    family: str
    task: str
    evidence: tuple[Box, ...]


_FACT_CHOICES = {fact.text: fact.choices for fact in FACTS}
_SHARES = np.array([_TASK_SHARE[task] for task in TASKS])
_CUMULATIVE = np.cumsum(_SHARES / _SHARES.sum())


def ask(
    scene: Truth,
    rng: np.random.Generator,
    count: int,
    *,
    tasks: Sequence[str] = TASKS,
    lettered_share: float = LETTERED_SHARE,
) -> list[Question]:
    """Ask different questions about a scene.

    Args:
        scene: a scene, or the ground truth of cells.
        rng: source of chance.
        count: how many questions are wanted.
        tasks: which tasks may be asked.
        lettered_share: share of questions with lettered options.

    Returns:
        Up to `count` questions; fewer where the scene does not offer more.

    Raises:
        ValueError: for a task that does not exist.
    """
    if unknown := [task for task in tasks if task not in DRAFTERS]:
        raise ValueError(f"unknown task {unknown[0]!r}; choose from {', '.join(TASKS)}")
    wanted = set(tasks)
    asked: set[str] = set()
    out: list[Question] = []
    for _ in range(12 * count):
        if len(out) == count:
            break
        task = TASKS[min(int(np.searchsorted(_CUMULATIVE, rng.random())), len(TASKS) - 1)]
        if task not in wanted:
            continue
        draft = DRAFTERS[task](scene, rng)
        if draft is None or draft.text in asked or rng.random() > _ACCEPTED.get((task, draft.answer), 1.0):
            continue
        asked.add(draft.text)
        choices = _FACT_CHOICES.get(draft.text, ANSWERS[task])
        out.append(_worded(draft, task, choices, rng, lettered=bool(rng.random() < lettered_share)))
    return out


def _worded(draft: Draft, task: str, choices: tuple[str, ...], rng: np.random.Generator, *, lettered: bool) -> Question:
    """Turn a draft into a question, with up to four shuffled options if it is lettered."""
    text = sentence(draft.text)
    if not lettered:
        return Question(text, choices, draft.answer, FAMILY_OF[task], task, draft.evidence)
    others = [choice for choice in choices if choice != draft.answer]
    options = [others[index] for index in rng.permutation(len(others))[: len(LETTERS) - 1]]
    options.insert(int(rng.integers(len(options) + 1)), draft.answer)
    letters = LETTERS[: len(options)]
    answer = letters[options.index(draft.answer)]
    return Question(with_options(text, options), letters, answer, FAMILY_OF[task], task, draft.evidence)
