"""Questions put to a picture that was compressed once: the passes of the information analysis.

The pass in which a strategy decided is frozen (`give`): what entered the language model, and what each step inside it
dropped. Then any questions are asked about just that (`ask`), several in one sequence in which a question sees the
picture and itself only, at the positions that it would have alone. One source may be replaced or hidden on the way;
ids, layout, positions and mask of the call stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compression.backends import attention
from compression.backends.base import NO_INTERVENTION, Given, Intervention, Prompt, SequenceLayout
from compression.backends.caching import hiding
from compression.backends.decoding import answer_ids
from compression.backends.hooks import cut_between
from compression.backends.inside import Inside
from compression.backends.placing import original_ids
from compression.backends.planning import acts_of
from compression.backends.prefill import Family, compress_before, context_of, prefill, stop_if
from compression.compressor import Cancel, Context, Plan, Stage
from compression.errors import InvalidQuestion
from compression.tokens import VisualTokens

TEXT_AT_ONCE = 512
"""Text tokens behind one picture in one pass."""
LETTERS = frozenset("ABCDEFGH")


class Asked(Family, Protocol):
    """What a family's backend gives beyond a prefill."""

    model: Any
    tokenizer: Any
    image_id: int

    @property
    def word_embeddings(self) -> nn.Module:
        """What turns word ids into embeddings."""

    def unembed(self, hidden: Tensor, *, norm: bool = True) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., dim]."""


@torch.no_grad()
def give(family: Asked, tokens: VisualTokens, prompt: Prompt, plan: Plan, *, seed: int = 0) -> Given:
    """Let a strategy decide about a picture with a question, and freeze what it decided.

    Raises:
        StrategyError, BackendError: as `VLM.generate` says.
    """
    if all(step.stage is Stage.ENCODER for step in plan.steps):
        entering, features = compress_before(family, tokens, plan, context_of(family, prompt, seed))
        return Given(tokens.grid, plan, entering, family.given(features, entering, tokens), {})
    made = prefill(family, tokens, prompt, plan, seed=seed)
    return Given(tokens.grid, plan, made.entering, made.features, made.acts, made.cached)


@torch.no_grad()
def ask(
    family: Asked,
    given: Given,
    prompts: Sequence[Prompt],
    *,
    intervention: Intervention = NO_INTERVENTION,
    layers: bool = False,
    lens_norm: bool = True,
    cancel: Cancel | None = None,
) -> list[NDArray[np.float64]]:
    """What the model believes about the choices of each prompt.

    Args:
        family: The backend.
        given: A picture as it was given to the language model.
        prompts: With choices; all about this picture.
        intervention: What is replaced or hidden.
        layers: Whether every layer is read by the logit lens instead of the last one alone.
        lens_norm: Whether the final norm is applied before the head in layers below the last.
        cancel: Asked before every pass.

    Returns:
        For each prompt the natural logarithm of the probability of each choice under the whole vocabulary, float64
        [depths, choices]; depths is 1, or the number of layers.

    Raises:
        InvalidQuestion: a prompt has fewer than two choices, or its letters are several tokens each.
        Cancelled: `cancel` said so.
    """
    blocks = family.blocks(given.entering, given.grid)
    asked = [_Asked.of(family, given, prompt, blocks) for prompt in prompts]
    said: list[NDArray[np.float64]] = []
    at = 0
    while at < len(asked):
        stop_if(cancel)
        until, length = at, 0
        while until < len(asked) and asked[until].prefix == asked[at].prefix:
            if until > at and length + asked[until].length > TEXT_AT_ONCE:
                break
            length, until = length + asked[until].length, until + 1
        said += _pass(family, given, asked[at:until], blocks, intervention, layers, lens_norm)
        at = until
    return said


@dataclass(frozen=True)
class _Branch:
    """What follows the picture: ids, and where which token's probability is read for which choice."""

    ids: tuple[int, ...]
    places: tuple[int, ...]  # position ids
    reads: tuple[tuple[int, int, int], ...]  # place in ids, token, choice


@dataclass(frozen=True)
class _Asked:
    """One prompt, cut behind the picture."""

    prefix: tuple[int, ...]
    places: tuple[int, ...]  # position ids of the prefix
    layout: SequenceLayout
    branches: tuple[_Branch, ...]
    choices: int

    @property
    def length(self) -> int:
        """Text tokens behind the picture."""
        return sum(len(branch.ids) for branch in self.branches)

    @classmethod
    def of(cls, family: Asked, given: Given, prompt: Prompt, blocks: Sequence[NDArray[np.int64]]) -> _Asked:
        """Cut a prompt behind its last visual token; a choice of several tokens gets a branch of its own."""
        if len(prompt.choices) < 2:
            raise InvalidQuestion(
                f"the question {prompt.question!r} has {len(prompt.choices)} choices; name at least two answers to "
                "choose among"
            )
        answers = [answer_ids(family.tokenizer, prompt, choice) for choice in prompt.choices]
        if set(prompt.choices) <= LETTERS:
            for choice, ids in zip(prompt.choices, answers, strict=True):
                if len(ids) > 1:
                    raise InvalidQuestion(
                        f"the letter {choice!r} is {len(ids)} tokens for this model; offer the answers as words"
                    )
        laid, layout = family.lay_out(prompt, blocks, given.grid)
        every = tuple(int(one) for one in laid[0].tolist())
        # Separators of the picture belong to it.
        start = len(every) - every[::-1].index(family.image_id)
        stem, last = every[start:], len(every) - start - 1
        kept = original_ids(family, prompt, laid, layout, given.entering, given.grid)
        places: list[int] = list(range(len(every))) if kept is None else kept.tolist()
        places += range(places[-1] + 1, places[-1] + max(map(len, answers)))
        shared = tuple((last, answer[0], number) for number, answer in enumerate(answers))
        longer = [
            _Branch(
                (*stem, *answer[:-1]),
                tuple(places[start : len(every) + len(answer) - 1]),
                tuple((last + step, answer[step], number) for step in range(1, len(answer))),
            )
            for number, answer in enumerate(answers)
            if len(answer) > 1
        ]
        branches = (_Branch(stem, tuple(places[start : len(every)]), shared), *longer)
        return cls(every[:start], tuple(places[:start]), layout, branches, len(answers))


@dataclass
class _Packed:
    """Several prompts behind one picture: ids, mask, positions, and where things lie."""

    ids: Tensor
    mask: Tensor
    positions: Tensor  # int64 [1, length], position ids
    counted: Tensor  # int64 [length], those without gaps
    words: Tensor  # int64, positions of the question's words
    options: Tensor  # int64, positions of the listed answers
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)  # prompt, choice, place from the end, token
    later: list[int] = field(default_factory=list)  # places from the end that decoding steps would process

    @classmethod
    def of(cls, asked: Sequence[_Asked], device: str) -> _Packed:
        """Put the branches of all prompts one after the other."""
        prefix = asked[0].prefix
        ids, segment = list(prefix), [-1] * len(prefix)
        positions, counted = list(asked[0].places), list(range(len(prefix)))
        words: list[int] = []
        options: list[int] = []
        reads: list[tuple[int, int, int, int]] = []
        later: list[int] = []
        number = 0
        for prompt, one in enumerate(asked):
            for branch in one.branches:
                start = len(ids)
                moved = start - len(prefix)
                # Words in front of the picture belong to all; there is then but one prompt in the sequence.
                for places, found in ((one.layout.question, words), (one.layout.options, options)):
                    found += [int(place) + (moved if place >= len(prefix) else 0) for place in places]
                reads += [(prompt, choice, start + place, token) for place, token, choice in branch.reads]
                later += range(start + len(one.branches[0].ids), start + len(branch.ids))
                ids += branch.ids
                segment += [number] * len(branch.ids)
                positions += branch.places
                counted += range(len(prefix), len(prefix) + len(branch.ids))
                number += 1
        owner = torch.tensor(segment)
        order = torch.arange(len(ids))
        mask = (order[:, None] >= order[None]) & ((owner[None] == -1) | (owner[None] == owner[:, None]))
        return cls(
            ids=torch.tensor([ids], device=device),
            mask=mask[None, None].to(device),
            positions=torch.tensor([positions], device=device),
            counted=torch.tensor(counted, device=device),
            words=torch.tensor(sorted(set(words)), dtype=torch.int64, device=device),
            options=torch.tensor(sorted(set(options)), dtype=torch.int64, device=device),
            # Counted from the end: a step inside the language model shortens the sequence in front of them.
            reads=[(prompt, choice, place - len(ids), token) for prompt, choice, place, token in reads],
            later=[place - len(ids) for place in later],
        )

    def erased(self, *, keeps_options: bool) -> Tensor:
        """Positions of the words that an intervention on the question touches, ascending."""
        every: Tensor = torch.cat([self.words, self.options]).unique()
        return every if not keeps_options else every[~torch.isin(every, self.options)]


def _pass(
    family: Asked,
    given: Given,
    asked: Sequence[_Asked],
    blocks: Sequence[NDArray[np.int64]],
    intervention: Intervention,
    layers: bool,
    lens_norm: bool,
) -> list[NDArray[np.float64]]:
    """One pass over prompts with the same prefix."""
    packed = _Packed.of(asked, family.device)
    features = given.features
    if intervention.visual is not None:
        features = _in_order(intervention.visual, len(features)).to(features)
    words = packed.erased(keeps_options=intervention.keeps_options)
    visual = torch.from_numpy(asked[0].layout.visual).to(packed.ids.device)
    for hides, places in ((intervention.hides_visual, visual), (intervention.hides_words, words)):
        if hides:
            packed.mask[..., places] = False
            packed.mask[..., places, places] = True  # a row that attends to nothing would be no number
    axes = family.place(packed.ids, given.entering, given.grid)
    if axes is not None:
        axes = axes.taken(packed.counted)
    inside = Inside(
        steps=acts_of(given.plan, len(given.grid), len(given.entering), family.architecture.layers),
        grid=given.grid,
        context=Context(),
        layout=_whole(asked[0].layout, packed.ids.shape[1]),
        entering=given.entering,
        family=family,
        axes=axes,
        counted=packed.counted if axes is None else None,
        frozen=given.acts,
    )
    later = torch.tensor(packed.later, dtype=torch.int64, device=packed.ids.device)

    def bias_of(layer: int) -> Tensor | None:
        bias = inside.biases[layer]
        if layer not in given.cached or not len(later):
            return bias
        return hiding(inside.layout, given.cached[layer], inside.layout.length + later, bias)

    places = torch.tensor([place for _, _, place, _ in packed.reads], device=packed.ids.device)
    with (
        _replaced(family.word_embeddings, words, intervention.words),
        _heard(family.decoder_layers if layers else [], places) as heard,
        cut_between(family.decoder_layers, inside.before),
        attention.calibrated(bias_of),
    ):
        output = family.forward(
            packed.ids,
            features,
            blocks,
            inside=inside,
            attention_mask=packed.mask,
            position_ids=packed.positions if axes is None else axes.for_library(),
            use_cache=False,
            logits_to_keep=places,
        )
    logits = [output.logits[0]]
    if layers:
        logits = [family.unembed(hidden, norm=lens_norm) for hidden in heard[:-1]] + logits
    said = [np.zeros((len(logits), one.choices)) for one in asked]
    for depth, scored in enumerate(logits):
        logs = scored.float().log_softmax(-1)
        for row, (prompt, choice, _, token) in enumerate(packed.reads):
            said[prompt][depth, choice] += float(logs[row, token])
    return said


def _whole(layout: SequenceLayout, length: int) -> SequenceLayout:
    """The layout of a packed sequence, as far as a step inside the language model asks for it."""
    none = np.empty(0, dtype=np.int64)
    return SequenceLayout(length, layout.visual, layout.outputs, none, length - 1, separators=layout.separators)


def _in_order(rows: Tensor, count: int) -> Tensor:
    """The first `count` rows, from the start again where there are fewer."""
    return rows[torch.arange(count, device=rows.device) % len(rows)]


@contextmanager
def _replaced(embeddings: nn.Module, places: Tensor, rows: Tensor | None) -> Iterator[None]:
    """Other embeddings at some positions of the sequence, while the block runs."""
    if rows is None or not len(places):
        yield
        return

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        changed = output.clone()
        changed[:, places] = _in_order(rows, len(places)).to(output)
        return changed

    handle = embeddings.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _heard(layers: Sequence[nn.Module], places: Tensor) -> Iterator[list[Tensor]]:
    """Collect each layer's hidden states [places, dim] at positions counted from the end of the sequence."""
    heard: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        heard.append(hidden[0, places])

    handles = []
    try:
        handles += [layer.register_forward_hook(hook) for layer in layers]
        yield heard
    finally:
        for handle in handles:
            handle.remove()
