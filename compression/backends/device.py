"""Where a model runs: the device that a word stands for, or one clear refusal."""

from __future__ import annotations

import re

import torch

from compression.errors import DeviceUnavailable


def choose_device(wanted: str = "auto") -> str:
    """The device that "auto", "cpu" or "cuda" stands for here; "cuda:1" is the second GPU.

    Raises:
        DeviceUnavailable: it is none of these, or this machine does not have it.
    """
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    found = re.fullmatch(r"cpu|cuda(?::(\d{1,3}))?", wanted)
    if found is None:
        raise DeviceUnavailable(f"the device is auto, cpu or cuda, got {wanted!r}")
    if wanted == "cpu":
        return wanted
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(found[1] or 0) >= count:
        has = "no CUDA GPU that PyTorch can use" if count == 0 else f"{count} CUDA GPUs, numbered from 0"
        raise DeviceUnavailable(f"the device {wanted} is not available: this machine has {has}; use auto or cpu")
    return wanted
