"""Questions beside an image."""

from __future__ import annotations

import pytest

from analysis.annotations import Annotation, find_annotation, read_annotations, write_annotations
from analysis.errors import InvalidAnnotation

LINE = Annotation(
    "a.tif", "Where is the ship?", ("north", "south"), "north", "scene-geometric", "dir", ((0.0, 0.0, 16.0, 16.0),)
)


def test_what_was_written_is_found_again_whatever_the_punctuation(tmp_path):
    write_annotations(tmp_path / "questions.jsonl", [LINE])
    assert read_annotations(tmp_path / "questions.jsonl") == [LINE]
    assert find_annotation(tmp_path / "a.tif", "  where is the SHIP ") == LINE
    assert find_annotation(tmp_path / "b.tif", "Where is the ship?") is None
    assert find_annotation(tmp_path / "a.tif", "Where is the car?") is None


def test_an_image_without_a_list_has_no_annotation(tmp_path):
    assert find_annotation(tmp_path / "a.tif", "Where is the ship?") is None


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1, 2]",
        '{"image": "a.tif"}',
        '{"image": "a", "question": "q", "answer": "x", "evidence": [[5, 5, 1, 1]]}',
        "[" * 100_000,
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, line):
    (tmp_path / "questions.jsonl").write_text("\n" + line + "\n")
    with pytest.raises(InvalidAnnotation, match="line 2 of questions.jsonl is not a question"):
        find_annotation(tmp_path / "a.tif", "q")


def test_a_list_that_is_not_utf_8_is_refused_and_a_byte_order_mark_is_none_of_its_text(tmp_path):
    write_annotations(tmp_path / "questions.jsonl", [LINE])
    content = (tmp_path / "questions.jsonl").read_bytes()
    (tmp_path / "questions.jsonl").write_bytes(b"\xef\xbb\xbf" + content)
    assert read_annotations(tmp_path / "questions.jsonl") == [LINE]
    (tmp_path / "questions.jsonl").write_bytes(content.replace(b"ship", b"sh\xefp"))
    with pytest.raises(InvalidAnnotation, match="questions.jsonl is not text in UTF-8"):
        find_annotation(tmp_path / "a.tif", "q")


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "questions.jsonl").mkdir()
    with pytest.raises(InvalidAnnotation, match="questions.jsonl cannot be read: Is a directory"):
        read_annotations(tmp_path / "questions.jsonl")
