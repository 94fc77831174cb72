"""The routes of runs: tags, layers, token facts, and who may see them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard.visitors import COOKIE
from tests.dashboard.served import ODD_IDS, Shop, png, served
from tests.factories import make_comparison


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with served(tmp_path) as shop:
        yield shop


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
    queries = [
        "",
        "?theme=dark",
        "?layer=1",
        "?of=question",
        "?scale=0,1",
        f"?against={shop.runs[0]}",
        "?compared=retention",
    ]
    tags = {shop.client.get(base + query).headers["etag"] for query in queries}
    assert len(tags) == len(queries)
    assert shop.client.get(base.replace("0/0/0", "1/0/0")).headers["etag"] not in tags


# ---------------------------------------------------------------------- runs
@pytest.mark.parametrize("odd", ODD_IDS)
@pytest.mark.parametrize(
    "path",
    ["tokens.json", "tokens?bbox=0,0,1,1", "layers/retention/0/0/0.png", "image/0/0/0.png", "attention/answer/0"],
)
def test_an_unknown_run_is_not_found(shop: Shop, odd: str, path: str) -> None:
    assert shop.client.get(f"/runs/{odd}/{path}").status_code == 404


def test_layers_are_drawn_for_both_themes(shop: Shop) -> None:
    light, dark = (
        png(shop.client.get(f"/runs/{shop.runs[2]}/layers/retention/0/0/0.png?theme={theme}").content)
        for theme in ("light", "dark")
    )
    veiled = light[..., 3] == 204
    assert veiled.any()
    assert light[veiled][:, :3].mean() > 200
    assert dark[veiled][:, :3].mean() < 40


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("theme=blue", 422), ("of=nobody", 422), ("compared=size", 422), ("scale=1", 422), ("scale=nan,1", 422),
        ("scale=1,2,3", 422), ("layer=-1", 404), ("layer=4000", 404), ("layer=x", 422), ("level=1", 404),
        ("level=-1", 404),
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


@pytest.mark.parametrize(
    "query",
    ["bbox=", "bbox=1,2,3", "bbox=5,0,1,9", "bbox=inf,0,1,1", "bbox=0,0,9,9&limit=0", "bbox=0,0,9,9&limit=9999"],
)
def test_a_box_that_cannot_be_used_is_refused(shop: Shop, query: str) -> None:
    answer = shop.client.get(f"/runs/{shop.runs[0]}/tokens?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"].endswith(".")


def test_a_huge_box_is_cut_to_the_image(shop: Shop) -> None:
    value = shop.client.get(f"/runs/{shop.runs[0]}/tokens?bbox=-1e300,-1e300,1e300,1e300&limit=1").json()
    assert value["found"] == 256


def test_all_tokens_of_a_large_run_are_not_sent_at_once(shop: Shop) -> None:
    image = replace(shop.comparison.image, width=4096, height=4096)
    large = shop.add(image, tokens=(8, 8), views=256, question="large?")
    run = large.panes[1].run
    assert shop.client.get(f"/runs/{run}/tokens.json").status_code == 404
    facts = shop.client.get(f"/runs/{run}/tokens?bbox=100,100,100,100&layer=0").json()["tokens"]
    assert [one["token"] for one in facts] == [27]
    assert shop.client.get(f"/runs/{run}/layers/retention/3/2/2.png").status_code == 200


def test_attention_that_was_not_recorded_is_not_found(shop: Shop) -> None:
    assert len(shop.client.get(f"/runs/{shop.runs[0]}/attention/answer/5").content) == 512
    for path in ("answer/6", "answer/-1", "secret/0"):
        assert shop.client.get(f"/runs/{shop.runs[0]}/attention/{path}").status_code == 404


# ---------------------------------------------------------------------- owners
@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Shop]:
    """A public server with one comparison of the visitor `1111…`."""
    with served(tmp_path, public=True, owner="1" * 32) as shop:
        yield shop


def test_a_visitor_gets_a_cookie_that_scripts_cannot_read(hall: Shop) -> None:
    given = hall.client.get("/health").headers["set-cookie"]
    assert re.match(rf"{COOKIE}=[0-9a-f]{{32}}; ", given)
    assert "HttpOnly" in given
    assert "SameSite=Lax" in given
    assert "set-cookie" not in hall.client.get("/health").headers, "the browser has it now"


@pytest.mark.parametrize("odd", ["", "short", "x" * 32, "../" * 10])
def test_a_cookie_that_is_none_of_ours_is_replaced(hall: Shop, odd: str) -> None:
    assert COOKIE in hall.client.get("/health", headers={"cookie": f"{COOKIE}={odd}; theme=dark"}).headers["set-cookie"]


def test_local_use_gives_no_cookie(shop: Shop) -> None:
    assert "set-cookie" not in shop.client.get(f"/maps/{shop.comparison.id}").headers


@pytest.mark.parametrize(
    "path",
    ["tokens.json", "tokens?bbox=0,0,9,9", "layers/retention/0/0/0.png", "image/0/0/0.png", "attention/answer/0"],
)
def test_a_run_is_seen_by_its_owner_and_by_those_with_the_link(hall: Shop, path: str) -> None:
    run = hall.comparison.panes[1].run
    address = f"/runs/{run}/{path}"
    join = "&" if "?" in path else "?"
    mine, other = {"cookie": f"{COOKIE}={'1' * 32}"}, {"cookie": f"{COOKIE}={'2' * 32}"}
    assert hall.client.get(address, headers=mine).status_code == 200
    assert hall.client.get(address, headers=other).status_code == 404
    assert hall.client.get(address, headers={"cookie": f"{COOKIE}="}).status_code == 404
    assert hall.client.get(f"{address}{join}link={hall.comparison.id}", headers=other).status_code == 200
    assert hall.client.get(f"{address}{join}link={'0' * 32}", headers=other).status_code == 404


def test_a_link_shares_its_own_runs_only(hall: Shop) -> None:
    secret = hall.add(hall.comparison.image, owner="1" * 32, question="another?")
    other = {"cookie": f"{COOKIE}={'2' * 32}"}
    address = f"/runs/{secret.panes[1].run}/tokens.json?link={hall.comparison.id}"
    assert hall.client.get(address, headers=other).status_code == 404
    tile = f"/runs/{hall.runs[1]}/layers/difference/0/0/0.png?link={hall.comparison.id}"
    assert hall.client.get(tile, headers=other).status_code == 200
    assert hall.client.get(f"{tile}&against={secret.panes[0].run}", headers=other).status_code == 404


def test_a_sample_is_seen_by_everyone(hall: Shop) -> None:
    _, runs = make_comparison(5, image=hall.comparison.image)
    hall.store.add(runs[0], "", is_sample=True)
    assert (
        hall.client.get(f"/runs/{runs[0].id}/tokens.json", headers={"cookie": f"{COOKIE}={'2' * 32}"}).status_code
        == 200
    )


def test_local_runs_are_nobody_s_on_a_public_server(hall: Shop) -> None:
    _, runs = make_comparison(5, image=hall.comparison.image)
    hall.store.add(runs[0], "")
    assert hall.client.get(f"/runs/{runs[0].id}/tokens.json").status_code == 404
