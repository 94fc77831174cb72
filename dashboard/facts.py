"""The numbers of one run that the page prints: taken from the run once, small, and without arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.run import Cost, Run
from compression.selection import Fate, RouterDecision, Stream
from compression.sight import Turn


@dataclass(frozen=True)
class StreamCounts:
    """Outputs of the two streams, and the patches that are in both."""

    semantic: int
    geometric: int
    both: int


@dataclass(frozen=True)
class RunFacts:
    """What is printed about one run.

    Args:
        strategy: Canonical text.
        requested: Budget in visual tokens, None where the router chose.
        realised: Mean over the layers.
        total: Visual tokens of the image before any strategy.
        outputs: Visual tokens left after the last reduction; above `kept` where a patch became two tokens.
        kept, merged, dropped: Patches of the run's own grid; they sum to `total` unless the strategy encoded the image
            itself.
        evidence: Patches that the answer depends on, None where not known.
        evidence_kept: How many of them were kept or merged into kept ones.
        turns: What a zoom did; its evidence is what it showed at full resolution.
        image_share: Per layer, the share of the answer position's attention on the image; empty where not recorded.
    """

    run: str
    created_utc: str
    strategy: str
    strategy_name: str
    model: str
    revision: str
    seed: int
    total: int
    requested: int | None
    realised: float
    outputs: int
    kept: int
    merged: int
    dropped: int
    answer: str
    choices: tuple[str, ...]
    probabilities: tuple[float, ...]
    choice_mass: float
    expected: str | None
    is_correct: bool | None
    evidence: int | None
    evidence_kept: int | None
    evidence_recall: float | None
    image_share: tuple[float, ...]
    router: RouterDecision | None
    streams: StreamCounts | None
    cost: Cost
    labels: tuple[str, ...]
    notices: tuple[str, ...]
    turns: tuple[Turn, ...] = ()

    @property
    def expected_probability(self) -> float | None:
        """The probability of the expected answer, None where that is not among the choices."""
        if self.expected is None:
            return None
        for choice, probability in zip(self.choices, self.probabilities, strict=True):
            if _same(choice, self.expected):
                return probability
        return None

    def is_expected(self, choice: str) -> bool:
        """Whether a choice is the expected answer."""
        return self.expected is not None and _same(choice, self.expected)


def facts_of(run: Run) -> RunFacts:
    """The printable numbers of a run."""
    selection = run.selection
    fate = selection.fate
    counts = selection.counts()
    evidence = evidence_kept = None
    if run.evidence:
        wanted = run.grid.overlapping(np.asarray(run.evidence, dtype=np.float64))
        evidence = int(wanted.sum())
        # The recall is the run's own number: the count follows from it, so that the two never disagree.
        share = run.evidence_recall
        evidence_kept = int((wanted & (fate != Fate.DROPPED)).sum()) if share is None else round(share * evidence)
    mass = run.recording.answer_mass
    return RunFacts(
        run=run.id,
        created_utc=run.created_utc,
        strategy=run.request.strategy,
        strategy_name=run.strategy_name,
        model=run.request.model.name,
        revision=run.request.model.revision,
        seed=run.request.seed,
        total=run.tokens_total,
        requested=run.tokens_requested,
        realised=run.tokens_realised,
        outputs=run.tokens_kept,
        kept=counts["kept"],
        merged=counts["merged"],
        dropped=counts["dropped"],
        answer=run.answer.text,
        choices=run.answer.choices,
        probabilities=run.answer.probabilities,
        choice_mass=run.answer.choice_mass,
        expected=run.answer.expected,
        is_correct=run.answer.is_correct,
        evidence=evidence,
        evidence_kept=evidence_kept,
        evidence_recall=run.evidence_recall,
        image_share=() if mass is None else tuple(float(share) for share in mass),
        router=selection.router,
        streams=_streams(run),
        cost=run.cost,
        labels=run.labels,
        notices=run.notices,
        turns=run.turns,
    )


def _streams(run: Run) -> StreamCounts | None:
    """How the outputs fall on the streams, None for methods without streams."""
    stream = run.selection.stream
    if stream is None:
        return None
    semantic, geometric = stream == Stream.SEMANTIC, stream == Stream.GEOMETRIC
    anchor = run.selection.anchor
    both = np.intersect1d(anchor[semantic & (anchor >= 0)], anchor[geometric & (anchor >= 0)])
    return StreamCounts(int(semantic.sum()), int(geometric.sum()), len(both))


def shown_layer(facts: Sequence[RunFacts]) -> int | None:
    """The layer, from 0, at which the compared runs attend most to the image: one for all panes, or None."""
    recorded = [item.image_share for item in facts if item.image_share and np.isfinite(item.image_share).all()]
    if not recorded or len({len(share) for share in recorded}) != 1:
        return None
    return int(np.mean(np.asarray(recorded), axis=0).argmax())


def _same(one: str, other: str) -> bool:
    return one.strip().lower() == other.strip().lower()
