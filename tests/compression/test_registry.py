"""The catalogue by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.compressor import Budget, Parameter, Plan, Stage, StrategyInfo, joined
from compression.decoder import DecoderStrategy
from compression.errors import CompressionError, InvalidBudget, InvalidStrategyText, UnknownStrategy
from compression.registry import Registry
from compression.strategies import CATALOGUE
from compression.strategies.divprune import DivPrune
from compression.strategies.identity import Identity


def test_the_catalogue_reads_flagship_first_and_baselines_last() -> None:
    assert CATALOGUE.names() == (
        "identity",
        "dualcomp",
        "geollava8k",
        "visionzip",
        "visiondrop",
        "prumerge",
        "prumerge_plus",
        "fastervlm",
        "vispruner",
        "hired",
        "apet",
        "segpruner",
        "divprune",
        "cdpruner",
        "trim",
        "flashvlm",
        "vir",
        "flashsloth",
        "fastv",
        "pyramiddrop",
        "sparsevlm",
        "dart",
        "adaptinfer",
        "fastkv",
        "visiondrop_stages",
        "apet_stage",
        "covipal",
        "lvlm_csp",
        "sparc",
        "zoom",
        "tome",
        "downsample",
        "uniform_grid",
        "average_pool",
        "random_subset",
    )
    assert [strategy.info.name for strategy in CATALOGUE] == list(CATALOGUE.names())


def test_registering_returns_a_new_registry() -> None:
    empty = Registry()
    one = empty.register(Identity)
    assert (empty.names(), one.names()) == ((), ("identity",))
    assert one.register(DivPrune).get("divprune") is DivPrune


def test_a_name_is_taken_once() -> None:
    with pytest.raises(InvalidStrategyText, match="the name 'identity' is taken"):
        Registry().register(Identity, Identity)


def test_a_misspelt_name_gets_a_hint() -> None:
    with pytest.raises(UnknownStrategy, match="no strategy is named 'divprun'; did you mean divprune?"):
        CATALOGUE.plan("divprun@0.5")
    with pytest.raises(UnknownStrategy, match="no strategy is named 'zzz'; known: identity, dualcomp"):
        CATALOGUE.get("zzz")


PLANS = [
    "visiondrop@0.5+visiondrop_stages@0.25",
    "visionzip:merge=mean,per=image@192+fastv:layer=3@0.2",
    "dualcomp+fastkv@64",
    "identity@1.0+fastv@0.5",
    "fastv:layer=1@0.5+pyramiddrop:stages=9/17/25@0.25+fastkv:layer=28@0.2",
]


@pytest.mark.parametrize("text", PLANS)
def test_the_canonical_text_of_a_plan_reads_back_as_itself(text: str) -> None:
    plan = CATALOGUE.plan(text)
    assert str(plan) == text
    assert CATALOGUE.plan(str(plan)) == plan
    assert CATALOGUE.split(text) == tuple(str(Plan((step,))) for step in plan.steps)
    assert CATALOGUE.name_of(text) == plan.info.name
    assert CATALOGUE.info_of(text) == plan.info


@given(
    st.sampled_from([kind for kind in CATALOGUE if kind.info.stage is Stage.ENCODER]),
    st.lists(st.sampled_from([kind for kind in CATALOGUE if issubclass(kind, DecoderStrategy)]), max_size=3),
    st.lists(st.sampled_from(["0.5", "0.25", "64", "1.0"]), min_size=4, max_size=4),
)
def test_any_steps_in_order_make_a_plan(first, others, budgets) -> None:  # type: ignore[no-untyped-def]
    kinds = [first, *others]
    text = "+".join(f"{kind.info.name}@{budget}" for kind, budget in zip(kinds, budgets, strict=False))
    plan = CATALOGUE.plan(f"  {text.upper()} ")
    assert str(plan) == text
    assert [step.compressor for step in plan.steps] == [kind() for kind in kinds]
    assert plan.budget == Budget.parse(budgets[len(kinds) - 1])


def test_spaces_around_the_steps_do_not_matter() -> None:
    assert str(CATALOGUE.plan("visionzip@0.5 + fastkv@0.25")) == "visionzip@0.5+fastkv@0.25"


@dataclass(frozen=True)
class Listed(DecoderStrategy):
    """Takes sums in its values."""

    sizes: str = "35/48"
    info: ClassVar[StrategyInfo] = StrategyInfo(
        "listed", "Listed", "", Stage.DECODER, frozenset(), "prunes", parameters=(Parameter("sizes", "35/48", "Sums."),)
    )


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("listed:sizes=8/35+16/26+24/19@0.5", ["listed:sizes=8/35+16/26+24/19@0.5"]),
        ("listed:sizes=8/35+16/26+listed@64", ["listed:sizes=8/35+16/26", "listed@64"]),
        ("identity+listed:sizes=1+2@64", ["identity", "listed:sizes=1+2@64"]),
        ("identity+identity+listed@1", ["identity", "identity", "listed@1"]),
        ("listed:sizes=a+identityx", ["listed:sizes=a+identityx"]),
        ("listed@1+unknown@2", ["listed@1", "unknown@2"]),
        ("+", ["+"]),
    ],
)
def test_a_plus_inside_a_value_does_not_separate_steps(text: str, steps: list[str]) -> None:
    assert Registry().register(Identity, Listed).split(text) == tuple(steps)


def test_a_value_with_a_plus_is_read_and_written() -> None:
    registry = Registry().register(Identity, Listed)
    plan = registry.plan("identity@1.0+listed:sizes=8/35+16/26+24/19@0.5")
    assert plan.steps[1].compressor == Listed("8/35+16/26+24/19")
    assert str(plan) == "identity@1.0+listed:sizes=8/35+16/26+24/19@0.5"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("fastv@0.5+visionzip@0.25", InvalidStrategyText, "visionzip acts before the language model and cannot follow"),
        ("visionzip@0.5+divprune@0.25", InvalidStrategyText, "at most one such step"),
        ("visionzip@0.5+fastvv@0.25", UnknownStrategy, "no strategy is named 'fastvv'; did you mean fastv?"),
        ("visionzip+fastv@0.25", InvalidBudget, "visionzip needs a budget"),
        ("visionzip@0.5+fastv", InvalidBudget, "fastv needs a budget"),
        ("visionzip@0.5+", InvalidStrategyText, "a strategy is written"),
        ("+fastv@0.5", InvalidStrategyText, "a strategy is written"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(text: str, error: type[CompressionError], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        CATALOGUE.plan(text)


def test_a_plan_declares_what_its_steps_declare_together() -> None:
    plan = CATALOGUE.plan("cdpruner@0.5+visiondrop_stages@0.25")
    first, second = (step.compressor.info for step in plan.steps)
    info = plan.info
    assert info.title == "CDPruner + VisionDrop (language-model stages)"
    assert info.needs == plan.needs == first.needs | second.needs
    assert info.reduces == "prunes and merges"
    assert info.version == first.version + second.version
    assert info.deviations == first.deviations + second.deviations
    assert info.labels == first.labels  # that nothing is reduced after the encoder would be wrong here
    whole = CATALOGUE.plan("identity@1.0+visiondrop_stages@0.25")
    assert whole.info.labels == second.labels  # nothing is, where the first step keeps everything
    assert plan.stage == "encoder+decoder"
    assert CATALOGUE.plan("fastv@0.5+fastkv@0.25").stage == "decoder"
    assert joined([first]) is first


def test_a_text_with_an_unknown_step_has_a_name_and_no_declaration() -> None:
    text = "visionzip@0.5+gone:depth=3@64"
    assert CATALOGUE.name_of(text) == "visionzip+gone"
    assert CATALOGUE.info_of(text) is None
