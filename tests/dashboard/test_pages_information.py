"""The Information tab: every figure states its conditions, shows its numbers, and redraws in the other theme."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import pid
from analysis.beliefs import INTERVENTIONS, SELECTIONS
from analysis.spectrum import ATOMS, Interval, Spectrum
from dashboard import spectra
from dashboard.bundled import INFORMED
from dashboard.context import Context
from dashboard.pages.information import conditions, self_test, show, studies
from dashboard.samples import add_information
from tests.dashboard.page import opened
from tests.factories import make_spectrum

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Context]:
    with opened(tmp_path) as context:
        yield context


def member(number: int, strategy: str = "identity@1.0", budget: float | None = 1.0, **facts: object) -> Spectrum:
    plain = {"differences": {}, "reference": "", "labels": ()} if strategy.startswith("identity") else {}
    return replace(make_spectrum(number), strategy=strategy, budget=budget, **{**plain, **facts})


def shown(ours: Context, study: str = "", strategy: str = "", *, dark: bool = False) -> list[object]:
    return show(ours, study, strategy, None, dark=dark)


def texts(updates: list[object]) -> str:
    return "".join(part for part in updates if isinstance(part, str))


def test_an_empty_store_says_how_to_fill_it(ours):
    updates = shown(ours)
    assert "No decomposition is stored yet" in updates[0]
    assert "keepmap pid --regimes" in updates[0]


def test_the_figures_show_what_is_stored_with_their_conditions_and_tables(ours):
    ours.store.add_spectra([member(0)], {})
    ours.store.add_spectra([member(1, "dualcomp@0.25", 0.25)], {})
    ours.store.add_spectra([member(3, checkpoint=48)], {})
    layer = replace(member(5), layer=0, request=member(4).request)
    ours.store.add_spectra([member(4, task="region"), layer], {})
    text = texts(shown(ours))
    for heading in ("Spectrum", "Difference to the uncompressed model", "Along the layers", "Along the training"):
        assert f"<h2>{heading}" in text
    for said in ("BROJA by posterior clouds", "shuffled", "frozen", "64 questions, 512 pairs", "25.0%", "bca, 1,000"):
        assert said in text
    assert text.count("<details") == 4
    assert "reconstruction: router by rule" in text
    assert f"{member(0).atoms['synergy'].value:.3f}" in text


def test_figures_without_data_are_hidden(ours):
    ours.store.add_spectra([member(0)], {})
    updates = shown(ours)
    charts = [part for part in updates[5::3] if isinstance(part, dict)]
    assert [chart["visible"] for chart in charts] == [True, False, False, False]


def test_decompositions_of_another_way_are_not_in_one_figure(ours):
    other = member(1, "dualcomp@0.25", 0.25)
    other = replace(other, method=replace(other.method, intervention="mean"))
    ours.store.add_spectra([member(0)], {})
    ours.store.add_spectra([other], {})
    first, second = studies(ours.store.find_spectra())
    assert {len(first.members), len(second.members)} == {1}
    assert "Uniform" not in texts(shown(ours, first.key))


@pytest.mark.parametrize(
    ("facts", "method"),
    [
        ({"asked": "a" * 64}, {}),
        ({"samples": 8, "n": 64}, {}),
        ({}, {"seed": 3}),
        ({}, {"replicates": 200}),
        ({}, {"partners": 4}),
    ],
    ids=["samples", "n", "seed", "replicates", "partners"],
)
def test_other_samples_seeds_replicates_or_counts_are_not_in_one_figure(facts, method):
    other = member(1, "uniform_grid@0.25", 0.25, **facts)
    other = replace(other, method=replace(other.method, **method))
    made = studies([member(0), other])
    assert [len(study.members) for study in made] == [1, 1]
    assert len({study.title for study in made}) == 2


def test_layers_stay_with_their_answer_though_resampled_less_often():
    answer = member(0)
    layer = replace(member(1), layer=2, request=answer.request, method=replace(answer.method, replicates=200))
    (study,) = studies([answer, layer])
    assert study.answers() == [answer]
    assert study.deep_strategies() == [layer.strategy]


def test_every_table_says_how_many_questions_were_asked():
    odd = member(0, samples=4321, differences=member(2, "dualcomp@0.25").differences)
    panels = [("quarter", [odd])]
    tables = (spectra.spectrum_table([odd]), spectra.difference_table([odd]), spectra.curve_table(panels, "layer"))
    for table in tables:
        assert "Questions" in table
        assert "<td>4,321</td>" in table


def test_the_bundled_decompositions_are_one_study_of_all_strategies(ours):
    add_information(ours.store)
    chosen, *rest = studies(ours.store.find_spectra())
    assert {one.strategy for one in chosen.members} == set(INFORMED)
    assert {one.method.intervention for study in rest for one in study.members} == {"mean"}


def test_the_latest_of_equal_decompositions_counts():
    old, new = member(0), replace(member(1), id="new")
    (study,) = studies([old, new])
    assert study.answers() == [new]


def test_text_from_a_store_is_escaped(ours):
    evil = member(0, task=EVIL, strategy=EVIL, labels=(EVIL,))
    ours.store.add_spectra([evil], {})
    updates = shown(ours)
    assert EVIL not in texts(updates)
    assert all(EVIL not in str(part) for part in updates)


@pytest.mark.parametrize("dark", [False, True])
def test_bars_reach_the_total_and_whiskers_are_the_intervals(dark):
    groups = [member(0), member(1, "dualcomp@0.25", 0.25)]
    figure = spectra.spectrum(groups, dark=dark)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [bar.name for bar in bars] == [spectra.WORDS[atom] for atom in ATOMS]
    for place, one in enumerate(groups):
        assert sum(bar.x[place] for bar in bars) == pytest.approx(sum(one.atoms[atom].value for atom in ATOMS))
    whiskers = [trace for trace in figure.data if trace.type == "scatter"]
    assert whiskers[0].error_x.array[0] == pytest.approx(0.05)
    assert whiskers[-1].x[0] == pytest.approx(sum(groups[0].atoms[atom].value for atom in ATOMS))


def test_a_negative_synergy_is_drawn_and_written_as_it_is():
    odd = member(0)
    odd = replace(odd, atoms={**odd.atoms, "synergy": Interval(-0.02, -0.05, 0.0)}, incoherence=0.02)
    figure = spectra.spectrum([odd])
    assert any(trace.name == "Synergy" and trace.x[0] == -0.02 for trace in figure.data)
    assert figure.layout.xaxis.range[0] < -0.02
    assert "-0.020" in spectra.spectrum_table([odd])
    assert "Incoherence up to 0.020 bits" in conditions([odd])


def test_one_sided_intervals_are_marked():
    odd = member(0)
    odd = replace(odd, atoms={**odd.atoms, "redundancy": Interval(0.0, 0.0, 0.01, True)})
    assert "one-sided" in spectra.spectrum_table([odd])
    assert "one-sided" in spectra.said(odd.atoms["redundancy"])


def test_curves_follow_the_layers_and_the_steps():
    layers = [replace(member(at), layer=at) for at in range(3)]
    figure = spectra.curves([("quarter", layers)], "layer")
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert list(lines[0].x) == [1, 2, 3]
    steps = [replace(member(at), checkpoint=10**at) for at in (1, 2, 3)]
    figure = spectra.curves([("quarter", steps)], "checkpoint")
    assert figure.layout.xaxis.type == "log"
    assert list(figure.data[-1].x) == [10, 100, 1000]


def test_the_self_test_solves_every_distribution_to_a_millionth_of_a_bit():
    text = self_test()
    assert text.count('<th scope="row">') == len(pid.GATES)
    assert f"{len(pid.GATES)} distributions" in text
    assert "-0.000000" not in text


def test_every_choice_is_explained():
    assert set(INTERVENTIONS) == {"shuffled", "mean", "noise", "dropped", "options_kept"}
    assert set(SELECTIONS) == {"frozen", "rerun"}
    for text in (*INTERVENTIONS.values(), *SELECTIONS.values()):
        assert text.endswith((".", ")."))
