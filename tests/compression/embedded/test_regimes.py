"""Questions whose source of information is known by construction, and what is kept of a model's answers to them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from compression.backends.embedded.backend import CHECKPOINT
from compression.backends.embedded.facts import FACTS
from compression.backends.embedded.questions import VOCABULARY, prompt
from compression.backends.embedded.reading import Reader
from compression.backends.embedded.regimes import CONDITIONS, REGIMES, Posteriors, ask_moments, pictures

COUNT = 48


@pytest.fixture(scope="module")
def fixed():  # type: ignore[no-untyped-def]
    return pictures(COUNT)


def test_the_questions_are_fixed(fixed) -> None:  # type: ignore[no-untyped-def]
    assert pictures(COUNT) == fixed


def test_each_regime_asks_about_every_picture_with_four_answers(fixed) -> None:  # type: ignore[no-untyped-def]
    for _, asked in fixed:
        assert set(asked) == set(REGIMES)
        assert all(len(question.choices) == 4 for question in asked.values())
        assert all(set(prompt(question.text).split()) <= VOCABULARY.keys() for question in asked.values())


def test_answers_are_balanced_where_the_picture_decides(fixed) -> None:  # type: ignore[no-untyped-def]
    for regime in ("picture", "either", "both"):
        assert set(Counter(asked[regime].answer for _, asked in fixed).values()) == {COUNT // 4}


def test_each_regime_is_what_its_name_says(fixed) -> None:  # type: ignore[no-untyped-def]
    answers = {fact.text: fact.answer for fact in FACTS}
    assert len({asked["picture"].text for _, asked in fixed}) == 1
    for _, asked in fixed:
        assert answers[asked["question"].text.rstrip("?").lower()] == asked["question"].answer
        assert f"is in the {asked['either'].answer} quarter. " in asked["either"].text
        assert asked["both"].text.startswith("In which quarter is the ")
    # The same question has different answers on different pictures: neither source alone decides.
    by_text: dict[str, set[str]] = {}
    for _, asked in fixed:
        by_text.setdefault(asked["both"].text, set()).add(asked["both"].answer)
    assert max(len(found) for found in by_text.values()) > 1


def test_posteriors_are_kept_without_any_python_object(tmp_path: Path) -> None:
    reader = Reader(CHECKPOINT)
    asked = ask_moments(reader, [(7, lambda: None)], count=4)
    assert asked.posteriors.shape == (1, len(REGIMES), len(CONDITIONS), 4, 4)
    np.testing.assert_allclose(asked.posteriors.sum(-1), 1, atol=1e-5)
    assert (asked.confidences > 0).all()
    assert (asked.confidences <= 1 + 1e-5).all()
    asked.save(tmp_path / "posteriors.npz")
    back = Posteriors.load(tmp_path / "posteriors.npz")
    assert all(np.array_equal(getattr(asked, name), getattr(back, name)) for name in vars(asked))


def test_an_erased_question_is_the_same_question_for_all() -> None:
    asked = ask_moments(Reader(CHECKPOINT), [(0, lambda: None)], count=4)
    erased = asked.posteriors[0, :, CONDITIONS.index("question replaced")]
    same = [index for index in range(4) if asked.texts[REGIMES.index("picture"), index]]
    assert len(same) == 4
    # Where the picture is replaced too, nothing is left: one fixed question then has one answer.
    empty = asked.posteriors[0, REGIMES.index("picture"), CONDITIONS.index("picture replaced")]
    np.testing.assert_allclose(empty, np.broadcast_to(empty[0], empty.shape), atol=1e-5)
    assert erased.shape == (len(REGIMES), 4, 4)


def test_the_shipped_posteriors_hold_every_moment() -> None:
    kept = Posteriors.load(CHECKPOINT / "posteriors.npz")
    assert kept.posteriors.shape == (8, len(REGIMES), len(CONDITIONS), 512, 4)
    assert (np.diff(kept.steps) > 0).all()
    np.testing.assert_allclose(kept.posteriors.sum(-1), 1, atol=1e-4)
    final = kept.posteriors[-1].argmax(-1) == kept.right[:, None]
    right = dict(zip(REGIMES, final.mean(-1), strict=True))
    full, no_picture, no_question = range(3)
    assert all(right[regime][full] > 0.8 for regime in REGIMES)
    assert right["question"][no_picture] > 0.9 > 0.5 > right["question"][no_question]
    assert right["picture"][no_picture] < 0.4
    assert right["either"][no_picture] > 0.8
    assert max(right["both"][[no_picture, no_question]]) < 0.4
