"""The tidy table behind the page: one row per run for people, CSV and charts alike."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from compression.sight import Turn
from dashboard.facts import RunFacts
from dashboard.markup import EMPTY, LETTERS, answer_of, join, key, verdict

COLUMNS = (
    "letter",
    "run",
    "created_utc",
    "strategy",
    "model",
    "model_revision",
    "seed",
    "answer",
    "answer_expected",
    "is_correct",
    "expected_probability",
    "choice_mass",
    "tokens_total",
    "budget_requested",
    "budget_realised",
    "tokens_kept",
    "patches_kept",
    "patches_merged",
    "patches_dropped",
    "evidence_recall",
    "encode_seconds",
    "compress_seconds",
    "prefill_seconds",
    "decode_seconds",
    "total_seconds",
    "prefill_flops",
    "kv_cache_bytes",
    "peak_memory_bytes",
    "device",
    "dtype",
    "threads",
    "repeats",
)


@dataclass(frozen=True)
class Numbered:
    """A run's numbers with the pane they belong to."""

    position: int
    title: str
    facts: RunFacts


def csv_text(rows: Sequence[Numbered]) -> str:
    """The numbers as CSV, full precision; a text that a spreadsheet would run as a formula gets an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    choices = list(dict.fromkeys(choice for row in rows for choice in row.facts.choices))
    writer.writerow([*COLUMNS, *(_plain(f"p({choice})") for choice in choices)])
    for row in rows:
        given = dict(zip(row.facts.choices, row.facts.probabilities, strict=True))
        writer.writerow([*map(_plain, _values(row)), *(_plain(given.get(choice)) for choice in choices)])
    return out.getvalue()


def values_by_column(row: Numbered) -> dict[str, str | int | float | bool | None]:
    """A run's numbers by their names in the CSV."""
    return dict(zip(COLUMNS, _values(row), strict=True))


def _values(row: Numbered) -> list[str | int | float | bool | None]:
    facts, cost = row.facts, row.facts.cost
    seconds = [stage.median if stage else None for stage in (cost.encode, cost.compress, cost.prefill, cost.decode)]
    return [
        LETTERS[row.position],
        facts.run,
        facts.created_utc,
        facts.strategy,
        facts.model,
        facts.revision,
        facts.seed,
        facts.answer,
        facts.expected,
        facts.is_correct,
        facts.expected_probability,
        facts.choice_mass,
        facts.total,
        facts.requested,
        facts.realised,
        facts.outputs,
        facts.kept,
        facts.merged,
        facts.dropped,
        facts.evidence_recall,
        *seconds,
        cost.total_seconds,
        cost.prefill_flops,
        cost.kv_cache_bytes,
        cost.peak_memory_bytes,
        cost.device,
        cost.dtype,
        cost.threads,
        cost.prefill.repeats,
    ]


def _plain(value: str | int | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    text = str(value)
    return "'" + text if isinstance(value, str) and text[:1] in "=+-@\t\r" else text


def numbers_table(rows: Sequence[Numbered]) -> Markup:
    """The table of the page: row headers are the strategies, every column names its unit."""
    heads = (
        "Strategy",
        "Answer",
        "p(expected)",
        "Kept",
        "Merged",
        "Dropped",
        "Evidence",
        "Compress, ms",
        "Prefill, ms",
        "Total, ms",
        "GFLOPs",
        "KV, KiB",
    )
    cells = join(
        Markup('<th scope="col"{}>{}</th>').format(
            Markup(' class="l"') if index == 1 else EMPTY,
            head,
        )
        for index, head in enumerate(heads)
    )
    body = join(_line(row) for row in rows)
    return Markup(
        '<div class="tablewrap" tabindex="0" role="region" aria-label="Table of results"><table class="km-table">'
        '<caption class="sr">One row per run</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(cells, body)


def turns_tables(rows: Sequence[Numbered]) -> Markup:
    """For each run that looked in turns, what it did; nothing where none did."""
    return join(_turns_table(row) for row in rows if row.facts.turns)


def _turns_table(row: Numbered) -> Markup:
    heads = (
        ("Turn", ""),
        ("Where, px", "l"),
        ("Confidence", ""),
        ("Tokens", ""),
        ("Before", "l"),
        ("After", "l"),
        ("", "l"),
    )
    cells = join(Markup('<th scope="col" class="{}">{}</th>').format(kind, head or _OUTCOME) for head, kind in heads)
    return Markup(
        '<section class="turns"><h3>{}&ensp;{} <small>where it looked</small></h3>'
        '<div class="tablewrap" tabindex="0" role="region" aria-label="Turns of {}, {}"><table class="km-table">'
        '<caption class="sr">One row per turn</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
        "</section>"
    ).format(
        key(row.position),
        row.title,
        LETTERS[row.position],
        row.title,
        cells,
        join(_turn_line(turn) for turn in row.facts.turns),
    )


_OUTCOME = Markup('<span class="sr">Outcome</span>')


def _turn_line(turn: Turn) -> Markup:
    left, top, right, bottom = (round(edge) for edge in turn.box)
    shown = f"shown as {turn.view}" if turn.view else ""
    outcome = ", ".join(filter(None, (shown, turn.reason))) or "shown"
    return Markup(
        '<tr{}><th scope="row">{}</th><td class="l">{}</td><td>{}</td><td>{}</td><td class="l">{}</td>'
        '<td class="l">{}</td><td class="l">{}</td></tr>'
    ).format(
        EMPTY if turn.is_accepted else Markup(' class="rejected"'),
        turn.number,
        f"{left:,}–{right:,} × {top:,}–{bottom:,}",
        _number(turn.confidence, 2),
        f"{turn.tokens:,}" if turn.is_accepted else "–",
        turn.before or "–",
        turn.after or "–",
        outcome,
    )


def _line(row: Numbered) -> Markup:
    facts, cost = row.facts, row.facts.cost
    numbers = (
        _number(facts.expected_probability, 3),
        f"{facts.kept:,}",
        f"{facts.merged:,}",
        f"{facts.dropped:,}",
        _number(facts.evidence_recall, 2),
        _number(cost.compress.median * 1e3 if cost.compress else None, 1),
        _number(cost.prefill.median * 1e3, 1),
        _number(cost.total_seconds * 1e3, 1),
        _number(cost.prefill_flops / 1e9, 2),
        f"{cost.kv_cache_bytes / 1024:,.0f}",
    )
    return Markup('<tr><th scope="row">{}&ensp;{}</th><td class="l">{} {}</td>{}</tr>').format(
        key(row.position),
        row.title,
        answer_of(facts.answer),
        verdict(facts.is_correct, capital=False),
        join(Markup("<td>{}</td>").format(number) for number in numbers),
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
