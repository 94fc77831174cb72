"""Runs and decompositions for the command line: as JSON, and as rows of a plain table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.run import ImageRef, Run
from analysis.spectrum import ATOMS, Interval, Spectrum
from compression.backends.base import Seconds
from compression.sight import Turn


def image_json(image: ImageRef) -> dict[str, Any]:
    """What a reader needs to find and place the image."""
    return {
        "name": image.name,
        "sha256": image.digest,
        "width": image.width,
        "height": image.height,
        "crs": image.crs,
        "rendering": image.rendering,
        "is_synthetic": image.is_synthetic,
    }


def run_json(run: Run) -> dict[str, Any]:
    """One run as design.md section 3 promises it; times are medians in seconds."""
    cost, counts = run.cost, run.selection.counts()
    return {
        "run": run.id,
        "request": run.request.digest,
        "strategy": run.request.strategy,
        "answer": run.answer.text,
        "expected": run.answer.expected,
        "is_correct": run.answer.is_correct,
        "probabilities": dict(zip(run.answer.choices, run.answer.probabilities, strict=True)),
        "choice_mass": run.answer.choice_mass,
        "tokens": {
            "total": run.tokens_total,
            "requested": run.tokens_requested,
            "realised": run.tokens_realised,
            "realised_leaving": run.tokens_leaving,
            "kept": run.tokens_kept,
            "per_layer": list(run.tokens_per_layer),
        },
        "kept": counts["kept"],
        "merged": counts["merged"],
        "dropped": counts["dropped"],
        "evidence_recall": run.evidence_recall,
        "router": run.selection.router.to_json() if run.selection.router else None,
        "turns": [_turn_json(turn) for turn in run.turns],
        "cost": {
            "encode_seconds": _median(cost.encode),
            "compress_seconds": _median(cost.compress),
            "prefill_seconds": _median(cost.prefill),
            "decode_seconds": _median(cost.decode),
            "prefill_flops": cost.prefill_flops,
            "kv_cache_bytes": cost.kv_cache_bytes,
            "peak_memory_bytes": cost.peak_memory_bytes,
            "device": cost.device,
            "dtype": cost.dtype,
            "repeats": cost.prefill.repeats,
        },
        "labels": list(run.labels),
        "notices": list(run.notices),
        "environment": dict(run.environment),
    }


def _turn_json(turn: Turn) -> dict[str, Any]:
    """One turn under the names of `v_turns`."""
    left, top, right, bottom = turn.box
    return {
        "turn": turn.number,
        "left": left,
        "top": top,
        "right": right,
        "bottom": bottom,
        "confidence": turn.confidence,
        "tokens_spent": turn.tokens,
        "answer_before": turn.before,
        "answer_after": turn.after,
        "accepted": turn.is_accepted,
        "reason": turn.reason,
    }


def run_row(run: Run) -> dict[str, str]:
    """One run as a row of words; "-" where there is nothing."""
    verdict = {True: "right", False: "wrong", None: "-"}[run.answer.is_correct]
    counts, confidence = run.selection.counts(), run.answer.confidence
    return {
        "strategy": run.request.strategy,
        "answer": run.answer.text or "-",
        "verdict": verdict,
        "p(answer)": f"{confidence:.3f}" if confidence == confidence else "-",
        "kept": str(counts["kept"]),
        "merged": str(counts["merged"]),
        "dropped": str(counts["dropped"]),
        "evidence": "-" if run.evidence_recall is None else f"{run.evidence_recall:.2f}",
        "compress ms": _milliseconds(run.cost.compress),
        "prefill ms": _milliseconds(run.cost.prefill),
        "GFLOPs est.": f"{run.cost.prefill_flops / 1e9:.2f}",
        "KV KiB": f"{run.cost.kv_cache_bytes / 1024:,.0f}",
        "run": run.id[:8],
    }


def spectra_json(spectra: Sequence[Spectrum]) -> list[dict[str, Any]]:
    """Decompositions as plain values, everything that is stored of them."""
    return [one.to_json() for one in spectra]


def spectra_report(spectra: Sequence[Spectrum], *, by_task: bool = False) -> str:
    """The table of decompositions with intervals, and the conditions under which they hold."""
    if not spectra:
        return "No decomposition."
    rows = sorted(spectra, key=lambda one: one.task) if by_task else list(spectra)
    with_layers = any(one.layer is not None for one in spectra)
    first = spectra[0].method
    intervals = f"{first.level:.0%} intervals ({first.interval}, {first.replicates:,} replicates)"
    conditions = (
        f"{first.measure.upper()} by {first.estimator}, intervention {first.intervention}, "
        f"selection {first.selection}, gate {first.gate:g}, {intervals}, seed {first.seed}. Bits; * one-sided."
    )
    return plain_table([_spectrum_row(one, with_layers=with_layers) for one in rows]) + "\n" + conditions


def _spectrum_row(one: Spectrum, *, with_layers: bool) -> dict[str, str]:
    gated = "/".join(f"{one.gated.get(name, 0.0):.2f}" for name in ("full", "vision", "language"))
    return {
        "strategy": one.strategy,
        "task": one.task or one.family,
        **({"layer": "answer" if one.layer is None else str(one.layer + 1)} if with_layers else {}),
        "n": f"{one.samples:,}",
        **{atom.replace("_", " "): _bits(one.atoms[atom]) for atom in ATOMS},
        "total": _bits(one.total),
        "width": f"{one.upper - one.lower:.0e}",
        "gated f/v/l": gated,
        "incoherence": f"{one.incoherence:.3f}",
        "right": "" if one.accuracy is None else f"{one.accuracy:.2f}",
        "blind": "" if one.accuracy_blind is None else f"{one.accuracy_blind:.2f}",
    }


def _bits(part: Interval) -> str:
    return f"{part.value:.3f} ({part.low:.3f}-{part.high:.3f}{'*' if part.is_one_sided else ''})"


def plain_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows with the same keys as aligned columns; numbers stand right.

    >>> print(plain_table([{"a": "x", "n": "1"}, {"a": "longer", "n": "12"}]))
    a        n
    x        1
    longer  12
    """
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    numeric = {
        name: all(row[name].replace(",", "").replace(".", "").isdigit() or row[name] == "-" for row in rows)
        for name in names
    }
    lines = [
        "  ".join(
            row[name].rjust(widths[name]) if numeric[name] else row[name].ljust(widths[name]) for name in names
        ).rstrip()
        for row in [dict(zip(names, names, strict=True)), *rows]
    ]
    return "\n".join(lines)


def _median(seconds: Seconds | None) -> float | None:
    return None if seconds is None else seconds.median


def _milliseconds(seconds: Seconds | None) -> str:
    return "-" if seconds is None else f"{seconds.median * 1e3:.1f}"
