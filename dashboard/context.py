"""What every page is handed: the settings, the store, the models, the queue and the samples of this server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import gradio as gr

from dashboard.jobs import Jobs
from dashboard.models import Models
from dashboard.samples import Samples
from dashboard.settings import Settings
from dashboard.visitors import owner_of
from storage import Store


@dataclass(frozen=True)
class Context:
    """The parts that pages use; nothing of it belongs to one visitor."""

    settings: Settings
    store: Store
    models: Models
    jobs: Jobs
    samples: Samples

    def owner(self, request: gr.Request | None) -> str | None:
        """Whose rows a request may see: None for all of them (local use)."""
        cookies: Mapping[str, str] = dict(request.cookies) if request is not None else {}
        return owner_of(cookies, self.settings.public)
