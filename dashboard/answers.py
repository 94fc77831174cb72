"""How the map routes answer: headers, ETags, and one sentence for everything that cannot be answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response

from analysis.errors import AnalysisError
from dashboard.messages import explain, sentence
from storage import NotFound, StorageError


class Missing(Exception):
    """Something asked for does not exist; the text is for the visitor."""


class Refused(Exception):
    """A parameter cannot be used; the text says what is allowed."""


@dataclass(frozen=True)
class Encoded:
    """Bytes of a known type."""

    content: bytes
    media: str

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""
        return len(self.content)


def headers(cache: str) -> dict[str, str]:
    """The headers of every answer: how long the visitor's own browser may keep it, and how it may be used."""
    return {
        "Cache-Control": cache if cache == "no-store" else f"private, {cache}",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "same-origin",
    }


def answer(request: Request, key: str, make: Callable[[], Encoded | None], cache: str) -> Response:
    """What `make` gives under its ETag; nothing but the headers if the browser has it already.

    Raises:
        Missing: `make` gave None.
    """
    sent = {**headers(cache), "ETag": f'"{key}"'}
    known = {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}
    if sent["ETag"] in known:
        return Response(status_code=304, headers=sent)
    made = make()
    if made is None:
        raise Missing("there is nothing at this address")
    return Response(made.content, media_type=made.media, headers=sent)


def json_bytes(value: object) -> bytes:
    """Compact JSON without NaN; `<` is written as an escape, so that it is harmless even where it is taken for HTML."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").encode()


def failed(status: int, text: str) -> JSONResponse:
    """One sentence in place of an answer."""
    return JSONResponse({"error": sentence(text)}, status, headers("no-store"))


def add_errors(api: FastAPI) -> None:
    """Answer every kind of error with its status and one sentence; unknown ones say nothing of their inside."""

    @api.exception_handler(Missing)
    def missing(request: Request, error: Missing) -> JSONResponse:
        return failed(404, str(error))

    @api.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> JSONResponse:
        return failed(422, str(error))

    @api.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        names = sorted({str(one["loc"][-1]) for one in error.errors()})
        is_path = all(one["loc"][0] == "path" for one in error.errors())
        return failed(404 if is_path else 422, f"{', '.join(names)} must be a whole number")

    @api.exception_handler(StorageError)
    def storage(request: Request, error: StorageError) -> JSONResponse:
        return failed(404 if isinstance(error, NotFound) else 503, str(explain(error)))

    @api.exception_handler(AnalysisError)
    def analysis(request: Request, error: AnalysisError) -> JSONResponse:
        return failed(404, str(explain(error)))

    @api.exception_handler(Exception)
    def unknown(request: Request, error: Exception) -> JSONResponse:
        return failed(500, str(explain(error)))
