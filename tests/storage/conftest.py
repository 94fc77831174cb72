"""Stores to test with: in memory and in a file, fresh for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from storage import Store, open_store

NOBODY = 65534


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEEPMAP_ASSETS", raising=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The address of a store that does not exist yet."""
    return f"sqlite:///{tmp_path / 'keepmap.db'}"


@pytest.fixture
def file_store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, url: str) -> Iterator[Store]:
    """Each of the two kinds of store in turn."""
    with open_store(url if request.param == "file" else "sqlite:///:memory:") as store:
        yield store


@pytest.fixture
def version_1() -> str:
    """The SQL dump of a store that version 0.1 wrote: one comparison with one run."""
    return Path(__file__).with_name("version_1.sql").read_text(encoding="utf-8")


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user of this machine may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="keepmap-test-"))
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


@pytest.fixture
def as_ordinary_user() -> Callable[[], AbstractContextManager[None]]:
    """File permissions hold inside the block, also where the tests run as root."""

    @contextmanager
    def ordinary() -> Iterator[None]:
        root = os.geteuid() == 0
        if root:
            os.seteuid(NOBODY)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return ordinary
