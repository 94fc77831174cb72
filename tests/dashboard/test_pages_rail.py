from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis.pipeline import RECORD_ALL, request_for
from compression.errors import StrategyError
from compression.tokens import Signal
from dashboard.context import Context
from dashboard.errors import InvalidInquiry
from dashboard.messages import explain
from dashboard.pages import rail_view, steering
from dashboard.pages.asking import Picked, fact_answer, inquiry, known_about, questions_for
from dashboard.pages.choice import (
    Choice,
    budget_text,
    first_choices,
    offered,
    read_row,
    read_strategies,
    read_strategy,
    rescaled,
    write_strategies,
)
from dashboard.pages.earlier import earlier_runs
from dashboard.pages.following import start
from dashboard.pages.steer import Steer, added, raised, removed, renamed
from tests.dashboard.page import QuickModel, make_run, opened
from tests.factories import make_image_file


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Context]:
    with opened(tmp_path) as ours:
        yield ours


def held(ours: Context, question: str = "", rows: tuple[Choice, ...] = ()) -> Steer:
    return Steer(Picked(sample=0), question, "", rows or first_choices(256, None), 256)


# ---------------------------------------------------------------------- strategies
@pytest.mark.parametrize(
    ("count", "total", "text"),
    [(64, 256, "0.25"), (26, 256, "0.1"), (256, 256, "1.0"), (1, 256, "1"), (37, 4096, "37")],
)
def test_a_budget_is_written_as_a_ratio_where_that_is_the_same_count(count: int, total: int, text: str) -> None:
    assert budget_text(count, total) == text


@pytest.mark.parametrize(
    "text",
    [
        "identity@1.0",
        "dualcomp:tau0=0.6@0.25",
        "dualcomp",
        "fastv:layer=2@101",
        "visionzip@64",
        "visiondrop:merge=mean@0.5+visiondrop_stages:mask=none@101",
        "dualcomp+fastkv@101",
    ],
)
def test_a_row_reads_and_writes_strategy_text(text: str) -> None:
    choice = read_strategy(text, 256)
    assert str(choice.plan(256)) in (text, text.replace("@64", "@0.25"))


def test_two_to_four_lines_are_strategies_and_anything_else_is_refused() -> None:
    rows = read_strategies("identity@1.0\n\n dualcomp@0.25 \n", 256)
    assert write_strategies(rows, 256) == "identity@1.0\ndualcomp@0.25"
    with pytest.raises(InvalidInquiry, match="2 to 4 strategies, one a line, got 1"):
        read_strategies("identity@1.0", 256)
    with pytest.raises(StrategyError):
        read_strategies("identity@1.0\nnothing@0.25", 256)


def test_a_row_of_a_plan_moves_the_budget_of_its_last_step(ours: Context) -> None:
    choice = read_strategy("visionzip:merge=mean@0.5+fastkv:window=4@101", 256)
    assert (choice.name, choice.count, choice.before) == ("fastkv", 101, "visionzip:merge=mean@0.5")
    assert read_row("fastkv", 101, False, choice.written) == choice
    assert replace(choice, count=99).text(256) == "visionzip:merge=mean@0.5+fastkv:window=4@99"
    assert choice.lowest(256, ours.models) == 65  # (3 * 128 + 3) / 6 layers
    assert "after visionzip:merge=mean@0.5" in rail_view.hint(ours, choice, 256, 0)
    steer = Steer(Picked(sample=0), "", "", (choice, choice), 256)
    assert renamed(steer, 0).choices[0] == Choice("fastkv", 101)


def test_the_menu_offers_what_the_model_provides_signals_for() -> None:
    everything = {name for _, name in offered(None)}
    assert "fastv" in everything
    assert "fastv" not in {name for _, name in offered(frozenset())}


def test_the_rail_starts_with_a_reference_the_flagship_and_a_baseline() -> None:
    assert [choice.text(256) for choice in first_choices(256, QuickModel.provides)] == [
        "identity@1.0", "dualcomp@0.25", "uniform_grid@0.25",
    ]  # fmt: skip


def test_a_cut_inside_the_model_has_a_lowest_budget(ours: Context) -> None:
    assert Choice("fastv", 26).lowest(256, ours.models) == 44
    assert Choice("divprune", 26).lowest(256, ours.models) == 1


def test_a_budget_that_cannot_be_reached_is_said_at_once_with_the_one_that_can(ours: Context) -> None:
    text = rail_view.hint(ours, Choice("fastv", 26), 256, 1)
    assert "at least 44 of 256 for this strategy" in text
    assert 'data-tokens="44"' in text
    assert not rail_view.hint(ours, Choice("fastv", 44), 256, 1)


def test_what_a_strategy_that_looks_itself_can_reach_depends_on_the_image(ours: Context) -> None:
    assert Choice("tome", 26).lowest(256, ours.models, (256, 256)) == 64
    assert Choice("downsample", 26).lowest(256, ours.models, (256, 256)) == 256
    assert Choice("tome", 26).lowest(256, ours.models) == 1, "not known before there is an image"
    text = rail_view.hint(ours, Choice("tome", 26), 256, 1, Picked(sample=0))
    assert "at least 64 of 256 for this strategy" in text
    assert not rail_view.hint(ours, Choice("tome", 64), 256, 1, Picked(sample=0))
    gone = Picked(digest="0" * 64, name="gone.png")
    assert not rail_view.hint(ours, Choice("tome", 26), 256, 1, gone), "that the image is gone is said above"


def test_a_model_that_cannot_merge_in_its_encoder_is_not_offered_it() -> None:
    offers = [name for _, name in offered(QuickModel.provides - {Signal.ENCODER_BLOCKS})]
    assert "tome" not in offers
    assert "downsample" in offers


def test_another_image_keeps_the_share_and_not_the_count() -> None:
    assert rescaled(Choice("divprune", 64), 256, 4096).count == 1024


def test_rows_are_added_taken_away_renamed_and_raised(ours: Context) -> None:
    steer = held(ours)
    assert len(added(steer).choices) == 4
    assert len(added(added(steer)).choices) == 4, "four is the most"
    assert len(removed(removed(steer)).choices) == 2, "two is the fewest"
    tuned = Steer(steer.picked, "", "", (Choice("dualcomp", 64, True, "tau0=0.6"),), 256)
    assert renamed(tuned, 0).choices[0] == Choice("dualcomp", 64)
    assert raised(tuned, 0, 99).choices[0].count == 99
    assert raised(tuned, 5, 99) == tuned


def test_a_row_shows_no_slider_where_there_is_nothing_to_choose(ours: Context) -> None:
    rows = (Choice("identity", 256), Choice("dualcomp", 64, router=True), Choice("divprune", 64))
    updates = rail_view.row_updates(ours, rows, 256)
    sliders = [updates[rail_view.PARTS * position + 3]["visible"] for position in range(3)]
    assert sliders == [False, False, True]
    assert updates[rail_view.PARTS * 3] == {"visible": False, "__type__": "update"}, "the fourth row is not in use"


def test_text_that_cannot_be_read_changes_no_row(ours: Context) -> None:
    notice, updates = steering.written(ours, held(ours), "identity@1.0\nfastv@2.0", None)
    assert 'role="alert"' in notice
    assert all(update["__type__"] == "update" and len(update) == 1 for update in updates)
    assert len(updates) == steering.size_of_rows()


# ---------------------------------------------------------------------- image and question
@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", '{"sample": 99}', '{"sample": -1}', '{"image": "../etc"}', "{"]
)
def test_a_pick_that_names_nothing_is_the_first_sample(ours: Context, text: str) -> None:
    assert Picked.read(text, ours) == Picked(sample=0)


def test_a_pick_survives_the_browser(ours: Context) -> None:
    for picked in (Picked(sample=1), Picked(digest="ab" * 32, name="<b>.tif")):
        assert Picked.read(str(picked), ours) == picked


def test_a_question_of_the_scene_comes_with_its_answer_and_evidence(ours: Context) -> None:
    question = ours.samples[0].questions[0]
    known = known_about(ours, Picked(sample=0), question.text.lower().rstrip("?"))
    assert (known.expected, known.choices, known.task) == (question.answer, question.choices, question.task)
    assert len(known.evidence) == len(question.evidence) > 0


def test_the_same_words_on_another_image_have_no_known_answer(ours: Context) -> None:
    known = known_about(ours, Picked(sample=1), "Is there a purple plane?")
    if ours.samples[1].question("Is there a purple plane?") is None:
        assert known.expected is None
    assert known.choices == ("yes", "no")


def test_a_question_that_the_text_answers_has_its_answer_on_any_image(ours: Context) -> None:
    assert fact_answer("What is two plus three?") == "five"
    assert known_about(ours, Picked(sample=0), "What is two plus three?").expected == "five"


def test_unknown_words_are_said_and_a_question_of_unknown_words_only_cannot_be_asked(ours: Context) -> None:
    note, _, ready = rail_view.question_note(ours, Picked(sample=0), "How many dragons are there?", "")
    assert ready
    assert "left out: dragons" in note
    note, _, ready = rail_view.question_note(ours, Picked(sample=0), "<b>flurb</b> blorb", "")
    assert not ready
    assert "<b>flurb" not in note


def test_own_answers_are_two_or_more(ours: Context) -> None:
    assert known_about(ours, Picked(sample=0), "What colour is the car?", "red, blue , red").choices == ("red", "blue")
    with pytest.raises(InvalidInquiry, match="two or more"):
        known_about(ours, Picked(sample=0), "What colour is the car?", "red")


def test_every_menu_question_can_be_asked(ours: Context) -> None:
    for picked in (Picked(sample=0), Picked(digest="ab" * 32, name="own.tif")):
        for text in questions_for(ours, picked):
            assert ours.models.get().prompt(text).choices, text


def test_the_inquiry_carries_a_place_on_earth_and_is_declared_synthetic(ours: Context) -> None:
    asked, _ = inquiry(ours, Picked(sample=0), ours.samples[0].questions[0].text)
    assert asked.image.crs == ours.samples[0].scene.crs
    assert asked.image.is_synthetic
    assert asked.image.name == ours.samples[0].name


# ---------------------------------------------------------------------- handlers
def test_picking_a_scene_asks_its_first_question_unless_one_was_written(ours: Context) -> None:
    question = ours.samples[1].questions[0].text
    assert question in steering.pick_sample(ours, held(ours), 1, None)
    own = "How many ships are there at sea?"
    assert own in steering.pick_sample(ours, held(ours, own), 1, None)
    of_another_scene = ours.samples[2].questions[0].text
    assert question in steering.pick_sample(ours, held(ours, of_another_scene), 1, None)


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_picking_a_scene_that_is_not_there_changes_nothing(ours: Context, index: int) -> None:
    updates = steering.pick_sample(ours, held(ours), index, None)
    assert len(updates) == steering.size_of_everything()
    assert all(len(update) == 1 for update in updates)


def test_an_upload_is_kept_by_its_content_and_named_as_it_came(ours: Context, tmp_path: Path) -> None:
    path = make_image_file(tmp_path)
    notice, updates = steering.pick_upload(ours, held(ours), str(path), None)
    assert notice == ""
    assert len(updates) == steering.size_of_everything()
    picked = Picked.read(updates[-3], ours)
    assert picked.name == path.name
    assert picked.path(ours).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"II*\0" + b"x" * 40, b"\x89PNG\r\n\x1a\n"], ids=["empty", "text", "tiff", "png"]
)
def test_rubbish_is_refused_with_what_is_allowed_and_the_rail_stays(
    ours: Context, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "<field>.tif"
    path.write_bytes(content)
    notice, updates = steering.pick_upload(ours, held(ours), str(path), None)
    assert 'role="alert"' in notice
    assert "Allowed: PNG" in notice
    assert "&lt;field&gt;.tif" in notice
    assert "Choose another file" in notice
    assert str(tmp_path) not in notice
    assert all(len(update) == 1 for update in updates)
    assert ours.store.image_bytes() == 0, "nothing of it was kept"


def test_everything_that_a_handler_writes_has_a_component(ours: Context) -> None:
    assert len(steering.everything(ours, held(ours), None)) == steering.size_of_everything()
    assert len(steering.rows_changed(ours, held(ours), None)) == steering.size_of_rows()


def test_before_the_model_is_loaded_the_rail_is_there(tmp_path: Path) -> None:
    with opened(tmp_path, ready=False) as ours:
        updates = steering.everything(ours, steering.start_of(ours, None), None)
        assert not ours.models.is_ready(), "showing the page loads nothing"
        assert len(updates) == steering.size_of_everything()


def test_what_was_asked_before_is_offered_with_its_stored_runs(ours: Context) -> None:
    steer = held(ours, ours.samples[0].questions[0].text)
    assert earlier_runs(ours, steer, None) == ()
    question, _ = inquiry(ours, steer.picked, steer.question)
    model = ours.models.get()
    prompt = model.prompt(question.question, question.choices)
    runs = []
    for number, choice in enumerate(steer.choices):
        request = request_for(question, choice.plan(256), model, prompt, seed=0, record=RECORD_ALL)
        runs.append(replace(make_run(number), request=request))
        ours.store.add(runs[-1])
    assert earlier_runs(ours, steer, None) == tuple(run.id for run in runs)
    assert 'data-act="compare"' in steering.under_button(ours, steer, True, None)
    assert earlier_runs(ours, replace(steer, seed=5), None) == (), "another seed is another request"
    assert earlier_runs(ours, steer, "b" * 32) == (), "and another visitor has asked nothing"


@pytest.mark.parametrize(
    ("question", "rows"), [("", ()), ("flurb", ()), ("Is there a red car?", (Choice("identity", 256),))]
)
def test_what_cannot_be_asked_starts_nothing_and_says_why(
    ours: Context, question: str, rows: tuple[Choice, ...]
) -> None:
    follow = start(ours, held(ours, question, rows), None)
    assert 'role="alert"' in str(follow.notice)
    assert follow.job_id is None
    assert not ours.store.jobs()


def test_nothing_that_a_browser_sends_is_trusted(ours: Context) -> None:
    values: list[Any] = [None, "{", None, None, -5, 9, None, *([None, None, None, None] * 4)]
    steer = Steer.read(ours, values)
    assert steer.picked == Picked(sample=0)
    assert steer.choices == ()
    assert steer.seed == 0
    assert explain(InvalidInquiry("x")).title


def test_an_image_that_is_gone_is_said_in_the_rail(ours: Context) -> None:
    text = rail_view.image_note(ours, Picked(digest="ab" * 32, name="gone.tif"))
    assert 'role="alert"' in text
