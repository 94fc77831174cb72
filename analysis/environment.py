"""Where a run happened: versions, device, commit."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

NAMES = ("torch", "transformers", "numpy")


def keepmap_version() -> str:
    """The installed version, or "0+source" when the checkout is not installed."""
    try:
        return metadata.version("keepmap")
    except metadata.PackageNotFoundError:
        return "0+source"


@functools.cache
def code_commit() -> str:
    """Commit of the checkout with "+dirty" where it has changes, or "" outside one."""
    here = Path(__file__).resolve().parent.parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit.stdout.strip() + ("+dirty" if changes.stdout.strip() else "")


def gpu() -> str | None:
    """The GPU's name, or None where torch finds none."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def cpu_threads() -> int:
    """Threads that torch uses on the CPU."""
    return torch.get_num_threads()


def environment(device: str) -> dict[str, str]:
    """Versions and device as plain strings."""
    known = {name: metadata.version(name) for name in NAMES}
    name = torch.cuda.get_device_name() if device.startswith("cuda") else processor()
    return {
        "keepmap": keepmap_version(),
        "commit": code_commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": name,
        **known,
    }


@functools.cache
def processor() -> str:
    """The processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()
