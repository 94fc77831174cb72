"""A real server on a port of its own, a real browser, and a visitor who notices what should not happen."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Frame, Page, Request, sync_playwright

from analysis.pipeline import open_image
from analysis.run import new_id
from storage import Pane, open_store
from tests.factories import make_comparison, make_image_file, make_run

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120_000
"""Milliseconds that a test waits for an event at most; a shared machine may be slow."""


def chromium() -> str | None:
    """The browser: by CHROMIUM, or as Debian and others call it."""
    names = [os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs a browser; where there is none, it is skipped and says so."""
    for item in items:
        if "tests/browser" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)
            if chromium() is None:
                item.add_marker(pytest.mark.skip(reason="no Chromium found; install one or set CHROMIUM to its path"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium, never a downloaded one."""
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield found
        found.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a context of its own: no cookie or storage of another test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@dataclass(frozen=True)
class Site:
    """A running dashboard.

    Args:
        small, large: Ids of stored comparisons of 256 and of 65,536 tokens.
        cancelled: One that was cancelled before any run.
    """

    url: str
    database: str
    small: str
    large: str
    cancelled: str


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """`keepmap serve` in a process of its own over a store that already holds two comparisons."""
    folder = tmp_path_factory.mktemp("site")
    database = f"sqlite:///{folder / 'keepmap.db'}"
    ids = {}
    with open_store(database) as store:
        for name, views in (("small", 1), ("large", 1024)):
            file = make_image_file(folder, seed=views, size=(256, 256) if views == 1 else (1024, 1024))
            image = open_image(file)
            store.put_image(file)
            comparison, runs = make_comparison(
                1,
                ("identity@1.0", "dualcomp@0.25"),
                image=image,
                tokens=(16, 16) if views == 1 else (8, 8),
                views=views,
            )
            for run in runs:
                store.add(run)
            store.add_comparison(comparison)
            ids[name] = comparison.id
            if name == "small":
                panes = tuple(Pane(pane.strategy, state="cancelled", reason="Cancelled.") for pane in comparison.panes)
                ids["cancelled"] = store.add_comparison(replace(comparison, id=new_id(), panes=panes))
                store.add(make_run(9, image=image, question="is this run to be deleted?"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log.txt").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "dashboard.cli", "serve", "--port", str(port), "--db", database, "--repeats", "1"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}, stdout=log,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        while process.poll() is None and not _answers(url):
            os.sched_yield()
        assert process.poll() is None, (folder / "log.txt").read_text()
        yield Site(url, database, **ids)
    finally:
        process.terminate()
        process.wait(timeout=30)
        log.close()
    assert "Traceback" not in (folder / "log.txt").read_text()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


@dataclass
class Visitor:
    """A page and what was noticed on it."""

    page: Page
    site: Site
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def notice(self, request: Request) -> None:
        if not request.url.startswith((self.site.url, "data:", "blob:", self.site.url.replace("http", "ws"))):
            self.outside.append(request.url)

    def open(self, path: str = "/") -> None:
        """Open an address and wait until the rail is filled."""
        self.page.goto(self.site.url + path)
        self.page.locator("#rail img").first.wait_for(state="attached")

    def maps(self) -> Frame:
        """The page of maps, once it is there."""
        frame = self.page.locator("#maps-frame, #maps iframe").first.element_handle().content_frame()
        assert frame is not None
        return frame

    def finished(self, panes: int) -> Frame:
        """The page of maps when all panes are painted."""
        self.page.locator("#maps iframe").first.wait_for()
        frame = self.maps()
        frame.wait_for_function(
            "n => document.querySelectorAll('.plate[data-state=done] canvas.km-overlay').length >= n", arg=panes
        )
        return frame


@pytest.fixture
def visitor(page: Page, site: Site) -> Iterator[Visitor]:
    """A visitor; at the end nothing was asked of any other host and nothing broke in the console."""
    page.set_default_timeout(PATIENCE)
    one = Visitor(page, site)
    page.on("request", one.notice)
    page.on("pageerror", lambda error: one.errors.append(error.stack or str(error)))
    page.on("console", lambda message: one.errors.append(message.text) if message.type == "error" else None)
    yield one
    assert one.outside == []
    assert one.errors == []
