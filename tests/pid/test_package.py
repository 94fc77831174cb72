"""The package as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("library", ["torch", "scipy", "pandas"])
def test_importing_the_package_loads_no_heavy_library(library: str) -> None:
    code = f"import pid, sys; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
