"""The map routes: pages, tiles, token facts and our own assets, on the port that Gradio shares.

Ids and tile coordinates come from strangers: each is checked here, and what does not exist is 404 with one sentence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from markupsafe import Markup
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from analysis.errors import AnalysisError
from dashboard.atlas import IMAGE_VERSION, Atlas, Encoded, layer_tag, tag
from dashboard.layers import Look, layer_names
from dashboard.maps import maps_page
from dashboard.messages import explain, sentence
from dashboard.opened import Opened
from dashboard.palette import Theme
from dashboard.panes import comparison_json
from dashboard.tiles import is_tile
from dashboard.visitors import COOKIE, is_id, new_visitor, owner_of
from dashboard.wire import attention_bytes, facts_json, tokens_in, tokens_json
from storage import NotFound, Store, StorageError

ASSETS = Path(__file__).parent / "assets"
MOST_FACTS = 1000
_TILE_SECONDS = 86_400
_FACT_SECONDS = 600


class Access(Protocol):
    """What of the settings the routes ask for."""

    @property
    def public(self) -> bool:
        """Whether every row has an owner who alone sees it."""


class Missing(Exception):
    """Something asked for does not exist; the sentence is for the visitor."""


class Refused(Exception):
    """A parameter cannot be used; the sentence says what is allowed."""


def build_api(store: Store, settings: Access) -> FastAPI:
    """The application with all map routes; the page itself is mounted on it at "/" by `dashboard.app`."""
    api = FastAPI(title="Keepmap", docs_url=None, redoc_url=None, openapi_url=None)
    api.state.atlas = Atlas(store, settings.public)
    if settings.public:
        api.add_middleware(VisitorCookie)
    api.mount("/vendor", Assets(directory=ASSETS / "vendor"), name="vendor")
    api.mount("/keepmap", Assets(directory=ASSETS / "keepmap"), name="keepmap")
    _add_errors(api)
    _add_pages(api)
    _add_images(api)
    _add_runs(api)
    return api


class Assets(StaticFiles):
    """Our own files: read as the type they say, and asked for again when they have changed."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file with the headers of all our answers."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(_headers("no-cache"))
        return response


class VisitorCookie:
    """Gives every browser without one a random cookie: the owner of what it will store."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a valid cookie, and hand a new one to the browser."""
        if scope["type"] not in ("http", "websocket") or is_id(_cookie(scope)):
            await self.app(scope, receive, send)
            return
        visitor = new_visitor()
        headers = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
        others = [value for name, value in scope["headers"] if name == b"cookie"]
        joined = b"; ".join([*others, f"{COOKIE}={visitor}".encode()])
        scope = {**scope, "headers": [*headers, (b"cookie", joined)]}
        is_secure = scope.get("scheme") in ("https", "wss")

        async def hand_out(message: Message) -> None:
            if message["type"] == "http.response.start":
                secure = "; Secure" if is_secure else ""
                MutableHeaders(scope=message).append(
                    "set-cookie", f"{COOKIE}={visitor}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax{secure}"
                )
            await send(message)

        await self.app(scope, receive, hand_out)


def _cookie(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"cookie":
            found = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            if found is not None:
                return found.value
    return ""


# ---------------------------------------------------------------------- pages
def _add_pages(api: FastAPI) -> None:
    atlas: Atlas = api.state.atlas

    @api.get("/health")
    def health() -> JSONResponse:
        try:
            atlas.store.count_comparisons()
        except StorageError:
            return JSONResponse({"status": "unavailable", "store": "unavailable"}, 503, _headers("no-store"))
        return JSONResponse({"status": "ok", "store": "ok"}, 200, _headers("no-store"))

    @api.get("/maps/{comparison_id}")
    def page(comparison_id: str) -> Response:
        try:
            comparison = atlas.comparison(comparison_id)
        except NotFound as error:
            return HTMLResponse(_NOTHING.format(sentence(str(error))), 404, _page_headers())
        made = maps_page(comparison, atlas.placement(comparison.image), atlas.job(comparison))
        return HTMLResponse(made.html, 200, {**_headers("no-cache"), "Content-Security-Policy": made.policy})

    @api.get("/maps/{comparison_id}/panes.json")
    def panes(comparison_id: str, request: Request) -> Response:
        comparison = atlas.comparison(comparison_id)
        value = comparison_json(comparison, atlas.panes(comparison), atlas.placement(comparison.image), atlas.job(comparison))
        content = _json(value)
        return _answer(request, tag(content), lambda: Encoded(content, "application/json"), "no-cache")


# ---------------------------------------------------------------------- images
def _add_images(api: FastAPI) -> None:
    atlas: Atlas = api.state.atlas

    @api.get("/comparisons/{comparison_id}/thumbnail.png")
    def thumbnail(comparison_id: str, request: Request) -> Response:
        image = atlas.comparison(comparison_id).image
        return _answer(request, tag("thumbnail", image.digest, IMAGE_VERSION), lambda: atlas.thumbnail(image), _kept(_TILE_SECONDS))

    @api.get("/comparisons/{comparison_id}/image/{z}/{x}/{y}.png")
    def comparison_tile(comparison_id: str, z: int, x: int, y: int, request: Request) -> Response:
        image = atlas.comparison(comparison_id).image
        key = tag("image", image.digest, IMAGE_VERSION, z, x, y)
        return _answer(request, key, lambda: atlas.image_tile(image, z, x, y), _kept(_TILE_SECONDS))

    @api.get("/runs/{run_id}/image/{z}/{x}/{y}.png")
    def run_tile(run_id: str, z: int, x: int, y: int, request: Request, link: str = "") -> Response:
        image = atlas.run(run_id, _owner(request, atlas), link).image
        key = tag("image", image.digest, IMAGE_VERSION, z, x, y)
        return _answer(request, key, lambda: atlas.image_tile(image, z, x, y), _kept(_TILE_SECONDS))


# ---------------------------------------------------------------------- runs
def _add_runs(api: FastAPI) -> None:
    atlas: Atlas = api.state.atlas

    @api.get("/runs/{run_id}/tokens.json")
    def all_tokens(run_id: str, request: Request, link: str = "") -> Response:
        run = atlas.run(run_id, _owner(request, atlas), link)
        if run.is_large:
            raise Missing(
                f"this run has {len(run):,} visual tokens; ask for a part of them at /runs/{run_id}/tokens?bbox=left,top,right,bottom"
            )
        return _answer(request, tag("tokens", run.run, 1), lambda: Encoded(_json(tokens_json(run)), "application/json"), _kept(_FACT_SECONDS))

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
        chosen = run.levels[_index(level, len(run.levels), run.level, "level")]
        if not 1 <= limit <= MOST_FACTS:
            raise Refused(f"limit must be 1 to {MOST_FACTS}, got {limit}")
        if token is not None:
            if not 0 <= token < len(run):
                raise Missing(f"this run has the visual tokens 0 to {len(run) - 1:,}")
            found = np.array([token])
        else:
            found = tokens_in(chosen, _box(bbox, run))
        facts = facts_json(run, found[:limit], atlas.placement(run.image), _kind(of), layer)
        value = {"run": run.run, "found": len(found), "has_scores": run.scores is not None, "tokens": facts}
        content = _json(value)
        return _answer(request, tag(content), lambda: Encoded(content, "application/json"), _kept(_FACT_SECONDS))

    @api.get("/runs/{run_id}/attention/{of}/{layer}")
    def attention(run_id: str, of: str, layer: int, request: Request, link: str = "") -> Response:
        run = atlas.run(run_id, _owner(request, atlas), link)

        def make() -> Encoded | None:
            content = attention_bytes(run, of, layer)
            return None if content is None else Encoded(content, "application/octet-stream")

        return _answer(request, tag("attention", run.run, of, layer), make, _kept(_FACT_SECONDS))

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
        if name not in layer_names():
            raise Missing(f"there is no layer of that name; there are: {', '.join(layer_names())}")
        if not is_tile(z, x, y):
            raise Missing("there is no tile of these coordinates")
        if compared not in ("attention", "retention"):
            raise Refused("compared must be attention or retention")
        look = Look(
            layer=name,
            level=_index(level, len(run.levels), run.level, "level"),
            of=_kind(of),
            depth=_depth(layer),
            scale=_scale(scale),
            against=atlas.run(against, owner, link) if against else None,
            compared=compared,
        )
        shade = _theme(theme)
        key = tag(layer_tag(run, look, shade), z, x, y)
        return _answer(request, key, lambda: atlas.layer_tile(run, look, shade, z, x, y), _kept(_TILE_SECONDS))


# ---------------------------------------------------------------------- parameters
def _owner(request: Request, atlas: Atlas) -> str | None:
    return owner_of(request.cookies, atlas.public)


def _index(value: int | None, count: int, default: int, name: str) -> int:
    if value is None:
        return default
    if not 0 <= value < count:
        raise Missing(f"this run has {count} {name}{'' if count == 1 else 's'}, counted from 0")
    return value


def _depth(value: int) -> int:
    if not 0 <= value < 1000:
        raise Missing("layers are counted from 0 to 999")
    return value


def _kind(text: str) -> Any:
    if text not in ("answer", "question"):
        raise Refused("of must be answer or question")
    return text


def _theme(text: str) -> Theme:
    for theme in get_args(Theme):
        if text == theme:
            return theme  # type: ignore[no-any-return]
    raise Refused("theme must be light or dark")


def _numbers(text: str, count: int, name: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise Refused(f"{name} must be {count} numbers with commas between them")
    return values


def _scale(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    low, high = _numbers(text, 2, "scale")
    return low, high


def _box(text: str, run: Opened) -> tuple[float, float, float, float]:
    """The box asked for, cut to the image: a huge one must not cost more than the whole."""
    left, top, right, bottom = _numbers(text, 4, "bbox")
    if left > right or top > bottom:
        raise Refused("bbox must be left,top,right,bottom in pixels of the image with left <= right and top <= bottom")
    width, height = run.image.width, run.image.height
    return (
        min(max(left, -width), 2 * width),
        min(max(top, -height), 2 * height),
        min(max(right, -width), 2 * width),
        min(max(bottom, -height), 2 * height),
    )


# ---------------------------------------------------------------------- answers
def _headers(cache: str) -> dict[str, str]:
    return {
        "Cache-Control": cache if cache in ("no-store",) else f"private, {cache}",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "same-origin",
    }


def _page_headers() -> dict[str, str]:
    return {**_headers("no-store"), "Content-Security-Policy": "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'"}


def _kept(seconds: int) -> str:
    return f"max-age={seconds}"


def _answer(request: Request, key: str, make: Callable[[], Encoded | None], cache: str) -> Response:
    """What `make` gives under its ETag; nothing but the headers if the browser has it already."""
    headers = {**_headers(cache), "ETag": f'"{key}"'}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if headers["ETag"] in known:
        return Response(status_code=304, headers=headers)
    made = make()
    if made is None:
        raise Missing("there is nothing at this address")
    return Response(made.content, media_type=made.media, headers=headers)


def _json(value: object) -> bytes:
    # `<` is written as an escape, so that the text is harmless even where it is taken for HTML.
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").encode()


def _add_errors(api: FastAPI) -> None:
    def failed(status: int, text: str) -> JSONResponse:
        return JSONResponse({"error": sentence(text)}, status, _headers("no-store"))

    @api.exception_handler(Missing)
    def missing(request: Request, error: Missing) -> JSONResponse:
        return failed(404, str(error))

    @api.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> JSONResponse:
        return failed(422, str(error))

    @api.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        names = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return failed(404 if all(one["loc"][0] == "path" for one in error.errors()) else 422, f"{names} must be a whole number")

    @api.exception_handler(StorageError)
    def storage(request: Request, error: StorageError) -> JSONResponse:
        message = explain(error)
        return failed(404 if isinstance(error, NotFound) else 503, f"{message.title} {message.text}")

    @api.exception_handler(AnalysisError)
    def analysis(request: Request, error: AnalysisError) -> JSONResponse:
        message = explain(error)
        return failed(404, f"{message.title} {message.text}")

    @api.exception_handler(Exception)
    def unknown(request: Request, error: Exception) -> JSONResponse:
        message = explain(error)
        return failed(500, f"{message.title} {message.text}")


_NOTHING = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Not found</title>'
    '<link rel="stylesheet" href="/keepmap/tokens.css"><link rel="stylesheet" href="/keepmap/maps.css"></head>'
    "<body><p>{}</p></body></html>"
)
