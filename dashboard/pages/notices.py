"""Banners: what went wrong, what is allowed, and the one button that mends it."""

from __future__ import annotations

from markupsafe import Markup

from dashboard.markup import notice
from dashboard.messages import Message


def error_notice(message: Message) -> Markup:
    """An error in the calm form."""
    return notice(message.title, message.text, error=True)


def upload_notice(message: Message) -> Markup:
    """A file that cannot be used; what is on screen stays."""
    again = Markup('<button type="button" class="secondary" data-km="upload">Choose another file</button>')
    return notice(message.title, f"{message.text} What is shown below is from before.", error=True, action=again)


def plain_notice(title: str, text: str) -> Markup:
    """Something worth knowing that is no error."""
    return notice(title, text)
