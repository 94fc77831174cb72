"""The public views. They only grow: names and columns keep their meaning across versions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, func, inspect, or_, select

from storage.schema import choices, failures, router, runs, spectra, sweep_runs, sweeps, turns

# fmt: off
RUN_COLUMNS = (
    "run", "request", "created_utc", "model", "model_family", "model_revision", "strategy", "strategy_name",
    "strategy_stage", "strategy_params_json", "budget_requested", "budget_realised", "tokens_total", "tokens_kept",
    "retention_ratio", "image", "image_name", "image_width", "image_height", "crs", "question", "question_family",
    "task", "answer", "answer_expected", "is_correct", "confidence", "choice_mass", "seed", "device", "dtype",
    "encode_seconds", "compress_seconds", "prefill_seconds", "decode_seconds", "prefill_flops", "kv_cache_bytes",
    "peak_memory_bytes", "evidence_recall", "labels_json", "keepmap_version", "code_commit", "tokens_encoded",
)
"""The columns of `v_runs` in order."""

TOKEN_COLUMNS = (
    "run", "token", "row", "col", "view", "left", "top", "right", "bottom", "fate", "target", "score", "attention",
)
"""The columns of `v_tokens` in order; see `storage.tokens.tokens_table`."""

TURN_COLUMNS = (
    "run", "turn", "left", "top", "right", "bottom", "confidence", "tokens_spent", "answer_before", "answer_after",
    "accepted", "reason",
)
"""The columns of `v_turns` in order."""

ROUTER_COLUMNS = ("run", "stage", "layer", "stream", "share", "lambda", "rho", "score", "threshold")
"""The columns of `v_router` in order."""

PID_COLUMNS = (
    "pid", "model", "strategy", "budget", "question_family", "task", "layer", "checkpoint", "n", "measure",
    "estimator", "intervention", "gate", "redundancy_bits", "unique_vision_bits", "unique_language_bits",
    "synergy_bits", "total_bits", "lower_bits", "upper_bits", "ci_low_json", "ci_high_json", "gated_fraction_json",
    "incoherence_bits", "seed", "request", "created_utc", "model_revision", "strategy_name", "selection", "samples",
    "retention_ratio", "accuracy", "accuracy_blind", "choice_mass", "labels_json",
)
"""The columns of `v_pid` in order."""
# fmt: on


def _in_state(*states: str) -> ColumnElement[int]:
    """How many of a sweep's requests ended so."""
    named = [sweep_runs.c.state == state for state in states]
    count = select(func.count()).where(sweep_runs.c.sweep == sweeps.c.id, or_(*named))
    return count.correlate(sweeps).scalar_subquery()


VIEWS: dict[str, Select[Any]] = {
    "v_runs": select(*[runs.c.id.label("run") if name == "run" else runs.c[name] for name in RUN_COLUMNS]),
    "v_choices": select(
        choices.c.run,
        choices.c.position.label("choice"),
        choices.c.text,
        choices.c.probability,
        choices.c.is_expected,
    ),
    "v_turns": select(*[turns.c[name] for name in TURN_COLUMNS]),
    "v_router": select(*[router.c[name] for name in ROUTER_COLUMNS]),
    "v_pid": select(*[spectra.c.id.label("pid") if name == "pid" else spectra.c[name] for name in PID_COLUMNS]),
    "v_failures": select(
        failures.c.id.label("failure"),
        failures.c.request_json,
        failures.c.stage,
        failures.c.reason,
        failures.c.created_utc,
    ),
    "v_sweeps": select(
        sweeps.c.id.label("sweep"),
        sweeps.c.name,
        sweeps.c.planned,
        _in_state("done").label("done"),
        _in_state("failed").label("failed"),
        sweeps.c.started_utc,
        sweeps.c.finished_utc,
        _in_state("unreachable", "refused").label("refused"),
    ),
}
"""Each view's name and what it selects. A run that is in `runs` is complete, so `v_runs` needs no condition."""


def create_views(connection: Connection) -> None:
    """Write the views anew, as this version defines them; those wait whose tables or columns come with a later step."""
    seen = inspect(connection)
    there = {table: {column["name"] for column in seen.get_columns(table)} for table in seen.get_table_names()}
    for name, query in VIEWS.items():
        connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
        tables = [table for table in query.get_final_froms() if isinstance(table, Table)]
        if all(there.get(table.name, set()) >= set(table.columns.keys()) for table in tables):
            text = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
            connection.exec_driver_sql(f"CREATE VIEW {name} AS {text}")
