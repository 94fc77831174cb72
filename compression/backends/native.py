"""What the families have in common: loading, the question, the language model and the answer.

A family adds its vision side: which pixels its tower reads of an image, where each visual token lies, which signals the
tower can give, and how the projected tokens are packed for the language model (`blocks`, `pack`).

Positions: tokens removed before the language model leave no gap (their successors move up, as in the released code of
VisionZip and DivPrune); tokens removed inside keep theirs or move up, as the strategy says.
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoTokenizer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.utils import logging as library_logging

from compression.backends import attention
from compression.backends.asking import ask, give
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
)
from compression.backends.decoding import answer_ids, continue_greedily, log_probability, step
from compression.backends.device import choose_device
from compression.backends.hooks import Entering, moved_up
from compression.backends.inside import check_reachable
from compression.backends.prefill import prefill
from compression.backends.sequence import PLACEHOLDER, blocks_of, lay_out, question_span
from compression.backends.wording import check_wording
from compression.compressor import Cancel, Plan, Router
from compression.errors import InvalidQuestion, MissingSignal, ModelUnavailable
from compression.grid import TokenGrid
from compression.layer import Heads
from compression.merging import Merging
from compression.selection import Selection
from compression.sight import Prospect, looking
from compression.tokens import Signal, VisualTokens

INSIDE = frozenset({Signal.TEXT, Signal.LAYER_ATTENTION, Signal.LAYER_STATE, Signal.TEACHER_ATTENTION})
"""Signals of the language model, which every family has."""


class NativeBackend(ABC):
    """A checkpoint of a class of the transformers library, from a directory or a hub id.

    Args:
        source: Directory of the checkpoint, or a hub id where a network is there.
        name: How the user calls it.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "bfloat16", "float16" or "auto" (float32 on a CPU, the checkpoint's own on a GPU).

    Raises:
        DeviceUnavailable: this machine does not have the device.
        ModelUnavailable: it cannot be loaded, with the reason.
    """

    family: str
    provides: frozenset[Signal]
    model_class: ClassVar[Any]
    processor_class: ClassVar[Any]
    labels: tuple[str, ...] = ()
    domain = ""
    router: Router | None = None

    def __init__(
        self, source: str | Path, *, name: str | None = None, device: str = "auto", dtype: str = "auto"
    ) -> None:
        self.device = choose_device(device)
        wanted: Any = (torch.float32 if self.device == "cpu" else "auto") if dtype == "auto" else getattr(torch, dtype)
        library_logging.disable_progress_bar()
        try:
            model: Any = self.model_class.from_pretrained(
                str(source),
                dtype=wanted,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation={"text_config": attention.NAME, "vision_config": "sdpa"},
            )
            self.processor: Any = self.processor_class.from_pretrained(str(source))
            self.tokenizer: Any = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelUnavailable(
                f"the model {name or source} cannot be loaded: {reason}; give a directory with safetensors weights, "
                "a hub id on a machine with a network, or use the embedded model"
            ) from error
        # Typed in part only by the library.
        self.model: Any = model
        self.model.to(self.device).eval().requires_grad_(False)
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.config: Any = self.model.config
        self.card = ModelCard(
            name=str(name or source),
            family=self.family,
            revision=_weights_digest(source, self.model),
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
        )
        self.image_id = int(self.config.image_token_id)
        self.image_word = str(self.tokenizer.convert_ids_to_tokens(self.image_id))

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
        )

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
            text = str(text).replace(self.image_word, PLACEHOLDER)
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
        query, key = (
            part(normed).unflatten(-1, (-1, attend.head_dim)).transpose(1, 2) for part in (attend.q_proj, attend.k_proj)
        )
        query, key = apply_rotary_pos_emb(query, key, *entering.rotary)
        return Heads(query[0], key[0], attend.scaling, entering.mask)

    def forward(self, ids: Tensor, features: Tensor, blocks: Sequence[NDArray[np.int64]], **kwargs: Any) -> Any:
        """One pass of the stock model with our visual tokens in place of its own."""
        given: Any = BaseModelOutputWithPooling(pooler_output=self.pack(features, blocks))
        return self.model(input_ids=ids, mm_encoder_outputs={"image": given}, **kwargs)

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
        with (
            moved_up(self.decoder_layers, self.rotary, last.shifts),
            attention.calibrated(lambda layer: last.biases[layer]),
        ):
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
        blocks = self.blocks(Selection.prune(len(tokens), np.arange(len(tokens))), tokens.grid)
        ids, _ = self.lay_out(prompt, blocks, tokens.grid)
        said = answer_ids(self.tokenizer, prompt, answer)
        full = torch.cat([ids, torch.tensor([said[:-1]], device=self.device, dtype=torch.int64)], dim=1)
        # generate() reads the answer under no_grad; here gradients flow to the features.
        logits = self.forward(full, features, blocks, use_cache=False, logits_to_keep=len(said)).logits[0].float()
        logarithm: Tensor = logits.log_softmax(-1)[torch.arange(len(said)), torch.tensor(said)].sum()
        return logarithm

    def check(self, plan: Plan, total: int, image_size: tuple[int, int] | None = None) -> None:
        """Refuse a plan that cannot run on `total` visual tokens; see `VLM.check`."""
        for one in plan.steps:
            missing = one.compressor.info.needs - self.provides
            if missing:
                raise MissingSignal(
                    f"{one.compressor.info.name} needs {', '.join(sorted(missing))}, which {self.card.name} does not "
                    "provide; choose another strategy"
                )
        looks = looking(plan)
        if looks and image_size:
            looks.check(self.prospect(image_size), plan.steps[0].budget.tokens(total))
        check_reachable(plan, total, self.architecture.layers)


def _weights_digest(source: str | Path, model: Any) -> str:
    """SHA-256 over the safetensors files in name order; for a hub id, over the commit that was resolved and the id."""
    folder = Path(source)
    digest = hashlib.sha256()
    if folder.is_dir():
        for file in sorted(folder.glob("*.safetensors")):
            digest.update(file.read_bytes())
    else:
        digest.update(f"{source}@{getattr(model.config, '_commit_hash', None)}".encode())
    return digest.hexdigest()
