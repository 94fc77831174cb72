"""Questions whose source of information is known by construction, and what the model said of them while it learnt.

Four regimes over the same 512 pictures, four possible answers each:

* question: a fact; the text alone tells the answer;
* picture: one question for all pictures; only the picture differs;
* either: the question tells where the object is before it asks, and the picture shows it;
* both: which object is meant stands in the question, where it is in the picture.

The posteriors over the four answers are kept with picture and question as they are, with every visual token replaced by
the mean token, and with every word of the question replaced by the mean word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compression.backends.embedded.drafts import DRAFTERS
from compression.backends.embedded.facts import FACTS
from compression.backends.embedded.packing import pack
from compression.backends.embedded.questions import Question
from compression.backends.embedded.reading import Reader, inside
from compression.backends.embedded.scenes import make_scene
from compression.backends.embedded.templates import ANSWERS, FAMILY_OF, sentence
from compression.backends.embedded.vocabulary import VOCABULARY

REGIMES = ("question", "picture", "either", "both")
CONDITIONS = ("full", "picture replaced", "question replaced")
PICTURES = 512
FIRST_PICTURE_SEED = 800_000
_TASKS = {"picture": "region", "either": "told", "both": "quarter"}


@dataclass(frozen=True)
class Posteriors:
    """What a model said, at one moment or several.

    Args:
        steps: Language steps after which it was asked, int64 [moments].
        posteriors: Probability of each choice, renormalised over the choices, float32
            [moments, regimes, conditions, pictures, 4].
        confidences: What the model puts on the choices together, float32 [moments, regimes, conditions, pictures].
        right: Index of the right choice, int64 [regimes, pictures].
        texts: The questions, str [regimes, pictures].
        choices: str [regimes, pictures, 4].
        seeds: Of the pictures, int64 [pictures].
    """

    steps: NDArray[np.int64]
    posteriors: NDArray[np.float32]
    confidences: NDArray[np.float32]
    right: NDArray[np.int64]
    texts: NDArray[np.str_]
    choices: NDArray[np.str_]
    seeds: NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write a .npz file without any Python object in it."""
        np.savez_compressed(path, allow_pickle=False, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Posteriors:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(**{name: file[name] for name in file.files})


def pictures(count: int = PICTURES) -> list[tuple[int, dict[str, Question]]]:
    """Fixed pictures, by the seeds of their scenes, with one question of each regime; answers are balanced."""
    facts = [fact for fact in FACTS if len(fact.choices) == 4]
    quota = {task: Counter[str]() for task in _TASKS.values()}
    found: list[tuple[int, dict[str, Question]]] = []
    seed = FIRST_PICTURE_SEED
    while len(found) < count:
        scene = make_scene(seed)
        rng = np.random.default_rng((seed, 31))
        fact = facts[len(found) % len(facts)]
        asked = {"question": Question(sentence(fact.text), fact.choices, fact.answer, "knowledge", "knowledge", ())}
        for regime, task in _TASKS.items():
            draft = DRAFTERS[task](scene, rng)
            # "either" and "both" are drawn apart: the same object in both would let one picture's two answers agree.
            if draft is None or quota[task][draft.answer] >= -(-count // len(ANSWERS[task])):
                break
            asked[regime] = Question(
                sentence(draft.text), ANSWERS[task], draft.answer, FAMILY_OF[task], task, draft.evidence
            )
        if len(asked) == len(REGIMES):
            for regime, task in _TASKS.items():
                quota[task][asked[regime].answer] += 1
            found.append((seed, asked))
        seed += 1
    return found


def ask_moments(
    reader: Reader, moments: Sequence[tuple[int, Callable[[], None]]], *, count: int = PICTURES
) -> Posteriors:
    """Ask the fixed questions at several moments.

    Args:
        reader: The model; each moment puts its own weights into it.
        moments: Step and what loads its weights.
        count: Number of pictures.
    """
    fixed = pictures(count)
    features = [reader.look(make_scene(seed).image).features for seed, _ in fixed]
    shape = (len(moments), len(REGIMES), len(CONDITIONS), count)
    posteriors, confidences = np.zeros((*shape, 4), np.float32), np.zeros(shape, np.float32)
    for number, (_, load) in enumerate(moments):
        load()
        said = _ask(reader, features, [asked for _, asked in fixed])
        posteriors[number], confidences[number] = said / said.sum(-1, keepdims=True), said.sum(-1)
    questions = [[asked[regime] for _, asked in fixed] for regime in REGIMES]
    return Posteriors(
        steps=np.array([step for step, _ in moments], np.int64),
        posteriors=posteriors,
        confidences=confidences,
        right=np.array([[one.choices.index(one.answer) for one in row] for row in questions], np.int64),
        texts=np.array([[one.text for one in row] for row in questions]),
        choices=np.array([[one.choices for one in row] for row in questions]),
        seeds=np.array([seed for seed, _ in fixed], np.int64),
    )


@torch.inference_mode()
def _ask(reader: Reader, features: list[Tensor], asked: list[dict[str, Question]]) -> NDArray[np.float32]:
    """Probability of each choice under the whole vocabulary, float32 [regimes, conditions, pictures, 4]."""
    projected = [reader.vlm.project(one) for one in features]
    mean_token = torch.stack([one.mean(0) for one in projected]).mean(0)
    mean_word = _mean_word(reader, asked)
    empty = reader.prefix([mean_token.expand(len(features[0]), -1)], ["image"])
    said = np.zeros((len(REGIMES), len(CONDITIONS), len(asked), 4), np.float32)
    for picture, (tokens, questions) in enumerate(zip(projected, asked, strict=True)):
        prefix = reader.prefix([tokens], ["image"])
        texts = [questions[regime].text for regime in REGIMES]
        for condition, (given, instead) in enumerate(((prefix, None), (empty, None), (prefix, mean_word))):
            likely = reader.logits(given, texts, instead=instead).softmax(-1)
            for regime, name in enumerate(REGIMES):
                ids = [VOCABULARY[choice] for choice in questions[name].choices]
                said[regime, condition, picture] = likely[regime, ids].numpy()
    return said


def _mean_word(reader: Reader, asked: list[dict[str, Question]]) -> Tensor:
    """The mean embedding over all words of all questions, [dim]."""
    every = [question for questions in asked for question in questions.values()]
    ids = pack([[question] for question in every], 64).ids
    return reader.words[ids[inside(ids)]].mean(0)
