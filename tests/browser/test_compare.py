"""The main job in a real browser, as a user does it."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Frame, expect

from analysis.imagery import write_geotiff
from analysis.pipeline import SYNTHETIC_TAG
from compression.backends.embedded.scenes import make_scene
from storage import open_store
from tests.browser.conftest import Visitor

INK = """(letter) => {
  const canvas = document.querySelector(`.plate[data-pane=${letter}] canvas.km-overlay`);
  const box = document.querySelector(`.plate[data-pane=${letter}] .map`).getBoundingClientRect();
  const at = canvas.getBoundingClientRect();
  const scale = canvas.width / at.width;
  const data = canvas.getContext("2d").getImageData(
    (box.left - at.left) * scale, (box.top - at.top) * scale, box.width * scale, box.height * scale).data;
  let painted = 0;
  for (let i = 3; i < data.length; i += 4) painted += data[i] > 0;
  return painted / (data.length / 4);
}"""
"""Share of a map that its layer paints on, 0 to 1."""


def ink(frame: Frame, letter: str) -> float:
    return float(frame.evaluate(INK, letter))


def show(frame: Frame, layer: str) -> None:
    frame.locator("#layers label", has_text=layer).first.click()


def ask(visitor: Visitor, scene: str = "River bend") -> None:
    """Pick a sample scene and the first question that comes with it."""
    button = visitor.page.get_by_role("button", name=scene, exact=False).first
    button.click()
    # The rail says that it has the scene; before that its questions are those of the one before.
    expect(button).to_have_attribute("aria-pressed", "true")
    visitor.page.locator("#templates input").click()
    visitor.page.get_by_role("option").first.click()
    expect(visitor.page.locator("#run")).to_be_enabled()


def compare(visitor: Visitor) -> None:
    """Press Compare and wait for the maps and the numbers of the new comparison; an earlier one stays until then."""
    earlier = visitor.page.locator("#maps iframe").get_attribute("src")
    visitor.page.locator("#run").click()
    visitor.page.wait_for_function(
        "earlier => document.querySelector('#maps iframe')?.getAttribute('src') !== earlier", arg=earlier
    )
    visitor.finished(3)
    visitor.page.locator(".numbers-head").wait_for()


def test_a_visitor_picks_a_scene_asks_and_sees_three_strategies_on_maps(visitor: Visitor) -> None:
    visitor.open()
    ask(visitor)
    compare(visitor)
    maps = visitor.finished(3)
    maps.locator("#evidence").uncheck()
    kept_everything, lattice = ink(maps, "A"), ink(maps, "C")
    assert kept_everything < 0.01
    assert maps.locator(".plate .leaflet-tile-loaded").count() >= 3
    answers = visitor.page.locator(".verdict")
    assert answers.count() >= 3
    with open_store(visitor.site.database, read_only=True) as store:
        comparison = next(one for one in store.comparisons() if not one.is_sample)
        counts = store.get(str(comparison.panes[2].run)).selection.counts()
    assert comparison.id in visitor.page.url
    assert [pane.state for pane in comparison.panes] == ["done"] * 3
    assert abs(lattice - counts["dropped"] / sum(counts.values())) < 0.05
    assert counts["dropped"] > counts["kept"] > 0


def test_a_scene_of_4096_tokens_is_read_cell_by_cell_and_says_what_was_saved(visitor: Visitor) -> None:
    visitor.open()
    ask(visitor, "River crossing")
    compare(visitor)
    results = visitor.page.locator(".km-results")
    expect(results).to_contain_text("all 4,096 tokens")
    expect(results).to_contain_text("% less than A")
    expect(results.locator("article").first.locator(".verdict")).to_contain_text("Right")
    with open_store(visitor.site.database, read_only=True) as store:
        comparison = next(one for one in store.comparisons() if not one.is_sample)
        grid = store.get(comparison.panes[0].run).grid
    assert [view.name for view in grid.views][:5] == ["a1", "b1", "c1", "d1", "a2"]
    assert comparison.image.width == 1024


def test_layers_are_painted_differently_and_say_so_in_words(visitor: Visitor) -> None:
    visitor.open(f"/?comparison={visitor.site.small}")
    maps = visitor.finished(2)
    maps.locator("#evidence").uncheck()
    shown = {}
    for layer in ("Image", "Retention", "Clusters", "Scores", "Attention", "Difference"):
        show(maps, layer)
        maps.wait_for_function("name => document.body.dataset.layer === name", arg=layer)
        shown[layer] = ink(maps, "B"), maps.locator("#legend").inner_text()
    assert shown["Image"][0] == 0
    assert all(share > 0.02 for share, _ in (shown["Retention"], shown["Scores"], shown["Attention"]))
    assert len({words for _, words in shown.values()}) == len(shown)
    for word in ("kept", "merged", "dropped"):
        assert word in shown["Retention"][1].lower()


def test_a_link_restores_the_comparison_and_the_layer(visitor: Visitor) -> None:
    visitor.open(f"/?comparison={visitor.site.small}&km_layer=Attention")
    maps = visitor.finished(2)
    assert maps.locator("#layers input[name=layer]:checked").get_attribute("value") == "Attention"
    before = visitor.page.locator(".km-results").inner_text()
    visitor.page.reload()
    visitor.finished(2)
    assert visitor.page.locator(".km-results").inner_text() == before


def test_a_stored_run_is_opened_from_the_list(visitor: Visitor) -> None:
    visitor.open()
    visitor.page.get_by_role("tab", name="Runs").click()
    row = visitor.page.locator("#runs-page table tbody tr", has_text="largest building").first
    row.wait_for()
    row.get_by_role("link").first.click()
    visitor.finished(1)
    expect(visitor.page.locator("#title")).to_contain_text("largest building")


def test_the_token_under_the_pointer_is_explained_and_keys_move_on(visitor: Visitor) -> None:
    visitor.open(f"/?comparison={visitor.site.small}")
    maps = visitor.finished(2)
    plate = maps.locator(".plate[data-pane=B] .map")
    plate.hover(position={"x": 40, "y": 40})
    maps.locator("#tip").wait_for()
    assert "Row" in maps.locator("#tip").inner_text()
    plate.focus()
    visitor.page.keyboard.press("ArrowRight")
    first = maps.locator("#facts").inner_text()
    visitor.page.keyboard.press("ArrowRight")
    maps.wait_for_function("text => document.querySelector('#facts').textContent !== text", arg=first)


def test_an_uploaded_geotiff_is_shown_where_it_is_on_earth(visitor: Visitor, tmp_path: Path) -> None:
    scene = make_scene(77)
    file = tmp_path / "survey of mine.tif"
    write_geotiff(file, scene.image, scene.crs, scene.transform, tags={SYNTHETIC_TAG: "seed 77"})
    visitor.open()
    visitor.page.locator("#upload input[type=file], input[type=file]").first.set_input_files(file)
    visitor.page.locator('#rail img[src^="/uploads/"]').wait_for()
    visitor.page.locator("#question textarea").fill("how many ships are there")
    expect(visitor.page.locator("#run")).to_be_enabled()
    compare(visitor)
    maps = visitor.finished(3)
    expect(visitor.page.locator("#title")).to_contain_text(scene.crs)
    assert maps.locator(".scale").count() == 1
    assert maps.locator(".plate .leaflet-tile-loaded").count() >= 3
    assert 0.5 < ink(maps, "C") < 0.95


def test_rubbish_is_refused_in_words_and_what_was_shown_stays(visitor: Visitor, tmp_path: Path) -> None:
    rubbish = tmp_path / "field_notes.tif"
    rubbish.write_bytes(b"these are notes, not an image" * 50)
    visitor.open(f"/?comparison={visitor.site.small}")
    visitor.finished(2)
    visitor.page.locator("#upload input[type=file], input[type=file]").first.set_input_files(rubbish)
    alert = visitor.page.get_by_role("alert").filter(has_text="field_notes.tif")
    alert.wait_for()
    assert "PNG" in alert.inner_text()
    assert visitor.maps().locator(".plate[data-state=done]").count() == 2


def test_the_page_does_not_grow_with_the_number_of_tokens(visitor: Visitor) -> None:
    sizes = {}
    for name, identity in (("small", visitor.site.small), ("large", visitor.site.large)):
        received: list[int] = []
        visitor.page.on(
            "response", lambda reply, into=received: into.append(int(reply.headers.get("content-length") or 0))
        )
        page = visitor.page.request.get(f"{visitor.site.url}/maps/{identity}")
        visitor.page.goto(f"{visitor.site.url}/maps/{identity}")
        visitor.page.wait_for_function(
            "() => document.querySelectorAll('.plate[data-state=done] .leaflet-tile-loaded').length > 1"
        )
        visitor.page.wait_for_load_state("networkidle")
        sizes[name] = len(page.body()), sum(received)
    assert sizes["large"][0] < 1.1 * sizes["small"][0]
    assert sizes["large"][1] < sizes["small"][1] + 1_000_000
    assert ink(visitor.page.main_frame, "B") > 0.05


def test_nothing_is_cut_or_scrolls_sideways_from_phone_to_desk(visitor: Visitor) -> None:
    for width, height in ((390, 844), (1024, 768), (1280, 900)):
        visitor.page.set_viewport_size({"width": width, "height": height})
        visitor.open(f"/?comparison={visitor.site.small}")
        maps = visitor.finished(2)
        for frame in (visitor.page.main_frame, maps):
            assert frame.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_a_comparison_without_any_run_says_so_and_can_be_left_and_found_again(visitor: Visitor) -> None:
    visitor.open(f"/?comparison={visitor.site.cancelled}")
    maps = visitor.maps()
    maps.locator(".plate[data-state=cancelled]").nth(1).wait_for()
    maps.locator("body[data-ready=true]").wait_for()
    assert maps.locator("canvas.km-overlay").count() == 0


def test_a_stored_run_is_deleted_after_a_second_word(visitor: Visitor) -> None:
    visitor.open()
    visitor.page.get_by_role("tab", name="Runs").click()
    rows = visitor.page.locator("#runs-page table tbody tr", has_text="to be deleted")
    rows.first.wait_for()
    assert rows.count() == 1
    rows.first.locator("[data-ask=yes]").click()
    rows.first.locator("[data-act=delete]").click()
    rows.first.wait_for(state="detached")
    with open_store(visitor.site.database, read_only=True) as store:
        assert store.count(text="to be deleted") == 0


def test_dark_reaches_the_maps(visitor: Visitor) -> None:
    visitor.open(f"/?comparison={visitor.site.small}")
    maps = visitor.finished(2)
    light = maps.evaluate("getComputedStyle(document.body).backgroundColor")
    visitor.page.get_by_label("Switch between light and dark").click()
    maps.wait_for_function("colour => getComputedStyle(document.body).backgroundColor !== colour", arg=light)
    red, green, blue = (
        int(part) for part in re.findall(r"\d+", maps.evaluate("getComputedStyle(document.body).backgroundColor"))[:3]
    )
    assert red + green + blue < 200


def test_methods_say_what_is_reconstructed(visitor: Visitor) -> None:
    visitor.open()
    visitor.page.get_by_role("tab", name="Methods").click()
    methods = visitor.page.locator("#methods-page")
    methods.get_by_text("DualComp").first.wait_for()
    assert "reconstruct" in methods.inner_text().lower()
    assert "2604.11122" in methods.inner_text()
