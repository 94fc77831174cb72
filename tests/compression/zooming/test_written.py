from __future__ import annotations

import pytest

from compression.zooming.boxes import Finding
from compression.zooming.written import MOST_BOXES, Coordinates, read_boxes

FRAME = (100.0, 200.0, 1100.0, 700.0)  # 1000 x 500 pixels of the original
SHOWN = (250, 500)  # read at half its size


def read(text, coordinates=Coordinates.PIXELS, frame=FRAME, shown=SHOWN):
    return read_boxes(text, coordinates, frame, shown)


@pytest.mark.parametrize(
    ("coordinates", "numbers"),
    [
        (Coordinates.PIXELS, "[50, 25, 100, 125]"),
        (Coordinates.UNIT, "[0.1, 0.1, 0.2, 0.5]"),
        (Coordinates.THOUSAND, "[100, 100, 200, 500]"),
    ],
    ids=lambda value: value if isinstance(value, Coordinates) else "",
)
def test_each_convention_names_the_same_place_in_the_original(coordinates, numbers):
    (found,), notices = read(f"The car is at {numbers}.", coordinates)
    assert found.box == pytest.approx((200.0, 250.0, 300.0, 450.0))
    assert (found.label, found.confidence, notices) == ("", 1.0, [])


@pytest.mark.parametrize("key", ["bbox_2d", "bbox", "box_2d", "box", "bounding_box"])
def test_an_object_gives_its_label_and_confidence(key):
    found, notices = read(f'{{"{key}": [0, 0, 500, 250], "label": "a  ship\\n", "score": 0.5}}')
    assert found == [Finding(FRAME, "a ship", 0.5)]
    assert notices == []


@pytest.mark.parametrize(
    "text",
    [
        '```json\n[{"bbox_2d": [0, 0, 50, 50]}, {"bbox_2d": [50, 50, 100, 100]}]\n```',
        "I see [0, 0, 50, 50] and, further right, [50.0, 50.0, 100.0, 100.0].",
        '{"boxes": [[0, 0, 50, 50], [50, 50, 100, 100]], "answer": [1, 2]}',
        '[{"bbox": [0, 0, 50, 50]}, {"bbox": [50, 50, 100, 100]}, {"bbox": [100, 1',
        "[[[[ [0,0,50,50] {{ [50,50,100,100]",
    ],
    ids=["fenced", "in a sentence", "nested", "cut off", "brackets"],
)
def test_boxes_are_found_wherever_they_stand_in_the_text(text):
    found, _ = read(text)
    assert [one.box for one in found] == [(100, 200, 200, 300), (200, 300, 300, 400)]


def test_corners_in_the_wrong_order_are_put_right():
    assert read("[100, 125, 50, 25]") == read("[50, 25, 100, 125]")


def test_what_lies_over_the_border_is_cut_off():
    (found,), notices = read("[-50, 200, 50, 900]")
    assert found.box == (100.0, 600.0, 200.0, 700.0)
    assert notices == []


@pytest.mark.parametrize(
    ("text", "coordinates"),
    [("[600, 10, 700, 20]", Coordinates.PIXELS), ("[10, 10, 10, 20]", Coordinates.PIXELS),
     ("[100, 100, 200, 500]", Coordinates.UNIT)],
    ids=["outside", "no width", "another convention"],
)  # fmt: skip
def test_a_box_without_area_inside_the_picture_is_left_out_and_said(text, coordinates):
    found, notices = read(text, coordinates)
    assert found == []
    (notice,) = notices
    assert notice == (
        f"1 of the boxes that the model wrote has no area inside the picture, read as {coordinates.words}, "
        "and was left out."
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "red",
        "[1, 2, 3]",
        "[1, 2, 3, 4, 5]",
        '["1", "2", "3", "4"]',
        "[true, false, true, true]",
        "[NaN, 0, Infinity, 5]",
        "[0, 0, 1" + "0" * 400 + ", 5]",
        "[0, 0, 1" + "0" * 5000 + ", 5]",
        '{"bbox": "everywhere"}',
        '{"bbox": null}',
        "{" * 8000,
        "[" * 8000,
        "[" * 3000 + "]" * 3000,
        '{"a":' * 900 + "1" + "}" * 900,
        "\ud800\x00 [",
    ],
    ids=range(16),
)
def test_malformed_text_gives_no_box_and_says_so(text):
    assert read(text) == ([], ["The model wrote no box that could be read."])


@pytest.mark.parametrize("said", ["2", "0", "-1", '"high"', "true", "null"])
def test_a_confidence_that_is_none_counts_as_one(said):
    (found,), _ = read(f'{{"bbox": [0, 0, 9, 9], "confidence": {said}}}')
    assert found.confidence == 1.0


def test_labels_can_be_sent_and_are_short():
    (found,), _ = read('{"bbox": [0, 0, 9, 9], "label": "' + "\\ud800" + "x" * 500 + '"}')
    assert found.label == "?" + "x" * 79


def test_a_model_that_repeats_itself_is_stopped():
    found, _ = read("[0, 0, 9, 9] " * 500)
    assert len(found) == MOST_BOXES
