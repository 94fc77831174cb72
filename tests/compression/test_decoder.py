"""Where strategies act inside the language model, and what each act may leave so that the mean is as asked."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression.decoder import Act, DecoderStrategy, mean_over_layers, read_stages, spread, tokens_per_layer
from compression.errors import InvalidBudget, InvalidParameter
from compression.strategies import CATALOGUE
from compression.strategies.fastv import FastV

INSIDE = [kind for kind in CATALOGUE if issubclass(kind, DecoderStrategy)]
every_strategy = pytest.mark.parametrize("kind", INSIDE, ids=lambda kind: kind.info.name)


@pytest.mark.parametrize(
    ("layer", "average", "kept"),
    [(2, 192, 166), (2, 128, 98), (2, 64, 29), (2, 171, 144), (3, 315, 288), (2, 576, 576)],
)
def test_published_averages_of_576_tokens_over_32_layers(layer: int, average: int, kept: int) -> None:
    # The averages 192, 128 and 64 leave 166.4, 98.1 and 29.9 tokens; 144 and 288 kept are averages of 171 and 315.
    assert FastV(layer=layer).schedule(576, average, 32) == (Act(layer, kept),)


@pytest.mark.parametrize(("layer", "has_earlier"), [(1, False), (2, True)])
def test_an_earlier_layer_is_advised_only_where_there_is_one(layer: int, has_earlier: bool) -> None:
    with pytest.raises(InvalidBudget, match="write at least") as refused:
        FastV(layer=layer).schedule(256, 1, 6)
    assert ("or cut at an earlier layer" in str(refused.value)) == has_earlier


@given(st.integers(2, 64), st.integers(1, 5000), st.data())
def test_a_single_cut_solves_the_published_equation(layers: int, total: int, data: st.DataObject) -> None:
    layer = data.draw(st.integers(1, layers - 1))
    average = data.draw(st.integers(1, total))
    strategy = FastV(layer=layer)
    lowest = -(-(layer * total + (layers - layer)) // layers)  # ceil((K*N + (L - K)) / L)
    assert strategy.lowest(total, layers) == lowest
    if average < lowest:
        with pytest.raises(InvalidBudget, match=f"at least {lowest} of {total} visual tokens") as caught:
            strategy.schedule(total, average, layers)
        assert caught.value.lowest == lowest
        return
    kept = (layers * average - layer * total) // (layers - layer)  # T = (K*N + (L - K)*k) / L, rounded down
    assert strategy.schedule(total, average, layers) == (Act(layer, kept),)


@every_strategy
@pytest.mark.parametrize("layers", [2, 4, 6, 28, 32])
@pytest.mark.parametrize("total", [16, 24, 576, 4096])
def test_the_mean_over_the_layers_is_met_within_one_token(kind: type[DecoderStrategy], layers: int, total: int) -> None:
    strategy = kind()
    lowest = strategy.lowest(total, layers)
    for average in sorted({lowest, lowest + 1, (lowest + total) // 2, total - 1, total} - {total + 1}):
        acts = strategy.schedule(total, average, layers)
        realised = mean_over_layers(acts, total, layers)
        assert average - 1 < realised <= average
        counts = tokens_per_layer(acts, total, layers)
        back = {act.layer for act in acts if act.returns}
        assert all(b <= a or layer in back for layer, (a, b) in enumerate(itertools.pairwise(counts), start=1))
        assert all(counts[layer] == total for layer in back or {0})
        assert counts[-1] >= 1


@every_strategy
def test_a_mean_of_all_tokens_drops_nothing(kind: type[DecoderStrategy]) -> None:
    assert all(act.keep == 576 for act in kind().schedule(576, 576, 32))


@every_strategy
def test_an_unreachable_mean_is_refused_with_the_lowest_that_can_be_reached(kind: type[DecoderStrategy]) -> None:
    lowest = kind().lowest(576, 32)
    assert lowest > 1
    with pytest.raises(
        InvalidBudget, match=rf"layer \d+.* of 32 leaves? a mean of at least {lowest} of 576 visual tokens, got"
    ) as refused:
        kind().schedule(576, lowest - 1, 32)
    assert refused.value.lowest == lowest


@every_strategy
@pytest.mark.parametrize("average", [0, -1, 577])
def test_averages_outside_the_tokens_are_refused(kind: type[DecoderStrategy], average: int) -> None:
    with pytest.raises(InvalidBudget, match=rf"budget must be 1\.\.576 visual tokens, got {average}"):
        kind().schedule(576, average, 32)


@every_strategy
@pytest.mark.parametrize("layers", range(2, 65))
def test_acts_are_made_before_distinct_layers_of_the_model(kind: type[DecoderStrategy], layers: int) -> None:
    cuts = kind().cut_layers(layers)
    assert cuts == tuple(sorted(set(cuts)))
    returns = any(act.returns for act in kind().schedule(9, 9, layers))
    assert all((0 if returns else 1) <= layer <= layers - 1 for layer in cuts)


def test_a_model_of_one_layer_has_no_place_for_a_cut() -> None:
    with pytest.raises(InvalidParameter, match="language model with 1 layers"):
        FastV().cut_layers(1)


@pytest.mark.parametrize("layer", [32, 40])
def test_a_cut_behind_the_last_layer_is_refused(layer: int) -> None:
    with pytest.raises(
        InvalidParameter, match=rf"layer in 1\.\.31 of a language model with 32 layers, got layer {layer}"
    ):
        FastV(layer=layer).schedule(576, 192, 32)


def test_published_layers_move_with_the_depth() -> None:
    assert spread((8, 16, 24), 32) == (8, 16, 24)
    assert spread((8, 16, 24), 64) == (16, 32, 48)
    assert spread((3, 7, 16), 6) == (1, 2, 3)


@pytest.mark.parametrize("text", ["", "8/", "8/8", "16/8", "0/4", "8,16", "a", "1.5", "-1", "٣"])
def test_stages_that_are_no_ascending_layers_are_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="ascending layers from 1 on"):
        read_stages(text)
