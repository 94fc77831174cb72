"""The map routes, asked as a browser asks them."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from analysis.imagery import write_geotiff
from analysis.pipeline import open_image
from analysis.run import ImageRef
from dashboard.server import ASSETS, build_api
from dashboard.visitors import COOKIE
from storage import Comparison, Pane, Store, open_store
from tests.factories import make_comparison, make_id, make_image_file

STRATEGIES = ("identity@1.0", "dualcomp@0.25", "divprune@0.25")
ODD_IDS = ["0" * 31, "0" * 33, "A" * 32, "g" * 32, "..", "%2e%2e", "1' or '1'='1", "<script>", "null"]


@dataclass(frozen=True)
class Settings:
    """What the routes ask of the settings."""

    public: bool = False


@dataclass(frozen=True)
class Shop:
    """A store with one finished comparison of a plain picture, and a client of its routes."""

    client: TestClient
    store: Store
    comparison: Comparison

    @property
    def runs(self) -> list[str]:
        return [str(pane.run) for pane in self.comparison.panes]


def stocked(store: Store, image: ImageRef, owner: str = "", **wanted: object) -> Comparison:
    """A finished comparison of an image, stored with its runs."""
    comparison, runs = make_comparison(0, STRATEGIES, image=image, **wanted)  # type: ignore[arg-type]
    for run in runs:
        store.add(run, owner)
    store.add_comparison(comparison, owner)
    return comparison


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with open_store(f"sqlite:///{tmp_path / 'k.db'}") as store:
        path = make_image_file(tmp_path, size=(300, 420))
        store.put_image(path)
        comparison = stocked(store, open_image(path))
        with TestClient(build_api(store, Settings()), raise_server_exceptions=False) as client:
            yield Shop(client, store, comparison)


def png(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


# ---------------------------------------------------------------------- pages
def test_the_server_says_that_it_is_well(shop: Shop) -> None:
    assert shop.client.get("/health").json() == {"status": "ok", "store": "ok"}


def test_a_store_that_is_gone_is_not_well(shop: Shop) -> None:
    shop.store.close()
    answer = shop.client.get("/health")
    assert answer.status_code in (200, 503)
    assert "/" not in answer.json()["store"], "no path of the server"


def test_the_maps_page_is_sent_with_its_policy(shop: Shop) -> None:
    answer = shop.client.get(f"/maps/{shop.comparison.id}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("odd", [*ODD_IDS, make_id("nobody")])
def test_an_unknown_comparison_is_one_sentence(shop: Shop, odd: str) -> None:
    page = shop.client.get(f"/maps/{odd}")
    assert page.status_code == 404
    panes = shop.client.get(f"/maps/{odd}/panes.json")
    assert panes.status_code == 404
    if panes.headers["content-type"].startswith("application/json") and "error" in panes.json():
        assert panes.json()["error"].endswith(".")
    assert "<script>" not in page.text


@pytest.mark.parametrize("odd", [*ODD_IDS, make_id("nobody")])
@pytest.mark.parametrize("path", ["tokens.json", "tokens?bbox=0,0,1,1", "layers/retention/0/0/0.png", "image/0/0/0.png", "attention/answer/0"])
def test_an_unknown_run_is_not_found(shop: Shop, odd: str, path: str) -> None:
    assert shop.client.get(f"/runs/{odd}/{path}").status_code == 404


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
    large = stocked(shop.store, image, tokens=(8, 8), views=256, question="large?")
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


@pytest.mark.parametrize("tile", ["0/1/0", "0/0/1", "-1/0/0", "31/0/0", "2/4/0", "99999999999999999999/0/0", "a/0/0", "1/0/1e3"])
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
    gone = stocked(shop.store, replace(shop.comparison.image, digest="f" * 64), question="gone?")
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
    write_geotiff(
        path, np.full((128, 128, 3), 90, dtype=np.uint8), "EPSG:32632", (1.0, 0.0, 5e5, 0.0, -1.0, 5.4e6)
    )
    shop.store.put_image(path)
    placed = stocked(shop.store, open_image(path), question="where?")
    image = shop.client.get(f"/maps/{placed.id}/panes.json").json()["image"]
    assert image["lattice"]["x"][-1] == 128
    assert image["lattice"]["error_pixels"] < 0.1
    assert "EPSG3857" in shop.client.get(f"/maps/{placed.id}").text
    facts = shop.client.get(f"/runs/{placed.panes[0].run}/tokens?token=0").json()["tokens"][0]
    assert facts["lonlat"][0] == pytest.approx([9.0, 48.749], abs=0.01)


# ---------------------------------------------------------------------- tags
@pytest.mark.parametrize(
    "path",
    [
        "/maps/{comparison}/panes.json",
        "/comparisons/{comparison}/image/1/0/0.png",
        "/comparisons/{comparison}/thumbnail.png",
        "/runs/{run}/tokens.json",
        "/runs/{run}/tokens?bbox=0,0,50,50",
        "/runs/{run}/attention/answer/0",
        "/runs/{run}/layers/retention/0/0/0.png",
    ],
)
def test_what_the_browser_has_is_not_sent_again(shop: Shop, path: str) -> None:
    path = path.format(comparison=shop.comparison.id, run=shop.runs[1])
    first = shop.client.get(path)
    assert first.status_code == 200
    assert first.headers["cache-control"].startswith("private, ")
    again = shop.client.get(path, headers={"If-None-Match": f'W/"other", {first.headers["etag"]}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == first.headers["etag"]
    assert shop.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_what_changes_a_tile_changes_its_tag(shop: Shop) -> None:
    base = f"/runs/{shop.runs[1]}/layers/difference/0/0/0.png"
    queries = ["", "?theme=dark", "?layer=1", "?of=question", "?scale=0,1", f"?against={shop.runs[0]}", "?compared=retention"]
    tags = {shop.client.get(base + query).headers["etag"] for query in queries}
    assert len(tags) == len(queries)
    assert shop.client.get(base.replace("0/0/0", "1/0/0")).headers["etag"] not in tags


# ---------------------------------------------------------------------- runs
def test_layers_are_drawn_for_both_themes(shop: Shop) -> None:
    light, dark = (
        png(shop.client.get(f"/runs/{shop.runs[2]}/layers/retention/0/0/0.png?theme={theme}").content) for theme in ("light", "dark")
    )
    veiled = light[..., 3] == 204
    assert veiled.any()
    assert light[veiled][:, :3].mean() > 200
    assert dark[veiled][:, :3].mean() < 40


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("theme=blue", 422), ("of=nobody", 422), ("compared=size", 422), ("scale=1", 422), ("scale=nan,1", 422),
        ("scale=1,2,3", 422), ("layer=-1", 404), ("layer=4000", 404), ("layer=x", 422), ("level=1", 404), ("level=-1", 404),
        ("against=" + "0" * 32, 404), ("against=x", 404),
    ],
)  # fmt: skip
def test_a_parameter_that_cannot_be_used_is_one_sentence(shop: Shop, query: str, status: int) -> None:
    answer = shop.client.get(f"/runs/{shop.runs[1]}/layers/difference/0/0/0.png?{query}")
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")


def test_an_unknown_layer_names_those_that_there_are(shop: Shop) -> None:
    answer = shop.client.get(f"/runs/{shop.runs[1]}/layers/secrets/0/0/0.png")
    assert answer.status_code == 404
    assert "retention, clusters" in answer.json()["error"]


def test_facts_are_limited(shop: Shop) -> None:
    value = shop.client.get(f"/runs/{shop.runs[0]}/tokens?bbox=0,0,420,300&limit=10").json()
    assert value["found"] == 256
    assert [facts["token"] for facts in value["tokens"]] == list(range(10))


@pytest.mark.parametrize("query", ["bbox=", "bbox=1,2,3", "bbox=5,0,1,9", "bbox=inf,0,1,1", "bbox=0,0,9,9&limit=0", "bbox=0,0,9,9&limit=9999"])
def test_a_box_that_cannot_be_used_is_refused(shop: Shop, query: str) -> None:
    answer = shop.client.get(f"/runs/{shop.runs[0]}/tokens?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"].endswith(".")


def test_a_huge_box_is_cut_to_the_image(shop: Shop) -> None:
    value = shop.client.get(f"/runs/{shop.runs[0]}/tokens?bbox=-1e300,-1e300,1e300,1e300&limit=1").json()
    assert value["found"] == 256


def test_all_tokens_of_a_large_run_are_not_sent_at_once(shop: Shop) -> None:
    image = replace(shop.comparison.image, width=4096, height=4096)
    large = stocked(shop.store, image, tokens=(8, 8), views=256, question="large?")
    run = large.panes[1].run
    assert shop.client.get(f"/runs/{run}/tokens.json").status_code == 404
    facts = shop.client.get(f"/runs/{run}/tokens?bbox=100,100,100,100&layer=0").json()["tokens"]
    assert [one["token"] for one in facts] == [27]
    assert shop.client.get(f"/runs/{run}/layers/retention/3/2/2.png").status_code == 200


def test_attention_that_was_not_recorded_is_not_found(shop: Shop) -> None:
    assert len(shop.client.get(f"/runs/{shop.runs[0]}/attention/answer/5").content) == 512
    for path in ("answer/6", "answer/-1", "secret/0"):
        assert shop.client.get(f"/runs/{shop.runs[0]}/attention/{path}").status_code == 404


# ---------------------------------------------------------------------- assets
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/vendor/leaflet/leaflet.js", "text/javascript"),
        ("/vendor/leaflet/leaflet.css", "text/css"),
        ("/vendor/leaflet.sync/L.Map.Sync.js", "text/javascript"),
        ("/keepmap/tokens.css", "text/css"),
        ("/keepmap/maps.css", "text/css"),
        ("/keepmap/maps.js", "text/javascript"),
    ],
)
def test_our_own_copies_are_served(shop: Shop, path: str, kind: str) -> None:
    answer = shop.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_every_script_that_a_module_imports_is_there() -> None:
    folder = ASSETS / "keepmap"
    for script in folder.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"', script.read_text(encoding="utf-8")):
            assert (folder / name).is_file()


def test_our_scripts_name_no_other_host() -> None:
    for path in (ASSETS / "keepmap").glob("*"):
        assert not re.search(r"(?<!xmlns=['\"])https?://(?!www\.w3\.org)", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("path", ["/vendor/../server.py", "/keepmap/%2e%2e/%2e%2e/server.py", "/vendor/leaflet", "/keepmap/none.js"])
def test_nothing_beside_the_assets_is_served(shop: Shop, path: str) -> None:
    assert shop.client.get(path).status_code == 404


# ---------------------------------------------------------------------- owners
@pytest.fixture
def hall(tmp_path: Path) -> Iterator[tuple[Store, Comparison, TestClient]]:
    """A public server with one comparison of the visitor `1111…`."""
    with open_store(f"sqlite:///{tmp_path / 'k.db'}") as store:
        path = make_image_file(tmp_path)
        store.put_image(path)
        comparison = stocked(store, open_image(path), owner="1" * 32)
        with TestClient(build_api(store, Settings(public=True)), raise_server_exceptions=False) as client:
            yield store, comparison, client


def test_a_visitor_gets_a_cookie_that_scripts_cannot_read(hall: tuple[Store, Comparison, TestClient]) -> None:
    *_, client = hall
    given = client.get("/health").headers["set-cookie"]
    assert re.match(rf"{COOKIE}=[0-9a-f]{{32}}; ", given)
    assert "HttpOnly" in given
    assert "SameSite=Lax" in given
    assert "set-cookie" not in client.get("/health").headers, "the browser has it now"


@pytest.mark.parametrize("odd", ["", "short", "x" * 32, "../" * 10])
def test_a_cookie_that_is_none_of_ours_is_replaced(hall: tuple[Store, Comparison, TestClient], odd: str) -> None:
    *_, client = hall
    assert COOKIE in client.get("/health", headers={"cookie": f"{COOKIE}={odd}; theme=dark"}).headers["set-cookie"]


def test_local_use_gives_no_cookie(shop: Shop) -> None:
    assert "set-cookie" not in shop.client.get(f"/maps/{shop.comparison.id}").headers


@pytest.mark.parametrize("path", ["tokens.json", "tokens?bbox=0,0,9,9", "layers/retention/0/0/0.png", "image/0/0/0.png", "attention/answer/0"])
def test_a_run_is_seen_by_its_owner_and_by_those_with_the_link(hall: tuple[Store, Comparison, TestClient], path: str) -> None:
    _, comparison, client = hall
    run = comparison.panes[1].run
    address = f"/runs/{run}/{path}"
    join = "&" if "?" in path else "?"
    mine, other = {"cookie": f"{COOKIE}={'1' * 32}"}, {"cookie": f"{COOKIE}={'2' * 32}"}
    assert client.get(address, headers=mine).status_code == 200
    assert client.get(address, headers=other).status_code == 404
    assert client.get(address, headers={"cookie": f"{COOKIE}="}).status_code == 404
    assert client.get(f"{address}{join}link={comparison.id}", headers=other).status_code == 200
    assert client.get(f"{address}{join}link={'0' * 32}", headers=other).status_code == 404


def test_a_link_shares_its_own_runs_only(hall: tuple[Store, Comparison, TestClient]) -> None:
    store, comparison, client = hall
    secret = stocked(store, comparison.image, owner="1" * 32, question="another?")
    other = {"cookie": f"{COOKIE}={'2' * 32}"}
    address = f"/runs/{secret.panes[1].run}/tokens.json?link={comparison.id}"
    assert client.get(address, headers=other).status_code == 404
    against = f"/runs/{comparison.panes[1].run}/layers/difference/0/0/0.png?link={comparison.id}&against={secret.panes[0].run}"
    assert client.get(against, headers=other).status_code == 404


def test_a_sample_is_seen_by_everyone(hall: tuple[Store, Comparison, TestClient]) -> None:
    store, comparison, client = hall
    _, runs = make_comparison(5, image=comparison.image)
    store.add(runs[0], "", is_sample=True)
    assert client.get(f"/runs/{runs[0].id}/tokens.json", headers={"cookie": f"{COOKIE}={'2' * 32}"}).status_code == 200


def test_local_runs_are_nobody_s_on_a_public_server(hall: tuple[Store, Comparison, TestClient]) -> None:
    store, comparison, client = hall
    _, runs = make_comparison(5, image=comparison.image)
    store.add(runs[0], "")
    assert client.get(f"/runs/{runs[0].id}/tokens.json").status_code == 404


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
