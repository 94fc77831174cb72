"""Who asks: with many visitors (`public`), a random cookie per browser, which is also the owner of what it stores."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

COOKIE = "keepmap_visitor"
_ID = re.compile(r"[0-9a-f]{32}")


def is_id(text: str) -> bool:
    """Whether a text has the form of our ids: 128 bits in lower-case hex."""
    return _ID.fullmatch(text) is not None


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
