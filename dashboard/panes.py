"""A comparison as the maps page needs it: per pane a few numbers, scales and words, and never anything per token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from compression.compressor import StrategyInfo
from compression.selection import Fate
from compression.strategies import CATALOGUE
from dashboard.markup import LETTERS, count
from dashboard.messages import sentence
from dashboard.opened import Attention, Opened, counts, tops_of_change
from dashboard.placement import Placement
from dashboard.rasters import NO_TOKEN
from dashboard.wire import packed, token_boxes
from storage import Comparison, JobRow, Pane

MOST_LABELS = 12
"""Differences that stand on one map in words."""

_MAPLESS = ("refused", "failed", "cancelled", "deleted")


def has_map(pane: Pane) -> bool:
    """Whether a pane shows the image: one that was refused, failed or was cancelled shows its reason instead."""
    return pane.state not in _MAPLESS


def comparison_json(
    comparison: Comparison,
    opened: Sequence[Opened | None],
    facts: Sequence[Mapping[str, Any] | None],
    placement: Placement,
    job: JobRow | None,
) -> dict[str, Any]:
    """Everything that the page needs at once; `opened` and `facts` hold the run of each pane that is done."""
    is_running = any(pane.state in ("waiting", "running") for pane in comparison.panes)
    total = next((run.total for run in opened if run is not None), None)
    return {
        "comparison": comparison.id,
        "state": "running" if is_running else "done",
        "image": _image_json(comparison, placement),
        "evidence": [list(box) for box in comparison.evidence],
        "most_labels": MOST_LABELS,
        "panes": [
            {
                "letter": LETTERS[position],
                "title": title_of(pane.strategy),
                "strategy": pane.strategy,
                "state": pane.state,
                "run": pane.run,
                "has_map": has_map(pane),
                "caption": caption(
                    pane.strategy, None if run is None else run.outputs, total if run is None else run.total
                ),
                "markup": str(state_markup(pane, position, job)),
                "facts": known,
            }
            for position, (pane, run, known) in enumerate(zip(comparison.panes, opened, facts, strict=True))
        ],
    }


def title_of(strategy: str) -> str:
    """The title of a strategy text; its name where this installation does not know it."""
    info = CATALOGUE.info_of(strategy)
    return info.title if info is not None else CATALOGUE.name_of(strategy)


def caption(strategy: str, left: int | None, total: int | None) -> str:
    """What stands right of a pane's title: how many tokens are left of how many, or how many were asked for.

    Args:
        strategy: Canonical text.
        left: Tokens after the last reduction; None without a run.
        total: Tokens before; None where no run of the comparison told yet.
    """
    if left is not None and total is not None:
        return f"all {count(total)} tokens" if left == total else f"{count(left)} of {count(total)} tokens"
    asked = CATALOGUE.split(strategy)[-1].partition("@")[2]
    share = _share(asked) if "." in asked else None
    if share is None and not asked.isdecimal():
        return ""
    if total is None:
        return f"{asked} token{'' if int(asked) == 1 else 's'} asked" if share is None else f"{share * 100:g} % asked"
    return f"{asked if share is None else count(max(1, round(share * total)))} of {count(total)} asked"


def state_markup(pane: Pane, position: int, job: JobRow | None) -> Markup:
    """What a pane that is not done says, escaped: its turn, its progress, or why it has no map."""
    if pane.state == "done":
        return Markup("")
    if pane.state == "waiting":
        return Markup('<p class="steps" role="status">Waiting for its turn</p>')
    if pane.state == "running":
        share, words = (job.progress, job.message) if job is not None else (0.0, "")
        return Markup(
            '<div class="steps" role="status"><span>{}</span>'
            '<progress max="1" value="{:.3f}" aria-label="Progress">{:.0f} %</progress></div>'
        ).format(words or "Running", share, share * 100)
    title = {
        "refused": "Refused: this budget cannot be reached" if pane.lowest is not None else "Refused",
        "failed": "This run failed",
        "cancelled": "Cancelled",
        "deleted": "Deleted",
    }.get(pane.state, "No map")
    offer = Markup("")
    if pane.state == "refused" and pane.lowest is not None:
        offer = Markup(
            '<button type="button" class="secondary" data-pane="{}" data-strategy="{}" data-budget="{}">'
            "Use {} token{}</button>"
        ).format(LETTERS[position], pane.strategy, pane.lowest, count(pane.lowest), "" if pane.lowest == 1 else "s")
    after = ""
    if pane.state == "refused":
        after = " Nothing was run."
    elif pane.state == "failed" and pane.failure is not None:
        after = " It is stored as failed."
    is_error = pane.state in ("refused", "failed")
    return Markup('<div class="plate-msg{}" role="{}"><b>{}</b><span>{}{}</span>{}</div>').format(
        " err" if is_error else "", "alert" if is_error else "status", title, sentence(pane.reason), after, offer
    )


def _image_json(comparison: Comparison, placement: Placement) -> dict[str, Any]:
    image = comparison.image
    lattice = None
    if placement.place is not None:
        nodes = placement.place.lattice
        lattice = {
            "x": np.linspace(0, image.width, nodes.shape[1]).tolist(),
            "y": np.linspace(0, image.height, nodes.shape[0]).tolist(),
            "lon": packed(nodes[..., 0].ravel()),
            "lat": packed(nodes[..., 1].ravel()),
            "error_pixels": placement.place.max_error_pixels,
        }
    return {
        "name": image.name,
        "width": image.width,
        "height": image.height,
        "window": image.window,
        "depth": placement.zoom,
        "zoom_most": placement.zoom_most,
        "lattice": lattice,
        "metres_per_pixel": placement.metres_per_pixel,
        "is_kept": placement.info is not None,
    }


def facts_of(run: Opened, first: Opened | None) -> dict[str, Any]:
    """The numbers of one pane: counts, scales, strong values, and how it compares with the first pane."""
    level = run.levels[run.level]
    views = [part for raster in level.rasters for part in raster.parts]
    info = CATALOGUE.info_of(run.strategy)
    is_same_grid = first is not None and first.grid == run.grid
    peer = first if is_same_grid else None
    return {
        **counts(run),
        "tokens": len(run),
        "outputs": run.outputs,
        "large": run.is_large,
        "views": len(run.grid.views),
        "rows": views[0].rows,
        "cols": views[0].cols,
        "cell": list(level.cell),
        "levels": [one.name for one in run.levels],
        "level": run.level,
        "clusters": len(np.unique(run.target[run.category > 0])),
        "score": _score_json(run, info),
        "ignores_image": info is not None and info.ignores_image,
        "attention": {of: _attention_json(run, kind, peer, of) for of, kind in run.attention.items()},
        "streams": _streams_json(run),
        "turns": [[turn.number, *turn.box, turn.is_accepted] for turn in run.turns[1:]],  # the first is the whole image
        "same_grid": is_same_grid,
        "overlap": None if peer is None else overlap(run, peer),
    }


def _score_json(run: Opened, info: StrategyInfo | None) -> dict[str, Any] | None:
    span = run.score_range
    if span is None:
        return None
    return {"what": info.score if info is not None else "", "low": span[0], "high": span[1]}


def _attention_json(run: Opened, kind: Attention, first: Opened | None, of: str) -> dict[str, Any]:
    strong = []
    levels = level_indices(run)
    for layer in range(kind.layers):
        tokens = kind.strong(layer)
        boxes = token_boxes(run, tokens).tolist()
        values = kind.rows[layer, tokens].astype(float).tolist()
        strong.append(
            [[level, *box, value] for level, box, value in zip(levels[tokens].tolist(), boxes, values, strict=True)]
        )
    changes = [] if first is None else tops_of_change(run, first, of)
    return {"top": _numbers(kind.top), "mass": _numbers(kind.mass), "strong": strong, "change": changes}


def level_indices(run: Opened) -> NDArray[np.int64]:
    """The level of views of each token, int64 [tokens]."""
    found = np.zeros(len(run), dtype=np.int64)
    for number, level in enumerate(run.levels):
        for raster in level.rasters:
            found[raster.index[raster.index != NO_TOKEN]] = number
    return found


def _streams_json(run: Opened) -> Mapping[str, int] | None:
    if run.semantic is None or run.path is None:
        return None
    semantic = np.unique(run.semantic[run.semantic >= 0])
    return {"semantic": len(semantic), "geometric": len(run.path), "anchors": len(run.anchors)}


def overlap(run: Opened, first: Opened) -> float:
    """Jaccard overlap of the kept tokens of two runs on one grid: intersection over union, in [0, 1]."""
    one, other = run.fate == Fate.KEPT, first.fate == Fate.KEPT
    union = int((one | other).sum())
    return float((one & other).sum() / union) if union else 1.0


def _numbers(values: NDArray[np.float32]) -> list[float]:
    return [float(value) for value in np.nan_to_num(values, nan=0.0)]


def _share(text: str) -> float | None:
    try:
        share = float(text)
    except ValueError:
        return None
    return share if 0 < share <= 1 else None
