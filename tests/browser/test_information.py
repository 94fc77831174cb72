"""The Information tab in a real browser: drawn from the store, in both themes, with the solver behind a button."""

from __future__ import annotations

import re

from playwright.sync_api import expect

import pid
from tests.browser.conftest import Visitor

BARS = "#spectrum-chart .bars .point"


def test_a_visitor_reads_where_the_information_came_from(visitor: Visitor) -> None:
    visitor.open()
    visitor.page.get_by_role("tab", name="Information").click()
    visitor.page.locator(BARS).first.wait_for(state="attached")
    assert visitor.page.locator(BARS).count() >= 4 * 4
    expect(visitor.page).to_have_url(re.compile("tab=information"))
    for heading in ("Spectrum", "Difference to the uncompressed model", "Along the layers", "Along the training"):
        expect(visitor.page.locator(".figure-head h2", has_text=heading)).to_be_visible()
    first = visitor.page.locator("#spectrum-table summary")
    first.click()
    expect(visitor.page.locator("#spectrum-table tbody tr").first).to_be_visible()
    visitor.page.get_by_role("button", name="Solve the test distributions").click()
    expect(visitor.page.locator("#self-test tbody tr")).to_have_count(len(pid.GATES))


def test_the_tab_has_a_link_of_its_own_and_follows_the_theme(visitor: Visitor) -> None:
    visitor.open("/?tab=information")
    visitor.page.locator(BARS).first.wait_for(state="attached")
    ink = "() => getComputedStyle(document.querySelector('#spectrum-chart .ytick text')).fill"
    light = visitor.page.evaluate(ink)
    visitor.page.get_by_role("button", name="Switch between light and dark").click()
    visitor.page.wait_for_function(f"before => ({ink})() !== before", arg=light)
