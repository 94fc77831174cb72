"""The immutable record of one decomposition: where the information in a model's answers came from, in bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from analysis.run import ModelRef
from compression.strategies import CATALOGUE

ATOMS = ("redundancy", "unique_vision", "unique_language", "synergy")
"""The atoms in reading order."""

MEANINGS = {
    "redundancy": "The picture alone and the question alone would have told this.",
    "unique_vision": "Only the picture told this.",
    "unique_language": "Only the question told this: the picture was not needed.",
    "synergy": "The answer needed picture and question together.",
}
"""What an atom says, for people."""


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, in bits; `is_one_sided` where an atom lies at the boundary 0."""

    value: float
    low: float
    high: float
    is_one_sided: bool = False

    def includes(self, value: float) -> bool:
        """Whether a value lies in the interval."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Method:
    """How a spectrum was estimated: everything that a figure must state.

    Args:
        measure: Of the decomposition, such as "broja".
        estimator: How posteriors became a decomposition.
        intervention: What stood in for the source that a pass left out.
        selection: "frozen", or "rerun" where the strategy decided anew in every pass.
        gate: Share of probability on the choices below which a belief counts as uniform.
        partners, draws: Of pairs when shuffled, of noise.
        seed: Of pairs, noise, strategies and resampling.
        interval: How intervals were made; level and replicates beside it.
    """

    measure: str
    estimator: str
    intervention: str
    selection: str
    gate: float
    partners: int
    draws: int
    seed: int
    interval: str
    level: float
    replicates: int


@dataclass(frozen=True)
class Spectrum:
    """The decomposition of one strategy on one group of questions, in bits.

    Args:
        id: Random 128 bits, hex.
        created_utc: ISO 8601 with seconds and "Z".
        request: Digest of what was asked: samples, weights, strategy, method.
        model: Which model and weights.
        strategy: Canonical text.
        budget: As written: a retention ratio, or a count of visual tokens; None where the router chose.
        family, task: Of the questions; "" for several.
        choices: The answers to choose among, in order.
        layer: Language-model layer read by the logit lens; None for the answer itself.
        checkpoint: Training step, None for the finished model.
        samples: Questions about pictures.
        n: Rows of beliefs: samples, or pairs of them when shuffled.
        method: How it was estimated.
        atoms: By name of `ATOMS`.
        total: I(vision, language; answer).
        lower, upper: Proven enclosure of the union information; its width is the error of every atom beside sampling.
        gated: Share of beliefs below the gate, by "full", "vision" and "language".
        incoherence: Bits by which the three tables are not marginals of one joint.
        coherence: What making the tables agree took, by name; empty where they agreed.
        retention: Mean share of the visual tokens that were processed, 0..1.
        accuracy, accuracy_blind: Share of right answers with and without the picture; None where not known.
        choice_mass: Mean probability on the choices, with picture and question.
        reference: Id of the spectrum that `differences` refers to, "" for none.
        differences: This less the reference, on the same samples, by atom.
        labels: Reconstructions and the like.
        notices: Sentences for the user.
        environment: Versions, device, commit.
        asked: SHA-256 over all samples that were asked about, hex: equal for spectra that may be compared. "" where it
            was not recorded.
    """

    id: str
    created_utc: str
    request: str
    model: ModelRef
    strategy: str
    budget: float | None
    family: str
    task: str
    choices: tuple[str, ...]
    layer: int | None
    checkpoint: int | None
    samples: int
    n: int
    method: Method
    atoms: Mapping[str, Interval]
    total: Interval
    lower: float
    upper: float
    gated: Mapping[str, float]
    incoherence: float
    coherence: Mapping[str, float]
    retention: float
    accuracy: float | None
    accuracy_blind: float | None
    choice_mass: float
    reference: str = ""
    differences: Mapping[str, Interval] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    asked: str = ""

    @property
    def strategy_name(self) -> str:
        """The strategy's registry key; those of several steps joined by "+"."""
        return CATALOGUE.name_of(self.strategy)

    @property
    def dominant(self) -> str:
        """The largest atom where its interval excludes the runner-up's value, else "mixed" (Xiu et al., 2026)."""
        first, second = sorted(ATOMS, key=lambda name: -self.atoms[name].value)[:2]
        return first if self.atoms[first].low > self.atoms[second].value else "mixed"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Spectrum:
        """The spectrum that `to_json` described."""
        read = dict(value)
        read["model"] = ModelRef(**value["model"])
        read["method"] = Method(**value["method"])
        read["total"] = Interval(**value["total"])
        for name in ("atoms", "differences"):
            read[name] = {atom: Interval(**part) for atom, part in value[name].items()}
        for name in ("choices", "labels", "notices"):
            read[name] = tuple(value[name])
        return cls(**read)
