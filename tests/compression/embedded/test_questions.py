"""Questions: right answers, balanced, with evidence where it belongs, in words the model knows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from compression.backends.embedded.cells import cell_name
from compression.backends.embedded.questions import (
    CELL_TASKS,
    FAMILIES,
    TASKS,
    TEMPLATES,
    VOCABULARY,
    Question,
    ask,
    prompt,
    split_options,
)
from compression.backends.embedded.scenes import COVERS, PATCH, Scene, make_scene

# The largest share one answer may take among some hundred one-word questions of a task.
MOST = {
    "presence": 0.56,
    "count": 0.27,
    "colour": 0.28,
    "type": 0.27,
    "surround": 0.36,
    "dir": 0.32,
    "side": 0.38,
    "region": 0.4,
    "corner": 0.3,
    "dominant": 0.3,
    "quarter": 0.32,
}
Asked = list[tuple[Scene, list[Question]]]


@pytest.fixture(scope="module")
def asked() -> Asked:
    scenes = [make_scene(seed) for seed in range(700_000, 700_400)]
    return [(scene, ask(scene, np.random.default_rng(scene.seed), 18)) for scene in scenes]


def objects_named(scene: Scene, text: str) -> list[tuple[int, int, int, int]]:
    return [item.box for item in scene.objects if item.name in text]


def test_the_same_chance_asks_the_same_questions() -> None:
    scene = make_scene(5)
    assert ask(scene, np.random.default_rng(1), 12) == ask(scene, np.random.default_rng(1), 12)


def test_no_question_is_asked_twice_about_a_scene(asked: Asked) -> None:
    for _, questions in asked:
        assert len({split_options(question.text)[0] for question in questions}) == len(questions)


def test_every_task_and_family_is_asked(asked: Asked) -> None:
    questions = [question for _, part in asked for question in part]
    assert {question.task for question in questions} == set(TASKS) - set(CELL_TASKS)
    assert {question.family for question in questions} == set(FAMILIES)


@pytest.mark.parametrize("task", sorted(MOST))
def test_answers_of_a_task_are_balanced(asked: Asked, task: str) -> None:
    answers = Counter(
        question.answer
        for _, part in asked
        for question in part
        if question.task == task and question.choices[0] != "A"
    )
    assert answers.total() > 100
    assert max(answers.values()) / answers.total() <= MOST[task], answers


def test_about_a_fifth_of_the_questions_has_lettered_options(asked: Asked) -> None:
    lettered = [question.choices[0] == "A" for _, part in asked for question in part]
    assert 0.17 < np.mean(lettered) < 0.23


def test_lettered_answers_point_at_the_right_option(asked: Asked) -> None:
    letters: Counter[str] = Counter()
    for scene, questions in asked:
        for question in questions:
            _, options = split_options(question.text)
            assert len(options) == (len(question.choices) if question.choices[0] == "A" else 0)
            if options and question.task == "dominant":
                assert options[question.choices.index(question.answer)] == COVERS[int(scene.cover_share.argmax())]
            if len(options) == 4:
                letters[question.answer] += 1
    assert max(letters.values()) / letters.total() < 0.3


def test_prompts_and_answers_use_known_words_only(asked: Asked) -> None:
    for _, questions in asked:
        for question in questions:
            words = prompt(question.text).split()
            assert words[:2] == ["question", ":"]
            assert words[-2:] == ["answer", ":"]
            assert set(words) | {question.answer, *question.choices} <= set(VOCABULARY), question
            assert question.answer in question.choices


def test_evidence_lies_on_whole_patches_inside_the_image(asked: Asked) -> None:
    for scene, questions in asked:
        for left, top, right, bottom in (box for question in questions for box in question.evidence):
            assert 0 <= left < right <= scene.size
            assert 0 <= top < bottom <= scene.size
            assert {left % PATCH, top % PATCH, right % PATCH, bottom % PATCH} == {0}


@pytest.mark.parametrize("task", ["dir", "quarter", "side"])
def test_evidence_contains_every_object_the_question_names(asked: Asked, task: str) -> None:
    for scene, questions in asked:
        for question in (question for question in questions if question.task == task):
            named = objects_named(scene, question.text)
            assert len(named) == (2 if task == "dir" else 1)
            assert set(named) <= set(question.evidence)


def test_the_evidence_of_a_count_is_what_is_counted(asked: Asked) -> None:
    numbers = ("zero", "one", "two", "three", "four", "five", "six")
    for _, questions in asked:
        for question in (question for question in questions if question.task == "count" and question.answer in numbers):
            assert len(question.evidence) == numbers.index(question.answer)


def test_absence_and_knowledge_have_no_evidence(asked: Asked) -> None:
    for _, questions in asked:
        for question in questions:
            if question.task == "knowledge" or (question.task == "presence" and question.answer == "no"):
                assert question.evidence == ()


def test_presence_is_true(asked: Asked) -> None:
    for scene, questions in asked:
        for question in (question for question in questions if question.answer in ("yes", "no")):
            if question.task == "presence":
                assert bool(objects_named(scene, question.text)) == (question.answer == "yes")


def test_directions_are_true(asked: Asked) -> None:
    for _, questions in asked:
        for question in (question for question in questions if question.task == "dir" and len(question.answer) > 1):
            first, second = question.evidence
            assert question.answer == ("north" if first[1] < second[1] else "south") + (
                "west" if first[0] < second[0] else "east"
            )


def test_the_region_with_most_buildings_is_true(asked: Asked) -> None:
    for scene, questions in asked:
        for question in (question for question in questions if question.task == "region" and len(question.answer) > 1):
            half = scene.size // 2
            counts = Counter(
                ("north" if top < half else "south") + ("west" if left < half else "east")
                for left, top, _, _ in question.evidence
            )
            assert counts.most_common(1)[0][0] == question.answer


def test_large_scenes_are_asked_about_too() -> None:
    scene = make_scene(8, 1024)
    questions = ask(scene, np.random.default_rng(0), 18)
    assert len(questions) == 18
    assert all(box[2] <= 1024 for question in questions for box in question.evidence)


@pytest.fixture(scope="module")
def asked_of_cells() -> Asked:
    scenes = [make_scene(seed, 1024) for seed in range(700_000, 700_024)]
    return [(scene, ask(scene, np.random.default_rng(scene.seed), 60, lettered_share=0.0)) for scene in scenes]


def test_scenes_of_cells_are_asked_every_task(asked_of_cells: Asked) -> None:
    assert {question.task for _, part in asked_of_cells for question in part} == set(TASKS)


def test_the_cell_of_an_object_is_true(asked_of_cells: Asked) -> None:
    for scene, questions in asked_of_cells:
        for question in (question for question in questions if question.task == "cell"):
            (left, top, _, _) = objects_named(scene, question.text)[0]
            assert question.answer == cell_name(top // 256, left // 256)


def test_the_cover_of_a_cell_is_true(asked_of_cells: Asked) -> None:
    for scene, questions in asked_of_cells:
        for question in (question for question in questions if question.task == "cellcover"):
            left, top, right, bottom = (edge // PATCH for edge in question.evidence[0])
            assert cell_name(top // 16, left // 16) in question.text
            share = (scene.cover[top:bottom, left:right] == COVERS.index(question.answer)).mean()
            assert share >= 0.6


def test_directions_between_cells_join_different_cells(asked_of_cells: Asked) -> None:
    for _, questions in asked_of_cells:
        for question in (question for question in questions if question.task == "dir"):
            first, second = question.evidence
            assert (first[0] // 256, first[1] // 256) != (second[0] // 256, second[1] // 256)


def test_a_question_that_tells_its_answer_tells_the_truth(asked: Asked) -> None:
    told = [question for _, part in asked for question in part if question.task == "told" and len(question.answer) > 1]
    assert told
    for question in told:
        stem = split_options(question.text)[0]
        assert f"is in the {question.answer} quarter. In which quarter" in stem


def test_only_the_wanted_tasks_are_asked() -> None:
    questions = ask(make_scene(6), np.random.default_rng(0), 6, tasks=("quarter",), lettered_share=0.0)
    assert {question.task for question in questions} == {"quarter"}


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown task 'path'"):
        ask(make_scene(6), np.random.default_rng(0), 1, tasks=("path",))


def test_every_template_has_an_example_in_known_words() -> None:
    for template in TEMPLATES:
        assert set(prompt(template.example).split()) <= set(VOCABULARY)
        assert set(template.answers) <= set(VOCABULARY)
        assert template.family in FAMILIES
