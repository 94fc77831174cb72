from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dashboard import theme
from dashboard.app import build_app
from dashboard.models import Models
from dashboard.settings import Settings
from dashboard.visitors import COOKIE
from storage import Store, open_store
from tests.dashboard.page import QuickModel, stored
from tests.factories import make_image_file


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path / 'k.db'}") as store:
        yield store


def client(store: Store, **settings: Any) -> TestClient:
    models = Models(load=lambda name, device: QuickModel())
    return TestClient(build_app(Settings(**settings), store, models), raise_server_exceptions=False)


@pytest.fixture
def visitor(store: Store) -> Iterator[TestClient]:
    with client(store) as visitor:
        yield visitor


def test_one_port_answers_with_the_page_its_maps_and_its_health(
    visitor: TestClient, store: Store, tmp_path: Path
) -> None:
    comparison = stored(store, tmp_path)
    assert visitor.get("/health").json()["status"] == "ok"
    assert "Keepmap" in visitor.get("/").text
    assert visitor.get(f"/maps/{comparison}").status_code == 200
    assert visitor.get("/keepmap/pages.css").status_code == 200


def test_the_page_asks_nothing_of_any_other_host(visitor: TestClient) -> None:
    text = visitor.get("/").text
    addresses = re.findall(r"(?:src|href)=\"(https?:)?//([^/\"]+)", text)
    assert not [host for _, host in addresses if host != "testserver"]


def test_only_named_endpoints_are_public(visitor: TestClient) -> None:
    assert sorted(visitor.get("/gradio_api/info").json()["named_endpoints"]) == ["/comparison", "/strategies"]


def test_the_strategies_can_be_asked_by_a_program(visitor: TestClient) -> None:
    event = visitor.post("/gradio_api/call/strategies", json={"data": []}).json()["event_id"]
    text = visitor.get(f"/gradio_api/call/strategies/{event}").text
    assert '"fastv"' in text


def test_the_numbers_are_downloaded_as_csv(visitor: TestClient, store: Store, tmp_path: Path) -> None:
    comparison = stored(store, tmp_path)
    reply = visitor.get(f"/comparisons/{comparison}/numbers.csv")
    assert reply.headers["content-type"].startswith("text/csv")
    assert "attachment" in reply.headers["content-disposition"]
    assert reply.text.count("\n") == 4
    assert visitor.get("/comparisons/nothing/numbers.csv").status_code == 404


@pytest.mark.parametrize(
    "path", ["/samples/99.png", "/samples/-1.png", "/uploads/x.png", "/uploads/..%2f..%2fk.db.png"]
)
def test_thumbnails_that_are_not_there_are_404(visitor: TestClient, path: str) -> None:
    assert visitor.get(path).status_code == 404


def test_thumbnails_of_samples_and_uploads_are_pictures(visitor: TestClient, store: Store, tmp_path: Path) -> None:
    digest = store.put_image(make_image_file(tmp_path))
    for path in ("/samples/0.png", f"/uploads/{digest}.png"):
        reply = visitor.get(path)
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("image/")


def test_an_image_that_is_not_kept_is_404_and_no_trace(visitor: TestClient) -> None:
    reply = visitor.get(f"/uploads/{'ab' * 32}.png")
    assert reply.status_code == 404
    assert "Traceback" not in reply.text


def test_with_many_visitors_each_browser_gets_an_unguessable_name(store: Store) -> None:
    with client(store, public=True) as first, client(store, public=True) as second:
        first.get("/")
        second.get("/")
        assert re.fullmatch(r"[0-9a-f]{32}", first.cookies[COOKIE])
        assert first.cookies[COOKIE] != second.cookies[COOKIE]


def test_the_settings_and_the_store_are_never_served(visitor: TestClient, tmp_path: Path) -> None:
    for path in (f"{tmp_path}/k.db", "/etc/passwd", "../../etc/passwd"):
        assert visitor.get(f"/gradio_api/file={path}").status_code in (403, 404)


# ---------------------------------------------------------------------- styles
def test_every_colour_of_the_page_is_a_token() -> None:
    own = (theme.ASSETS / "pages.css").read_text()
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\s,)])", re.sub(r"url\([^)]*\)", "", own))
    defined = set(re.findall(r"(--km-[a-z0-9-]+)\s*:", theme.css()))
    assert set(re.findall(r"var\((--km-[a-z0-9-]+)", theme.css())) <= defined


def test_no_style_hangs_on_names_that_change_with_each_release_of_gradio() -> None:
    assert "svelte-" not in theme.css()


def test_the_theme_points_at_tokens_in_light_and_dark_alike() -> None:
    made = theme.theme()
    assert made.body_background_fill == made.body_background_fill_dark == "var(--km-paper)"
    assert made.button_primary_background_fill_dark == "var(--km-accent)"


def test_fonts_are_the_systems_own() -> None:
    assert not re.findall(r"@import|https?://(?!www\.w3\.org/2000/svg)", theme.theme()._get_theme_css())
    assert not theme.theme()._stylesheets
