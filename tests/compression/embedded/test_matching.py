"""Free text: brought onto templates, with unknown words named."""

from __future__ import annotations

import numpy as np
import pytest

from compression.backends.embedded.questions import TEMPLATES, ask, match, prompt, tokenise_text, unknown_words
from compression.backends.embedded.scenes import make_scene


@pytest.mark.parametrize(
    ("text", "wording", "task"),
    [
        ("is there a red ship", "Is there a red ship?", "presence"),
        ("Are there any red ships in the image?", "Is there a red ship?", "presence"),
        ("Do you see a purple helipad?", "Is there a purple helipad?", "presence"),
        ("How many boats are there?", "How many ships are there?", "count"),
        ("how many car can you see in this picture", "How many cars are there?", "count"),
        ("number of trucks", "How many trucks are there?", "count"),
        ("How many blue objects are there??", "How many blue objects are there?", "count"),
        ("What COLOR is the airplane?", "What colour is the plane?", "colour"),
        ("What is the colour of the tank?", "What colour is the tank?", "colour"),
        ("what is the white object", "What is the white object?", "type"),
        ("Where is the yellow car relative to the purple truck?", None, "dir"),
        ("Where is the yellow car?", "In which quarter is the yellow car?", "quarter"),
        ("In which quadrant is the red tank?", "In which quarter is the red tank?", "quarter"),
        ("On which side of the river is the blue lorry?", "On which side of the river is the blue truck?", "side"),
        ("Which quarter has the most houses?", "Which quarter has the most buildings?", "region"),
        ("What land cover is in the north-west corner?", "What land cover is in the northwest corner?", "corner"),
        ("Which land cover is the biggest?", "Which land cover is the largest?", "dominant"),
        ("what is 2 plus 3?", "What is two plus three?", "knowledge"),
        ("Where does the sun rise?", None, "knowledge"),
    ],
)
def test_free_text_is_brought_onto_its_template(text: str, wording: str | None, task: str) -> None:
    found = match(text)
    assert found is not None
    assert (found.text, found.task) == (wording or text, task)
    assert found.unknown == ()


@pytest.mark.parametrize(
    "text", ["", "?", "zebra", "Is there a red zebra?", "ship", "Is the road network connected?", "Tell me a story."]
)
def test_what_was_never_taught_matches_nothing(text: str) -> None:
    assert match(text) is None


def test_unknown_words_are_left_out_and_listed() -> None:
    found = match("Is there a huge red ship?")
    assert found is not None
    assert (found.text, found.unknown) == ("Is there a red ship?", ("huge",))


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Is there a red zebra?", ("zebra",)),
        ("zebra, giraffe and zebra", ("zebra", "giraffe")),
        ("What colour is the ship? Options: A red, B blue.", ()),
        ("What colour is the ship? Options: A red, B mauve.", ("mauve",)),
    ],
)
def test_unknown_words_are_listed_once_and_in_order(text: str, unknown: tuple[str, ...]) -> None:
    assert tuple(word for word in unknown_words(text) if word != "and") == unknown


def test_each_template_matches_its_own_example() -> None:
    for template in TEMPLATES:
        found = match(template.example)
        assert found is not None, template
        assert (found.text, found.task, found.choices) == (template.example, template.task, template.answers)


def test_each_asked_question_matches_itself() -> None:
    for seed in range(60):
        for question in ask(make_scene(seed), np.random.default_rng(seed), 18):
            found = match(question.text)
            assert found is not None, question
            assert (found.text, found.family, found.task) == (question.text, question.family, question.task)
            assert found.choices == question.choices


def test_options_keep_their_letters_apart_from_the_article() -> None:
    text = "Is there a red ship? Options: A yes, B no."
    assert prompt(text) == "question : is there a red ship ? options : A yes B no answer :"
    assert tokenise_text(text)[-5:] == ("options", "A", "yes", "B", "no")


def test_choices_become_lettered_options() -> None:
    assert prompt("What colour is the car?", ("red", "blue")).endswith("? options : A red B blue answer :")


def test_a_single_option_is_refused() -> None:
    with pytest.raises(ValueError, match="2 to 4 options, got 1"):
        prompt("What colour is the car?", ("red",))
