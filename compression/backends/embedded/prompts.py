"""The wording of questions: lettered options and the prompt that the model was trained on."""

from __future__ import annotations

import re
from collections.abc import Sequence

from compression.backends.embedded.vocabulary import LETTERS, tokenise_text


def with_options(text: str, options: Sequence[str]) -> str:
    """Write lettered options behind a question.

    >>> with_options("What colour is the car?", ("red", "blue"))
    'What colour is the car? Options: A red, B blue.'

    Raises:
        ValueError: for fewer than two or more than four options.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise ValueError(f"a lettered question takes 2 to {len(LETTERS)} options, got {len(options)}")
    listed = ", ".join(f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{text} Options: {listed}."


_OPTIONS = re.compile(r"\boptions\s*:", re.IGNORECASE)
_OPTION = re.compile(r"(?:^|[\s,;])([A-D])[\s.):]+")


def split_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Part a lettered question into question and options.

    >>> split_options("What colour is the car? Options: A red, B blue.")
    ('What colour is the car?', ('red', 'blue'))
    """
    parts = _OPTIONS.split(text, maxsplit=1)
    if len(parts) == 1:
        return text, ()
    pieces = _OPTION.split(parts[1])
    return parts[0].strip(), tuple(" ".join(tokenise_text(piece)) for piece in pieces[2::2])


def prompt(question_text: str, choices: Sequence[str] | None = None) -> str:
    """Write the prompt the model was trained on, without image tokens.

    Args:
        question_text: a question; options behind "Options:" are kept.
        choices: options to letter A to D, where the question is to be asked that way.

    Returns:
        Words of the vocabulary with spaces between; the answer is the next token.

    >>> prompt("What colour is the ship?")
    'question : what colour is the ship ? answer :'
    """
    if choices is not None:
        question_text = with_options(question_text, choices)
    stem, options = split_options(question_text)
    words = [word for word in tokenise_text(stem) if word != "?"]
    written = f"question : {' '.join(words)} ?"
    if options:
        written += " options : " + " ".join(
            f"{letter} {option}" for letter, option in zip(LETTERS, options, strict=False)
        )
    return f"{written} answer :"
