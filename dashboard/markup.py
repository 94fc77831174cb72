"""Escaped HTML: small pieces that the pages are made of. Text from outside only ever enters through `format`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from markupsafe import Markup

LETTERS = "ABCD"
EMPTY = Markup("")

RIGHT = Markup(
    '<svg width="15" height="15" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="7" '
    'fill="currentColor"/>'
    '<path d="m4.8 8.3 2.2 2.2 4.2-4.6" fill="none" stroke="var(--km-paper)" stroke-width="1.7" stroke-linecap="round" '
    'stroke-linejoin="round"/></svg>'
)
WRONG = Markup(
    '<svg width="15" height="15" viewBox="0 0 16 16" aria-hidden="true"><rect x="1.2" y="1.2" width="13.6" '
    'height="13.6" '
    'rx="2.5" fill="none" stroke="currentColor" stroke-width="1.6"/><path d="m5.2 5.2 5.6 5.6m0-5.6-5.6 5.6" '
    'stroke="currentColor" stroke-width="1.7" stroke-linecap="round"/></svg>'
)
WARNING = Markup(
    '<svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true"><path d="M8 1.8 15 14H1z" fill="none" '
    'stroke="currentColor" stroke-width="1.4" stroke-linejoin="round"/><path d="M8 6.2v3.6M8 11.6v.6" '
    'stroke="currentColor" stroke-width="1.5" stroke-linecap="round"/></svg>'
)
LOGO = Markup(
    '<svg width="24" height="24" viewBox="0 0 24 24" aria-hidden="true"><g fill="none" stroke="currentColor" '
    'stroke-width="1.4"><rect x="2.7" y="2.7" width="18.6" height="18.6" rx="2.4"/><path d="M9 3v18M15 3v18M3 9h18M3 '
    '15h18" '
    'stroke-width="1" opacity=".45"/></g><rect x="9" y="3.4" width="6" height="5.6" fill="var(--km-accent)"/>'
    '<rect x="9" y="9" width="6" height="6" fill="currentColor"/><rect x="3.4" y="15" width="5.6" height="5.6" '
    'fill="currentColor"/><path d="M15.2 13.2l4.2-4M15.2 15l5.6-5.4M17.4 15l3.4-3.4" stroke="currentColor" '
    'stroke-width="1"/></svg>'
)
HALF_MOON = Markup(
    '<svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true"><circle cx="8" cy="8" r="5.6" fill="none" '
    'stroke="currentColor" stroke-width="1.4"/><path d="M8 2.4a5.6 5.6 0 0 1 0 11.2z" fill="currentColor"/></svg>'
)


TASK_WORDS = {
    "dir": "direction",
    "surround": "surroundings",
    "dominant": "largest cover",
    "region": "most buildings",
    "side": "side of the river",
}


def task_words(task: str) -> str:
    """A task as people call it."""
    return TASK_WORDS.get(task, task)


def join(parts: Iterable[Markup]) -> Markup:
    """The pieces one after the other."""
    return EMPTY.join(parts)


def key(position: int) -> Markup:
    """The letter that binds map, result, mark, row and rail."""
    return Markup('<span class="key">{}</span>').format(LETTERS[position])


def verdict(is_correct: bool | None, *, capital: bool = True) -> Markup:
    """Right or wrong as shape, word and colour; nothing where it is not known."""
    if is_correct is None:
        return EMPTY
    word = "right" if is_correct else "wrong"
    return Markup('<span class="verdict {}">{}{}</span>').format(
        "ok" if is_correct else "no", RIGHT if is_correct else WRONG, word.capitalize() if capital else word
    )


def button(text: str, act: str, *, quiet: bool = False, label: str = "", **data: str | int) -> Markup:
    """A button whose press is sent to Python as `act` with the data given."""
    extra = join(Markup(' data-{}="{}"').format(name, value) for name, value in data.items())
    return Markup('<button type="button" class="{}" data-act="{}"{}{}>{}</button>').format(
        "quiet" if quiet else "secondary", act, extra, Markup(' aria-label="{}"').format(label) if label else "", text
    )


def notice(title: str, text: str, *, error: bool = False, action: Markup = EMPTY) -> Markup:
    """A calm banner: what happened in bold, then the rest, then the one button that mends it."""
    return Markup('<div class="notice {}" role="{}">{}<div><b>{}</b> {}</div>{}</div>').format(
        "err" if error else "plain",
        "alert" if error else "status",
        WARNING if error else "",
        title,
        text,
        Markup('<div class="acts">{}</div>').format(action) if action else "",
    )


def count(value: float) -> str:
    """A number of things, with thousands separated; a mean with one decimal where it is not whole."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def answer_of(text: str) -> Markup:
    """An answer in a table: two lines of a free one, the whole as its title."""
    return Markup('<span class="answer" title="{}">{}</span>').format(text, text)


def percent(share: float, digits: int = 1) -> str:
    """A share in per cent, "none" where it is not known."""
    return "none" if math.isnan(share) else f"{share * 100:.{digits}f} %"


def milliseconds(seconds: float) -> str:
    """Seconds as milliseconds, with one decimal below 100."""
    value = seconds * 1e3
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def flops(value: int) -> str:
    """Floating-point operations in the unit that reads best."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:,}"


def size_of(value: float) -> str:
    """Bytes in the unit that reads best, binary prefixes."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size * (10 if unit == "MiB" else 1):
            number = value / size
            return f"{number:,.0f} {unit}" if number >= 100 else f"{number:,.1f} {unit}"
    return f"{value:,.0f} B"
