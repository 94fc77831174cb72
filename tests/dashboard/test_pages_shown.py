from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.context import Context
from dashboard.facts import facts_of
from dashboard.pages import following, shown, stored
from dashboard.pages.asking import Picked
from dashboard.pages.choice import first_choices
from dashboard.pages.following import follow, open_address, open_stored, start
from dashboard.pages.run_table import run_table
from dashboard.pages.runs import act_in_list, list_runs
from dashboard.pages.shown import load
from dashboard.pages.steer import Steer
from dashboard.pages.steering import start_of, steer_of
from dashboard.pages.stored import Filters, find, side_by_side
from dashboard.tables import Numbered, numbers_table
from storage import ComparisonNotFound, NotFound, RunNotFound
from tests.dashboard import page
from tests.dashboard.page import opened
from tests.factories import make_comparison

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Context]:
    with opened(tmp_path) as context:
        yield context


def asked(ours: Context) -> Steer:
    return Steer(Picked(sample=0), ours.samples[0].questions[0].text, "", first_choices(256, None), 256)


def printed(result: following.Follow) -> str:
    return "".join(part for part in result.printed or [] if isinstance(part, str))


PLANNED = "visiondrop@0.5+visiondrop_stages@0.25"


def test_a_stored_plan_opens_with_its_numbers_and_stands_in_the_rail(ours: Context) -> None:
    comparison, runs = make_comparison(2, ("identity@1.0", PLANNED))
    for run in runs:
        ours.store.add(run)
    ours.store.add_comparison(comparison)
    pane = load(ours, comparison.id).panes[1]
    assert (pane.title, pane.asked, pane.state) == ("VisionDrop + VisionDrop (language-model stages)", 64, "done")
    assert pane.info is not None
    assert pane.info.reduces == "prunes and merges"
    assert [choice.text(256) for choice in steer_of(ours, comparison).choices] == ["identity@1.0", PLANNED]


# ---------------------------------------------------------------------- following a job
def test_a_press_of_compare_is_followed_to_its_answers(ours: Context) -> None:
    began = start(ours, asked(ours), None)
    assert began.printed is None, "what is on screen stays until the work has begun"
    assert "next in the queue" in str(began.job)
    waiting = follow(ours, str(began.job_id), "", "", None, dark=False)
    assert waiting.printed is None
    ours.jobs.run_next()
    over = follow(ours, str(began.job_id), "", "", None, dark=False)
    assert over.job_id == "", "nobody looks any more"
    assert over.job == ""
    text = printed(over)
    assert asked(ours).question in text
    assert "/maps/" in text
    assert "Download CSV" in text


def test_while_nothing_is_new_only_the_progress_is_sent(ours: Context) -> None:
    began = start(ours, asked(ours), None)
    job = ours.store.job(str(began.job_id))
    ours.store.claim_job("me")
    comparison = ours.store.comparison(job.comparison)
    ours.store.set_pane(comparison.id, 0, page.Pane(strategy=comparison.panes[0].strategy, state="running"))
    first = follow(ours, job.id, "", "", None, dark=False)
    assert "/maps/" in printed(first)
    again = follow(ours, job.id, comparison.id, load(ours, comparison.id).signature, None, dark=False)
    assert again.printed is None
    assert "1 of 3 strategies" in str(again.job)
    assert 'role="progressbar"' in str(again.job)


def test_the_frame_of_the_maps_stays_while_its_panes_fill(ours: Context) -> None:
    began = start(ours, asked(ours), None)
    ours.jobs.run_next()
    comparison = ours.store.job(str(began.job_id)).comparison
    over = follow(ours, str(began.job_id), comparison, "old", None, dark=False)
    assert "/maps/" not in printed(over)


def test_a_job_that_does_not_exist_ends_the_looking(ours: Context) -> None:
    for job_id in ("", "x", "0" * 32):
        assert follow(ours, job_id, "", "", None, dark=False).job_id == ""


def test_a_job_of_another_visitor_cannot_be_followed(tmp_path: Path) -> None:
    with opened(tmp_path, public=True) as ours:
        began = start(ours, asked(ours), "a" * 32)
        assert 'role="alert"' in str(follow(ours, str(began.job_id), "", "", "b" * 32, dark=False).notice)


def test_a_cancelled_job_says_so_and_keeps_the_page(ours: Context) -> None:
    began = start(ours, asked(ours), None)
    assert following.cancel(ours, str(began.job_id), None) is None
    over = follow(ours, str(began.job_id), "", "", None, dark=False)
    assert "Cancelled." in str(over.notice)
    assert "nothing is stored" in str(over.notice)


# ---------------------------------------------------------------------- addresses
def test_the_address_of_a_comparison_restores_it_with_layer_and_view(ours: Context, tmp_path: Path) -> None:
    comparison = page.stored(ours.store, tmp_path)
    query = {"comparison": comparison, "km_layer": "Attention", "km_view": "3/1/2", "km_evil": EVIL}
    text = printed(open_address(ours, query, None, dark=False)[0])
    assert f'src="/maps/{comparison}?layer=Attention&amp;view=3%2F1%2F2"' in text
    assert "evil" not in text


def test_the_address_of_a_run_opens_the_comparison_it_was_made_in(ours: Context, tmp_path: Path) -> None:
    comparison = ours.store.comparison(page.stored(ours.store, tmp_path))
    opened_page, found = open_address(ours, {"run": str(comparison.panes[1].run)}, None, dark=False)
    assert found is not None
    assert found.id == comparison.id
    assert comparison.question in printed(opened_page)


def test_a_run_that_stands_alone_opens_alone(ours: Context) -> None:
    run = page.make_run(4)
    ours.store.add(run)
    _, found = open_address(ours, {"run": run.id}, None, dark=False)
    assert found is not None
    assert [pane.run for pane in found.panes] == [run.id]


def test_the_address_of_a_job_goes_before_the_comparison_from_before(ours: Context, tmp_path: Path) -> None:
    before = page.stored(ours.store, tmp_path)
    began = start(ours, asked(ours), None)
    opened_page, found = open_address(ours, {"comparison": before, "job": str(began.job_id)}, None, dark=False)
    assert found is not None
    assert found.id == ours.store.job(str(began.job_id)).comparison
    assert opened_page.job_id == began.job_id, "a reload finds the work again"


@pytest.mark.parametrize("query", [{"comparison": "0" * 32}, {"comparison": EVIL}, {"run": "x"}, {"job": "../x"}])
def test_an_address_that_leads_nowhere_says_so_calmly(ours: Context, query: dict[str, str]) -> None:
    opened_page, found = open_address(ours, query, None, dark=False)
    assert found is None
    assert 'role="alert"' in str(opened_page.notice)
    assert "<script" not in str(opened_page.notice)
    assert "Compare what each strategy keeps" in printed(opened_page)


def test_the_first_screen_is_the_sample_comparison_where_there_is_one(ours: Context, tmp_path: Path) -> None:
    assert "Compare what each strategy keeps" in printed(open_address(ours, {}, None, dark=False)[0])
    page.stored(ours.store, tmp_path, sample=True)
    opened_page, found = open_address(ours, {}, None, dark=False)
    assert found is not None
    assert found.is_sample
    assert ">sample</span>" in printed(opened_page)


def test_the_rail_is_as_it_was_when_the_comparison_was_asked(ours: Context) -> None:
    began = start(ours, asked(ours), None)
    comparison = ours.store.comparison(ours.store.job(str(began.job_id)).comparison)
    assert steer_of(ours, comparison) == replace(asked(ours), on_screen=comparison.id)
    assert start_of(ours, None).question == ""


def test_own_answers_come_back_and_usual_ones_are_left_to_the_question(ours: Context) -> None:
    own = replace(asked(ours), question="What colour is the car?", own_choices="red, blue")
    began = start(ours, own, None)
    comparison = ours.store.comparison(ours.store.job(str(began.job_id)).comparison)
    assert steer_of(ours, comparison).own_choices == "red, blue"


def test_no_model_is_loaded_to_show_what_is_stored(tmp_path: Path) -> None:
    with opened(tmp_path, ready=False) as ours:
        comparison = page.stored(ours.store, tmp_path)
        open_address(ours, {"comparison": comparison}, None, dark=False)
        list_runs(ours, Filters(), None)
        assert not ours.models.is_ready()


def test_text_from_outside_is_escaped_in_title_and_list(ours: Context, tmp_path: Path) -> None:
    comparison = page.stored(ours.store, tmp_path, question=EVIL)
    assert "<script" not in printed(open_address(ours, {"comparison": comparison}, None, dark=False)[0])
    assert "<script" not in run_table(find(ours, Filters(), None), local=True)


@pytest.mark.parametrize("link", ["", "../etc", "A" * 32, "0" * 31])
def test_a_link_that_is_none_is_named(ours: Context, link: str) -> None:
    for look in (lambda: load(ours, link), lambda: following.comparison_of_run(ours, link)):
        with pytest.raises(NotFound, match="is no id, which has 32 digits") as refused:
            look()
        assert repr(link) in str(refused.value)


def test_a_long_answer_is_whole_in_its_title_and_two_lines_in_tables(ours: Context) -> None:
    _, (run, *_) = make_comparison()
    whole = "a long grey hall " * 6
    ours.store.add(replace(run, answer=replace(run.answer, text=whole)))
    row = Numbered(0, "title", facts_of(ours.store.get(run.id)))
    for table in (run_table(find(ours, Filters(), None), local=True), numbers_table([row])):
        assert f'<span class="answer" title="{whole}">{whole}</span>' in table


def test_what_is_said_of_all_panes_is_said_once_above_them(ours: Context) -> None:
    runs = [page.make_run(1, strategy=text, notices=("Of all.", text)) for text in ("identity@1.0", "divprune@0.25")]
    for run in runs:
        ours.store.add(run)
    seen = load(ours, side_by_side(ours, [run.id for run in runs], "").id)
    assert shown.common_notices(seen) == ("Of all.",)
    assert "Of all." not in shown.result_grid(seen)
    assert "Identity@1.0.</p>" in shown.result_grid(seen), "what one pane says stays with it"


def test_a_deleted_run_leaves_its_pane_and_the_others(ours: Context, tmp_path: Path) -> None:
    comparison = ours.store.comparison(page.stored(ours.store, tmp_path))
    stored.delete(ours, str(comparison.panes[0].run), None)
    seen = load(ours, comparison.id)
    assert [pane.facts is None for pane in seen.panes] == [True, False, False]
    assert "deleted" in shown.result_grid(seen)


# ---------------------------------------------------------------------- stored runs
def test_runs_are_found_by_words_strategy_and_verdict(ours: Context, tmp_path: Path) -> None:
    page.stored(ours.store, tmp_path)
    assert find(ours, Filters(), None).count == 3
    assert find(ours, Filters(text="BUILDING"), None).count == 3
    assert find(ours, Filters(text="dragon"), None).count == 0
    assert [run.strategy_name for run in find(ours, Filters(strategy="fastv"), None).runs] == ["fastv"]
    assert find(ours, Filters(correct="wrong"), None).count == 1


def test_a_page_past_the_end_is_the_last_one(ours: Context) -> None:
    for seed in range(stored.PAGE + 1):
        ours.store.add(page.make_run(seed, tokens=(2, 2), evidence=()))
    last = find(ours, Filters(page=99), None)
    assert (last.filters.page, last.pages, len(last.runs)) == (1, 2, 1)
    assert "21 to 21 of 21 runs" in run_table(last, local=True)


def test_an_empty_list_says_whether_it_is_empty_or_narrowed(ours: Context) -> None:
    assert "No runs yet" in run_table(find(ours, Filters(), None), local=True)
    assert "No run matches" in run_table(find(ours, Filters(text="x"), None), local=True)


def test_runs_of_one_image_and_question_stand_side_by_side(ours: Context, tmp_path: Path) -> None:
    comparison = ours.store.comparison(page.stored(ours.store, tmp_path))
    chosen = [str(comparison.panes[2].run), str(comparison.panes[0].run)]
    made = side_by_side(ours, chosen, "")
    assert [pane.run for pane in made.panes] == chosen, "in the order in which they were chosen"
    assert side_by_side(ours, [str(pane.run) for pane in comparison.panes], "").id == comparison.id


def test_runs_that_do_not_fit_are_not_compared(ours: Context) -> None:
    image, other = page.make_image_ref(1), page.make_image_ref(2)
    runs = [
        page.make_run(1, image=image),
        page.make_run(2, image=other),
        page.make_run(3, image=image, question="is there a car?"),
    ]
    for run in runs:
        ours.store.add(run)
    for pair, said in (((0, 1), "2 images"), ((0, 2), "one question")):
        _, found, notice = open_stored(
            ours, {"act": "compare", "runs": ",".join(runs[i].id for i in pair)}, None, dark=False
        )
        assert found is None
        assert said in notice
    _, found, notice = open_stored(
        ours, {"act": "compare", "runs": ",".join("0123456789abcdef" * 2 for _ in range(2))}, None, dark=False
    )
    assert "no such run" in notice


def test_a_run_is_deleted_for_good_and_only_by_its_owner(tmp_path: Path) -> None:
    with opened(tmp_path, public=True) as ours:
        comparison = ours.store.comparison(page.stored(ours.store, tmp_path, owner="a" * 32))
        run = str(comparison.panes[0].run)
        assert "Deleted" not in act_in_list(ours, {"act": "delete", "run": run}, Filters(), "b" * 32)[0]
        assert ours.store.summary(run).run == run
        assert "Deleted." in act_in_list(ours, {"act": "delete", "run": run}, Filters(), "a" * 32)[0]
        with pytest.raises(RunNotFound):
            ours.store.summary(run)


def test_a_visitor_sees_the_own_runs_and_the_samples_only(tmp_path: Path) -> None:
    with opened(tmp_path, public=True) as ours:
        page.stored(ours.store, tmp_path, owner="a" * 32, seed=1)
        page.stored(ours.store, tmp_path, sample=True, seed=2)
        assert find(ours, Filters(), "a" * 32).count == 6
        listed = find(ours, Filters(), "b" * 32)
        assert listed.count == 3
        assert 'data-act="delete"' not in run_table(listed, local=False), "nobody deletes a sample"


def test_a_link_shares_a_comparison_with_whoever_has_it(tmp_path: Path) -> None:
    with opened(tmp_path, public=True) as ours:
        comparison = page.stored(ours.store, tmp_path, owner="a" * 32)
        _, found = open_address(ours, {"comparison": comparison}, "b" * 32, dark=False)
        assert found is not None


def test_an_id_that_is_none_finds_nothing(ours: Context) -> None:
    for text in ("", "x", "0" * 32, EVIL):
        with pytest.raises(ComparisonNotFound):
            load(ours, text)
        with pytest.raises(NotFound):
            stored.delete(ours, text, None)
