"""Between runs and rows: what the tables hold of a run, and how it comes back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, Select

from analysis.run import Run
from compression.compressor import split_strategy
from compression.errors import CompressionError
from compression.strategies import CATALOGUE
from storage.errors import NotStorable, StoreCorrupt
from storage.records import RunSummary

THRESHOLDS = {"semantic": "tau"}
"""The threshold that applies to a route, where the router names it otherwise: tau joins tokens to clusters."""

MOST = 2**31 - 1
"""The highest limit and offset of a list: databases refuse more."""

SUMMARY_FIELDS = tuple(field.name for field in fields(RunSummary))


def json_text(value: object) -> str:
    """Plain values as ASCII JSON; NumPy's numbers become Python's.

    Raises:
        NotStorable: something in it is not a plain value.
    """
    try:
        return json.dumps(value, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotStorable(
            f"only plain values can be stored: {error}; use numbers, text, lists and dictionaries"
        ) from error


def request_text(value: Mapping[str, Any]) -> str:
    """What was asked as JSON that any reader takes: not-a-number becomes null.

    Raises:
        NotStorable: something in it is not a plain value.
    """
    return json_text(_without_nan(json.loads(json_text(dict(value)))))


def page(query: Select[Any], limit: int, offset: int) -> Select[Any]:
    """The part of a list that a page shows, whatever numbers an address named."""
    return query.limit(min(max(limit, 0), MOST)).offset(min(max(offset, 0), MOST))


def strategy_facts(text: str) -> tuple[str | None, dict[str, Any]]:
    """Stage and all parameters of a strategy text; the stage is None where the strategy is not known here.

    The stages of a plan of several steps are joined by "+", each once; its parameters are a list `steps` of name,
    budget and parameters.
    """
    try:
        plan = CATALOGUE.plan(text)
        if len(plan.steps) == 1:
            return plan.stage, dict(plan.steps[0].compressor.parameters)
        steps = [
            {
                "strategy": step.compressor.info.name,
                "budget": str(step.budget),
                "parameters": dict(step.compressor.parameters),
            }
            for step in plan.steps
        ]
        return plan.stage, {"steps": steps}
    except CompressionError:
        pass
    try:
        return None, dict(split_strategy(text)[1])
    except CompressionError:
        return None, {}


def summarise(run: Run, owner: str = "", is_sample: bool = False) -> RunSummary:
    """The summary of a run: what `v_runs` will say about it."""
    request, answer, cost = run.request, run.answer, run.cost
    stage, parameters = strategy_facts(request.strategy)
    return RunSummary(
        run=run.id,
        request=request.digest,
        created_utc=run.created_utc,
        model=request.model.name,
        model_family=request.model.family,
        model_revision=request.model.revision,
        strategy=request.strategy,
        strategy_name=run.strategy_name,
        strategy_stage=stage,
        strategy_params_json=json_text(parameters),
        budget_requested=run.tokens_requested,
        budget_realised=float(run.tokens_realised),
        tokens_total=run.tokens_total,
        tokens_kept=run.tokens_kept,
        retention_ratio=float(run.retention_ratio),
        image=request.image.digest,
        image_name=request.image.name,
        image_width=request.image.width,
        image_height=request.image.height,
        crs=request.image.crs,
        question=request.question,
        question_family=run.family,
        task=run.task,
        answer=answer.text,
        answer_expected=answer.expected,
        is_correct=answer.is_correct,
        confidence=_known(answer.confidence),
        choice_mass=_known(answer.choice_mass),
        seed=request.seed,
        device=cost.device,
        dtype=cost.dtype,
        encode_seconds=cost.encode.median if cost.encode else None,
        compress_seconds=cost.compress.median if cost.compress else None,
        prefill_seconds=cost.prefill.median,
        decode_seconds=cost.decode.median if cost.decode else None,
        prefill_flops=int(cost.prefill_flops),
        kv_cache_bytes=int(cost.kv_cache_bytes),
        peak_memory_bytes=cost.peak_memory_bytes,
        evidence_recall=None if run.evidence_recall is None else _known(run.evidence_recall),
        labels_json=json_text(list(run.labels)),
        keepmap_version=run.environment.get("keepmap", ""),
        code_commit=run.environment.get("commit", ""),
        tokens_encoded=run.tokens_encoded,
        comparison=run.comparison,
        owner=owner,
        is_sample=is_sample,
    )


def run_row(summary: RunSummary) -> dict[str, Any]:
    """The row of the table `runs`."""
    row = {name: getattr(summary, name) for name in SUMMARY_FIELDS}
    row["id"] = row.pop("run")
    return row


def summary_of(row: Row[Any]) -> RunSummary:
    """The summary that a row of `runs`, selected by `SUMMARY_FIELDS`, holds."""
    return RunSummary(**dict(zip(SUMMARY_FIELDS, row, strict=True)))


def choice_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of the table `choices`."""
    expected = run.answer.expected
    return [
        {
            "run": run.id,
            "position": position,
            "text": text,
            "probability": _known(probability),
            "is_expected": None if expected is None else text.strip().lower() == expected.strip().lower(),
        }
        for position, (text, probability) in enumerate(zip(run.answer.choices, run.answer.probabilities, strict=True))
    ]


def turn_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of the table `turns`: none of a strategy that does not look in turns."""
    return [
        {
            "run": run.id,
            "turn": turn.number,
            **dict(zip(("left", "top", "right", "bottom"), turn.box, strict=True)),
            "confidence": None if turn.confidence is None else _known(turn.confidence),
            "tokens_spent": turn.tokens,
            "answer_before": turn.before,
            "answer_after": turn.after,
            "accepted": turn.is_accepted,
            "reason": turn.reason,
        }
        for turn in run.turns
    ]


def router_rows(run: Run) -> list[dict[str, Any]]:
    """The rows of the table `router`: one per stream of the decision, none where there was no router."""
    decision = run.selection.router
    if decision is None:
        return []
    stage, _ = strategy_facts(run.request.strategy)
    if stage is not None:
        stage = stage.partition("+")[0]  # a router chooses where a plan begins
    return [
        {
            "run": run.id,
            "position": position,
            "stage": stage,
            "layer": None,
            "stream": stream,
            "share": share,
            "lambda": decision.lam,
            "rho": decision.rho,
            "score": decision.margins.get(stream, decision.margins.get("lambda")),
            "threshold": decision.thresholds.get(stream, decision.thresholds.get(THRESHOLDS.get(stream, ""))),
        }
        for position, (stream, share) in enumerate(decision.shares.items())
    ]


def rebuilt(run_id: str, record_json: str, arrays: Mapping[str, NDArray[Any]]) -> Run:
    """The run that a record and its arrays describe.

    Raises:
        StoreCorrupt: they do not describe one.
    """
    try:
        return Run.from_json(json.loads(record_json), arrays)
    except (KeyError, TypeError, ValueError, IndexError, CompressionError) as error:
        raise StoreCorrupt(
            f"the stored run {run_id} cannot be read ({error!r}); delete it, or restore the store from a backup"
        ) from error


def _known(value: float) -> float | None:
    """SQL has no NaN: not known is NULL."""
    return float(value) if math.isfinite(value) else None


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a value of type {type(value).__name__}")
