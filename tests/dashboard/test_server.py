"""The map routes, asked as a browser asks them: pages, images, our own files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.imagery import write_geotiff
from analysis.pipeline import open_image
from dashboard.server import ASSETS
from storage import Pane, StoreUnavailable
from tests.dashboard.served import ODD_IDS, Shop, png, served
from tests.factories import make_id


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with served(tmp_path) as shop:
        yield shop


# ---------------------------------------------------------------------- pages
def test_the_server_says_that_it_is_well(shop: Shop) -> None:
    assert shop.client.get("/health").json() == {"status": "ok", "store": "ok"}


def test_a_store_that_cannot_be_read_is_not_well(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise StoreUnavailable("the disk /srv/data is gone")

    monkeypatch.setattr(shop.store, "count_comparisons", broken)
    answer = shop.client.get("/health")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "store": "unavailable"}


def test_the_maps_page_is_sent_with_its_policy(shop: Shop) -> None:
    answer = shop.client.get(f"/maps/{shop.comparison.id}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"


def test_the_page_knows_its_captions_before_any_array_is_loaded(shop: Shop) -> None:
    text = shop.client.get(f"/maps/{shop.comparison.id}").text
    assert re.findall(r'<span class="n num">([^<]*)<', text) == [
        "all 256 tokens",
        "64 of 256 tokens",
        "64 of 256 tokens",
    ]


@pytest.mark.parametrize("odd", ODD_IDS)
def test_an_unknown_comparison_is_one_sentence(shop: Shop, odd: str) -> None:
    page = shop.client.get(f"/maps/{odd}")
    assert page.status_code == 404
    panes = shop.client.get(f"/maps/{odd}/panes.json")
    assert panes.status_code == 404
    if panes.headers["content-type"].startswith("application/json") and "error" in panes.json():
        assert panes.json()["error"].endswith(".")
    assert "<script>" not in page.text


def test_panes_hold_numbers_and_nothing_per_token(shop: Shop) -> None:
    value = shop.client.get(f"/maps/{shop.comparison.id}/panes.json").json()
    assert value["state"] == "done"
    assert [pane["letter"] for pane in value["panes"]] == ["A", "B", "C"]
    assert [pane["caption"] for pane in value["panes"]] == ["all 256 tokens", "64 of 256 tokens", "64 of 256 tokens"]
    facts = value["panes"][1]["facts"]
    assert facts["kept"] + facts["merged"] + facts["dropped"] == 256
    assert facts["streams"] == {"semantic": 32, "geometric": 32, "anchors": 0}
    assert len(facts["attention"]["answer"]["top"]) == 6
    assert value["panes"][0]["facts"]["overlap"] == 1.0
    assert value["image"]["lattice"] is None


def test_panes_of_a_large_run_are_no_longer_than_those_of_a_small_one(shop: Shop) -> None:
    image = replace(shop.comparison.image, width=8192, height=8192)
    large = shop.add(image, tokens=(8, 8), views=256, question="large?")
    sizes = [len(shop.client.get(f"/maps/{one.id}/panes.json").content) for one in (shop.comparison, large)]
    assert sizes[1] < sizes[0] * 1.1
    value = shop.client.get(f"/maps/{large.id}/panes.json").json()
    assert all(pane["facts"]["large"] for pane in value["panes"])


def test_a_running_comparison_says_what_it_does(shop: Shop) -> None:
    panes = (shop.comparison.panes[0], Pane("divprune@0.5", state="running"), Pane("fastv@0.5"))
    running = replace(shop.comparison, id=make_id("running"), panes=panes)
    shop.store.add_comparison(running)
    job = shop.store.add_job({}, comparison=running.id, message="Waiting")
    shop.store.update_job(job.id, state="running", progress=0.5, message="DivPrune: compressing")
    value = shop.client.get(f"/maps/{running.id}/panes.json").json()
    assert value["state"] == "running"
    assert "DivPrune: compressing" in value["panes"][1]["markup"]
    assert "Waiting for its turn" in value["panes"][2]["markup"]
    assert value["panes"][2]["caption"] == "128 of 256 asked"
    assert value["panes"][1]["facts"] is None


def test_a_deleted_run_leaves_its_pane_without_facts(shop: Shop) -> None:
    shop.client.get(f"/maps/{shop.comparison.id}/panes.json")
    shop.store.delete(shop.runs[1])
    value = shop.client.get(f"/maps/{shop.comparison.id}/panes.json").json()
    assert value["panes"][1]["facts"] is None
    assert shop.client.get(f"/runs/{shop.runs[1]}/tokens.json").status_code == 404
    assert shop.client.get(f"/maps/{shop.comparison.id}").status_code == 200


def test_markup_in_json_cannot_be_taken_for_html(shop: Shop) -> None:
    panes = (Pane("</script><b>", state="refused", reason="</script>"),)
    odd = replace(shop.comparison, id=make_id("odd"), panes=panes)
    shop.store.add_comparison(odd)
    assert b"<" not in shop.client.get(f"/maps/{odd.id}/panes.json").content


# ---------------------------------------------------------------------- images
def test_the_image_is_served_as_tiles_for_the_comparison_and_for_each_run(shop: Shop) -> None:
    of_comparison = shop.client.get(f"/comparisons/{shop.comparison.id}/image/1/0/0.png")
    of_run = shop.client.get(f"/runs/{shop.runs[0]}/image/1/0/0.png")
    assert of_comparison.content == of_run.content
    assert png(of_run.content).shape == (256, 256, 4)
    assert png(of_run.content)[..., 3].min() == 255


def test_beside_the_image_tiles_are_transparent(shop: Shop) -> None:
    corner = png(shop.client.get(f"/comparisons/{shop.comparison.id}/image/1/1/1.png").content)
    assert corner[:44, :164, 3].min() == 255
    assert corner[44:, :, 3].max() == 0
    assert png(shop.client.get(f"/comparisons/{shop.comparison.id}/image/5/31/31.png").content)[..., 3].max() == 0


@pytest.mark.parametrize(
    "tile", ["0/1/0", "0/0/1", "-1/0/0", "31/0/0", "2/4/0", "99999999999999999999/0/0", "a/0/0", "1/0/1e3"]
)
def test_tiles_that_cannot_be_are_not_found(shop: Shop, tile: str) -> None:
    for path in (
        f"/comparisons/{shop.comparison.id}/image/{tile}.png",
        f"/runs/{shop.runs[0]}/image/{tile}.png",
        f"/runs/{shop.runs[0]}/layers/retention/{tile}.png",
    ):
        answer = shop.client.get(path)
        assert answer.status_code == 404
        assert re.fullmatch(r".+\.", answer.json()["error"])


def test_without_its_bytes_an_image_is_empty_and_its_layers_are_still_there(shop: Shop) -> None:
    gone = shop.add(replace(shop.comparison.image, digest="f" * 64), question="gone?")
    assert png(shop.client.get(f"/comparisons/{gone.id}/image/0/0/0.png").content)[..., 3].max() == 0
    assert shop.client.get(f"/comparisons/{gone.id}/thumbnail.png").status_code == 404
    run = gone.panes[2].run
    assert png(shop.client.get(f"/runs/{run}/layers/retention/0/0/0.png").content)[..., 3].max() > 0
    assert not shop.client.get(f"/maps/{gone.id}/panes.json").json()["image"]["is_kept"]


def test_the_thumbnail_says_what_it_is(shop: Shop) -> None:
    answer = shop.client.get(f"/comparisons/{shop.comparison.id}/thumbnail.png")
    assert answer.headers["content-type"] in ("image/png", "image/jpeg")
    assert Image.open(io.BytesIO(answer.content)).size == (420, 300)


def test_a_georeferenced_image_is_placed_by_a_lattice(tmp_path: Path, shop: Shop) -> None:
    path = tmp_path / "place.tif"
    write_geotiff(path, np.full((128, 128, 3), 90, dtype=np.uint8), "EPSG:32632", (1.0, 0.0, 5e5, 0.0, -1.0, 5.4e6))
    shop.store.put_image(path)
    placed = shop.add(open_image(path), question="where?")
    image = shop.client.get(f"/maps/{placed.id}/panes.json").json()["image"]
    assert image["lattice"]["x"][-1] == 128
    assert image["lattice"]["error_pixels"] < 0.1
    assert "EPSG3857" in shop.client.get(f"/maps/{placed.id}").text
    facts = shop.client.get(f"/runs/{placed.panes[0].run}/tokens?token=0").json()["tokens"][0]
    assert facts["lonlat"][0] == pytest.approx([9.0, 48.749], abs=0.01)


# ---------------------------------------------------------------------- assets
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/vendor/leaflet/leaflet.js", "javascript"),
        ("/vendor/leaflet/leaflet.css", "text/css"),
        ("/vendor/leaflet.sync/L.Map.Sync.js", "javascript"),
        ("/keepmap/tokens.css", "text/css"),
        ("/keepmap/maps.css", "text/css"),
        ("/keepmap/maps.js", "javascript"),
    ],
)
def test_our_own_copies_are_served(shop: Shop, path: str, kind: str) -> None:
    answer = shop.client.get(path)
    assert answer.status_code == 200
    assert kind in answer.headers["content-type"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_script_that_a_module_imports_is_there() -> None:
    folder = ASSETS / "keepmap"
    for script in folder.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', script.read_text(encoding="utf-8")):
            assert (folder / name).is_file()


def test_our_scripts_name_no_other_host() -> None:
    for path in (ASSETS / "keepmap").glob("*"):
        assert not re.search(r"(?<!xmlns=['\"])https?://(?!www\.w3\.org)", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize(
    "path", ["/vendor/../server.py", "/keepmap/%2e%2e/%2e%2e/server.py", "/vendor/leaflet", "/keepmap/none.js"]
)
def test_nothing_beside_the_assets_is_served(shop: Shop, path: str) -> None:
    assert shop.client.get(path).status_code == 404


# ---------------------------------------------------------------------- surprises
def test_an_unexpected_error_shows_a_reference_and_nothing_else(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("secret path /srv/data")

    monkeypatch.setattr("dashboard.server.maps_page", broken)
    answer = shop.client.get(f"/maps/{shop.comparison.id}")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    reference = re.search(r"reference (\w{8})", answer.json()["error"])
    assert reference is not None
    assert reference.group(1) in caplog.text


def test_a_damaged_image_is_one_sentence(shop: Shop) -> None:
    path = shop.store.image_path(shop.comparison.image.digest)
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    answer = shop.client.get(f"/comparisons/{shop.comparison.id}/image/1/0/0.png")
    assert answer.status_code == 404
    assert answer.json()["error"].endswith(".")
    assert str(path.parent) not in answer.text
