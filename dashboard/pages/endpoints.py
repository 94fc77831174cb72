"""What a program may ask the server by name; plain values, read only."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from compression.strategies import CATALOGUE
from dashboard.context import Context
from dashboard.messages import explain
from dashboard.pages.shown import load
from dashboard.tables import values_by_column
from storage import NotFound


def strategies() -> list[dict[str, Any]]:
    """The strategies of this server, from their own declarations."""
    return [
        {
            "name": kind.info.name,
            "title": kind.info.title,
            "stage": kind.info.stage.value,
            "reduces": kind.info.reduces,
            "needs": sorted(signal.value for signal in kind.info.needs),
            "labels": list(kind.info.labels),
            "paper": kind.info.paper,
        }
        for kind in CATALOGUE
    ]


def comparison(context: Context, comparison_id: str) -> dict[str, Any]:
    """A stored comparison: its image, its question, and per pane the state and the numbers of the table.

    Raises:
        gr.Error: there is none, in one sentence.
    """
    try:
        shown = load(context, str(comparison_id))
    except NotFound as error:
        raise gr.Error(str(explain(error)), print_exception=False) from error
    numbers = {row.position: values_by_column(row) for row in shown.rows}
    asked = shown.comparison
    return {
        "comparison": asked.id,
        "created_utc": asked.created_utc,
        "image": asdict(asked.image),
        "question": asked.question,
        "choices": list(asked.choices),
        "expected": asked.expected,
        "panes": [
            {"strategy": pane.strategy, "state": pane.state, "reason": pane.reason, "numbers": numbers.get(position)}
            for position, pane in enumerate(shown.panes)
        ],
    }
