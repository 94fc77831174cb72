from __future__ import annotations

import json

import pytest

from dashboard import figures
from dashboard.facts import facts_of
from dashboard.tables import Numbered
from dashboard.theme import palette
from tests.factories import make_comparison, make_run


@pytest.fixture
def rows() -> list[Numbered]:
    _, runs = make_comparison(3)
    return [Numbered(position, run.strategy_name, facts_of(run)) for position, run in enumerate(runs)]


def test_the_probability_chart_has_every_number_of_the_table(rows: list[Numbered]) -> None:
    traces = figures.probabilities(rows).data
    assert [trace.text for trace in traces] == ["A", "B", "C"]
    for row, trace in zip(rows, traces, strict=True):
        assert list(trace.customdata) == list(row.facts.probabilities), "what the pointer reads is the true value"


def test_equal_probabilities_stand_side_by_side_and_inside_the_axis() -> None:
    facts = facts_of(make_run())
    rows = [Numbered(position, "same", facts) for position in range(4)]
    traces = figures.probabilities(rows).data
    for answer in range(len(facts.choices)):
        places = [trace.x[answer] for trace in traces]
        assert len(set(places)) == 4
        assert max(places) <= 1.0


def test_the_expected_answer_is_ringed_in_ink(rows: list[Numbered]) -> None:
    ink = palette(dark=False)["ink"]
    ringed = {
        answer
        for trace in figures.probabilities(rows).data
        for answer, colour in zip(trace.y, trace.marker.line.color, strict=True)
        if colour == ink
    }
    assert ringed == {rows[0].facts.choices.index("red")}


def test_the_bars_of_a_run_add_up_to_its_total(rows: list[Numbered]) -> None:
    *bars, totals = figures.cost(rows).data
    for index, row in enumerate(rows):
        assert sum(bar.x[index] for bar in bars) == pytest.approx(row.facts.cost.total_seconds * 1e3)
        assert totals.x[index] == pytest.approx(row.facts.cost.total_seconds * 1e3)


def test_light_and_dark_differ_in_colours_only(rows: list[Numbered]) -> None:
    light, dark = (figures.probabilities(rows, dark=dark) for dark in (False, True))
    assert light.data[0].x == dark.data[0].x
    assert light.data[0].marker.color == palette(dark=False)["cat-1"]
    assert dark.data[0].marker.color == palette(dark=True)["cat-1"] != light.data[0].marker.color


def test_the_page_gets_a_transparent_figure_without_a_tool_bar(rows: list[Numbered]) -> None:
    sent = json.loads(figures.for_page(figures.cost(rows)).plot)
    assert sent["config"]["displayModeBar"] is False
    assert sent["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


def test_answers_are_escaped_in_labels_and_hover_texts() -> None:
    run = make_run(choices=("<b>no</b>", "%{x}", "c", "d", "e"), expected="<b>no</b>")
    row = Numbered(0, "<i>title</i>", facts_of(run))
    figure = figures.probabilities([row])
    assert figure.layout.yaxis.ticktext[0] == "<b>&lt;b&gt;no&lt;/b&gt;</b>"
    assert "<i>" not in figure.data[0].hovertemplate


def test_the_caption_says_unit_repeats_device_and_type(rows: list[Numbered]) -> None:
    assert figures.cost_caption(rows) == "Milliseconds, median of 3 passes, 1 CPU thread, float32"
    assert figures.cost_caption([]) == ""
