"""What may be asked, whatever the model: how long a question is, and which answers there are to choose among."""

from __future__ import annotations

from collections.abc import Sequence

from compression.errors import InvalidQuestion

MOST_CHARACTERS = 2000
"""Of a question. Attention grows with the square of what is read: 78,000 characters took 11.7 GB."""
MOST_CHOICES = 64
MOST_IN_CHOICE = 200
"""Characters of one answer to choose among."""


def check_wording(question: str, choices: Sequence[str]) -> None:
    """Refuse a question that is too long, and answers that are no choice.

    Probabilities are shared out among the choices: one alone would always get all, and one given twice would get the
    share of two.

    Args:
        question: The user's words.
        choices: Answers to choose among as the model reads them, so that two words for one token are the same; empty
            where the question's own are taken.

    Raises:
        InvalidQuestion: the question or a choice is too long or a choice is empty, or the choices are not two or more
            that differ.
    """
    if len(question) > MOST_CHARACTERS:
        raise InvalidQuestion(
            f"the question has {len(question):,} characters, up to {MOST_CHARACTERS:,} are allowed; ask a shorter one"
        )
    if not choices:
        return
    if not 2 <= len(choices) <= MOST_CHOICES:
        raise InvalidQuestion(
            f"answers to choose among are 2 to {MOST_CHOICES}, got {len(choices)}; add or leave out some, or give none"
        )
    for choice in choices:
        if not choice.strip() or len(choice) > MOST_IN_CHOICE:
            raise InvalidQuestion(
                f"an answer to choose among has 1 to {MOST_IN_CHOICE} characters, got {len(choice.strip()):,}; shorten "
                "it or leave it out"
            )
    same = [choice.strip() for choice in choices]
    if twice := next((choice for choice in same if same.count(choice) > 1), None):
        raise InvalidQuestion(f"the choice {twice!r} is given twice; name each answer once")
