"""What a model must offer to be compared: a few verbs, declared signals, and the shapes they speak in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from compression.compressor import Cancel, Plan
from compression.grid import Box, TokenGrid
from compression.merging import Merging
from compression.selection import Selection
from compression.sight import Prospect
from compression.tokens import Signal, VisualTokens
from compression.zooming.written import Coordinates


@dataclass(frozen=True)
class Prompt:
    """A question as the model will read it.

    Args:
        question: The user's words.
        choices: Answers to choose among, empty for a free answer.
        text: What the model reads around the picture; one `<image>` stands for all of its views.
        family: "object-semantic", "scene-geometric" or "knowledge" where the question's template is known, else "".
        task: The template's name, else "".
        notices: What the user should know: unknown words, a question outside the model's domain.
        span: Where the question's words lie in `text`, as characters; None where the backend finds them itself.
        options: Where the listed answers lie in `text`, as characters; None where none are listed.
    """

    question: str
    choices: tuple[str, ...]
    text: str
    family: str = ""
    task: str = ""
    notices: tuple[str, ...] = ()
    span: tuple[int, int] | None = None
    options: tuple[int, int] | None = None


@dataclass(frozen=True)
class SequenceLayout:
    """Where things lie in the sequence that one language-model layer processes.

    Args:
        length: Number of positions.
        visual: int64 [outputs], positions of the visual tokens.
        outputs: int64 [outputs], which output of the selection before the language model each of them is.
        question: int64 [words], positions of the question's words.
        answer: Position whose next token is the answer: the last of the prompt.
        options: int64 [words], positions of the listed answers' words.
        separators: int64, positions of the tokens without area that belong to the picture: the end of a row, the name
            of a tile, the marks around a view.
        lineage: How the visual tokens here were made of the outputs that entered, where an act inside the language
            model merged some; None where each is the output that `outputs` names.
    """

    length: int
    visual: NDArray[np.int64]
    outputs: NDArray[np.int64]
    question: NDArray[np.int64]
    answer: int
    options: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    separators: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    lineage: Selection | None = None


@dataclass(frozen=True)
class Written:
    """Texts that a model wrote, and what they took.

    Args:
        texts: In the order in which they were written.
        sequence_per_layer: Positions that each layer processed of what all of them read.
        steps: Decoding steps of each text.
    """

    texts: tuple[str, ...]
    sequence_per_layer: tuple[int, ...]
    steps: tuple[int, ...]


@runtime_checkable
class Probe(Protocol):
    """Listens while a model answers; the recorder is one."""

    def attention(self, layer: int, rows: Tensor, layout: SequenceLayout) -> None:
        """Rows of one layer's attention, mean over heads.

        Args:
            layer: Language-model layer, from 0.
            rows: Float [1 + words, length]: the answer position first, then the question's words; each sums to one.
            layout: Where the keys lie.
        """


@dataclass(frozen=True)
class Seconds:
    """A measured time: the median of `repeats` measurements after the warm-up, and their range."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Seconds:
        """Summarise samples in seconds; at least one."""
        return cls(float(np.median(samples)), float(min(samples)), float(max(samples)), len(samples))

    @classmethod
    def total(cls, parts: Sequence[Seconds]) -> Seconds:
        """The time of several things done one after the other; at least one."""
        return cls(
            sum(one.median for one in parts),
            sum(one.low for one in parts),
            sum(one.high for one in parts),
            min(one.repeats for one in parts),
        )


@dataclass(frozen=True)
class Generation:
    """What a model answered, and how.

    Args:
        text: The answer: the likeliest choice, or the decoded text where there are no choices.
        choices: The choices, or the five likeliest first tokens where there were none.
        log_probabilities: Natural logarithm of the probability that the model gives each of them, not renormalised.
        entering: What entered the language model, over the original grid.
        selection: Composition of all steps of the plan, over the original grid; what is left after the last layer.
        tokens_per_layer: Visual tokens that each language-model layer processed.
        sequence_per_layer: Positions that each layer processed at prefill, visual tokens included.
        compress, prefill: Measured seconds.
        decode: Measured seconds of one decoding step after the prefill; None where none was made.
        kv_cache_bytes: Measured from the cache after prefill.
        notices: What the user should know about this answer.
    """

    text: str
    choices: tuple[str, ...]
    log_probabilities: tuple[float, ...]
    entering: Selection
    selection: Selection
    tokens_per_layer: tuple[int, ...]
    sequence_per_layer: tuple[int, ...]
    compress: Seconds
    prefill: Seconds
    decode: Seconds | None
    kv_cache_bytes: int
    notices: tuple[str, ...] = ()

    def probabilities(self, *, renormalised: bool) -> NDArray[np.float64]:
        """Of the choices, in [0, 1]; renormalised over them, or as they are under the whole vocabulary."""
        logs = np.array(self.log_probabilities, dtype=np.float64)
        if not renormalised:
            return np.exp(logs)
        shifted = np.exp(logs - logs.max())  # from the logarithms: the mass itself may underflow
        shares: NDArray[np.float64] = shifted / shifted.sum()
        return shares


@dataclass(frozen=True)
class Given:
    """What a language model was given of a picture, and what became of it inside.

    Args:
        grid: Where the picture's visual tokens lie, before any strategy.
        plan: The strategy.
        entering: What entered the language model.
        features: Float [outputs, dim or more], what the language model was given of them.
        acts: Layer -> decision of the step before it.
        cached: Layer -> visual tokens there that decoding steps may look at, int64 [kv heads, kept]; all where none.
    """

    grid: TokenGrid
    plan: Plan
    entering: Selection
    features: Tensor
    acts: Mapping[int, Selection]
    cached: Mapping[int, Tensor] = field(default_factory=dict)

    def retention(self, layers: int) -> float:
        """Mean share of the visual tokens that the language model's layers processed, 0..1."""
        present, processed = len(self.entering), 0
        for layer in range(layers):
            present = len(self.acts[layer]) if layer in self.acts else present
            processed += present
        return processed / layers / len(self.grid)


@dataclass(frozen=True)
class Intervention:
    """What takes the place of a source within the call.

    Args:
        visual: Float [rows, dim], as wide as `Given.features`, that take the place of the visual tokens in order, over
            again where there are more tokens than rows; None leaves them.
        words: The same for the question's words.
        hides_visual, hides_words: Whether nothing may attend to them.
        keeps_options: Whether the listed answers stay when the question's words are replaced or hidden.
    """

    visual: Tensor | None = None
    words: Tensor | None = None
    hides_visual: bool = False
    hides_words: bool = False
    keeps_options: bool = False


NO_INTERVENTION = Intervention()
"""Everything as it is."""


@dataclass(frozen=True)
class Architecture:
    """The sizes that cost formulas ask for. `ffn` is the width of the gated MLP.

    Of the encoder: `encoder_has_cls` says whether a [CLS] goes with the patches of a view, `encoder_is_gated` whether
    its MLP has three matrices instead of two, `encoder_windowed_layers` in how many layers a patch attends to at most
    `encoder_window` patches instead of all.
    """

    layers: int
    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocabulary: int
    encoder_layers: int
    encoder_dim: int
    encoder_ffn: int
    encoder_has_cls: bool = True
    encoder_is_gated: bool = False
    encoder_windowed_layers: int = 0
    encoder_window: int = 0


@dataclass(frozen=True)
class ModelCard:
    """Who a model is.

    Args:
        name: As a user asks for it: "embedded", a hub id or a directory.
        family: "llava" and so on.
        revision: SHA-256 over the weight files, hex.
        parameters: Number of parameters.
        labels: Travel with each run of the model.
        domain: What the model was trained on where that is narrow ("synthetic scenes"); other images get a notice.
    """

    name: str
    family: str
    revision: str
    parameters: int
    labels: tuple[str, ...] = ()
    domain: str = ""


class VLM(Protocol):
    """A vision-language model behind one interface. All surgery on a model lives in its backend."""

    card: ModelCard
    architecture: Architecture
    provides: frozenset[Signal]
    device: str
    dtype: str

    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at which the model wants an image of this (height, width); more would be wasted."""

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """What the model does not see of an image of this (height, width), in sentences."""

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """How many visual tokens an image of this (height, width) becomes."""

    def patches_per_view(self, grid: TokenGrid) -> tuple[int, ...]:
        """How many patches the vision tower read in each of its passes over the image of a grid.

        Patches on padding count, and so do those that were merged to one token.
        """

    def prospect(self, image_size: tuple[int, int]) -> Prospect:
        """What can be told of an image of (height, width) before any of it is read."""

    def check(self, plan: Plan, total: int, image_size: tuple[int, int] | None = None) -> None:
        """Refuse a plan that cannot run on `total` visual tokens, before anything runs.

        Args:
            total: Of the image when it is read whole.
            image_size: (height, width); what a strategy that looks at the image itself can reach follows from it.

        Raises:
            MissingSignal: the plan needs what the model does not provide.
            InvalidBudget: its budget cannot be reached; `lowest` says what can.
            InvalidParameter: a layer that the model does not have.
        """

    def encode(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> VisualTokens:
        """Visual tokens of an image.

        Args:
            image: uint8 [height, width, 3], the image or a decimated copy.
            image_size: (height, width) of the original, in whose pixels the grid's boxes are.
        """

    def encode_reduced(self, image: NDArray[np.uint8]) -> VisualTokens:
        """Visual tokens of an image that was brought to its size before: nothing is enlarged after that.

        Args:
            image: uint8 [height, width, 3]; the grid's boxes are in its pixels.
        """

    @property
    def coordinates(self) -> Coordinates | None:
        """How the model writes boxes; None where it cannot write any."""

    @property
    def framing(self) -> str:
        """How boxes become frames; see `Lens.framing`."""

    def overview_tiles(self, side: int, tiles: int) -> tuple[int, int]:
        """Longest side in pixels and number of pictures along each side, for an overview of `tiles` of `side`."""

    def encode_overview(self, image: NDArray[np.uint8]) -> VisualTokens:
        """Visual tokens of an overview, or of a tile of it, as it can stand beside crops; as `encode_reduced`."""

    def frames(self, box: Box, image_size: tuple[int, int]) -> tuple[Box, ...]:
        """What the model is to be shown so that it sees a box; see `Lens.frames`."""

    def crop_size(self, frame: Box, image_size: tuple[int, int]) -> tuple[int, int]:
        """The (height, width) at which the model wants a frame."""

    def count_crop(self, frame: Box, image_size: tuple[int, int]) -> int:
        """Visual tokens of a frame."""

    def encode_crop(self, image: NDArray[np.uint8], frame: Box, image_size: tuple[int, int]) -> VisualTokens:
        """Visual tokens of a frame, its grid in original pixels.

        Args:
            image: uint8 [height, width, 3], what the image has of the frame, at `crop_size` or near it.
            frame: One of `frames`.
            image_size: (height, width) of the original.
        """

    def write(
        self,
        tokens: VisualTokens,
        request: str,
        *,
        count: int,
        temperature: float,
        seed: int,
        cancel: Cancel | None = None,
    ) -> Written:
        """Texts that the model writes on a picture when it is told something; see `writing.write`."""

    def encode_merged(
        self, image: NDArray[np.uint8], image_size: tuple[int, int], merging: Merging
    ) -> tuple[VisualTokens, Selection]:
        """Visual tokens of an image, merged inside the encoder; see `Sight.encode_merged`.

        Raises:
            MissingSignal: the tower cannot do it.
        """

    def prompt(self, question: str, choices: Sequence[str] = ()) -> Prompt:
        """The question as the model will read it.

        Raises:
            InvalidQuestion: empty, or no word of it is known.
        """

    def generate(
        self,
        tokens: VisualTokens,
        prompt: Prompt,
        plan: Plan,
        *,
        seed: int = 0,
        probe: Probe | None = None,
        repeats: int = 1,
        warmup: int = 0,
        max_new_tokens: int = 16,
        cancel: Cancel | None = None,
    ) -> Generation:
        """Compress by the plan and answer.

        The measured passes run without the probe; one more pass runs with it, so that recording never enters a time.

        Raises:
            MissingSignal: the plan needs what the model does not provide.
            InvalidBudget: the plan's budget cannot be reached on these tokens.
            Cancelled: `cancel` said so.
        """

    def embed_question(self, prompt: Prompt) -> Tensor:
        """The question's words in the language model's embeddings, [words, dim]."""

    def give(self, tokens: VisualTokens, prompt: Prompt, plan: Plan, *, seed: int = 0) -> Given:
        """Let a strategy decide about a picture with a question, and freeze what it decided.

        Raises:
            MissingSignal, InvalidBudget, InvalidParameter: as `check` says.
        """

    def ask(
        self,
        given: Given,
        prompts: Sequence[Prompt],
        *,
        intervention: Intervention = NO_INTERVENTION,
        layers: bool = False,
        lens_norm: bool = True,
        cancel: Cancel | None = None,
    ) -> list[NDArray[np.float64]]:
        """What the model believes about the choices of prompts on a frozen picture; see `asking.ask`.

        Raises:
            InvalidQuestion: a prompt has fewer than two choices, or its letters are several tokens each.
            Cancelled: `cancel` said so.
        """

    def score(self, features: Tensor, tokens: VisualTokens, prompt: Prompt, answer: str) -> Tensor:
        """Differentiable log-probability of an answer given projected visual tokens [tokens, dim]; a scalar."""


Progress = Callable[[str, float], None]
"""Told what is being done, in words, and the share that is done, 0 to 1."""
