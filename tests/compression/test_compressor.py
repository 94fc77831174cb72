"""How a strategy is written and read, and what its parameters accept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.compressor import Budget, Context, Parameter, Plan, split_strategy
from compression.errors import InvalidBudget, InvalidParameter, InvalidStrategyText, StrategyError
from compression.strategies import CATALOGUE


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("dualcomp@0.25", "dualcomp@0.25"),
        ("dualcomp", "dualcomp"),
        ("identity", "identity@1.0"),
        ("Identity@1.", "identity@1.0"),
        (" fastv : layer = 2 @ 64 ".replace(" : ", ":").replace(" @ ", "@"), "fastv:layer=2@64"),
        ("fastv@.5", "fastv@0.5"),
        ("visionzip:merge=sum,cls=FALSE@64", "visionzip:cls=false@64"),
        ("visionzip:cls=true@64", "visionzip@64"),
        ("visionzip:per=image,share=0.25@0.10", "visionzip:share=0.25,per=image@0.1"),
        ("dualcomp:lam=1", "dualcomp:lam=1"),
        ("random_subset@0.0000001", "random_subset@0.0000001"),
        ("dualcomp:tau0=0.123456789@007", "dualcomp:tau0=0.123456789@7"),
    ],
)
def test_a_strategy_has_one_canonical_text(text: str, canonical: str) -> None:
    plan = CATALOGUE.plan(text)
    assert str(plan) == canonical
    assert CATALOGUE.plan(canonical) == plan


@pytest.mark.parametrize(
    "text",
    ["", " ", "@0.5", "fastv:@64", "fastv:layer@64", "fastv:layer=@64", "fastv:=2@64", "fastv@1@2",
     "fastv:layer=1,layer=2@9", "fast v@64", "../fastv@64", "fastv:layer=2,@64", "fastv\n:layer=2@64;"],
)  # fmt: skip
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(InvalidStrategyText, match="got"):
        CATALOGUE.plan(text)


@pytest.mark.parametrize(
    "text",
    ["0", "-1", "0.0", "1.01", "1e-3", "nan", "inf", "", "50%", "0,5", "1_0", "٣", "9" * 5000, "1/2", "+3", "0x3"],
)
def test_other_budgets_are_refused(text: str) -> None:
    with pytest.raises(InvalidBudget):
        Budget.parse(text)


@given(st.text(max_size=30))
def test_no_text_raises_anything_but_our_errors(text: str) -> None:
    try:
        plan = CATALOGUE.plan(text)
    except StrategyError:
        return
    assert CATALOGUE.plan(str(plan)) == plan


@given(st.text("dualcompfstv:=@,.0123456789 -eE", max_size=30))
def test_no_text_of_likely_letters_raises_anything_but_our_errors(text: str) -> None:
    try:
        name, values, budget = split_strategy(text)
    except StrategyError:
        return
    assert name == name.lower()
    assert all(key and value for key, value in values.items())
    assert budget == Budget() or Budget.parse(str(budget)) == budget


@given(st.floats(0, 1, exclude_min=True))
def test_every_ratio_reads_back_as_itself(ratio: float) -> None:
    assert Budget.parse(str(Budget(ratio=ratio))) == Budget(ratio=ratio)


@given(st.floats(-1, 1))
def test_every_number_reads_back_as_itself(value: float) -> None:
    parameter = Parameter("tau", 0.5, "A number.", -1.0, 1.0)
    assert parameter.parse(parameter.format(value)) == value


@pytest.mark.parametrize(
    ("budget", "total", "tokens"),
    [("0.25", 576, 144), ("1.0", 576, 576), ("0.001", 256, 1), ("64", 256, 64), ("256", 256, 256)],
)
def test_a_budget_stands_for_a_count_on_an_image(budget: str, total: int, tokens: int) -> None:
    assert Budget.parse(budget).tokens(total) == tokens


def test_no_budget_stands_for_no_count() -> None:
    assert Budget().tokens(576) is None


def test_a_count_above_the_tokens_is_refused() -> None:
    with pytest.raises(
        InvalidBudget, match="budget 577 is above the 576 visual tokens of this image; write at most 576"
    ):
        Budget.parse("577").tokens(576)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fastv:depth=2@64", "fastv has no parameter 'depth'; it has: layer"),
        ("identity:layer=2", "identity has no parameter 'layer'; it has: none"),
        ("fastv:layer=two@64", "layer takes a whole number of at least 1, got 'two'"),
        ("fastv:layer=0@64", "layer takes a whole number of at least 1, got 0"),
        ("fastv:layer=1.5@64", "layer takes a whole number of at least 1, got '1.5'"),
        ("dualcomp:lam=1.5", "lam takes a number from 0 to 1, got 1.5"),
        ("dualcomp:lam=nan", "lam takes a number from 0 to 1, got nan"),
        ("visionzip:merge=max@64", "merge takes sum, mean, got 'max'"),
        ("visionzip:cls=yes@64", "cls takes true or false, got 'yes'"),
    ],
)
def test_a_wrong_parameter_is_told_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        CATALOGUE.plan(text)


def test_a_strategy_without_a_router_needs_a_budget() -> None:
    with pytest.raises(InvalidBudget, match="divprune needs a budget; write divprune@0.25"):
        CATALOGUE.plan("divprune")


def test_a_plan_has_a_step() -> None:
    with pytest.raises(InvalidStrategyText, match="at least one step, got none"):
        Plan(())


def test_a_plan_needs_what_its_steps_need() -> None:
    plan = CATALOGUE.plan("visionzip@64")
    assert plan.needs == plan.steps[0].compressor.info.needs
    assert plan.info.name == "visionzip"


def test_generators_of_one_seed_draw_alike_and_start_afresh() -> None:
    context = Context(seed=5)
    assert context.generator().initial_seed() == 5
    assert context.generator().get_state().equal(context.generator().get_state())
