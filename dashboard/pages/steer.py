"""What the rail holds, and how a press changes it: plain values, no component and no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from compression.strategies import CATALOGUE
from dashboard.context import Context
from dashboard.pages.asking import Picked
from dashboard.pages.choice import FEWEST, MOST, Choice, read_row

VALUES = 4  # components of a row that a handler reads


@dataclass(frozen=True)
class Steer:
    """What the rail holds.

    Args:
        picked: The image.
        question, own_choices: As typed.
        choices: The strategies.
        total: Visual tokens of the image under the model.
        seed: For strategies that draw at random.
        on_screen: Id of the comparison beside the rail, "" for none.
    """

    picked: Picked
    question: str
    own_choices: str
    choices: tuple[Choice, ...]
    total: int
    seed: int = 0
    on_screen: str = ""

    @classmethod
    def read(cls, context: Context, held: Sequence[Any]) -> Steer:
        """From what the comparison on screen and the components of `Rail.held` hold; nothing of it is trusted."""
        on_screen, picked, question, own, seed, shown, total, *rows = held
        return cls(
            Picked.read(picked, context),
            question or "",
            own or "",
            tuple(
                replace(choice, count=min(choice.count, max(1, int(total or 1))))
                for choice in read_rows(rows, int(shown or 0))
            ),
            max(1, int(total or 1)),
            max(0, int(seed or 0)),
            on_screen or "",
        )


def read_rows(values: Sequence[Any], shown: int) -> tuple[Choice, ...]:
    """The rows in use, from what the components hold."""
    rows = [values[start : start + VALUES] for start in range(0, VALUES * MOST, VALUES)]
    return tuple(
        read_row(str(name), max(1, int(count or 1)), bool(router), str(written or ""))
        for name, count, router, written in rows[:shown]
        if name in CATALOGUE.names()
    )


def renamed(steer: Steer, position: int) -> Steer:
    """A row with another strategy starts from that one's defaults."""
    rows = list(steer.choices)
    if position < len(rows):
        rows[position] = replace(rows[position], parameters="", before="", router=False)
    return replace(steer, choices=tuple(rows))


def added(steer: Steer) -> Steer:
    """One more row: a strategy that is not there yet, at a quarter of the tokens."""
    if len(steer.choices) >= MOST:
        return steer
    used = {choice.name for choice in steer.choices}
    names = [name for name in ("visionzip", "divprune", "fastv", "uniform_grid", "random_subset") if name not in used]
    more = Choice(names[0] if names else "random_subset", max(1, steer.total // 4))
    return replace(steer, choices=(*steer.choices, more))


def removed(steer: Steer) -> Steer:
    """One row less, the last one; two stay."""
    return replace(steer, choices=steer.choices[:-1]) if len(steer.choices) > FEWEST else steer


def raised(steer: Steer, position: int, tokens: int) -> Steer:
    """A row with the budget that can be reached."""
    rows = list(steer.choices)
    if 0 <= position < len(rows):
        rows[position] = replace(rows[position], count=max(1, min(tokens, steer.total)), router=False)
    return replace(steer, choices=tuple(rows))
