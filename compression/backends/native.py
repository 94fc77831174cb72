"""What the families have in common: loading, the question, the language model and the answer.

A family adds its vision side: which pixels its tower reads of an image, where each visual token lies, which signals the
tower can give, and how the projected tokens are packed for the language model (`blocks`, `pack`).

Positions: tokens removed before the language model leave no gap (their successors move up, as in the released code of
VisionZip and DivPrune), but where ids have several axes (`Axes`) or the strategy is asked to keep them
(`original_ids`); tokens removed inside keep theirs or move up, as the strategy says.
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.processing_utils import ProcessorMixin
from transformers.utils import logging as library_logging

from compression.backends import attention
from compression.backends.asking import ask, give
from compression.backends.axes import Axes
from compression.backends.base import (
    NO_INTERVENTION,
    Architecture,
    Generation,
    Given,
    Intervention,
    ModelCard,
    Probe,
    Prompt,
    Seconds,
    SequenceLayout,
    Written,
)
from compression.backends.decoding import answer_ids, continue_greedily, log_probability, step
from compression.backends.device import choose_device
from compression.backends.hooks import Entering, moved_up
from compression.backends.hub import Checkpoint
from compression.backends.inside import Inside
from compression.backends.planning import check_reachable
from compression.backends.prefill import Pass, prefill
from compression.backends.sequence import PLACEHOLDER, blocks_of, lay_out, question_span
from compression.backends.wording import check_wording
from compression.backends.writing import write
from compression.compressor import Cancel, Plan, Router
from compression.errors import InvalidQuestion, MissingSignal, ModelUnavailable
from compression.grid import Box, TokenGrid
from compression.layer import Heads
from compression.merging import Merging
from compression.positions import Positions
from compression.selection import Selection
from compression.sight import Prospect, looking
from compression.tokens import Signal, VisualTokens
from compression.zooming.written import Coordinates

INSIDE = frozenset({Signal.TEXT, Signal.LAYER_ATTENTION, Signal.LAYER_STATE, Signal.TEACHER_ATTENTION})
"""Signals of the language model, which every family has."""


class NativeBackend(ABC):
    """A checkpoint of a class of the transformers library, from a directory or a hub id.

    Args:
        source: Directory of the checkpoint, or a hub id or `id@revision` where a network is there.
        name: How the user calls it.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "bfloat16", "float16" or "auto" (float32 on a CPU, the checkpoint's own on a GPU).

    Raises:
        DeviceUnavailable: this machine does not have the device.
        ModelUnavailable: it cannot be loaded, with the reason.
    """

    family: str
    provides: frozenset[Signal]
    has_cls: bool
    model_class: ClassVar[Any]
    processor_class: ClassVar[Any]
    labels: tuple[str, ...] = ()
    domain = ""
    router: Router | None = None
    entering_positions: Positions = "renumbered"
    """The convention before the language model where a strategy is not asked for one."""
    coordinates: Coordinates | None = None
    """How the model writes boxes; None where it cannot write any."""
    framing = ""
    """How boxes become frames, in a sentence; "" where a frame is its box."""
    most_reduced: ClassVar[float] = 8.0
    """Pixels of an image per pixel of an overview above which a zoom searches several overviews."""
    beside: ClassVar[int | None] = None
    """Longest side in pixels of an overview that can stand beside crops; None for any."""

    def __init__(
        self, source: str | Path | Checkpoint, *, name: str | None = None, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.device = choose_device(device)
        wanted: Any = (torch.float32 if self.device == "cpu" else "auto") if dtype == "auto" else getattr(torch, dtype)
        library_logging.disable_progress_bar()
        checkpoint = source if isinstance(source, Checkpoint) else Checkpoint.of(source)
        folder = checkpoint.folder()
        try:
            model: Any = self.model_class.from_pretrained(
                folder,
                dtype=wanted,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation={"text_config": attention.NAME, "vision_config": "sdpa"},
            )
            self.processor: Any = self.processor_class.from_pretrained(folder)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            # Before the tokenizer's, which may be that of the language model alone.
            template = ProcessorMixin.get_processor_dict(folder)[0].get("chat_template")
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelUnavailable(
                f"the model {name or source} cannot be loaded: {reason}; give a directory with safetensors weights, "
                "a hub id on a machine with a network, or use the embedded model"
            ) from error
        if template is not None:
            self.tokenizer.chat_template = template
        # Typed in part only by the library.
        self.model: Any = model
        self.model.to(self.device).eval().requires_grad_(False)
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.config: Any = self.model.config
        self.card = ModelCard(
            name=str(name or source),
            family=self.family,
            revision=_weights_digest(checkpoint),
            parameters=sum(parameter.numel() for parameter in self.model.parameters()),
            labels=self.labels,
            domain=self.domain,
        )
        text, vision = self.config.text_config, self.config.vision_config
        self.architecture = Architecture(
            layers=text.num_hidden_layers,
            dim=text.hidden_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
            ffn=text.intermediate_size,
            vocabulary=text.vocab_size,
            encoder_layers=vision.num_hidden_layers,
            encoder_dim=vision.hidden_size,
            encoder_ffn=vision.intermediate_size,
            encoder_has_cls=self.has_cls,
        )
        self.image_id = int(self.config.image_token_id)
        self.image_word = self.word_of(self.image_id)

    def word_of(self, token: int) -> str:
        """A token id as it stands in text."""
        return str(self.tokenizer.convert_ids_to_tokens(token))

    @property
    def picture_word(self) -> str:
        """What the checkpoint's chat template writes for a picture."""
        return self.image_word

    # ------------------------------------------------------------------ image
    @abstractmethod
    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """See `VLM.wanted_size`."""

    @abstractmethod
    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """See `VLM.notices`."""

    @abstractmethod
    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """See `VLM.count_tokens`."""

    @abstractmethod
    def patches_per_view(self, grid: TokenGrid) -> tuple[int, ...]:
        """See `VLM.patches_per_view`."""

    @abstractmethod
    def encode(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> VisualTokens:
        """See `VLM.encode`."""

    def count_reduced(self, size: tuple[int, int]) -> int:
        """How many visual tokens `encode_reduced` makes of an image of (height, width)."""
        return self.count_tokens(size)

    def encode_reduced(self, image: NDArray[np.uint8]) -> VisualTokens:
        """See `VLM.encode_reduced`."""
        return self.encode(image, (image.shape[0], image.shape[1]))

    @property
    def merging_blocks(self) -> int:
        """Blocks of the vision tower between which tokens can be merged; 0 where they cannot be."""
        return 0

    def view_lengths(self, image_size: tuple[int, int]) -> tuple[int, ...]:
        """Visual tokens of each view of an image of (height, width), as far as views are merged one by one."""
        return (self.count_tokens(image_size),)

    def prospect(self, image_size: tuple[int, int]) -> Prospect:
        """See `VLM.prospect`."""
        return Prospect(
            image_size,
            self.view_lengths(image_size),
            self.wanted_size(image_size),
            self.count_reduced,
            self.merging_blocks,
            self.beside,
            self.most_reduced,
        )

    # ------------------------------------------------------------------ zoom
    def overview_tiles(self, side: int, tiles: int) -> tuple[int, int]:
        """As asked; see `VLM.overview_tiles`."""
        return side, tiles

    def encode_overview(self, image: NDArray[np.uint8]) -> VisualTokens:
        """As any image of that size; see `VLM.encode_overview`."""
        return self.encode_reduced(image)

    def frames(self, box: Box, image_size: tuple[int, int]) -> tuple[Box, ...]:
        """The box itself; see `VLM.frames`."""
        return (box,)

    def crop_size(self, frame: Box, image_size: tuple[int, int]) -> tuple[int, int]:
        """As for an image of that size; see `VLM.crop_size`."""
        return self.wanted_size(_size_of(frame))

    def count_crop(self, frame: Box, image_size: tuple[int, int]) -> int:
        """Those of an image of that size; see `VLM.count_crop`."""
        return self.count_tokens(_size_of(frame))

    def encode_crop(self, image: NDArray[np.uint8], frame: Box, image_size: tuple[int, int]) -> VisualTokens:
        """As an image of its own; see `VLM.encode_crop`."""
        tokens = self.encode(image, (image.shape[0], image.shape[1]))
        return replace(tokens, grid=tokens.grid.placed(frame, image_size))

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
        """Texts on a picture; see `VLM.write`."""
        return write(self, tokens, self.prompt(request), count=count, temperature=temperature, seed=seed, cancel=cancel)

    # ------------------------------------------------------------------ merging
    def encode_merged(
        self, image: NDArray[np.uint8], image_size: tuple[int, int], merging: Merging
    ) -> tuple[VisualTokens, Selection]:
        """Refuse: most towers cannot; see `VLM.encode_merged`."""
        raise MissingSignal(
            f"{self.card.name} does not provide {Signal.ENCODER_BLOCKS.value}: its tokens cannot be merged inside the "
            "encoder; choose another strategy"
        )

    @abstractmethod
    def project(self, features: Tensor) -> Tensor:
        """Encoder features [tokens, encoder dim] as the language model reads them, [tokens, dim]."""

    # ------------------------------------------------------------------ question
    def prompt(self, question: str, choices: Sequence[str] = ()) -> Prompt:
        """The question in the checkpoint's chat template, or in LLaVA-1.5's plain form where it has none.

        Raises:
            InvalidQuestion: it is empty, or as `check_wording` says.
        """
        question, choices = question.strip(), [choice.strip() for choice in choices]
        check_wording(question, choices)
        if not question:
            raise InvalidQuestion("the question is empty; write one, for example: What is in the picture?")
        asked = question + (f"\nAnswer with one of: {', '.join(choices)}." if choices else "")
        if getattr(self.tokenizer, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": asked}]
            text = self.tokenizer.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            text = str(text).replace(self.picture_word, PLACEHOLDER)
            if self.tokenizer("")["input_ids"][:1] == [self.tokenizer.bos_token_id]:
                text = text.removeprefix(self.tokenizer.bos_token)  # the tokenizer puts one in front itself
        else:
            text = f"USER: <image>\n{asked} ASSISTANT:"
        at = str(text).rfind(asked)
        listed = (at + len(question), at + len(asked)) if choices and at >= 0 else None
        return Prompt(question, tuple(choices), str(text), options=listed)

    def embed_question(self, prompt: Prompt) -> Tensor:
        """The question's words in the language model's embeddings, [words, dim]."""
        words = prompt.text[slice(*question_span(prompt))]
        ids = self.tokenizer(words, add_special_tokens=False)["input_ids"]
        embedded: Tensor = self.model.get_input_embeddings()(torch.tensor(ids, device=self.device, dtype=torch.int64))
        return embedded

    def picture_text(self, grid: TokenGrid) -> str:
        """What stands for the picture in the prompt: one placeholder per view."""
        return " ".join([PLACEHOLDER] * len(grid.views))

    def blocks(self, selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
        """Outputs that stand for each placeholder of `picture_text`, in the order in which the model reads them.

        An entry `SEPARATOR` is a token without area that the family puts between outputs.
        """
        return blocks_of(selection, grid)

    def pack(self, features: Tensor, blocks: Sequence[NDArray[np.int64]]) -> Any:
        """What the language model reads for each block that has any: features [outputs, dim] and separators."""
        return [features[torch.from_numpy(block).to(features.device)] for block in blocks if len(block)]

    def lay_out(
        self, prompt: Prompt, blocks: Sequence[NDArray[np.int64]], grid: TokenGrid
    ) -> tuple[Tensor, SequenceLayout]:
        """Input ids int64 [1, length] with one image token per output, and their layout."""
        ids, layout = lay_out(self.tokenizer, self.image_id, prompt, blocks, self.picture_text(grid))
        return torch.tensor([ids], device=self.device), layout

    def place(self, ids: Tensor, entering: Selection, grid: TokenGrid) -> Axes | None:
        """The position ids of a sequence where they have several axes; None where the library counts."""
        return None

    def given(self, features: Tensor, entering: Selection, tokens: VisualTokens) -> Tensor:
        """All that the language model is given of outputs with these projected features, [outputs, dim or more]."""
        return features

    # ------------------------------------------------------------------ surgery
    @property
    def word_embeddings(self) -> nn.Module:
        """What turns word ids into embeddings."""
        embeddings: nn.Module = self.model.get_input_embeddings()
        return embeddings

    def unembed(self, hidden: Tensor, *, norm: bool = True) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., dim] by the final norm and the head (logit lens)."""
        logits: Tensor = self.model.lm_head(self.final_norm(hidden) if norm else hidden)
        return logits

    @property
    def language(self) -> Any:
        """The language model without its head."""
        return self.model.model.language_model

    @property
    def decoder_layers(self) -> Sequence[nn.Module]:
        """The language model's layers in order."""
        layers: Sequence[nn.Module] = self.language.layers
        return layers

    @property
    def final_norm(self) -> nn.Module:
        """The norm behind the last layer."""
        norm: nn.Module = self.language.norm
        return norm

    @property
    def rotary(self) -> nn.Module:
        """The rotary embedding of the language model."""
        rotary: nn.Module = self.language.rotary_emb
        return rotary

    def heads_of(self, layer: int, entering: Entering) -> Heads:
        """Queries and keys that a decoder layer makes of what enters it."""
        block: Any = self.decoder_layers[layer]
        attend, normed = block.self_attn, block.input_layernorm(entering.hidden)
        # Qwen3 normalises each head.
        norms = getattr(attend, "q_norm", nn.Identity()), getattr(attend, "k_norm", nn.Identity())
        query, key = (
            norm(part(normed).unflatten(-1, (-1, attend.head_dim))).transpose(1, 2)
            for norm, part in zip(norms, (attend.q_proj, attend.k_proj), strict=True)
        )
        query, key = apply_rotary_pos_emb(query, key, *entering.rotary)
        return Heads(query[0], key[0], attend.scaling, entering.mask)

    def forward(
        self,
        ids: Tensor,
        features: Tensor,
        blocks: Sequence[NDArray[np.int64]],
        *,
        inside: Inside | None = None,
        **kwargs: Any,
    ) -> Any:
        """One pass of the stock model with our visual tokens in place of its own; see `Family.forward`."""
        given: Any = BaseModelOutputWithPooling(pooler_output=self.pack(features, blocks))
        return self.model(input_ids=ids, mm_encoder_outputs={"image": given}, **kwargs)

    def continuing(self, last: Pass) -> AbstractContextManager[None]:
        """What holds while the library decodes behind a prefill."""
        return moved_up(self.decoder_layers, self.rotary, last.shifts)

    # ------------------------------------------------------------------ answer
    @torch.no_grad()
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
        """Compress by the plan and answer; see `VLM.generate`."""
        self.check(plan, len(tokens))
        candidates = [answer_ids(self.tokenizer, prompt, choice) for choice in prompt.choices]
        passes = [
            prefill(self, tokens, prompt, plan, seed=seed, cancel=cancel) for _ in range(warmup + max(1, repeats))
        ][warmup:]
        if probe is not None:
            prefill(self, tokens, prompt, plan, seed=seed, probe=probe, cancel=cancel)
        last = passes[-1]
        scored = last.logits.log_softmax(-1)
        with self.continuing(last), attention.calibrated(lambda layer: last.biases[layer]):
            if prompt.choices:
                logs = [log_probability(self.model, ids, scored, last.cache, self.device) for ids in candidates]
                names = prompt.choices
                best = int(np.argmax(logs))
                text = names[best]
                decode_seconds = [step(self.model, candidates[best][0], copy.deepcopy(last.cache), self.device)[1]]
            else:
                top = scored.topk(min(5, len(scored)))
                names = tuple(self._decode([int(token)]) or repr(int(token)) for token in top.indices)
                logs = top.values.tolist()
                ids, decode_seconds = continue_greedily(
                    self.model, int(top.indices[0]), copy.deepcopy(last.cache), self.device, max_new_tokens, cancel
                )
                text = self._decode(ids)
        return Generation(
            text=text,
            choices=names,
            log_probabilities=tuple(float(value) for value in logs),
            entering=last.entering,
            selection=last.selection,
            tokens_per_layer=last.tokens_per_layer,
            sequence_per_layer=last.sequence_per_layer,
            compress=Seconds.of([one.compress_seconds for one in passes]),
            prefill=Seconds.of([one.prefill_seconds for one in passes]),
            decode=Seconds.of(decode_seconds) if decode_seconds else None,
            kv_cache_bytes=sum(
                part.numel() * part.element_size() for layer in last.cache.layers for part in (layer.keys, layer.values)
            ),
            notices=prompt.notices,
        )

    def give(self, tokens: VisualTokens, prompt: Prompt, plan: Plan, *, seed: int = 0) -> Given:
        """Let a strategy decide, and freeze it; see `VLM.give`."""
        self.check(plan, len(tokens))
        return give(self, tokens, prompt, plan, seed=seed)

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
        """Ask about a frozen picture; see `VLM.ask`."""
        return ask(self, given, prompts, intervention=intervention, layers=layers, lens_norm=lens_norm, cancel=cancel)

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def score(self, features: Tensor, tokens: VisualTokens, prompt: Prompt, answer: str) -> Tensor:
        """Log-probability of an answer given projected visual tokens [tokens, dim]; a differentiable scalar."""
        everything = Selection.prune(len(tokens), np.arange(len(tokens)))
        blocks = self.blocks(everything, tokens.grid)
        ids, _ = self.lay_out(prompt, blocks, tokens.grid)
        said = answer_ids(self.tokenizer, prompt, answer)
        full = torch.cat([ids, torch.tensor([said[:-1]], device=self.device, dtype=torch.int64)], dim=1)
        # generate() reads the answer under no_grad; here gradients flow to the features.
        axes = self.place(full, everything, tokens.grid)
        output = self.forward(
            full,
            self.given(features, everything, tokens),
            blocks,
            position_ids=None if axes is None else axes.for_library(),
            use_cache=False,
            logits_to_keep=len(said),
        )
        logits = output.logits[0].float()
        logarithm: Tensor = logits.log_softmax(-1)[torch.arange(len(said)), torch.tensor(said)].sum()
        return logarithm

    def check(self, plan: Plan, total: int, image_size: tuple[int, int] | None = None) -> None:
        """Refuse a plan that cannot run on `total` visual tokens; see `VLM.check`."""
        for one in plan.steps:
            missing = one.compressor.info.missing(self.provides)
            if missing:
                raise MissingSignal(
                    f"{one.compressor.info.name} needs {', '.join(sorted(missing))}, which {self.card.name} does not "
                    "provide; choose another strategy"
                )
        looks = looking(plan)
        if looks and image_size:
            looks.check(self.prospect(image_size), plan.steps[0].budget.tokens(total))
        check_reachable(plan, total, self.architecture.layers)


def _size_of(frame: Box) -> tuple[int, int]:
    """(height, width) of a frame in whole pixels."""
    return max(1, round(frame[3] - frame[1])), max(1, round(frame[2] - frame[0]))


def _weights_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over the safetensors files in name order; for a hub id, over the id and the commit."""
    digest = hashlib.sha256()
    if checkpoint.commit is None:
        for file in sorted(Path(checkpoint.source).glob("*.safetensors")):
            digest.update(file.read_bytes())
    else:
        digest.update(str(checkpoint).encode())
    return digest.hexdigest()
