"""Checkpoints by hub id, from a hub of our own on this machine: another process, because the library reads the hub's
address once."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compression.backends import load_model
from compression.backends.hub import Checkpoint
from compression.errors import ModelUnavailable
from tests.compression.backends.conftest import save_tiny_llava

ROOT = Path(__file__).resolve().parents[3]
FOREIGN = [{"type": "file", "path": path, "size": 9, "oid": path} for path in ("pytorch_model.bin", "code.py")]
"""Files that stand in the hub's list and must never be asked for: there are none behind these names."""
COMMITS = {"main": "a" * 40, "v1": "b" * 40}
ASK = """
import json, sys
from compression.backends import load_model
from compression.errors import CompressionError
told = []
for name in json.load(sys.stdin):
    try:
        card = load_model(name, device="cpu").card
        told.append(["loaded", card.name, card.revision])
    except CompressionError as error:
        told.append([type(error).__name__, str(error), ""])
print(json.dumps(told))
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for one model, `keepmap/tiny`, of two commits with the same files."""

    def __init__(self, folder: Path, *args) -> None:
        self.folder = folder
        super().__init__(*args)

    def log_message(self, *_args) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].strip("/").split("/")
        if path[:2] == ["api", "models"]:
            self.about("/".join(path[2:4]), path[4:])
        elif path[:2] == ["keepmap", "tiny"] and path[2] == "resolve" and path[3] in COMMITS.values():
            file = self.folder / path[4]
            self.reply(file.read_bytes() if file.is_file() else None, "EntryNotFound", path[3])
        else:
            self.reply(None, "RepoNotFound")

    def about(self, model: str, rest: list[str]) -> None:
        if model != "keepmap/tiny":
            self.reply(None, "RepoNotFound")
        elif rest[:1] == ["tree"]:
            files = [file for file in self.folder.iterdir() if file.is_file()]
            listed = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": file.name} for file in files
            ]
            self.reply(json.dumps([*listed, *FOREIGN]).encode(), "")
        else:
            commit = COMMITS.get(rest[1] if rest else "main")
            told = json.dumps({"id": model, "sha": commit}).encode()
            self.reply(told if commit else None, "RevisionNotFound")

    def reply(self, body: bytes | None, mistake: str, commit: str = "") -> None:
        self.send_response(404 if body is None else 200)
        if body is None:
            self.send_header("X-Error-Code", mistake)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{hash(body)}"')
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET" and body:
            self.wfile.write(body)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def hub(folder: Path) -> Iterator[str]:
    """The address of a hub that has one model."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Hub, folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(address: str, cache: Path, *names: str) -> list[list[str]]:
    """What `load_model` says to each name with the hub at an address."""
    given = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(cache),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
    }
    told = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(names),
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    said: list[list[str]] = json.loads(told.stdout)
    return said


def test_a_hub_id_is_loaded_at_one_commit_and_every_mistake_is_one_clear_line(hub: str, tmp_path: Path) -> None:
    names = ["keepmap/tiny", "keepmap/tiny@v1", "keepmap/tiny@main", "keepmap/tiny@v2", "keepmap/other", "a/b/c", "no!"]
    main, first, named, unknown, other, path, odd = ask(hub, tmp_path, *names)
    assert [one[:2] for one in (main, first, named)] == [["loaded", name] for name in names[:3]]
    assert main[2] == named[2] != first[2]
    for refused in (unknown, other, path, odd):
        assert refused[0] == "ModelUnavailable"
        assert "\n" not in refused[1]
    assert "'keepmap/tiny' has no revision 'v2'" in unknown[1]
    assert "there is no model 'keepmap/other' on the hub" in other[1]
    assert "no such folder, and it is no hub id" in path[1]
    assert "no such folder, and it is no hub id" in odd[1]
    # Without a hub, what was fetched still loads, at the same commit; what was not is refused.
    fetched, never = ask("http://127.0.0.1:9", tmp_path, "keepmap/tiny@v1", "keepmap/never")
    assert fetched == first
    assert never[0] == "ModelUnavailable"
    assert "the hub cannot be reached" in never[1]
    assert "\n" not in never[1]


def test_a_folder_needs_no_hub(folder: Path) -> None:
    assert Checkpoint.of(folder) == Checkpoint(str(folder))


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./nothing", "~/nothing", "", "a//b", "../x"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelUnavailable, match="no such folder"):
        load_model(name)
