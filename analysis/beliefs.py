"""What a model believes of the choices when it sees picture and question, the picture alone, the question alone.

The passes that partial information decomposition is estimated from. Everything is asked about what a strategy let
through, so that the atoms before and after compression can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.errors import InvalidInformation
from compression.backends.base import VLM, Given, Intervention, Progress, Prompt
from compression.compressor import Cancel, Plan
from compression.tokens import VisualTokens

InterventionName = Literal["shuffled", "mean", "noise", "dropped", "options_kept"]
SelectionName = Literal["frozen", "rerun"]

INTERVENTIONS: dict[str, str] = {
    "shuffled": (
        "Pictures meet the questions of other samples of the same template, each with each; what a picture says is the "
        "mean over the questions. The three tables are marginals of one joint, in which both sources are independent. "
        "A question about something that a picture does not show carries little information."
    ),
    "mean": "The other source's embeddings are replaced by their mean over all samples.",
    "noise": (
        "The other source's embeddings are replaced by normal noise with their mean and standard deviation, averaged "
        "over draws; listed answers are erased with the question (Xiu et al., ICLR 2026)."
    ),
    "dropped": "Nothing may attend to the other source.",
    "options_kept": "As mean, but the listed answers stay when the question is erased.",
}
"""What stands in for the source that a pass leaves out, by name."""

SELECTIONS: dict[str, str] = {
    "frozen": (
        "The strategy decided once, with picture and question together, and every pass sees what it let through then: "
        "what a question let through counts as the picture's."
    ),
    "rerun": "The strategy decides anew in every pass, with the question of that pass.",
}
"""Whether a strategy decides anew in every pass, by name."""

PARTNERS = 8
DRAWS = 4


@dataclass(frozen=True)
class Sample:
    """One question about one picture.

    Args:
        picture: Digest of the picture; samples of one picture are resampled together.
        look: Gives the picture's visual tokens.
        prompt: The question with its choices.
        expected: The right choice, where it is known.
    """

    picture: str
    look: Callable[[], VisualTokens]
    prompt: Prompt
    expected: str | None = None

    @property
    def template(self) -> tuple[str, tuple[str, ...]]:
        """What samples must share to be each other's partners: the task, and the choices in their order."""
        return self.prompt.task, self.prompt.choices


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Beliefs about the choices of one template, natural logarithms of probabilities under the whole vocabulary.

    With `shuffled`, rows are pairs of a picture and a question and `vision` and `language` are None: they are means
    over the pairs (`analysis.information`). Otherwise rows are the samples.

    Args:
        task: Name of the template, or "".
        choices: The answers, in order.
        intervention, selection: As asked for.
        full: float32 [depths, rows, choices], picture and question.
        vision: The picture alone.
        language: The question alone.
        picture: int64 [rows], the sample whose picture a row has.
        question: int64 [rows], the sample whose question a row has.
        own: float32 [depths, samples, choices], each sample's own picture and question.
        blind: float32 [depths, samples, choices], each sample's question with the picture left out; NaN for samples
            that are not among the pairs.
        cluster: int64 [samples], equal for samples of one picture.
        right: int64 [samples], the right choice, -1 where it is not known.
        retention: Mean share of the visual tokens that the language model's layers processed, 0..1.
        passes: How many questions were put to the model.
    """

    task: str
    choices: tuple[str, ...]
    intervention: str
    selection: str
    full: NDArray[np.float32]
    vision: NDArray[np.float32] | None
    language: NDArray[np.float32] | None
    picture: NDArray[np.int64]
    question: NDArray[np.int64]
    own: NDArray[np.float32]
    blind: NDArray[np.float32]
    cluster: NDArray[np.int64]
    right: NDArray[np.int64]
    retention: float
    passes: int

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.cluster)

    def at_depth(self, depth: int) -> Beliefs:
        """The beliefs of one layer alone."""
        part = slice(depth, depth + 1) if depth != -1 else slice(-1, None)
        return replace(
            self,
            full=self.full[part],
            vision=None if self.vision is None else self.vision[part],
            language=None if self.language is None else self.language[part],
            own=self.own[part],
            blind=self.blind[part],
        )


def product_of(samples: int, partners: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Which samples' pictures all meet which samples' questions: the square root of `samples × partners` of them.

    All pairs of few samples cost as much as a few pairs of all, and are the product of the marginals itself. In a
    design in which every picture meets other questions, the sampling of these passes for information of the picture:
    with 8 partners and 4 equally likely answers that only the question tells, 0.26 bits.

    >>> len(product_of(512, 8, np.random.default_rng(0)))
    64

    Returns:
        int64 [chosen], ascending; all samples where there are no more than partners.
    """
    size = min(samples, max(int(np.sqrt(samples * partners)), 2))
    return np.sort(rng.permutation(samples)[:size]).astype(np.int64)


def count_passes(samples: Sequence[Sample], intervention: str, *, partners: int = PARTNERS, draws: int = DRAWS) -> int:
    """How many questions `believe` will put to the model, to be told before it begins."""
    total = 0
    for members in by_template(samples).values():
        number = len(members)
        if intervention == "shuffled":
            chosen = len(product_of(number, partners, np.random.default_rng(0)))
            total += number - chosen + chosen * chosen
        else:
            total += number * (1 + 2 * (draws if intervention == "noise" else 1))
    return total


def by_template(samples: Sequence[Sample]) -> dict[tuple[str, tuple[str, ...]], list[int]]:
    """Positions of the samples of each template, in order of appearance."""
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for position, sample in enumerate(samples):
        found.setdefault(sample.template, []).append(position)
    return found


def believe(
    vlm: VLM,
    samples: Sequence[Sample],
    plan: Plan,
    intervention: str = "shuffled",
    *,
    selection: str = "frozen",
    partners: int = PARTNERS,
    draws: int = DRAWS,
    seed: int = 0,
    layers: bool = False,
    lens_norm: bool = True,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> list[Beliefs]:
    """Ask a model about samples under a strategy, with everything and with one source left out.

    Args:
        vlm: The model.
        samples: At least two of each template.
        plan: The strategy.
        intervention: What stands in for the source left out; a name of `INTERVENTIONS`.
        selection: Whether the strategy decides anew; a name of `SELECTIONS`. `rerun` is defined for `shuffled` only.
        partners: How many passes per sample shuffling may take; see `product_of`.
        draws: Of noise, averaged.
        seed: Of pairs, noise and strategies that draw.
        layers: Whether every layer is read by the logit lens.
        lens_norm: Whether it applies the final norm.
        progress, cancel: Told how far it is; asked whether to stop.

    Returns:
        One entry per template, in order of appearance. What the strategy let through of every sample stays in memory
        meanwhile: samples × outputs × dim floats.

    Raises:
        InvalidInformation: an unknown name, a template with one sample, or a combination that is not defined.
        CompressionError: the strategy cannot run, a question cannot be asked, or `cancel` said stop.
    """
    groups = by_template(samples)
    _check(groups, samples, intervention, selection)
    tell = _Telling(progress, count_passes(samples, intervention, partners=partners, draws=draws))

    def ask(given: Given, prompts: Sequence[Prompt], what: Intervention | None = None) -> NDArray[np.float32]:
        said = vlm.ask(
            given, prompts, intervention=what or Intervention(), layers=layers, lens_norm=lens_norm, cancel=cancel
        )
        tell.more(len(prompts))
        return np.stack(said, 1).astype(np.float32)

    if intervention == "shuffled":
        rng = np.random.default_rng((seed, 41))
        return [
            _shuffled(vlm, [samples[at] for at in members], plan, ask, product_of(len(members), partners, rng),
                      selection, seed)
            for members in groups.values()
        ]  # fmt: skip
    givens = [vlm.give(sample.look(), sample.prompt, plan, seed=seed) for sample in samples]
    words = [vlm.embed_question(sample.prompt) for sample in samples]
    absent = _Absent.of(intervention, givens, words, draws, seed, vlm.architecture.layers)
    return [_replaced(members, samples, givens, ask, absent) for members in groups.values()]


Ask = Callable[..., NDArray[np.float32]]


def _check(
    groups: dict[tuple[str, tuple[str, ...]], list[int]], samples: Sequence[Sample], intervention: str, selection: str
) -> None:
    if intervention not in INTERVENTIONS:
        raise InvalidInformation(f"no intervention is named {intervention!r}; choose among {', '.join(INTERVENTIONS)}")
    if selection not in SELECTIONS:
        raise InvalidInformation(f"no selection is named {selection!r}; choose among {', '.join(SELECTIONS)}")
    if selection == "rerun" and intervention != "shuffled":
        raise InvalidInformation(
            f"selection 'rerun' is defined with intervention 'shuffled' only, got {intervention!r}: without its "
            "question a strategy has nothing to decide with; use 'frozen'"
        )
    if not samples:
        raise InvalidInformation("there are no samples; ask at least two questions with the same choices")
    for (task, choices), members in groups.items():
        if len(members) < 2:
            named = f"the task {task!r}" if task else f"the template with the choices {', '.join(choices)}"
            raise InvalidInformation(
                f"{named} has one sample; information needs at least two with the same choices in the same order"
            )


def _outline(
    members: Sequence[Sample],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cluster and right choice of each sample."""
    numbers: dict[str, int] = {}
    cluster = np.array([numbers.setdefault(one.picture, len(numbers)) for one in members], np.int64)
    right = [one.prompt.choices.index(one.expected) if one.expected in one.prompt.choices else -1 for one in members]
    return cluster, np.array(right, np.int64)


def _shuffled(
    vlm: VLM,
    members: Sequence[Sample],
    plan: Plan,
    ask: Ask,
    chosen: NDArray[np.int64],
    selection: str,
    seed: int,
) -> Beliefs:
    own: list[NDArray[np.float32]] = []
    rows: list[NDArray[np.float32]] = []
    shares = []
    others = [members[at].prompt for at in chosen]
    for number, sample in enumerate(members):
        tokens = sample.look()
        given = vlm.give(tokens, sample.prompt, plan, seed=seed)
        shares.append(given.retention(vlm.architecture.layers))
        place = np.searchsorted(chosen, number)
        if place == len(chosen) or chosen[place] != number:
            own.append(ask(given, [sample.prompt]))
            continue
        if selection == "frozen":
            said = ask(given, others)
        else:
            said = np.concatenate([ask(vlm.give(tokens, one, plan, seed=seed), [one]) for one in others], 1)
        own.append(said[:, place : place + 1])
        rows.append(said)
    full = np.concatenate(rows, 1)
    picture, question = (axis.ravel() for axis in np.meshgrid(chosen, chosen, indexing="ij"))
    together = np.concatenate(own, 1)
    # A question that met no other picture has no belief without its own.
    blind = np.full_like(together, np.nan)
    blind[:, chosen] = _log_mean(full, np.searchsorted(chosen, question), len(chosen))
    cluster, right = _outline(members)
    return Beliefs(
        task=members[0].prompt.task,
        choices=members[0].prompt.choices,
        intervention="shuffled",
        selection=selection,
        full=full,
        vision=None,
        language=None,
        picture=picture,
        question=question,
        own=together,
        blind=blind,
        cluster=cluster,
        right=right,
        retention=float(np.mean(shares)),
        passes=len(members) - len(chosen) + len(full[0]),
    )


def _log_mean(logs: NDArray[np.float32], at: NDArray[np.int64], count: int) -> NDArray[np.float32]:
    """Logarithm of the mean probability of the rows that belong to each of `count`, [depths, count, choices]."""
    order = np.argsort(at, kind="stable")
    starts = np.searchsorted(at[order], np.arange(count))
    summed = np.logaddexp.reduceat(logs[:, order].astype(np.float64), starts, axis=1)
    mean: NDArray[np.float32] = (summed - np.log(np.bincount(at, minlength=count))[:, None]).astype(np.float32)
    return mean


def _replaced(
    members: Sequence[int], samples: Sequence[Sample], givens: Sequence[Given], ask: Ask, absent: _Absent
) -> Beliefs:
    full, vision, language = [], [], []
    for at in members:
        prompt = [samples[at].prompt]
        full.append(ask(givens[at], prompt))
        vision.append(_mean([ask(givens[at], prompt, what) for what in absent.question(at)]))
        language.append(_mean([ask(givens[at], prompt, what) for what in absent.picture(at, givens[at])]))
    chosen = [samples[at] for at in members]
    cluster, right = _outline(chosen)
    everyone = np.arange(len(chosen))
    together = np.concatenate(full, 1)
    alone = np.concatenate(language, 1)
    return Beliefs(
        task=chosen[0].prompt.task,
        choices=chosen[0].prompt.choices,
        intervention=absent.name,
        selection="frozen",
        full=together,
        vision=np.concatenate(vision, 1),
        language=alone,
        picture=everyone,
        question=everyone,
        own=together,
        blind=alone,
        cluster=cluster,
        right=right,
        retention=float(np.mean([givens[at].retention(absent.layers) for at in members])),
        passes=len(chosen) * (1 + 2 * absent.draws),
    )


def _mean(draws: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Logarithm of the mean probability over draws."""
    if len(draws) == 1:
        return draws[0]
    summed = np.logaddexp.reduce(np.stack(draws).astype(np.float64), 0)
    mean: NDArray[np.float32] = (summed - np.log(len(draws))).astype(np.float32)
    return mean


@dataclass(frozen=True)
class _Absent:
    """What stands in for a source, by the name of the intervention; statistics over all samples."""

    name: str
    visual: tuple[Tensor, Tensor]  # mean and population standard deviation, [dim]
    words: tuple[Tensor, Tensor]
    counts: tuple[int, ...]  # words of each sample
    draws: int
    seed: int
    layers: int

    @classmethod
    def of(
        cls, name: str, givens: Sequence[Given], words: Sequence[Tensor], draws: int, seed: int, layers: int
    ) -> _Absent:
        """Mean and deviation over all visual tokens that entered the language model, and over all words."""
        return cls(
            name,
            _moments([given.features for given in givens]),
            _moments(words),
            tuple(len(one) for one in words),
            draws if name == "noise" else 1,
            seed,
            layers,
        )

    def picture(self, sample: int, given: Given) -> list[Intervention]:
        """One intervention on the picture per draw."""
        if self.name == "dropped":
            return [Intervention(hides_visual=True)]
        return [Intervention(visual=rows) for rows in self._rows(self.visual, sample, len(given.features), 0)]

    def question(self, sample: int) -> list[Intervention]:
        """One intervention on the question per draw."""
        keeps = self.name == "options_kept"
        if self.name == "dropped":
            return [Intervention(hides_words=True)]
        # Listed answers are erased with the question and may be more words than it has.
        count = 4 * self.counts[sample] + 64
        return [Intervention(words=rows, keeps_options=keeps) for rows in self._rows(self.words, sample, count, 1)]

    def _rows(self, moments: tuple[Tensor, Tensor], sample: int, count: int, source: int) -> list[Tensor]:
        mean, deviation = moments
        if self.name != "noise":
            return [mean[None]]
        made = []
        for draw in range(self.draws):
            number = np.random.SeedSequence((self.seed, 43, source, sample, draw)).generate_state(1)[0]
            generator = torch.Generator().manual_seed(int(number))
            noise = torch.randn(count, len(mean), generator=generator).to(mean)
            made.append(mean + noise * deviation)
        return made


def _moments(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Per-dimension mean and population standard deviation over all rows, in float64 on the way."""
    count = sum(len(part) for part in parts)
    total = torch.stack([part.double().sum(0) for part in parts]).sum(0)
    mean = total / count
    square = torch.stack([((part.double() - mean) ** 2).sum(0) for part in parts]).sum(0)
    return mean.to(parts[0]), (square / count).sqrt().to(parts[0])


class _Telling:
    """Counts questions and tells the share that is done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def more(self, questions: int) -> None:
        """So many more were asked."""
        self._done += questions
        if self._progress is not None:
            self._progress(f"Asked {self._done:,} of {self._total:,} questions", self._done / self._total)
