"""Who asks: with many visitors (`public`), a random cookie per browser, which is also the owner of what it stores."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from storage import NotFound

COOKIE = "keepmap_visitor"
_ID = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether a text has the form of our ids: 128 bits in lower-case hex."""
    return _ID.fullmatch(text) is not None


def read_id(text: str, missing: type[NotFound]) -> str:
    """An id from a link, as the store may be asked for it.

    Raises:
        NotFound: `missing`, the text has not the form of an id.
    """
    if not is_id(text):
        raise missing(f"{text[:40]!r} is no id, which has 32 digits and letters from a to f; copy the whole link")
    return text


def owner_of(cookies: Mapping[str, str], public: bool) -> str | None:
    """The owner whose rows a request may see, or None where there is no restriction.

    A visitor without a valid cookie gets a fresh id that owns nothing: never the empty owner of local use.
    """
    if not public:
        return None
    known = cookies.get(COOKIE, "")
    return known if is_id(known) else new_visitor()


def new_visitor() -> str:
    """A random id for a browser that has none."""
    return secrets.token_hex(16)


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
            try:
                found = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            except CookieError:
                continue
            if found is not None:
                return found.value
    return ""
