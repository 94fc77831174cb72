"""What a sweep found: accuracy per family of questions, strategy and budget, as tidy rows and as a table to read."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from compression.intervals import wilson_interval
from compression.strategies import CATALOGUE
from dashboard.errors import InvalidSweep
from dashboard.report import plain_table
from storage import SweptRequest


@dataclass(frozen=True)
class SweptFigure:
    """How one strategy at one budget answered one family of questions; a row of the tidy table.

    A row is of one seed: the same question under several seeds is no further evidence, so rows are never pooled over
    them.

    Args:
        strategy: Canonical text without its budget; of a plan, without that of its last step.
        budget: As asked: a ratio with a decimal point, a count, or "" where the strategy chooses.
        family: Of the questions.
        n: Questions that were answered and whose answer is known.
        accuracy: Share answered right; None without a question.
        low, high: Wilson 95 % interval of the accuracy, None with it.
        retention_ratio: Mean of what the runs kept; None without a run.
        failed: Requests that were started and failed.
        unreachable: Requests whose budget cannot be met inside the model.
        refused: Requests that the model cannot be asked for another reason.
        lowest: The largest of the smallest reachable budgets of these images in visual tokens, where unreachable.
    """

    model: str
    strategy: str
    budget: str
    seed: int
    family: str
    n: int
    right: int
    accuracy: float | None
    low: float | None
    high: float | None
    retention_ratio: float | None
    failed: int
    unreachable: int
    refused: int
    lowest: int | None


def figures_of(requests: Sequence[SweptRequest]) -> list[SweptFigure]:
    """The tidy table of a sweep, by model, strategy, descending budget, seed and family."""
    groups: dict[tuple[str, str, str, int, str], list[SweptRequest]] = defaultdict(list)
    for one in requests:
        strategy, budget = without_budget(one.strategy)
        groups[one.model, strategy, budget, one.seed, one.family].append(one)
    return [_figure(*key, members) for key, members in sorted(groups.items(), key=lambda item: _order(*item[0]))]


def without_budget(strategy: str) -> tuple[str, str]:
    """A canonical text without the budget of its last step, and that budget, "" where there is none.

    >>> without_budget("visionzip@0.5+fastv@0.25")
    ('visionzip@0.5+fastv', '0.25')
    """
    *earlier, last = CATALOGUE.split(strategy)
    name, _, budget = last.partition("@")
    return "+".join([*earlier, name]), budget


def _order(model: str, strategy: str, budget: str, seed: int, family: str) -> tuple[Any, ...]:
    is_ratio = "." in budget
    # What keeps everything comes first, as the line that the others are read against.
    return model, strategy != "identity", strategy, not is_ratio, -float(budget or 0), seed, family


def _figure(
    model: str, strategy: str, budget: str, seed: int, family: str, members: Sequence[SweptRequest]
) -> SweptFigure:
    known = [one.is_correct for one in members if one.is_correct is not None]
    kept = [one.retention_ratio for one in members if one.retention_ratio is not None]
    low, high = wilson_interval(sum(known), len(known)) if known else (None, None)
    states = [one.state for one in members]
    return SweptFigure(
        model=model,
        strategy=strategy,
        budget=budget,
        seed=seed,
        family=family,
        n=len(known),
        right=sum(known),
        accuracy=sum(known) / len(known) if known else None,
        low=low,
        high=high,
        retention_ratio=sum(kept) / len(kept) if kept else None,
        failed=states.count("failed"),
        unreachable=states.count("unreachable"),
        refused=states.count("refused"),
        lowest=max((one.lowest for one in members if one.lowest is not None), default=None),
    )


def figures_json(figures: Sequence[SweptFigure]) -> list[dict[str, Any]]:
    """The tidy rows as plain values."""
    return [asdict(one) for one in figures]


def write_csv(figures: Sequence[SweptFigure], file: Path) -> None:
    """Write the tidy rows, whole or not at all; what is not known is empty.

    Raises:
        InvalidSweep: the file cannot be written.
    """
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, [one.name for one in fields(SweptFigure)], lineterminator="\n")
            writer.writeheader()
            writer.writerows(figures_json(figures))
        partial.replace(file)
    except OSError as error:
        raise InvalidSweep(
            f"{file} cannot be written: {error.strerror or error}; the sweep is stored, so ask again with --resume"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def sweep_report(figures: Sequence[SweptFigure]) -> str:
    """The table to read: a row per strategy and budget, a column per family of questions."""
    if not figures:
        return "No request has ended."
    families = list(dict.fromkeys(one.family for one in sorted(figures, key=lambda one: one.family)))
    several = {name: len({getattr(one, name) for one in figures}) > 1 for name in ("model", "seed")}
    rows: dict[tuple[str, str, str, int], dict[str, SweptFigure]] = defaultdict(dict)
    for one in figures:
        rows[one.model, one.strategy, one.budget, one.seed][one.family] = one
    shown = []
    for (model, strategy, budget, seed), found in rows.items():
        kept = [one.retention_ratio for one in found.values() if one.retention_ratio is not None]
        shown.append(
            {
                **({"model": model} if several["model"] else {}),
                "strategy": strategy,
                "budget": budget or "its own",
                **({"seed": str(seed)} if several["seed"] else {}),
                "kept": f"{min(kept):.3f}" if kept and f"{min(kept):.3f}" == f"{max(kept):.3f}" else _span(kept),
                **{family or "questions": _cell(found.get(family)) for family in families},
            }
        )
    asked = sorted({one.n for one in figures if one.n})
    counts = f"{asked[0]:,}" if len(asked) == 1 else f"{asked[0]:,} to {asked[-1]:,}" if asked else "no"
    return (
        plain_table(shown)
        + f"\nAccuracy with Wilson 95 % intervals; {counts} questions in a cell. Kept: mean over the layers, of all."
    )


def _span(kept: Sequence[float]) -> str:
    return f"{min(kept):.3f}-{max(kept):.3f}" if kept else "-"


def _cell(one: SweptFigure | None) -> str:
    if one is None:
        return "-"
    failed = f"{one.failed} failed" if one.failed else ""
    if one.accuracy is None:
        unreachable = "unreachable" if one.lowest is None else f"unreachable below {one.lowest:,}"
        return unreachable if one.unreachable else "not offered" if one.refused else failed or "-"
    said = f"{one.accuracy:.3f} ({one.low:.3f}-{one.high:.3f})"
    lacking = [failed, f"{one.unreachable} unreachable" if one.unreachable else ""]
    return ", ".join([said, *filter(None, lacking)])
