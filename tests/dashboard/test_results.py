from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import pytest

from compression.sight import Turn
from compression.strategies import CATALOGUE
from dashboard.facts import facts_of, shown_layer
from dashboard.report import run_json
from dashboard.results import PaneView, budget_words, label_words, results
from dashboard.tables import COLUMNS, Numbered, csv_text, numbers_table, turns_tables
from storage.views import TURN_COLUMNS
from tests.factories import make_comparison, make_run


def pane(strategy: str = "divprune@0.25", **wanted: object) -> PaneView:
    run = make_run(strategy=strategy, **wanted)  # type: ignore[arg-type]
    return PaneView("DivPrune", strategy, "done", facts=facts_of(run))


def test_a_result_says_answer_verdict_counts_and_probabilities_in_words() -> None:
    text = results([pane(correct=True)])
    assert "<strong>red</strong>" in text
    assert "Right</span>" in text
    assert 'aria-label="64 kept, 0 merged, 192 dropped"' in text
    assert ", expected</span>" in text, "the tick has a word for those who cannot see it"


def test_a_wrong_answer_names_the_expected_one() -> None:
    text = results([pane(correct=False)])
    assert "Wrong</span>" in text
    assert "expected red, choice mass" in text


def test_where_nothing_is_expected_there_is_no_verdict() -> None:
    text = results([pane(expected=None, evidence=())])
    assert "verdict" not in text
    assert "not known" in text


def test_a_router_shows_lambda_rho_their_source_and_the_split() -> None:
    text = results([pane("dualcomp@0.25")])
    assert "λ 0.50 <small>by rule</small>, ρ 0.25 <small>by rule</small>" in text
    assert "32 semantic, 32 geometric" in text


def test_what_did_not_happen_is_none_and_not_zero() -> None:
    text = results([pane("identity@1.0")])
    assert '<dt>Compress</dt><dd><span class="none">none</span></dd>' in text
    assert '<dt>Router</dt><dd><span class="none">none</span></dd>' in text


def test_what_was_saved_is_counted_against_the_pane_that_keeps_everything() -> None:
    whole, less = pane("identity@1.0"), pane()
    assert whole.facts is not None
    assert less.facts is not None
    cost = whole.facts.cost
    tenth = replace(cost, prefill_flops=cost.prefill_flops // 10, kv_cache_bytes=cost.kv_cache_bytes // 10)
    panes = [
        replace(whole, info=CATALOGUE.get("identity").info),
        replace(less, facts=replace(less.facts, cost=tenth), info=CATALOGUE.get("divprune").info),
    ]
    text = results(panes)
    assert text.count("estimated, 90 % less</small>") == 1
    assert text.count("less than A</small>") == 1
    assert "% less" not in results(panes[1:]), "without a reference nothing is counted"


def test_all_panes_read_attention_at_the_same_layer() -> None:
    _, runs = make_comparison(5)
    facts = [facts_of(run) for run in runs]
    layer = shown_layer(facts)
    assert layer is not None
    text = results([PaneView(item.strategy_name, item.strategy, "done", facts=item) for item in facts])
    assert text.count(f"on the image <small>layer {layer + 1}</small>") == len(facts)


def test_text_of_users_and_models_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    run = make_run(choices=(evil, "b", "c", "d", "e"), expected=evil, labels=(evil,), notices=(evil,))
    text = results([PaneView(evil, evil, "done", facts=facts_of(run)), PaneView(evil, evil, "cancelled", reason=evil)])
    assert "<img" not in text
    assert "&lt;img" in text
    assert "<img" not in numbers_table([Numbered(0, evil, facts_of(run))])


@pytest.mark.parametrize(
    ("state", "said"),
    [("waiting", "Waiting for its turn"), ("running", "Running"), ("refused", "refused"), ("failed", "failed")],
)
def test_a_pane_without_a_run_says_why(state: str, said: str) -> None:
    assert said in results([PaneView("FastV", "fastv@26", state)])


def test_a_cancelled_pane_gives_its_own_reason() -> None:
    assert "This run was deleted." in results(
        [PaneView("FastV", "fastv@26", "deleted", reason="This run was deleted.")]
    )


def test_the_budget_stands_in_words() -> None:
    assert budget_words(pane("identity@1.0")) == "all 256 tokens"
    assert budget_words(pane("divprune@64")) == "64 of 256 tokens"
    assert budget_words(PaneView("FastV", "fastv@26", "refused", total=256, asked=26)) == "26 of 256 asked"


def test_labels_follow_from_the_declaration_and_none_is_said_twice() -> None:
    facts = facts_of(make_run(strategy="uniform_grid@0.25", labels=("out of domain", "out of domain")))
    assert label_words(facts, CATALOGUE.get("uniform_grid").info) == ["out of domain", "ignores the image"]
    assert label_words(replace(facts, labels=()), CATALOGUE.get("identity").info) == ["reference"]
    routed = replace(facts, labels=("reconstruction: router by rule", "rule router"))
    assert label_words(routed, None) == ["reconstruction: router by rule"]


def test_evidence_is_counted_as_the_runs_own_recall_says() -> None:
    facts = facts_of(make_run(strategy="divprune@0.25"))
    assert facts.evidence == 16
    assert facts.evidence_kept == round(16 * (facts.evidence_recall or 0))


def test_evidence_that_was_merged_is_not_said_to_be_kept() -> None:
    facts = replace(facts_of(make_run(strategy="divprune@0.25")), evidence=1, evidence_kept=1)
    merging = PaneView("A", "visionzip@64", "done", facts=replace(facts, merged=3))
    assert "1 of 1 patch kept or merged" in results([merging])
    assert "1 of 1 patch kept<" in results([replace(merging, facts=replace(facts, merged=0))])


def test_the_csv_has_full_precision_and_a_column_per_answer() -> None:
    _, runs = make_comparison(1)
    rows = [Numbered(position, "title", facts_of(run)) for position, run in enumerate(runs)]
    read = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert list(read[0])[: len(COLUMNS)] == list(COLUMNS)
    for row, line in zip(rows, read, strict=True):
        assert float(line["p(red)"]) == row.facts.probabilities[row.facts.choices.index("red")]
        assert float(line["prefill_seconds"]) == row.facts.cost.prefill.median
    assert read[0]["compress_seconds"] == "", "what did not happen is empty"


@pytest.mark.parametrize("evil", ["=1+1", "+cmd", "-2", "@SUM(A1)"])
def test_the_csv_runs_no_formula(evil: str) -> None:
    run = make_run(choices=(evil, "b", "c", "d", "e"), expected=evil)
    line = next(csv.DictReader(io.StringIO(csv_text([Numbered(0, "t", facts_of(run))]))))
    assert line["answer"] == f"'{evil}"


def test_the_table_has_row_headers_and_units() -> None:
    text = numbers_table([Numbered(0, "DivPrune", facts_of(make_run()))])
    assert '<th scope="row">' in text
    assert '<th scope="col">Prefill, ms</th>' in text
    assert 'tabindex="0"' in text, "a table that scrolls sideways can be reached by keyboard"


TURNS = (
    Turn(1, (0.0, 0.0, 256.0, 256.0), tokens=256, after="blue", reason="overview"),
    Turn(2, (10.4, 20.0, 60.0, 1190.6), "a1 b1", 0.25, 1100, "blue", "red"),
    Turn(3, (1.0, 2.0, 3.0, 4.0), "", 0.125, 0, "red", "", is_accepted=False, reason="<b>too small</b>"),
)


def test_each_turn_of_a_zoom_is_a_row_with_its_box_tokens_and_answers() -> None:
    zoomed, plain = facts_of(replace(make_run(), turns=TURNS)), facts_of(make_run(1))
    text = turns_tables([Numbered(0, "plain", plain), Numbered(1, "<i>zoom</i>", zoomed)])
    assert text.count("<section") == 1
    assert "<i>" not in text
    assert "<b>" not in text
    assert 'tabindex="0" role="region" aria-label="Turns of B, &lt;i&gt;zoom&lt;/i&gt;"' in text
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr[^>]*>(.*?)</tr>", text)[1:]]
    assert rows == [
        ["1", "0–256 × 0–256", "–", "256", "–", "blue", "overview"],
        ["2", "10–60 × 20–1,191", "0.25", "1,100", "blue", "red", "shown as a1 b1"],
        ["3", "1–3 × 2–4", "0.12", "–", "red", "–", "&lt;b&gt;too small&lt;/b&gt;"],
    ]


def test_the_evidence_of_a_zoom_is_what_it_showed_at_full_resolution() -> None:
    facts = facts_of(replace(make_run(), turns=TURNS, evidence_recall=0.5))
    assert "50 % shown at full resolution" in results([PaneView("Zoom", "zoom@1.0", "done", facts=facts)])


def test_a_zoom_without_a_budget_has_no_limit_and_no_router() -> None:
    view = PaneView("Zoom", "zoom", "waiting", total=256, info=CATALOGUE.get("zoom").info)
    assert budget_words(view) == "no limit"


def test_turns_have_the_names_of_the_view_in_json() -> None:
    first, second, third = run_json(replace(make_run(), turns=TURNS))["turns"]
    assert tuple(first) == TURN_COLUMNS[1:]
    assert [second[name] for name in ("left", "top", "right", "bottom")] == [10.4, 20.0, 60.0, 1190.6]
    assert (first["confidence"], second["tokens_spent"], second["answer_before"]) == (None, 1100, "blue")
    assert (third["accepted"], third["reason"]) == (False, "<b>too small</b>")
    assert run_json(make_run())["turns"] == []
