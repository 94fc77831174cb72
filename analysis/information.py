"""From beliefs to spectra: gate, decomposition, intervals, and the difference that compression made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.beliefs import DRAWS, PARTNERS, Beliefs, Sample, believe
from analysis.environment import environment
from analysis.run import ModelRef, new_id, utc_now
from analysis.spectrum import ATOMS, Interval, Method, Spectrum
from compression.backends.base import VLM, Progress, Prompt
from compression.compressor import Cancel, Plan
from pid.bootstrap import DEFAULT as INTERVAL
from pid.bootstrap import Interval as PidInterval
from pid.bootstrap import paired_differences
from pid.clouds import GATE, MAX_POINTS, CloudEstimate, estimate
from pid.posteriors import Posteriors

ESTIMATOR = "posterior clouds"
REPLICATES, LAYER_REPLICATES = 1000, 200
LEVEL = 0.95
LITTLE_MASS = 0.5
"""Mean probability on the choices below which a notice says that the model answers something else."""
_NAMES = ("full", "vision", "language")


@dataclass(frozen=True)
class Settings:
    """How information is to be estimated; see `analysis.beliefs` for the names.

    Args:
        intervention: What stands in for the source left out.
        selection: Whether the strategy decides anew.
        gate: Share of probability on the choices below which a belief counts as uniform, 0..1; 0 is off.
        partners, draws: Of pairs, of noise.
        seed: Of pairs, noise, strategies and resampling.
        layers: Whether every layer is read as well.
        lens_norm: Whether the logit lens applies the final norm.
        replicates: Of the bootstrap.
    """

    intervention: str = "shuffled"
    selection: str = "frozen"
    gate: float = GATE
    partners: int = PARTNERS
    draws: int = DRAWS
    seed: int = 0
    layers: bool = False
    lens_norm: bool = True
    replicates: int = REPLICATES

    def method(self, replicates: int) -> Method:
        """As a spectrum states it."""
        return Method(
            measure="broja",
            estimator=ESTIMATOR,
            intervention=self.intervention,
            selection=self.selection,
            gate=self.gate,
            partners=self.partners if self.intervention == "shuffled" else 0,
            draws=self.draws if self.intervention == "noise" else 0,
            seed=self.seed,
            interval=INTERVAL,
            level=LEVEL,
            replicates=replicates,
        )


@dataclass(frozen=True)
class Informed:
    """What one strategy gave on one template: the answer's spectrum first, then the layers', and the beliefs."""

    spectra: tuple[Spectrum, ...]
    beliefs: Beliefs

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The beliefs as arrays to store."""
        return arrays_of(self.beliefs)


def inform(
    vlm: VLM,
    samples: Sequence[Sample],
    plan: Plan,
    settings: Settings,
    *,
    reference: Sequence[Informed] = (),
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> list[Informed]:
    """Ask a model under a strategy and decompose what it said, one result per template.

    Args:
        vlm: The model.
        samples: Questions about pictures; at least two of each template.
        plan: The strategy.
        settings: How to ask and estimate.
        reference: What the uncompressed model gave on the same samples; differences to it are added.
        progress, cancel: Told how far it is; asked whether to stop.

    Raises:
        InvalidInformation: see `analysis.beliefs.believe`.
        CompressionError: the strategy cannot run.
        PidError: the solver could not certify a result.
    """
    found = believe(
        vlm,
        samples,
        plan,
        settings.intervention,
        selection=settings.selection,
        partners=settings.partners,
        draws=settings.draws,
        seed=settings.seed,
        layers=settings.layers,
        lens_norm=settings.lens_norm,
        progress=progress,
        cancel=cancel,
    )
    families = {sample.template: sample.prompt.family for sample in samples}
    known = {(one.beliefs.task, one.beliefs.choices): one for one in reference}
    made = []
    for beliefs in found:
        facts = _Facts(
            model=_model(vlm),
            plan=plan,
            family=families[beliefs.task, beliefs.choices],
            request=digest_of(vlm, samples, plan, settings, (beliefs.task, beliefs.choices)),
            environment=environment(vlm.device),
            labels=_labels(vlm, plan),
            asked=digest_of_samples(samples),
        )
        made.append(_informed(beliefs, facts, settings, known.get((beliefs.task, beliefs.choices))))
    return made


def digest_of(
    vlm: VLM, samples: Sequence[Sample], plan: Plan, settings: Settings, template: tuple[str, tuple[str, ...]]
) -> str:
    """SHA-256 of what a spectrum was asked for: all samples, the template, weights, strategy and settings, hex.

    All samples, because means and noise are taken over all of them.
    """
    asked = {
        "weights": vlm.card.revision,
        "model": vlm.card.name,
        "dtype": vlm.dtype,
        "strategy": str(plan),
        "strategy_version": plan.info.version,
        "samples": _plain(samples),
        "template": template,
        "settings": vars(settings),
        "points": MAX_POINTS,
    }
    return _digest(asked)


def digest_of_samples(samples: Sequence[Sample]) -> str:
    """SHA-256 of the samples alone, hex: spectra of several strategies are compared where it is the same."""
    return _digest(_plain(samples))


def _plain(samples: Sequence[Sample]) -> list[list[Any]]:
    return [[one.picture, one.prompt.text, list(one.prompt.choices), one.expected] for one in samples]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class _Facts:
    """What a spectrum says beside its numbers."""

    model: ModelRef
    plan: Plan
    family: str
    request: str
    environment: dict[str, str]
    labels: tuple[str, ...]
    asked: str = ""


def _informed(beliefs: Beliefs, facts: _Facts, settings: Settings, reference: Informed | None) -> Informed:
    depths = beliefs.full.shape[0]
    said = posteriors_of(beliefs, -1, settings.gate)
    answer = _spectrum(beliefs, -1, said, facts, settings, settings.replicates)
    if reference is not None and str(facts.plan) != reference.spectra[0].strategy:
        before = posteriors_of(reference.beliefs, -1, settings.gate)[0]
        changes = paired_differences(
            before, said[0], gate=0.0, replicates=settings.replicates, seed=settings.seed, level=LEVEL
        )
        answer = replace(answer, reference=reference.spectra[0].id, differences=_by_atom(changes))
    layers = [
        replace(
            _spectrum(
                beliefs, depth, posteriors_of(beliefs, depth, settings.gate), facts, settings,
                min(LAYER_REPLICATES, settings.replicates),
            ),
            layer=depth,
        )
        for depth in (range(depths) if depths > 1 else ())
    ]  # fmt: skip
    return Informed((answer, *layers), beliefs)


def from_posteriors(
    vlm: VLM,
    plan: Plan,
    prompt: Prompt,
    logs: NDArray[np.floating[Any]],
    right: NDArray[np.int64],
    pictures: NDArray[np.int64],
    checkpoint: int,
    settings: Settings,
) -> Spectrum:
    """The spectrum of beliefs that a training recorded at one moment, with the mean in place of what was left out.

    Args:
        vlm: The finished model.
        plan: The strategy, all tokens.
        prompt: One of the questions: its task, family and choices.
        logs: Natural logarithms of probabilities, [full, question alone, picture alone; samples; choices].
        right: int64 [samples].
        pictures: int64 [samples], equal for the same picture.
        checkpoint: Training step.
        settings: How to estimate; the intervention is "mean".
    """
    stated = replace(settings, intervention="mean", selection="frozen", layers=False)
    everyone = np.arange(len(right))
    full, language, vision = (part[None].astype(np.float32) for part in logs)
    beliefs = Beliefs(
        task=prompt.task,
        choices=prompt.choices,
        intervention="mean",
        selection="frozen",
        full=full,
        vision=vision,
        language=language,
        picture=everyone,
        question=everyone,
        own=full,
        blind=language,
        cluster=np.unique(pictures, return_inverse=True)[1].astype(np.int64),
        right=right,
        retention=1.0,
        passes=0,
    )
    template = (prompt.task, prompt.choices)
    request = digest_of(vlm, [], plan, stated, template)
    facts = _Facts(_model(vlm), plan, prompt.family, request, environment(vlm.device), _labels(vlm, plan))
    said = posteriors_of(beliefs, -1, stated.gate)
    found = _spectrum(beliefs, -1, said, facts, stated, stated.replicates)
    digest = hashlib.sha256(f"{found.request} {checkpoint}".encode()).hexdigest()
    return replace(found, checkpoint=checkpoint, request=digest)


def _labels(vlm: VLM, plan: Plan) -> tuple[str, ...]:
    return (*plan.info.labels, *plan.info.stand_ins(vlm.provides))


def _model(vlm: VLM) -> ModelRef:
    return ModelRef(vlm.card.name, vlm.card.family, vlm.card.revision, vlm.architecture.layers, vlm.card.parameters)


def posteriors_of(beliefs: Beliefs, depth: int, gate: float) -> tuple[Posteriors, dict[str, float]]:
    """Rows for the decomposition at one depth, gated, and the share of beliefs that the gate made uniform.

    The gate comes before anything is averaged. What a picture says when shuffled is the mean over its pairs, so its
    gated share is that of the pairs.
    """
    full, low = _gated(beliefs.full[depth], gate)
    groups = np.stack([beliefs.cluster[beliefs.picture], beliefs.question], 1)
    if beliefs.vision is None or beliefs.language is None:
        vision, language = (_averaged(full, at) for at in (beliefs.picture, beliefs.question))
        share = float(low.mean())
        shares = dict.fromkeys(_NAMES, share)
    else:
        vision, low_vision = _gated(beliefs.vision[depth], gate)
        language, low_language = _gated(beliefs.language[depth], gate)
        groups = groups[:, :1]
        shares = {name: float(one.mean()) for name, one in zip(_NAMES, (low, low_vision, low_language), strict=True)}
    return Posteriors.read(vision, language, full, groups=groups), shares


def _gated(logs: NDArray[np.float32], gate: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Beliefs renormalised over the choices, uniform where the choices had less than `gate` together."""
    wide = logs.astype(np.float64)
    top = wide.max(-1, keepdims=True)
    scaled = np.exp(wide - np.where(np.isfinite(top), top, 0.0))
    rows = scaled / scaled.sum(-1, keepdims=True)
    low = np.exp(wide).sum(-1) < gate
    return np.where(low[:, None], 1 / logs.shape[-1], rows), low


def _averaged(rows: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each row replaced by the mean of those with the same number."""
    _, place = np.unique(at, return_inverse=True)
    sums = np.stack([np.bincount(place, column) for column in rows.T], 1)
    mean: NDArray[np.float64] = (sums / np.bincount(place)[:, None])[place]
    return mean


def _spectrum(
    beliefs: Beliefs,
    depth: int,
    said: tuple[Posteriors, dict[str, float]],
    facts: _Facts,
    settings: Settings,
    replicates: int,
) -> Spectrum:
    rows, gated = said
    found = estimate(rows, gate=0.0, replicates=replicates, level=LEVEL, seed=settings.seed)
    intervals = {one.quantity: one for one in found.intervals}
    own = np.exp(beliefs.own[depth].astype(np.float64))
    blind = beliefs.blind[depth]
    known = beliefs.right >= 0
    seen = known & ~np.isnan(blind).any(-1)
    budget = facts.plan.budget
    mass = float(own.sum(-1).mean())
    return Spectrum(
        id=new_id(),
        created_utc=utc_now(),
        request=facts.request,
        model=facts.model,
        strategy=str(facts.plan),
        budget=budget.ratio if budget.ratio is not None else budget.count,
        family=facts.family,
        task=beliefs.task,
        choices=beliefs.choices,
        layer=None,
        checkpoint=None,
        samples=beliefs.samples,
        n=len(beliefs.picture),
        method=settings.method(replicates),
        atoms=_by_atom(found.intervals),
        total=_interval(intervals["total"]),
        lower=found.atoms.lower,
        upper=found.atoms.upper,
        gated=gated,
        incoherence=found.incoherence_bits,
        coherence=_coherence(found, beliefs),
        retention=beliefs.retention,
        accuracy=float((own.argmax(-1) == beliefs.right)[known].mean()) if known.any() else None,
        accuracy_blind=float((blind.argmax(-1) == beliefs.right)[seen].mean()) if seen.any() else None,
        choice_mass=min(1.0, mass),
        labels=facts.labels,
        notices=_notices(found, mass, gated),
        environment=facts.environment,
        asked=facts.asked,
    )


def _by_atom(found: Sequence[PidInterval]) -> dict[str, Interval]:
    """Intervals by our names of the atoms: the first source is vision, the second language."""
    names = dict(zip(("redundancy", "unique_1", "unique_2", "synergy"), ATOMS, strict=True))
    return {names[one.quantity]: _interval(one) for one in found if one.quantity in names}


def _interval(one: PidInterval) -> Interval:
    return Interval(float(one.value), float(one.low), float(one.high), bool(one.one_sided))


def _coherence(found: CloudEstimate, beliefs: Beliefs) -> dict[str, float]:
    if beliefs.vision is None:
        return {}
    return {
        f"{source}_{name}": float(getattr(one, name))
        for source, one in (("vision", found.coherence_1), ("language", found.coherence_2))
        for name in ("kl_bits", "bias", "moved")
    }


def _notices(found: CloudEstimate, mass: float, gated: dict[str, float]) -> tuple[str, ...]:
    said = list(found.notes)
    if mass < LITTLE_MASS:
        said.append(f"The model puts {mass:.0%} of its belief on the choices: mostly it would answer something else.")
    said += [
        f"{share:.0%} of the beliefs of the pass {name!r} were below the gate and count as uniform."
        for name, share in gated.items()
        if share > 0.5
    ]
    return tuple(said)


def arrays_of(beliefs: Beliefs) -> dict[str, NDArray[Any]]:
    """Beliefs as named arrays; `beliefs_from` reads them."""
    named: dict[str, Any] = {
        name: getattr(beliefs, name)
        for name in ("full", "vision", "language", "picture", "question", "own", "blind", "cluster", "right")
    }
    return {name: array for name, array in named.items() if array is not None}


def beliefs_from(spectrum: Spectrum, arrays: dict[str, NDArray[Any]]) -> Beliefs:
    """The beliefs behind a stored spectrum."""
    return Beliefs(
        task=spectrum.task,
        choices=spectrum.choices,
        intervention=spectrum.method.intervention,
        selection=spectrum.method.selection,
        full=arrays["full"],
        vision=arrays.get("vision"),
        language=arrays.get("language"),
        picture=arrays["picture"],
        question=arrays["question"],
        own=arrays["own"],
        blind=arrays["blind"],
        cluster=arrays["cluster"],
        right=arrays["right"],
        retention=spectrum.retention,
        passes=0,
    )
