"""The embedded model: the LLaVA backend, and a closed vocabulary in front of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from compression.backends.base import Prompt
from compression.backends.embedded import questions
from compression.backends.llava import LlavaBackend
from compression.errors import InvalidQuestion

CHECKPOINT = Path(__file__).parent / "checkpoint"
"""The weights that come with the repository."""


class EmbeddedBackend(LlavaBackend):
    """The small model of this repository, loaded like any other LLaVA directory.

    Free text is brought onto the templates that it was taught; a question outside them is asked as it stands, with a
    notice.
    """

    family = "embedded"
    domain = "synthetic scenes"

    def __init__(
        self, source: str | Path = CHECKPOINT, *, name: str = "embedded", device: str = "auto", dtype: str = "auto"
    ) -> None:
        super().__init__(source, name=name, device=device, dtype=dtype)

    def prompt(self, question: str, choices: Sequence[str] = ()) -> Prompt:
        """The question in the model's words; the template's answers are the choices unless others are given.

        Raises:
            InvalidQuestion: empty, no word of it is known, or a choice is not one word that the model knows.
        """
        question = question.strip()
        if not question:
            raise InvalidQuestion("the question is empty; write one, for example: How many ships are there?")
        unknown = questions.unknown_words(question)
        found = questions.match(question)
        notices = []
        if unknown:
            notices.append(f"Unknown to this model and left out: {', '.join(unknown)}.")
        if found:
            asked, answers, family, task = found.text, found.choices, found.family, found.task
            if found.text.rstrip("?").lower() != question.rstrip("? ").lower():
                notices.append(f"Read as: {found.text}")
        else:
            words = [word for word in questions.tokenise_text(question) if word not in unknown and word != "?"]
            if not words:
                raise InvalidQuestion(
                    f"the embedded model knows no word of {question!r}; it has {len(questions.VOCABULARY)} words: "
                    "ask, for example, "
                    f"{questions.TEMPLATES[0].example}"
                )
            asked, answers, family, task = " ".join(words), (), "", ""
            notices.append("This question is none of those that the model was taught; its answer means little.")
        for choice in choices:
            if _word(choice) is None:
                raise InvalidQuestion(
                    f"the choice {choice!r} is not a word that the embedded model knows; choices for this question: "
                    f"{', '.join(answers) or 'yes, no, a colour, a number from zero to six'}"
                )
        text = "<image> " + questions.prompt(asked)
        start = text.index("question : ") + len("question : ")
        return Prompt(
            question=question,
            choices=tuple(_word(choice) or choice for choice in choices) or answers,
            text=text,
            family=family,
            task=task,
            notices=tuple(notices),
            span=(start, text.rindex(" answer :")),
        )


def _word(choice: str) -> str | None:
    """The word of the vocabulary that a choice stands for, letters A to D as they are."""
    for word in (choice.strip(), choice.strip().lower()):
        if word in questions.VOCABULARY:
            return word
    return None
