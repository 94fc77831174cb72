"""The page and its server: our routes and Gradio's page on one port."""

from __future__ import annotations

import os

# Before Gradio is imported: nothing is sent anywhere.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import asyncio
import re
import socket
import sys
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse, Response

from analysis.imagery import media_type, thumbnail
from compression.backends.device import choose_device
from dashboard import theme
from dashboard.context import Context
from dashboard.errors import InvalidSetting
from dashboard.jobs import Jobs
from dashboard.models import Models
from dashboard.pages.shown import load
from dashboard.pages.wiring import build_blocks
from dashboard.samples import Samples, add_bundles, add_information
from dashboard.server import build_api
from dashboard.settings import Settings
from dashboard.tables import csv_text
from storage import StorageError, Store, open_store

_DIGEST = re.compile(r"[0-9a-f]{64}")
_THUMBNAIL_PIXELS = 160


def build_app(settings: Settings, store: Store, models: Models | None = None, *, work: bool = True) -> FastAPI:
    """The whole application: maps, tiles and downloads, with the page mounted at "/".

    Args:
        settings: What the operator set.
        store: An open store.
        models: Gives the model; by default the settings' one, loaded in the background.
        work: Whether this process works on jobs; tests that look at the queue say no.
    """
    models = models or Models(settings.model, device=settings.device)
    folder = tempfile.TemporaryDirectory(prefix="keepmap-samples-")
    context = Context(settings, store, models, Jobs(store, models, settings), Samples(Path(folder.name)))
    app = build_api(store, settings)
    weakref.finalize(app, folder.cleanup)
    app.state.context = context
    _add_downloads(app, context)
    app.router.lifespan_context = _with_worker(app, context, work=work)
    return _inside_a_loop(lambda: _mounted(app, context))


def _mounted(app: FastAPI, context: Context) -> FastAPI:
    return gr.mount_gradio_app(
        app,
        build_blocks(context),
        path="/",
        theme=theme.theme(),
        css=theme.css(),
        head=theme.head(),
        footer_links=[],
        show_error=False,
        max_file_size=context.settings.upload_mb * 2**20,
        enable_monitoring=False,
        ssr_mode=False,
        mcp_server=False,
        favicon_path=str(theme.ASSETS / "favicon.svg"),
    )


def _inside_a_loop(make: Callable[[], FastAPI]) -> FastAPI:
    """Gradio makes locks while a page is put together, and without a running loop a new loop for each, never closed."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:

        async def made() -> FastAPI:
            return make()

        return asyncio.run(made())
    return make()


def serve(settings: Settings) -> None:
    """Open the store and answer until stopped.

    Raises:
        StorageError: the store cannot be opened.
        InvalidSetting: the address cannot be listened on.
        DeviceUnavailable: this machine does not have the device.
    """
    import uvicorn

    _check_address(settings)
    choose_device(settings.device)
    with open_store(settings.db, assets=settings.assets_path) as store:
        add_bundles(store)
        add_information(store)
        if not store.is_read_only:
            store.release_images()
        app = build_app(settings, store)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        sys.stdout.write(f"Keepmap: http://{shown}:{settings.port}/  store: {settings.store_name}  Ctrl+C stops it\n")
        sys.stdout.flush()
        uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning", timeout_graceful_shutdown=3)


def _check_address(settings: Settings) -> None:
    """Refuse an address in words before anything is opened."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((settings.host, settings.port))
        except OSError as error:
            raise InvalidSetting(
                f"{settings.host}:{settings.port} cannot be listened on ({error.strerror or error}); "
                "choose another with --port, or stop what uses it"
            ) from error


def _with_worker(app: FastAPI, context: Context, *, work: bool) -> Any:
    """The worker lives as long as the server does."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running: FastAPI) -> AsyncIterator[Any]:
        if work:
            context.models.warm()
            context.jobs.start()
        try:
            async with inner(running) as state:
                yield state
        finally:
            if work:
                context.jobs.stop()

    return lifespan


def _add_downloads(app: FastAPI, context: Context) -> None:
    """Small files that the page asks for: thumbnails of the rail, and the numbers as CSV."""
    kept = {"Cache-Control": "private, max-age=86400", "X-Content-Type-Options": "nosniff"}

    @app.get("/samples/{index}.png")
    def sample(index: int) -> Response:
        if not 0 <= index < len(context.samples):
            return PlainTextResponse("There is no such sample.", 404)
        return Response(context.samples[index].thumbnail_png, media_type="image/png", headers=kept)

    @app.get("/uploads/{digest}.png")
    def upload(digest: str) -> Response:
        try:
            path = context.store.image_path(digest if _DIGEST.fullmatch(digest) else "")
        except StorageError:
            return PlainTextResponse("There is no such image.", 404)
        content = thumbnail(path, _THUMBNAIL_PIXELS)
        return Response(content, media_type=media_type(content), headers=kept)

    @app.get("/comparisons/{comparison_id}/numbers.csv")
    def numbers(comparison_id: str, request: Request) -> Response:
        shown = load(context, comparison_id)
        name = f'attachment; filename="keepmap-{shown.comparison.id[:8]}.csv"'
        return Response(
            csv_text(shown.rows),
            media_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": name,
                "Cache-Control": "private, no-cache",
                "X-Content-Type-Options": "nosniff",
            },
        )
