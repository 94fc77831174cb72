"""What may be asked at all, and on which device."""

from __future__ import annotations

import pytest

from compression.backends.device import choose_device
from compression.backends.wording import MOST_CHARACTERS, MOST_CHOICES, MOST_IN_CHOICE, check_wording
from compression.errors import DeviceUnavailable, InvalidQuestion


def test_the_longest_question_and_the_most_choices_are_asked():
    check_wording("a" * MOST_CHARACTERS, [str(one).rjust(MOST_IN_CHOICE, "x") for one in range(MOST_CHOICES)])
    check_wording("Where?", [])


@pytest.mark.parametrize(
    ("question", "choices", "message"),
    [
        ("a" * (MOST_CHARACTERS + 1), [], "has 2,001 characters, up to 2,000"),
        ("Where?", ["north"], "2 to 64, got 1"),
        ("Where?", [str(one) for one in range(MOST_CHOICES + 1)], "2 to 64, got 65"),
        ("Where?", ["north", " "], "1 to 200 characters, got 0"),
        ("Where?", ["north", "x" * 201], "1 to 200 characters, got 201"),
        ("Where?", ["north", "south", "north "], "the choice 'north' is given twice"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_is_allowed(question, choices, message):
    with pytest.raises(InvalidQuestion, match=message):
        check_wording(question, choices)


def test_every_family_refuses_choices_that_are_none(tiny_vlm):
    with pytest.raises(InvalidQuestion, match="given twice"):
        tiny_vlm.prompt("Where is the ship?", ("north", "north"))
    with pytest.raises(InvalidQuestion, match="up to 2,000"):
        tiny_vlm.prompt("ship " * 1000)


@pytest.mark.parametrize("wanted", ["cuda", "cuda:0"])
def test_a_gpu_is_refused_where_there_is_none(monkeypatch, wanted):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match="no CUDA GPU"):
        choose_device(wanted)
    assert choose_device("auto") == choose_device("cpu") == "cpu"


def test_a_second_gpu_is_refused_where_there_is_one(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:0") == "cuda:0"
    with pytest.raises(DeviceUnavailable, match="1 CUDA GPUs, numbered from 0"):
        choose_device("cuda:1")


@pytest.mark.parametrize("wanted", ["gpu", "cuda:", "CPU", "mps", ""])
def test_a_device_of_another_name_is_refused(wanted):
    with pytest.raises(DeviceUnavailable, match="the device is auto, cpu or cuda, got"):
        choose_device(wanted)
