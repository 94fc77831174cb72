"""The maps page: one Folium figure whose maps move together, in this project's own page.

Folium makes the maps, their image tiles, and their synchronisation: DualMap for two, the same plugin pairwise for more.
Its links to other hosts are replaced by our own copies; of the page that it would write, only the links, the map
elements and the script are used.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import folium
from branca.element import CssLink, Figure, JavascriptLink, MacroElement
from folium.elements import JSCSSMixin
from folium.map import CustomPane
from folium.plugins import DualMap
from folium.raster_layers import TileLayer
from folium.template import Template
from markupsafe import Markup

from dashboard.markup import LETTERS
from dashboard.panes import has_map, state_markup, title_of
from dashboard.placement import Placement
from dashboard.tiles import DEEPEST
from storage import Comparison, JobRow, Pane

LAYERS = ("Image", "Retention", "Clusters", "Scores", "Attention", "Streams", "Difference")

SCRIPTS = Path(__file__).parent / "assets" / "keepmap"
_IMPORTED = re.compile(r'from "\./([\w.]+)"')
_LOWEST_ZOOM = -5  # a small image on a small screen is shown below the zoom of its only tile

_LEAFLET_JS = [("leaflet", "/vendor/leaflet/leaflet.js")]
_LEAFLET_CSS = [("leaflet_css", "/vendor/leaflet/leaflet.css")]
_SYNC_JS = [("Leaflet.Sync", "/vendor/leaflet.sync/L.Map.Sync.js")]

# Folium names hosts that a page without a network cannot reach, and links what these maps do not use.
folium.Map.default_js = _LEAFLET_JS
folium.Map.default_css = _LEAFLET_CSS
DualMap.default_js = _SYNC_JS


class PairwiseSync(JSCSSMixin, MacroElement):
    """Keeps any number of maps together, by the plugin that DualMap uses for two."""

    default_js = _SYNC_JS
    _template = Template(
        """
        {% macro script(this, kwargs) %}
            {%- for one in this.maps %}{% for other in this.maps %}{% if one is not sameas other %}
            {{ one.get_name() }}.sync({{ other.get_name() }}, {noInitialSync: true});
            {%- endif %}{% endfor %}{% endfor %}
        {% endmacro %}
        """
    )

    def __init__(self, maps: Sequence[folium.Map]) -> None:
        super().__init__()
        self._name = "PairwiseSync"
        self.maps = list(maps)


@dataclass(frozen=True)
class Page:
    """A page and the policy it is sent with."""

    html: str
    policy: str


def maps_page(comparison: Comparison, placement: Placement, captions: Sequence[str], job: JobRow | None = None) -> Page:
    """The maps page of a comparison; what the panes hold comes later, from panes.json and on demand.

    Args:
        comparison: What is shown.
        placement: How its image lies on the maps.
        captions: What stands right of each pane's title.
        job: The work that fills it, while there is some.
    """
    letters = tuple(LETTERS[position] for position, pane in enumerate(comparison.panes) if has_map(pane))
    links, elements, script = _figure(comparison.id, letters, placement)
    style = f":root {{ --n: {len(comparison.panes)}; --km-ratio: {placement.ratio:.5f}; }}"
    plates = Markup("").join(
        _plate(comparison.panes[position], position, words, elements.get(LETTERS[position]), job)
        for position, words in enumerate(captions)
    )
    switch = (_SWITCH.format(name, Markup(" checked") if name == "Retention" else "") for name in LAYERS)
    # Folium's pieces and ours are markup already: nothing that a visitor wrote is in them.
    trusted = {"links": Markup(links), "style": Markup(style), "script": Markup(script)}  # noqa: S704
    html = _PAGE.format(
        title=f"Maps: {comparison.question}",
        comparison=comparison.id,
        panes=len(comparison.panes),
        layers=Markup("").join(switch),
        disabled="" if comparison.evidence else Markup(" disabled"),
        evidence="Evidence" if comparison.evidence else "Evidence not known",
        plates=plates,
        preloads=Markup("\n").join(_PRELOAD.format(name) for name in modules()),
        **trusted,
    )
    return Page(str(html), policy(style, script))


def policy(style: str, script: str) -> str:
    """The content security policy of the page: itself, and the two pieces written into it, named by their digests."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src 'self' {_digest(script)}",
            f"style-src 'self' {_digest(style)}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@lru_cache(maxsize=64)
def _figure(comparison: str, letters: tuple[str, ...], placement: Placement) -> tuple[str, dict[str, str], str]:
    """Folium's part: links, the element of each map by letter, and the script. The same as long as the maps are."""
    if not letters:  # the page's own scripts are written against Leaflet, maps or none
        return (
            "\n".join(
                [
                    *(CssLink(url).render() for _, url in _LEAFLET_CSS),
                    *(JavascriptLink(url).render() for _, url in _LEAFLET_JS),
                ]
            ),
            {},
            "",
        )
    options: dict[str, Any] = {
        "location": _middle(placement),
        "zoom_start": placement.zoom,
        "tiles": None,
        "crs": "EPSG3857" if placement.is_placed else "Simple",
        "attribution_control": False,
        "zoom_control": False,
        "zoom_snap": 0,
        "wheel_px_per_zoom_level": 120,
        "keyboard": False,
        "box_zoom": False,
        "bounce_at_zoom_limits": False,
    }
    if len(letters) == 2:
        dual = DualMap(**options)
        figure, maps = cast("Figure", dual.get_root()), [dual.m1, dual.m2]
    else:
        figure = Figure()
        maps = [folium.Map(**options) for _ in letters]
        for one in maps:
            figure.add_child(one)
        if len(maps) > 1:
            figure.add_child(PairwiseSync(maps))
    for letter, one in zip(letters, maps, strict=True):
        one._id = letter
        # Folium takes these two for tiles of its own only.
        one.options.update({"minZoom": _LOWEST_ZOOM, "maxZoom": placement.zoom_most})
        _dress(one, letter, comparison, placement)
    figure.render()
    links = "\n".join(
        child.render() for child in figure.header._children.values() if isinstance(child, CssLink | JavascriptLink)
    )
    named = zip(letters, maps, strict=True)
    elements = {letter: figure.html._children[one.get_name()].render().strip() for letter, one in named}
    return links, elements, "\n" + figure.script.render().strip() + "\n"


def _dress(one: folium.Map, letter: str, comparison: str, placement: Placement) -> None:
    """The stacking of a map's parts, and its image."""
    for name, height in (("km-image", 200), ("km-overlay", 350), ("km-marks", 450)):
        pane = CustomPane(name, z_index=height, pointer_events=False)
        pane._id = f"{letter}_{height}"
        one.add_child(pane)
    bounds = _bounds(placement)
    # Leaflet compares the bounds with tiles that it has wrapped: across the antimeridian it goes without, and the tiles
    # beside the image are transparent.
    is_torn = placement.is_placed and not -180 <= bounds[0][1] <= bounds[1][1] <= 180
    tiles = TileLayer(
        f"/comparisons/{comparison}/image/{{z}}/{{x}}/{{y}}.png",
        attr="the image",
        name="Image",
        overlay=True,
        control=False,
        min_zoom=_LOWEST_ZOOM,
        max_zoom=DEEPEST,
        max_native_zoom=placement.zoom,
        min_native_zoom=0,
        no_wrap=not is_torn,
        pane="km-image",
        bounds=None if is_torn else bounds,
    )
    tiles._id = letter
    one.add_child(tiles)


def _bounds(placement: Placement) -> list[list[float]]:
    """South-west and north-east corner as the map counts."""
    if placement.place is not None:
        west, south, east, north = placement.place.bounds_lonlat
        return [[south, west], [north, east]]
    unit = 2**placement.zoom
    return [[-placement.image.height / unit, 0.0], [0.0, placement.image.width / unit]]


def _middle(placement: Placement) -> list[float]:
    """The centre of the image as the map counts: where a map is until the page has measured it."""
    (south, west), (north, east) = _bounds(placement)
    return [(south + north) / 2, (west + east) / 2]


def _plate(pane: Pane, position: int, words: str, element: str | None, job: JobRow | None) -> Markup:
    letter, title = LETTERS[position], title_of(pane.strategy)
    place = Markup("")
    if element is not None:
        place = Markup('<div class="map" tabindex="0" role="application" aria-label="{}">{}</div>').format(
            f"Map {letter}, {title}",
            Markup(element),  # noqa: S704 (Folium's own, with nothing of a visitor in it)
        )
    is_early = pane.state in ("waiting", "running")
    return Markup(
        '<figure class="plate{}" data-pane="{}" data-state="{}"><figcaption class="cap"><span class="key">{}</span>'
        '<b>{}</b><span class="n num">{}</span></figcaption>{}<div class="slot">{}</div></figure>'
    ).format(
        " wait" if is_early else "",
        letter,
        pane.state,
        letter,
        title,
        words,
        place,
        state_markup(pane, position, job),
    )


@cache
def modules() -> tuple[str, ...]:
    """The scripts that the page's script imports, directly or not: named in the page, they all load at once."""
    found, waiting = [], ["maps.js"]
    while waiting:
        text = (SCRIPTS / waiting.pop()).read_text(encoding="utf-8")
        new = [name for name in _IMPORTED.findall(text) if name not in found]
        found += new
        waiting += new
    return tuple(sorted(found))


_PRELOAD = Markup('<link rel="modulepreload" href="/keepmap/{}">')
_SWITCH = Markup('<label><input type="radio" name="layer" value="{0}"{1}><span data-text="{0}">{0}</span></label>')

_PAGE = Markup(
    """<!doctype html>
<html lang="en" data-n="{panes}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="same-origin">
<title>{title}</title>
<link rel="icon" href="/keepmap/favicon.svg">
{links}
<link rel="stylesheet" href="/keepmap/tokens.css">
<link rel="stylesheet" href="/keepmap/maps.css">
<style>{style}</style>
<script src="/keepmap/frame.js"></script>
{preloads}
</head>
<body data-comparison="{comparison}">
<div id="layers">
<div class="seg" role="radiogroup" aria-label="Map layer">{layers}</div>
<div class="right">
<label><input type="checkbox" id="evidence" checked{disabled}>
<svg width="15" height="15" viewBox="0 0 15 15" aria-hidden="true"><path d="M1 5V1h4M10 1h4v4M14 10v4h-4M5 14H1v-4"
fill="none" stroke="currentColor" stroke-width="1.8"/></svg>{evidence}</label>
<label>Opacity<input type="range" id="opacity" min="0" max="100" value="100" aria-label="Layer opacity"></label>
</div>
</div>
<div id="legend" class="legend" aria-live="polite"></div>
<p id="trouble" role="alert" hidden></p>
<section id="maps" aria-label="Maps, synchronised">
<div class="plates" id="plates">
{plates}
<div id="maps-key"></div>
</div>
<div id="tip" hidden></div>
</section>
<p id="facts" class="sr" aria-live="polite"></p>
<noscript><p>The maps are drawn by a script; please allow scripts of this page.</p></noscript>
<script>{script}</script>
<script type="module" src="/keepmap/maps.js"></script>
</body>
</html>
"""
)
