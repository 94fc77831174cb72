"""The catalogue of strategies: name to class, immutable."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from compression.compressor import Budget, Compressor, Plan, Step, Strategy, split_strategy
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

    def plan(self, text: str) -> Plan:
        """The plan that a strategy text stands for.

        Raises:
            UnknownStrategy, InvalidStrategyText, InvalidParameter, InvalidBudget: as the text deserves.
        """
        name, pairs, budget = split_strategy(text)
        info = self.get(name).info
        compressor = self.build(name, {key: info.parameter(key).parse(value) for key, value in pairs.items()})
        if budget == Budget() and not info.adaptive:
            if info.reduces != "nothing":
                raise InvalidBudget(
                    f"{name} needs a budget; write {name}@0.25 for a quarter of the visual tokens or {name}@64 for 64"
                )
            budget = Budget(ratio=1.0)
        return Plan((Step(compressor, budget),))
