"""The catalogue of strategies: name to class, immutable."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from compression.compressor import Budget, Compressor, Plan, Step, Strategy, StrategyInfo, joined, split_strategy
from compression.errors import InvalidBudget, InvalidStrategyText, UnknownStrategy


@dataclass(frozen=True)
class Registry:
    """Strategies by name, in reading order. Registering returns a new registry."""

    classes: Mapping[str, type[Strategy]] = field(default_factory=dict)

    def register(self, *classes: type[Strategy]) -> Registry:
        """A registry that also holds these classes, under the names that they declare.

        Raises:
            InvalidStrategyText: a name is taken.
        """
        joined = dict(self.classes)
        for strategy in classes:
            if strategy.info.name in joined:
                raise InvalidStrategyText(f"the name {strategy.info.name!r} is taken; choose another")
            joined[strategy.info.name] = strategy
        return Registry(joined)

    def names(self) -> tuple[str, ...]:
        """All names in reading order."""
        return tuple(self.classes)

    def __iter__(self) -> Iterator[type[Strategy]]:
        return iter(self.classes.values())

    def get(self, name: str) -> type[Strategy]:
        """The class of that name.

        Raises:
            UnknownStrategy: there is none.
        """
        if name not in self.classes:
            near = difflib.get_close_matches(name, self.classes, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UnknownStrategy(f"no strategy is named {name!r}; {hint}known: {', '.join(self.classes)}")
        return self.classes[name]

    def build(self, name: str, parameters: Mapping[str, bool | int | float | str] | None = None) -> Compressor:
        """A configured strategy.

        Raises:
            UnknownStrategy: there is none of that name.
            InvalidParameter: a parameter it does not have, or a value outside its range.
        """
        strategy = self.get(name)
        for key in parameters or {}:
            strategy.info.parameter(key)
        built: Compressor = strategy(**dict(parameters or {}))  # type: ignore[assignment]
        return built

    def split(self, text: str) -> tuple[str, ...]:
        """The steps of a strategy text, which are joined by `+`.

        A `+` inside a value stays there: it separates steps only behind a budget, and before a registered name that is
        followed by `:`, `@`, `+` or the end.

        >>> Registry().split("visiondrop:encoder=48,stages=8/35+16/26+24/19")
        ('visiondrop:encoder=48,stages=8/35+16/26+24/19',)
        """
        parts = text.split("+")
        steps = parts[:1]
        for part in parts[1:]:
            name = re.split("[:@]", part, maxsplit=1)[0].strip().lower()
            if name in self.classes or "@" in steps[-1]:
                steps.append(part)
            else:
                steps[-1] += f"+{part}"
        return tuple(steps)

    def name_of(self, text: str) -> str:
        """The name of a strategy text, whether it is known here or not; those of several steps joined by `+`.

        >>> Registry().name_of("fastv:layer=2@64")
        'fastv'
        """
        return "+".join(re.split("[:@]", step, maxsplit=1)[0].strip().lower() for step in self.split(text))

    def info_of(self, text: str) -> StrategyInfo | None:
        """What the steps of a text declare together, whatever their parameters; None where one is not known here."""
        classes = [self.classes.get(self.name_of(step)) for step in self.split(text)]
        infos = [strategy.info for strategy in classes if strategy is not None]
        return joined(infos) if len(infos) == len(classes) else None

    def plan(self, text: str) -> Plan:
        """The plan that a strategy text stands for: one step, or several joined by `+`.

        Raises:
            UnknownStrategy, InvalidStrategyText, InvalidParameter, InvalidBudget: as the text deserves.
        """
        return Plan(tuple(self._step(part) for part in self.split(text)))

    def _step(self, text: str) -> Step:
        name, pairs, budget = split_strategy(text)
        info = self.get(name).info
        compressor = self.build(name, {key: info.parameter(key).parse(value) for key, value in pairs.items()})
        if budget == Budget() and not info.adaptive:
            if info.reduces != "nothing":
                raise InvalidBudget(
                    f"{name} needs a budget; write {name}@0.25 for a quarter of the visual tokens or {name}@64 for 64"
                )
            budget = Budget(ratio=1.0)
        return Step(compressor, budget)
