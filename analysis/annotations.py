"""What is known about an image's questions: a `questions.jsonl` beside it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.errors import InvalidAnnotation
from compression.grid import Box

FILE_NAME = "questions.jsonl"


@dataclass(frozen=True)
class Annotation:
    """One line of a `questions.jsonl`.

    Args:
        image: File name of the image, beside the list.
        choices: Answers to choose among, possibly empty.
        answer: The right one.
        evidence: Boxes in original pixels that the answer depends on.
    """

    image: str
    question: str
    choices: tuple[str, ...]
    answer: str
    family: str = ""
    task: str = ""
    evidence: tuple[Box, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The line as a plain value."""
        return {
            "image": self.image,
            "question": self.question,
            "choices": list(self.choices),
            "answer": self.answer,
            "family": self.family,
            "task": self.task,
            "evidence": [list(box) for box in self.evidence],
        }


def find_annotation(image: Path, question: str) -> Annotation | None:
    """The line for this image and question in the list beside the image, or None.

    Questions are compared by their words: case, punctuation and spaces do not matter.

    Raises:
        InvalidAnnotation: the list is there but a line of it cannot be read.
    """
    file = image.parent / FILE_NAME
    if not file.is_file():
        return None
    for annotation in read_annotations(file):
        if annotation.image == image.name and _words(annotation.question) == _words(question):
            return annotation
    return None


def read_annotations(file: Path) -> list[Annotation]:
    """All lines of a list.

    Raises:
        InvalidAnnotation: the file cannot be read, or a line is not of the form that `keepmap scenes` writes.
    """
    found = []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InvalidAnnotation(
            f"{file.name} cannot be read: {error.strerror or error}; free it, or take it away from the image"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidAnnotation(
            f"{file.name} is not text in UTF-8 (byte {error.start:,}); write it anew in UTF-8"
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            found.append(
                Annotation(
                    image=str(value["image"]),
                    question=str(value["question"]),
                    choices=tuple(str(choice) for choice in value.get("choices", [])),
                    answer=str(value["answer"]),
                    family=str(value.get("family", "")),
                    task=str(value.get("task", "")),
                    evidence=tuple(as_box(box) for box in value.get("evidence", [])),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
            raise InvalidAnnotation(
                f"line {number} of {file.name} is not a question: {reason}; a line is a JSON object with image, "
                "question, choices, answer, evidence"
            ) from error
    return found


def write_annotations(file: Path, annotations: list[Annotation]) -> None:
    """Write a list, whole or not at all."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text("".join(json.dumps(annotation.to_json()) + "\n" for annotation in annotations), encoding="utf-8")
    partial.replace(file)


def as_box(value: Any) -> Box:
    """A box from four numbers.

    >>> as_box([0, 0, 16, 32])
    (0.0, 0.0, 16.0, 32.0)

    Raises:
        ValueError: not four numbers with left < right and top < bottom.
    """
    numbers = [float(number) for number in value]
    if len(numbers) != 4 or not (numbers[0] < numbers[2] and numbers[1] < numbers[3]):
        raise ValueError(f"a box is left, top, right, bottom in pixels with left < right and top < bottom, got {value}")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
