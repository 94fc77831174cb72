"""Samples for the information analysis, from stored runs or the embedded benchmark; and what is computed of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from analysis.beliefs import Sample, by_template, count_passes
from analysis.errors import InvalidInformation
from analysis.imagery import describe, read_rgb
from analysis.information import Informed, Settings, beliefs_from, digest_of, from_posteriors, inform
from analysis.spectrum import Spectrum
from compression.backends import load_model
from compression.backends.base import VLM, Progress
from compression.backends.embedded.backend import CHECKPOINT
from compression.backends.embedded.regimes import REGIMES, Posteriors, pictures
from compression.backends.embedded.scenes import make_scene
from compression.compressor import Cancel, Plan
from compression.errors import InvalidQuestion
from compression.sight import looking
from compression.strategies import CATALOGUE
from compression.tokens import VisualTokens
from dashboard.settings import Settings as ServerSettings
from storage import AssetMissing, Store, StoreMissing, StoreReadOnly, open_store

KEPT_IN_MEMORY = 600
"""Encoded pictures that are kept while strategies follow each other."""
ENCODES_ITSELF = "information is estimated on one encoding of an image that all strategies share, not on one of its own"
POSTERIORS = CHECKPOINT / "posteriors.npz"


@dataclass(frozen=True)
class Asking:
    """What is to be asked: one strategy, its samples, and sentences about what was left out."""

    plan: Plan
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()


def regime_askings(vlm: VLM, count: int, plans: Sequence[Plan]) -> list[Asking]:
    """The embedded benchmark: `count` pictures, each with a question of every regime, for each strategy.

    Raises:
        InvalidInformation: another model, or fewer than two pictures.
    """
    if vlm.card.family != "embedded":
        raise InvalidInformation(
            f"the benchmark of regimes is made for the embedded model, got {vlm.card.name!r}; leave --regimes out to "
            "use stored runs"
        )
    if count < 2:
        raise InvalidInformation(f"the benchmark needs at least 2 pictures, got {count}; 128 are a good start")

    @lru_cache(KEPT_IN_MEMORY)
    def look(seed: int) -> VisualTokens:
        image = make_scene(seed).image
        return vlm.encode(image, (image.shape[0], image.shape[1]))

    asked = pictures(count)
    for plan in plans:
        if looking(plan):
            raise InvalidInformation(f"{plan} is not offered: {ENCODES_ITSELF}; choose another strategy")
    samples = tuple(
        Sample(
            f"scene {seed}",
            partial(look, seed),
            vlm.prompt(questions[regime].text, questions[regime].choices),
            questions[regime].answer,
        )
        for regime in REGIMES
        for seed, questions in asked
    )
    return [Asking(plan, samples) for plan in plans]


def stored_askings(store: Store, vlm: VLM, where: str = "") -> list[Asking]:
    """The questions of stored runs of this model, per strategy; the uncompressed model's first.

    Args:
        store: Where the runs are.
        vlm: Runs of other weights are left out.
        where: A condition in SQL over the columns of `v_runs`; read only.

    Raises:
        InvalidCondition: the condition cannot be read.
        InvalidInformation: no template of any strategy has two questions.
    """
    rows = store.asked(where)
    mine = [row for row in rows if row.model_revision == vlm.card.revision]
    notes = []
    if len(mine) < len(rows):
        notes.append(f"{len(rows) - len(mine)} runs of other models or weights are left out.")
    look = _reader(store, vlm)
    found: dict[str, dict[tuple[str, str], Sample]] = {}
    unread = 0
    for row in mine:
        if len(row.choices) < 2:
            continue
        try:
            prompt = vlm.prompt(row.question, row.choices)
        except InvalidQuestion:  # of a store that was written when it was allowed
            unread += 1
            continue
        if set(prompt.choices) == set(row.choices):
            sample = Sample(row.image, partial(look, row.image), prompt, row.expected)
            found.setdefault(row.strategy, {})[row.image, prompt.text] = sample
    if unread:
        notes.append(f"{unread} runs are left out, whose questions this version does not ask.")
    askings = []
    if blind := sorted(strategy for strategy in found if looking(CATALOGUE.plan(strategy))):
        notes.append(f"Left out: {', '.join(blind)}; {ENCODES_ITSELF}.")
        found = {strategy: members for strategy, members in found.items() if strategy not in blind}
    for strategy, members in sorted(found.items(), key=lambda item: CATALOGUE.name_of(item[0]) != "identity"):
        # In one order whatever the runs' ids are, so that strategies can be paired.
        samples, lonely = _with_partners([members[key] for key in sorted(members)])
        said = [*notes, f"Left out of {strategy}: {lonely} without another question with the same choices."]
        said = said if lonely else notes
        if samples:
            askings.append(Asking(CATALOGUE.plan(strategy), tuple(samples), tuple(said)))
    if not askings:
        raise InvalidInformation(
            f"{len(mine)} stored runs of {vlm.card.name} give no two questions of one strategy with the same choices; "
            "ask more questions with keepmap run, or try keepmap pid --regimes 128 -s identity"
        )
    return askings


def _with_partners(samples: list[Sample]) -> tuple[list[Sample], int]:
    alone = {members[0] for members in by_template(samples).values() if len(members) == 1}
    return [sample for at, sample in enumerate(samples) if at not in alone], len(alone)


def _reader(store: Store, vlm: VLM) -> Callable[[str], VisualTokens]:
    @lru_cache(KEPT_IN_MEMORY)
    def look(digest: str) -> VisualTokens:
        try:
            path = store.image_path(digest)
        except AssetMissing as error:
            raise InvalidInformation(f"an image of the stored runs is not kept any more: {error}") from error
        info = describe(path)
        size = (info.height, info.width)
        return vlm.encode(read_rgb(path, size=vlm.wanted_size(size)).rgb, size)

    return look


def passes(askings: Sequence[Asking], settings: Settings) -> int:
    """How many questions will be put to the model at most, to be told before it begins."""
    return sum(
        count_passes(one.samples, settings.intervention, partners=settings.partners, draws=settings.draws)
        for one in askings
    )


def inform_and_store(
    store: Store,
    vlm: VLM,
    askings: Sequence[Asking],
    settings: Settings,
    *,
    owner: str = "",
    is_sample: bool = False,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> list[Spectrum]:
    """Compute what the store lacks and return the spectra of all askings, the answers' and the layers'.

    Raises:
        InvalidBudget, InvalidParameter, MissingSignal: one of the strategies cannot run; nothing was asked.
        AnalysisError, CompressionError, PidError: the samples, a strategy or the solver; what was finished before is
            stored.
    """
    for asking in askings:  # all of them, before anything is asked
        vlm.check(asking.plan, len(asking.samples[0].look()))
    spectra: list[Spectrum] = []
    reference: list[Informed] = []
    compared: tuple[Sample, ...] = ()
    for asking in askings:
        samples, plan = asking.samples, asking.plan
        found = _stored(store, vlm, asking, settings, owner)
        if found is None:
            given = reference if _same(samples, compared) else []
            found = inform(vlm, samples, plan, settings, reference=given, progress=progress, cancel=cancel)
            for one in found:
                store.add_spectra(one.spectra, one.arrays, owner, is_sample=is_sample)
        if plan.info.name == "identity":
            reference, compared = found, samples
        spectra += [one for informed in found for one in informed.spectra]
    return spectra


def _same(one: Sequence[Sample], other: Sequence[Sample]) -> bool:
    keys = [[(sample.picture, sample.prompt.text, sample.prompt.choices) for sample in part] for part in (one, other)]
    return keys[0] == keys[1]


def _stored(store: Store, vlm: VLM, asking: Asking, settings: Settings, owner: str) -> list[Informed] | None:
    """What was computed before, where it was computed for all templates."""
    found = []
    for template in by_template(asking.samples):
        request = digest_of(vlm, asking.samples, asking.plan, settings, template)
        spectra = store.find_spectra(request=request, owner=owner)
        if not spectra:
            return None
        arrays = store.spectrum_arrays(spectra[0].id)
        if "full" not in arrays:  # those that come with Keepmap come without the beliefs behind them
            return None
        found.append(Informed(tuple(spectra), beliefs_from(spectra[0], arrays)))
    return found


def training_spectra(vlm: VLM, settings: Settings) -> list[tuple[Spectrum, ...]]:
    """Spectra at the moments that the training of the embedded model kept, from the posteriors beside its weights.

    Raises:
        StoreMissing: there is no such file.
    """
    if not POSTERIORS.exists():
        raise StoreMissing("the embedded model has no posteriors.npz beside its weights; train it with keepmap")
    said = Posteriors.load(POSTERIORS)
    made = []
    for regime in range(len(REGIMES)):
        task = vlm.prompt(str(said.texts[regime, 0]), [str(choice) for choice in said.choices[regime, 0]])
        with np.errstate(divide="ignore"):
            logs = np.log(said.posteriors[:, regime] * said.confidences[:, regime, :, :, None])
        made.append(
            tuple(
                from_posteriors(
                    vlm, CATALOGUE.plan("identity"), task, logs[moment], said.right[regime], said.seeds,
                    int(step), settings,
                )
                for moment, step in enumerate(said.steps)
            )
        )  # fmt: skip
    return made


def decompose_for(
    served: ServerSettings,
    settings: Settings,
    *,
    where: str = "",
    regimes: int | None = None,
    strategies: Sequence[str] = ("identity",),
    tell: Callable[[str], None] = lambda _line: None,
) -> tuple[list[Spectrum], list[str]]:
    """What `keepmap pid` does: load the model, gather samples, compute what is missing, store it.

    Args:
        served: Store, model and device.
        settings: How to ask and estimate.
        where: Which stored runs.
        regimes: Pictures of the embedded benchmark to ask about instead, or None.
        strategies: For the benchmark; the uncompressed model is asked first, as the reference.
        tell: Receives a line before the passes and now and then.

    Returns:
        The spectra, and sentences about what was left out.

    Raises:
        StoreMissing: stored runs are asked for and there is no store.
    """
    plans = [CATALOGUE.plan(name) for name in dict.fromkeys(strategies)]
    plans.sort(key=lambda plan: plan.info.name != "identity")
    if regimes is None and not served.is_in_memory:
        # No store is made to say that it has no run; one of an earlier version is brought up to date below.
        with suppress(StoreReadOnly):
            open_store(served.db, assets=served.assets_path, read_only=True).close()
    vlm = load_model(served.model, device=served.device)
    with open_store(served.db, assets=served.assets_path) as store:
        askings = stored_askings(store, vlm, where) if regimes is None else regime_askings(vlm, regimes, plans)
        tell(f"Up to {passes(askings, settings):,} questions are put to the model; what is stored is not asked again.")
        spectra = inform_and_store(store, vlm, askings, settings, progress=_now_and_then(tell))
    return spectra, list(dict.fromkeys(note for one in askings for note in one.notes))


def _now_and_then(tell: Callable[[str], None]) -> Progress:
    """Progress of one strategy in quarters."""
    told = 0

    def progress(message: str, share: float) -> None:
        nonlocal told
        quarter = int(4 * share)
        if quarter != told:
            told = quarter % 4
            tell(message)

    return progress
