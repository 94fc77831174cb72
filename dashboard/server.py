"""The map routes: pages, tiles, token facts and our own assets, on the port that Gradio shares.

Ids and tile coordinates come from strangers: each is checked, and what does not exist is 404 with one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from markupsafe import Markup

from dashboard import parameters
from dashboard.answers import Encoded, Missing, Refused, add_errors, answer, headers, json_bytes
from dashboard.atlas import IMAGE_VERSION, Atlas, layer_tag, tag
from dashboard.layers import Look
from dashboard.maps import maps_page
from dashboard.messages import sentence
from dashboard.panes import comparison_json
from dashboard.tiles import is_tile
from dashboard.visitors import VisitorCookie, owner_of
from dashboard.wire import attention_bytes, facts_json, tokens_in, tokens_json
from storage import NotFound, StorageError, Store

ASSETS = Path(__file__).parent / "assets"
MOST_FACTS = 1000
_FOR_A_DAY = "max-age=86400"
_FOR_TEN_MINUTES = "max-age=600"
_WIRE_VERSION = 1


class Access(Protocol):
    """What of the settings the routes ask for."""

    @property
    def public(self) -> bool:
        """Whether every row has an owner who alone sees it."""


def build_api(store: Store, settings: Access) -> FastAPI:
    """The application with all map routes; the page itself is mounted on it at "/" by `dashboard.app`."""
    api = FastAPI(title="Keepmap", docs_url=None, redoc_url=None, openapi_url=None)
    api.state.atlas = Atlas(store, settings.public)
    if settings.public:
        api.add_middleware(VisitorCookie)
    api.mount("/vendor", Assets(directory=ASSETS / "vendor"), name="vendor")
    api.mount("/keepmap", Assets(directory=ASSETS / "keepmap"), name="keepmap")
    add_errors(api)
    _add_pages(api)
    _add_images(api)
    _add_runs(api)
    return api


class Assets(StaticFiles):
    """Our own files: read as the type they say, and asked for again when they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file with the headers of all our answers."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(headers("no-cache"))
        return response


# ---------------------------------------------------------------------- pages
def _add_pages(api: FastAPI) -> None:
    atlas: Atlas = api.state.atlas

    @api.get("/health")
    def health() -> JSONResponse:
        try:
            atlas.store.count_comparisons()
        except StorageError:
            return JSONResponse({"status": "unavailable", "store": "unavailable"}, 503, headers("no-store"))
        return JSONResponse({"status": "ok", "store": "ok"}, 200, headers("no-store"))

    @api.get("/maps/{comparison_id}")
    def page(comparison_id: str) -> Response:
        try:
            comparison = atlas.comparison(comparison_id)
        except NotFound as error:
            return HTMLResponse(
                _NOTHING.format(sentence(str(error))), 404, headers("no-store") | {"Content-Security-Policy": _STRICT}
            )
        made = maps_page(
            comparison, atlas.placement(comparison.image), atlas.captions(comparison), atlas.job(comparison)
        )
        return HTMLResponse(made.html, 200, {**headers("no-cache"), "Content-Security-Policy": made.policy})

    @api.get("/maps/{comparison_id}/panes.json")
    def panes(comparison_id: str, request: Request) -> Response:
        comparison = atlas.comparison(comparison_id)
        opened = atlas.panes(comparison)
        value = comparison_json(
            comparison, opened, atlas.facts(opened), atlas.placement(comparison.image), atlas.job(comparison)
        )
        content = json_bytes(value)
        return answer(request, tag(content), lambda: Encoded(content, "application/json"), "no-cache")


# ---------------------------------------------------------------------- images
def _add_images(api: FastAPI) -> None:
    atlas: Atlas = api.state.atlas

    @api.get("/comparisons/{comparison_id}/thumbnail.png")
    def thumbnail(comparison_id: str, request: Request) -> Response:
        image = atlas.comparison(comparison_id).image
        return answer(
            request, tag("thumbnail", image.digest, IMAGE_VERSION), lambda: atlas.thumbnail(image), _FOR_A_DAY
        )

    @api.get("/comparisons/{comparison_id}/image/{z}/{x}/{y}.png")
    def comparison_tile(comparison_id: str, z: int, x: int, y: int, request: Request) -> Response:
        image = atlas.comparison(comparison_id).image
        key = tag("image", image.digest, IMAGE_VERSION, z, x, y)
        return answer(request, key, lambda: atlas.image_tile(image, z, x, y), _FOR_A_DAY)

    @api.get("/runs/{run_id}/image/{z}/{x}/{y}.png")
    def run_tile(run_id: str, z: int, x: int, y: int, request: Request, link: str = "") -> Response:
        image = atlas.run(run_id, _owner(request, atlas), link).image
        key = tag("image", image.digest, IMAGE_VERSION, z, x, y)
        return answer(request, key, lambda: atlas.image_tile(image, z, x, y), _FOR_A_DAY)


# ---------------------------------------------------------------------- runs
def _add_runs(api: FastAPI) -> None:
    atlas: Atlas = api.state.atlas

    @api.get("/runs/{run_id}/tokens.json")
    def all_tokens(run_id: str, request: Request, link: str = "") -> Response:
        run = atlas.run(run_id, _owner(request, atlas), link)
        if run.is_large:
            raise Missing(
                f"this run has {len(run):,} visual tokens; ask for a part of them at "
                f"/runs/{run_id}/tokens?bbox=left,top,right,bottom"
            )
        return answer(
            request,
            tag("tokens", run.run, _WIRE_VERSION),
            lambda: Encoded(json_bytes(tokens_json(run)), "application/json"),
            _FOR_TEN_MINUTES,
        )

    @api.get("/runs/{run_id}/tokens")
    def some_tokens(
        run_id: str,
        request: Request,
        bbox: str = "",
        token: int | None = None,
        limit: int = 100,
        level: int | None = None,
        of: str = "answer",
        layer: int | None = None,
        link: str = "",
    ) -> Response:
        run = atlas.run(run_id, _owner(request, atlas), link)
        chosen = run.levels[parameters.level_of(run, level)]
        if not 1 <= limit <= MOST_FACTS:
            raise Refused(f"limit must be 1 to {MOST_FACTS}, got {limit}")
        if token is not None:
            if not 0 <= token < len(run):
                raise Missing(f"this run has the visual tokens 0 to {len(run) - 1:,}")
            found = np.array([token])
        else:
            found = tokens_in(chosen, parameters.box_of(bbox, run))
        facts = facts_json(run, found[:limit], atlas.placement(run.image), parameters.kind_of(of), layer)
        value = {"run": run.run, "found": len(found), "has_scores": run.scores is not None, "tokens": facts}
        content = json_bytes(value)
        return answer(request, tag(content), lambda: Encoded(content, "application/json"), _FOR_TEN_MINUTES)

    @api.get("/runs/{run_id}/attention/{of}/{layer}")
    def attention(run_id: str, of: str, layer: int, request: Request, link: str = "") -> Response:
        run = atlas.run(run_id, _owner(request, atlas), link)

        def make() -> Encoded | None:
            content = attention_bytes(run, of, layer)
            return None if content is None else Encoded(content, "application/octet-stream")

        return answer(request, tag("attention", run.run, of, layer), make, _FOR_TEN_MINUTES)

    @api.get("/runs/{run_id}/layers/{name}/{z}/{x}/{y}.png")
    def layer_tile(
        run_id: str,
        name: str,
        z: int,
        x: int,
        y: int,
        request: Request,
        theme: str = "light",
        level: int | None = None,
        of: str = "answer",
        layer: int = 0,
        scale: str = "",
        against: str = "",
        compared: str = "attention",
        link: str = "",
    ) -> Response:
        owner = _owner(request, atlas)
        run = atlas.run(run_id, owner, link)
        if not is_tile(z, x, y):
            raise Missing("there is no tile of these coordinates")
        look = Look(
            layer=parameters.layer_of(name),
            level=parameters.level_of(run, level),
            of=parameters.kind_of(of),
            depth=parameters.depth_of(layer),
            scale=parameters.scale_of(scale),
            against=atlas.run(against, owner, link) if against else None,
            compared=parameters.compared_of(compared),
        )
        shade = parameters.theme_of(theme)
        key = tag(layer_tag(run, look, shade), z, x, y)
        return answer(request, key, lambda: atlas.layer_tile(run, look, shade, z, x, y), _FOR_A_DAY)


def _owner(request: Request, atlas: Atlas) -> str | None:
    return owner_of(request.cookies, atlas.public)


_STRICT = "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
_NOTHING = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not found</title>'
    '<link rel="stylesheet" href="/keepmap/tokens.css"><link rel="stylesheet" href="/keepmap/maps.css"></head>'
    "<body><p>{}</p></body></html>"
)
