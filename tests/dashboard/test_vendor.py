"""The vendored scripts are the released ones, as their table says."""

from __future__ import annotations

import hashlib
import re

from dashboard.server import ASSETS


def test_the_table_of_vendored_code_names_the_files_that_are_there() -> None:
    table = (ASSETS / "vendor" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^/]+)/` .* `([0-9a-f]{64})` \|$", table, re.M)
    scripts = {path.parent.name: path for path in (ASSETS / "vendor").glob("*/*.js")}
    assert {name for name, _ in rows} == set(scripts)
    for name, digest in rows:
        assert hashlib.sha256(scripts[name].read_bytes()).hexdigest() == digest
