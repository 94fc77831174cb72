"""The maps page as text: what it links, what it escapes, and how its maps are kept together."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.imagery import describe, write_geotiff
from analysis.pipeline import open_image
from compression.grid import TokenGrid
from compression.sight import Turn
from dashboard.maps import Page, maps_page, modules
from dashboard.opened import Opened
from dashboard.panes import caption, comparison_json, has_map, state_markup
from dashboard.panes import facts_of as pane_facts
from dashboard.placement import place_image
from storage import Comparison, JobRow, Pane
from tests.factories import make_comparison, make_image_file, make_run

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
STRATEGIES = ("identity@1.0", "dualcomp@0.25", "fastv@0.5", "divprune@0.1")


def made(count: int = 3, *, panes: tuple[Pane, ...] | None = None, question: str = "is there a plane?") -> Comparison:
    comparison, _ = make_comparison(0, STRATEGIES[:count], question=question)
    return comparison if panes is None else replace(comparison, panes=panes)


def page_of(comparison: Comparison, job: JobRow | None = None) -> Page:
    return maps_page(comparison, place_image(comparison.image, None), ["64 of 256 tokens"] * len(comparison.panes), job)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_nothing_on_the_page_comes_from_another_host(count: int) -> None:
    html = page_of(made(count)).html
    links = re.findall(r'(?:src|href|action|data|url\()\s*=?\s*["\']?([^"\'\s)>]+)', html)
    assert "/vendor/leaflet/leaflet.js" in links
    assert not [link for link in links if re.match(r"(https?:)?//", link)]
    assert "http" not in html.replace("http-equiv", "")


def test_two_maps_are_folium_s_dual_map() -> None:
    html = page_of(made(2)).html
    assert "map_A.sync(map_B)" in html
    assert "map_B.sync(map_A)" in html
    assert html.count("/vendor/leaflet.sync/L.Map.Sync.js") == 1


@pytest.mark.parametrize("count", [3, 4])
def test_more_maps_are_kept_together_pairwise(count: int) -> None:
    html = page_of(made(count)).html
    assert len(set(re.findall(r"map_([A-D])\.sync\(map_([A-D])", html))) == count * (count - 1)
    assert html.count("/vendor/leaflet.sync/L.Map.Sync.js") == 1


def test_one_map_needs_no_synchronisation() -> None:
    html = page_of(made(1)).html
    assert ".sync(" not in html
    assert "leaflet.sync" not in html


def test_a_refused_pane_has_no_map_and_offers_the_lowest_budget() -> None:
    refused = Pane("fastv@26", state="refused", lowest=64, reason="a cut at layer 1 of 4 leaves at least 64 tokens")
    html = page_of(made(panes=(Pane("identity@1.0", state="waiting"), refused))).html
    assert "map_B" not in html
    assert "Use 64 tokens</button>" in html
    assert 'data-budget="64"' in html
    assert "A cut at layer 1 of 4 leaves at least 64 tokens." in html


def test_a_page_without_any_map_is_still_a_page() -> None:
    html = page_of(made(panes=(Pane("identity@1.0", state="cancelled", reason="stopped"),))).html
    assert "Cancelled" in html
    assert "leaflet.js" in html  # the page's own scripts are written against it


@pytest.mark.parametrize("state", ["refused", "failed", "cancelled"])
def test_a_reason_is_escaped(state: str) -> None:
    html = page_of(made(panes=(Pane("identity@1.0", state=state, reason=HOSTILE),))).html
    assert "<script>alert" not in html
    assert "<img" not in html


def test_question_strategy_and_progress_are_escaped() -> None:
    job = JobRow(id="0" * 32, created_utc="", owner="", state="running", progress=0.4, message=HOSTILE)
    panes = (Pane(HOSTILE, state="running"), Pane("identity@1.0", state="refused", lowest=3, reason=HOSTILE))
    html = page_of(made(panes=panes, question=HOSTILE), job).html
    assert "<script>alert" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 4


def test_an_image_s_name_is_not_on_the_page() -> None:
    comparison = made()
    named = replace(comparison, image=replace(comparison.image, name=HOSTILE))
    assert page_of(named).html == page_of(comparison).html


def test_the_policy_names_the_inline_pieces_and_no_other_host() -> None:
    page = page_of(made())
    for tag in ("script", "style"):
        inline = re.findall(rf"<{tag}>(.*?)</{tag}>", page.html, re.S)
        assert len(inline) == 1
        digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
        assert f"{tag}-src 'self' 'sha256-{digest}'" in page.policy
    assert "unsafe" not in page.policy
    assert "http" not in page.policy
    assert page.policy.startswith("default-src 'none'")


def test_the_page_uses_no_inline_style_or_handler_that_the_policy_would_stop() -> None:
    job = JobRow(id="0" * 32, created_utc="", owner="", state="running", progress=0.4, message="Compressing")
    panes = (Pane("identity@1.0", state="running"), Pane("fastv@9", state="refused", lowest=64, reason="no"))
    html = page_of(made(panes=panes), job).html
    markup = re.sub(r"<(script|style)>.*?</\1>", "", html, flags=re.S)
    assert not re.search(r"<[^>]+\s(style|on[a-z]+)=", markup)


def test_the_same_comparison_gives_the_same_page() -> None:
    assert page_of(made()) == page_of(made())


def test_the_page_does_not_grow_with_the_tokens() -> None:
    small, _ = make_comparison(0, STRATEGIES[:3])
    large, _ = make_comparison(0, STRATEGIES[:3], tokens=(8, 8), views=1024)
    assert len(page_of(large).html) == len(page_of(small).html)


def test_a_georeferenced_image_lies_in_web_mercator_and_another_in_plain_pixels(tmp_path: Path) -> None:
    path = make_image_file(tmp_path)
    comparison = replace(made(), image=open_image(path))
    assert "L.CRS.Simple" in maps_page(comparison, place_image(comparison.image, path), [""] * 3).html
    assert not describe(path).is_georeferenced


def test_an_image_across_the_antimeridian_keeps_the_tiles_on_both_sides(tmp_path: Path) -> None:
    path = tmp_path / "across.tif"
    pixels = np.zeros((64, 64, 3), dtype=np.uint8)
    write_geotiff(path, pixels, "EPSG:32601", (800.0, 0.0, 140_000.0, 0.0, -800.0, 150_000.0))
    comparison = replace(made(), image=open_image(path))
    placement = place_image(comparison.image, path)
    assert placement.place is not None
    assert placement.place.bounds_lonlat[2] > 180
    html = maps_page(comparison, placement, [""] * 3).html
    assert '"noWrap": false' in html
    assert '"bounds"' not in html


def test_labels_of_the_layers_are_one_group_of_radios() -> None:
    html = page_of(made()).html
    assert re.findall(r'type="radio" name="layer" value="(\w+)"', html) == [
        "Image", "Retention", "Clusters", "Scores", "Attention", "Streams", "Difference",
    ]  # fmt: skip
    assert html.count(" checked>") == 1 + html.count('id="evidence" checked>')


def test_evidence_that_is_not_known_cannot_be_switched() -> None:
    html = page_of(replace(made(), evidence=())).html
    assert 'id="evidence" checked disabled' in html
    assert "Evidence not known" in html


@pytest.mark.parametrize(
    ("strategy", "total", "words"),
    [
        ("fastv@26", 256, "26 of 256 asked"),
        ("fastv@0.1", 256, "26 of 256 asked"),
        ("fastv@0.1", None, "10 % asked"),
        ("fastv@26", None, "26 tokens asked"),
        ("visionzip@1", None, "1 token asked"),
        ("visionzip@0.5+fastv@0.1", 256, "26 of 256 asked"),
        ("visionzip@0.5+gone@0.1", None, "10 % asked"),
        ("dualcomp", 256, ""),
        ("odd@nan.", 256, ""),
    ],
)
def test_the_caption_of_a_pane_without_a_run_says_what_was_asked(strategy: str, total: int | None, words: str) -> None:
    assert caption(strategy, None, total) == words


def test_the_caption_of_a_run_says_what_is_left() -> None:
    assert caption("dualcomp@0.25", 16_384, 65_536) == "16,384 of 65,536 tokens"
    assert caption("identity@1.0", 256, 256) == "all 256 tokens"


def test_a_pane_with_an_encoding_of_its_own_is_counted_of_the_whole_image() -> None:
    comparison, (whole, own) = make_comparison(0, ("identity@1.0", "downsample@64"), tokens=(16, 16))
    grid = TokenGrid.single(8, 8, (128, 128)).placed((0.0, 0.0, 256.0, 256.0), (256, 256))
    smaller = make_run(1, (8, 8), "identity@1.0", image=comparison.image)
    own = replace(own, grid=grid, selection=smaller.selection, recording=smaller.recording, tokens_original=256)
    opened = [Opened.of(whole), Opened.of(own)]
    facts = [pane_facts(one, opened[0]) for one in opened]
    shown = comparison_json(comparison, opened, facts, place_image(comparison.image, None), None)
    assert [pane["caption"] for pane in shown["panes"]] == ["all 256 tokens", "64 of 256 tokens"]
    assert [pane["facts"]["same_grid"] for pane in shown["panes"]] == [True, False]
    assert shown["panes"][1]["facts"]["overlap"] is None
    assert not any(kind["change"] for kind in shown["panes"][1]["facts"]["attention"].values())


def test_every_module_of_the_page_s_script_is_named_so_that_all_load_at_once() -> None:
    html = page_of(made()).html
    assert "pane.js" in modules()
    for name in modules():
        assert f'<link rel="modulepreload" href="/keepmap/{name}">' in html


def test_progress_is_shown_as_far_as_it_is() -> None:
    job = JobRow(
        id="0" * 32, created_utc="", owner="", state="running", progress=0.38, message="Compressing, stage 2 of 4"
    )
    markup = state_markup(Pane("dualcomp@0.25", state="running"), 1, job)
    assert 'value="0.380"' in markup
    assert "Compressing, stage 2 of 4" in markup
    assert has_map(Pane("dualcomp@0.25", state="running"))


def test_the_boxes_of_a_zoom_go_to_the_map_without_its_first_which_is_the_whole_image() -> None:
    run = make_run()
    turns = (
        Turn(1, (0.0, 0.0, 256.0, 256.0)),
        Turn(2, (16.0, 32.0, 48.0, 64.0)),
        Turn(3, (0.0, 0.0, 8.0, 8.0), is_accepted=False),
    )
    facts = pane_facts(Opened.of(replace(run, turns=turns)), None)
    assert facts["turns"] == [[2, 16.0, 32.0, 48.0, 64.0, True], [3, 0.0, 0.0, 8.0, 8.0, False]]
    assert pane_facts(Opened.of(run), None)["turns"] == []
