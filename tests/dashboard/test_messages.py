from __future__ import annotations

import logging

import pytest

from analysis import errors as analysis
from compression import errors as compression
from dashboard import errors as dashboard
from dashboard.messages import explain, explain_upload
from storage import errors as storage


def descendants(kind: type[Exception]) -> list[type[Exception]]:
    return [one for child in kind.__subclasses__() for one in (child, *descendants(child))]


OURS = [
    *descendants(analysis.AnalysisError),
    *descendants(compression.CompressionError),
    *descendants(dashboard.DashboardError),
    *descendants(storage.StorageError),
]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
def test_each_of_our_errors_has_a_calm_sentence_and_keeps_its_own_words(kind: type[Exception]) -> None:
    message = explain(kind("the value 7 is too large, up to 5; write 5"))
    assert message.title.endswith(".")
    assert message.text == "The value 7 is too large, up to 5; write 5."
    assert not message.reference


def test_an_unknown_error_shows_a_reference_and_nothing_of_its_inside(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, logger="keepmap"):
        message = explain(ZeroDivisionError("/home/someone/secret.py"))
    assert "secret" not in str(message)
    assert message.reference in message.text
    assert message.reference in caplog.text, "the log has it"
    assert "ZeroDivisionError" in caplog.text


def test_a_refused_upload_says_which_file_why_and_what_is_allowed() -> None:
    message = explain_upload(analysis.TruncatedImage("notes.tif is cut off after 12 bytes"), "notes.tif")
    assert message.title == "notes.tif is not an image that can be opened."
    assert message.text == "It is cut off after 12 bytes. Allowed: PNG, JPEG, WebP, TIFF, GeoTIFF, COG."


def test_a_full_disk_is_not_blamed_on_the_file() -> None:
    message = explain_upload(storage.StoreFull("no room is left for 3 MB"), "photo.png")
    assert message.title == "The disk is full."
    assert "Allowed" not in message.text
