"""The catalogue by name."""

from __future__ import annotations

import pytest

from compression.errors import InvalidStrategyText, UnknownStrategy
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
