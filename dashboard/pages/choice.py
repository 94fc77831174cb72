"""The strategies of the rail: a menu entry, its parameters and its budget, to and from strategy text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from compression.compressor import Budget, Plan, StrategyInfo, split_strategy
from compression.errors import CompressionError
from compression.sight import LOOKS, Size
from compression.strategies import CATALOGUE
from compression.tokens import Signal
from dashboard.errors import InvalidInquiry
from dashboard.models import Models

FEWEST, MOST = 2, 4


@dataclass(frozen=True)
class Choice:
    """One row of the rail.

    Args:
        name: Registry key; of a plan of several steps, that of the last one, whose budget the slider moves.
        count: Budget in visual tokens, where the slider stands.
        router: Whether an adaptive strategy chooses its budget.
        parameters: As written in a strategy text, "tau0=0.6,pooling=2"; "" for the defaults.
        before: The steps in front of it, as written in a strategy text; "" for none.
    """

    name: str
    count: int
    router: bool = False
    parameters: str = ""
    before: str = ""

    @property
    def written(self) -> str:
        """What no component of the row shows: parameters, and the steps in front; `read_row` takes it."""
        return f"{self.before}|{self.parameters}" if self.before else self.parameters

    @property
    def info(self) -> StrategyInfo:
        """The strategy's declaration."""
        return CATALOGUE.get(self.name).info

    @property
    def keeps_all(self) -> bool:
        """Whether there is no budget to choose."""
        return self.info.reduces == "nothing"

    def text(self, total: int) -> str:
        """The strategy as a user would write it, on an image of `total` tokens."""
        head = (f"{self.before}+" if self.before else "") + self.name
        head += f":{self.parameters}" if self.parameters else ""
        if self.keeps_all:
            return f"{head}@1.0"
        if self.router and self.info.adaptive:
            return head
        return f"{head}@{budget_text(self.count, total)}"

    def plan(self, total: int) -> Plan:
        """The strategy as a plan.

        Raises:
            StrategyError: a parameter or the budget is not allowed.
        """
        return CATALOGUE.plan(self.text(total))

    @property
    def looks(self) -> bool:
        """Whether the strategy encodes the image itself, so that what it can reach depends on the image's size."""
        return self.info.stage in LOOKS

    def lowest(self, total: int, models: Models, image_size: Size | None = None) -> int:
        """The smallest budget that can be reached; 1 where that cannot be known before the model is loaded."""
        if self.keeps_all or not models.is_ready():
            return 1
        try:
            return models.lowest(self.plan(total), total, image_size=image_size)
        except CompressionError:
            return 1


def budget_text(count: int, total: int) -> str:
    """A count as a ratio of at most two decimals where that stands for the same count, else as the count.

    >>> budget_text(64, 256), budget_text(37, 4096)
    ('0.25', '37')
    """
    ratio = round(count / total, 2)
    if 0 < ratio <= 1 and Budget(ratio=ratio).tokens(total) == count:
        return str(Budget(ratio=ratio))
    return str(count)


def read_row(name: str, count: int, router: bool, written: str) -> Choice:
    """A row from what its components hold; `written` is that of a `Choice`."""
    before, _, parameters = written.rpartition("|")
    return Choice(name, count, router, parameters, before)


def read_strategy(text: str, total: int) -> Choice:
    """The row that a strategy text stands for.

    Raises:
        StrategyError: the text, a parameter or the budget is not allowed.
    """
    *earlier, last = CATALOGUE.split(str(CATALOGUE.plan(text)))
    name, values, budget = split_strategy(last)
    count = budget.tokens(total)
    return Choice(
        name,
        total if count is None else count,
        count is None,
        ",".join(f"{key}={value}" for key, value in values.items()),
        "+".join(earlier),
    )


def read_strategies(text: str, total: int) -> tuple[Choice, ...]:
    """Two to four rows from as many lines.

    Raises:
        InvalidInquiry: fewer or more lines.
        StrategyError: a line is not a strategy.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not FEWEST <= len(lines) <= MOST:
        raise InvalidInquiry(f"a comparison has {FEWEST} to {MOST} strategies, one a line, got {len(lines)}")
    return tuple(read_strategy(line, total) for line in lines)


def write_strategies(choices: Sequence[Choice], total: int) -> str:
    """The rows as text, one a line."""
    return "\n".join(choice.text(total) for choice in choices)


def offered(provides: frozenset[Signal] | None) -> list[tuple[str, str]]:
    """Menu entries (title, name) of the strategies whose needs the model provides; all while it is not loaded."""
    return [
        (kind.info.title, kind.info.name) for kind in CATALOGUE if provides is None or not kind.info.missing(provides)
    ]


def first_choices(total: int, provides: frozenset[Signal] | None) -> tuple[Choice, ...]:
    """What the rail starts with: the reference, the flagship, and a baseline that ignores the image."""
    names = [name for _, name in offered(provides)]
    wanted = [name for name in ("identity", "dualcomp", "visionzip", "uniform_grid") if name in names]
    chosen = [name for name in wanted if not (name == "visionzip" and "dualcomp" in wanted)]
    return tuple(Choice(name, total if name == "identity" else max(1, total // 4)) for name in chosen)


def rescaled(choice: Choice, before: int, after: int) -> Choice:
    """The same share of another number of tokens."""
    if before == after or before < 1:
        return choice
    return replace(choice, count=min(after, max(1, round(choice.count * after / before))))
