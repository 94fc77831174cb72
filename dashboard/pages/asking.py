"""From the rail to a question: which image, which words, which strategies; plain values in, plain values out."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.errors import ImageError
from analysis.pipeline import Inquiry, open_image
from analysis.run import ImageRef
from compression.backends.base import Prompt
from compression.backends.embedded.cells import layout_for
from compression.backends.embedded.facts import FACTS
from compression.backends.embedded.questions import CELL_TASKS, REGIME_TASKS, TEMPLATES
from compression.errors import InvalidQuestion
from compression.grid import Box
from dashboard.context import Context
from dashboard.errors import InvalidInquiry
from dashboard.pages.choice import FEWEST, MOST, Choice
from storage import StorageError

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Picked:
    """Which image the rail shows: a sample by its index, or a stored image by its digest.

    The browser keeps this as text, so that it holds keys and never a path.
    """

    sample: int | None = None
    digest: str = ""
    name: str = ""

    def __str__(self) -> str:
        value: dict[str, int | str] = (
            {"sample": self.sample} if self.sample is not None else {"image": self.digest, "name": self.name}
        )
        return json.dumps(value)

    @classmethod
    def read(cls, text: str, context: Context) -> Picked:
        """What a text from the browser names; the first sample where it names nothing that exists."""
        try:
            value = json.loads(text or "{}")
        except ValueError:
            value = {}
        if isinstance(value, dict):
            sample, digest = value.get("sample"), value.get("image")
            if isinstance(sample, int) and 0 <= sample < len(context.samples):
                return cls(sample=sample)
            if isinstance(digest, str) and _DIGEST.fullmatch(digest):
                return cls(digest=digest, name=str(value.get("name", ""))[:200] or "image")
        return cls(sample=0)

    @classmethod
    def of(cls, image: ImageRef, context: Context) -> Picked:
        """The pick that shows a stored comparison's image: the sample of that name, else the stored bytes."""
        index = context.samples.at(image.name) if image.is_synthetic else None
        return cls(sample=index) if index is not None else cls(digest=image.digest, name=image.name)

    def title(self, context: Context) -> str:
        """The name for people."""
        return context.samples[self.sample].name if self.sample is not None else self.name

    def path(self, context: Context) -> Path:
        """The file.

        Raises:
            AssetMissing: a stored image is not kept any more.
        """
        return context.samples.file(self.sample) if self.sample is not None else context.store.image_path(self.digest)

    def size(self, context: Context) -> tuple[int, int]:
        """(height, width) of the image in pixels.

        Raises:
            AssetMissing: a stored image is not kept any more.
            ImageError: it cannot be used.
        """
        if self.sample is not None:
            side = context.samples[self.sample].scene.size
            return side, side
        image = self.open(context)
        return image.height, image.width

    def open(self, context: Context) -> ImageRef:
        """What is known about the image.

        Raises:
            ImageError: it cannot be used.
        """
        return open_image(self.path(context), name=self.title(context))


@dataclass(frozen=True)
class Known:
    """What is known about a question before it is asked.

    Args:
        choices: Answers to choose among, empty for a free answer.
        expected: The right answer where it is known.
        evidence: Boxes that the right answer depends on.
        notices: Unknown words, a question outside the model's domain.
    """

    choices: tuple[str, ...] = ()
    expected: str | None = None
    evidence: tuple[Box, ...] = ()
    family: str = ""
    task: str = ""
    notices: tuple[str, ...] = ()


def known_about(context: Context, picked: Picked, question: str, own_choices: str = "") -> Known:
    """Choices, expected answer and evidence of a question on an image, and what the model says about its words.

    Raises:
        InvalidQuestion: empty, or no word of it is known.
        ModelUnavailable: the model cannot be loaded here.
    """
    wanted = tuple(dict.fromkeys(part.strip() for part in own_choices.split(",") if part.strip()))
    if len(wanted) == 1:
        raise InvalidInquiry(
            f"answers to choose from are two or more, separated by commas, got only {wanted[0]!r}; add one or leave "
            f"the field empty"
        )
    if not question.strip():
        raise InvalidQuestion("the question is empty; choose one or write your own")
    prompt: Prompt = context.models.get().prompt(question, wanted)
    asked = context.samples[picked.sample].question(question) if picked.sample is not None else None
    if asked is not None:
        evidence = tuple(
            (float(left), float(top), float(right), float(bottom)) for left, top, right, bottom in asked.evidence
        )
        return Known(wanted or asked.choices, asked.answer, evidence, asked.family, asked.task, prompt.notices)
    return Known(
        prompt.choices,
        fact_answer(question) if prompt.family == "knowledge" else None,
        (),
        prompt.family,
        prompt.task,
        prompt.notices,
    )


def fact_answer(question: str) -> str | None:
    """The answer of a question that the text alone answers, None for other questions."""
    bare = " ".join(re.findall(r"\w+", question.lower()))
    return next((fact.answer for fact in FACTS if fact.text == bare), None)


def questions_for(context: Context, picked: Picked) -> list[str]:
    """The questions that the menu offers: those of the scene, or one example of each template."""
    if picked.sample is not None:
        return [question.text for question in context.samples[picked.sample].questions]
    left_out = REGIME_TASKS if _has_cells(context, picked) else (*CELL_TASKS, *REGIME_TASKS)
    examples: dict[tuple[str, str], str] = {}
    for template in TEMPLATES:
        if template.task in left_out:
            continue
        key = (template.task, template.pattern if template.family != "knowledge" else "")
        examples.setdefault(key, template.example)
    return list(examples.values())


def _has_cells(context: Context, picked: Picked) -> bool:
    try:
        image = picked.open(context)
    except (ImageError, StorageError):
        return False
    return not layout_for((image.height, image.width)).is_single


def inquiry(context: Context, picked: Picked, question: str, own_choices: str = "") -> tuple[Inquiry, tuple[str, ...]]:
    """What will be asked of each strategy, and the notices that hold for all of them.

    Raises:
        InvalidQuestion, InvalidInquiry, ImageError, StorageError: it cannot be asked.
    """
    known = known_about(context, picked, question, own_choices)
    image = picked.open(context)
    vlm = context.models.get()
    asked = Inquiry(
        path=picked.path(context),
        image=image,
        question=question.strip(),
        choices=known.choices,
        expected=known.expected,
        evidence=known.evidence,
        family=known.family,
        task=known.task,
    )
    return asked, tuple(dict.fromkeys((*known.notices, *vlm.notices((image.height, image.width)))))


def check_count(choices: Sequence[Choice]) -> None:
    """Two to four.

    Raises:
        InvalidInquiry: fewer or more.
    """
    if not FEWEST <= len(choices) <= MOST:
        raise InvalidInquiry(f"a comparison has {FEWEST} to {MOST} strategies, got {len(choices)}")
