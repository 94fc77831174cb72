"""Every check on every registered strategy: as it is, and with each switch and word of its parameters turned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from _pytest.mark import ParameterSet

from compression.compressor import Budget, Compressor, Parameter, format_strategy
from compression.positions import positions_entering
from compression.sight import LookingStrategy
from compression.strategies import CATALOGUE
from tests.contracts.checks import (
    CHECKS,
    check_dtype_is_preserved,
    check_order_is_raster_unless_declared,
    check_outputs_number_exactly_the_budget,
)
from tests.contracts.looking import LOOKING_CHECKS

EXCEPTIONS = {
    (check_outputs_number_exactly_the_budget, "geollava8k"): (
        "there can be fewer clusters than the budget; the released code fills up with zero vectors instead"
    ),
    (check_order_is_raster_unless_declared, "geollava8k:fill=zeros"): (
        "the zero vectors of the released code stand for no place of the image"
    ),
    (check_dtype_is_preserved, "vispruner:step=1"): (
        "two tokens that rounding swaps in the list move all later ones between even and odd places, round after round"
    ),
    (check_outputs_number_exactly_the_budget, "average_pool"): (
        "cells are laid out in rows and columns, so not every number of them can be had"
    ),
    (check_outputs_number_exactly_the_budget, "flashsloth"): (
        "windows are laid out in rows and columns, so not every number of them can be had"
    ),
    (check_outputs_number_exactly_the_budget, "hired"): (
        "the released code rounds the shares of views down and loses what is left over"
    ),
}
"""Promises that cannot be kept, by check and by the name of a strategy or its text, each with its reason."""

LIFTED = {
    (check_outputs_number_exactly_the_budget, "hired:remainder=given"),
    (check_outputs_number_exactly_the_budget, "geollava8k:fill=zeros"),
}
"""Exceptions that a parameter, in the strategy's canonical text, takes back."""


def other_values(parameter: Parameter) -> list[bool | int | float | str]:
    """Values beside the default: the other words of a choice, the other state of a switch, the ends of a range."""
    if parameter.type is bool:
        return [not parameter.default]
    if parameter.choices:
        return [word for word in parameter.choices if word != parameter.default]
    ends = [end for end in (parameter.minimum, parameter.maximum) if end is not None]
    return [parameter.type(end) for end in ends if end != parameter.default]


def compressors() -> list[Compressor]:
    """Every strategy at its defaults and with one parameter changed at a time."""
    built = []
    for strategy in CATALOGUE:
        built.append(CATALOGUE.build(strategy.info.name))
        for parameter in strategy.info.parameters:
            # The language model follows it, no selection does: one other value is enough.
            most = 1 if parameter == positions_entering() else None
            for value in other_values(parameter)[:most]:
                built.append(CATALOGUE.build(strategy.info.name, {parameter.name: value}))
    return built


def pairs() -> list[ParameterSet]:
    """Each strategy with each check that applies to its kind."""
    return [
        pytest.param(
            check, compressor, id=f"{check.__name__.removeprefix('check_')}-{format_strategy(compressor, Budget())}"
        )
        for compressor in compressors()
        for check in (LOOKING_CHECKS if isinstance(compressor, LookingStrategy) else CHECKS)
    ]


@pytest.mark.parametrize(("check", "compressor"), pairs())
def test_contract(check: Callable[[Compressor], None], compressor: Compressor, request: pytest.FixtureRequest) -> None:
    text = format_strategy(compressor, Budget())
    reason = next(
        (EXCEPTIONS[check, name] for name in (compressor.info.name, text) if (check, name) in EXCEPTIONS), None
    )
    if reason is not None and (check, text) not in LIFTED:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    check(compressor)
