"""LLaVA checkpoints: a CLIP tower, a two-layer projector and a Llama-like language model.

What this backend does to the stock `LlavaForConditionalGeneration`, and nothing else:

* the vision tower, the projector and the language model are called one after the other, so that a compressor can act
  between them; the reduced tokens enter through the library's own `mm_encoder_outputs`;
* the queries and keys of the feature layer are tapped for the [CLS] row; the tower keeps its fused kernel;
* strategies inside the language model cut the sequence in pre-hooks of the decoder layers (`hooks.cut_between`);
* attention rows are recomputed beside the fused kernel (`attention`).

Positions: tokens removed before the language model leave no gap (their successors move up, as in the released code of
VisionZip and DivPrune); tokens removed inside keep theirs (as in FastV's).
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer, CLIPImageProcessorPil, LlavaForConditionalGeneration
from transformers.utils import logging as library_logging
from transformers.modeling_outputs import BaseModelOutputWithPooling

from compression.backends import attention
from compression.backends.base import Architecture, Generation, ModelCard, Probe, Prompt, Seconds, SequenceLayout
from compression.backends.hooks import cut_between, synchronise, tapped
from compression.budget import kept_after_cut
from compression.compressor import Cancel, Context, Plan, Stage, Step
from compression.errors import (
    AttentionUnavailable,
    Cancelled,
    InvalidBudget,
    InvalidQuestion,
    MissingSignal,
    ModelUnavailable,
)
from compression.grid import TokenGrid, View
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens

PROVIDES = frozenset(
    {
        Signal.FEATURES,
        Signal.PROJECTED,
        Signal.CLS_ATTENTION,
        Signal.KEYS,
        Signal.CLS_FEATURE,
        Signal.CLS_QUERY,
        Signal.VALUES,
        Signal.TEXT,
        Signal.LAYER_ATTENTION,
    }
)


@dataclass
class _Pass:
    """What one prefill left behind."""

    logits: Tensor  # float32 [vocabulary] of the token that follows the prompt
    cache: Any
    entering: Selection
    selection: Selection
    tokens_per_layer: list[int]
    sequence_per_layer: list[int]
    compress_seconds: float
    prefill_seconds: float


@dataclass
class _Sequence:
    """Input ids of a prompt with its image blocks, and where things lie in it."""

    ids: Tensor  # int64 [1, length]
    visual: NDArray[np.int64]
    outputs: NDArray[np.int64]
    question: NDArray[np.int64]


@dataclass
class _Cut:
    """State of the cuts inside the language model during one prefill."""

    layout: SequenceLayout
    selection: Selection
    rows: dict[int, Tensor] = field(default_factory=dict)  # layer -> [heads, query, key]
    seconds: float = 0.0
    tokens_per_layer: list[int] = field(default_factory=list)
    sequence_per_layer: list[int] = field(default_factory=list)


class LlavaBackend:
    """A LLaVA checkpoint, from a directory or a hub id.

    Args:
        source: Directory of the checkpoint, or a hub id where a network is there.
        name: How the user calls it.
        device: "cpu", "cuda" or "auto".
        dtype: "float32", "bfloat16", "float16" or "auto" (float32 on a CPU, the checkpoint's own on a GPU).

    Raises:
        ModelUnavailable: it cannot be loaded, with the reason.
    """

    family = "llava"
    provides = PROVIDES
    labels: tuple[str, ...] = ()
    domain = ""

    def __init__(self, source: str | Path, *, name: str | None = None, device: str = "auto", dtype: str = "auto") -> None:
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        wanted: Any = (torch.float32 if self.device == "cpu" else "auto") if dtype == "auto" else getattr(torch, dtype)
        library_logging.disable_progress_bar()
        try:
            model = LlavaForConditionalGeneration.from_pretrained(
                str(source),
                dtype=wanted,
                use_safetensors=True,
                trust_remote_code=False,
                attn_implementation={"text_config": attention.NAME, "vision_config": "sdpa"},
            )
            # By name: where torchvision exists, the automatic choice would resize with other rounding.
            self.processor = CLIPImageProcessorPil.from_pretrained(str(source))
            self.tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelUnavailable(
                f"the model {name or source} cannot be loaded: {reason}; give a directory with safetensors weights, "
                "a hub id on a machine with a network, or use the embedded model"
            ) from error
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.dtype = str(self.model.dtype).removeprefix("torch.")
        self.config = self.model.config
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
        self._image_id = int(self.config.image_token_id)

    # ------------------------------------------------------------------ image
    @property
    def side(self) -> int:
        """Edge of the square that the vision tower reads, in pixels."""
        return int(self.config.vision_config.image_size)

    def seen_box(self, image_size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The part of an image of (height, width) that the model sees, (left, top, right, bottom) in original pixels."""
        height, width = image_size
        if not self.processor.do_center_crop:
            return 0.0, 0.0, float(width), float(height)
        edge = min(height, width) * self.side / (self.processor.size.get("shortest_edge") or self.side)
        left, top = max(0.0, (width - edge) / 2), max(0.0, (height - edge) / 2)
        return left, top, min(float(width), left + edge), min(float(height), top + edge)

    def wanted_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Twice the tower's edge at most: enough for an exact reduction without reading an 8,192-pixel image whole."""
        height, width = image_size
        shrink = min(1.0, 2 * self.side / min(height, width))
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    def notices(self, image_size: tuple[int, int]) -> tuple[str, ...]:
        """What the model does not see of such an image."""
        height, width = image_size
        left, top, right, bottom = self.seen_box(image_size)
        said = []
        if (left, top, right, bottom) != (0, 0, width, height):
            said.append(
                f"The model sees the central {right - left:.0f} × {bottom - top:.0f} pixels of {width:,} × {height:,} only."
            )
        scale = (right - left) / self.side, (bottom - top) / self.side
        if max(scale) > 1.5:
            said.append(
                f"The model reads {self.side} × {self.side} pixels: {max(scale):.1f} pixels of the image become one, and smaller things vanish."
            )
        if max(scale) / min(scale) > 1.05:
            said.append("The image is not square: the model sees it squeezed to a square.")
        return tuple(said)

    def count_tokens(self, image_size: tuple[int, int]) -> int:
        """The patches of the one square that the tower reads."""
        return int((self.side // self.config.vision_config.patch_size) ** 2)

    @torch.no_grad()
    def encode(self, image: NDArray[np.uint8], image_size: tuple[int, int]) -> VisualTokens:
        """Visual tokens of one image as one view, with all signals that `provides` names but the text's."""
        pixels = self._pixels(image)
        layer = int(self.config.vision_feature_layer)
        tower = self.model.model.vision_tower
        attend = tower.encoder.layers[layer if layer < 0 else layer - 1].self_attn
        with tapped({"query": attend.q_proj, "key": attend.k_proj}) as heard:
            states = tower(pixels, output_hidden_states=True).hidden_states[layer][0]
        has_cls = self.config.vision_feature_select_strategy == "default"
        if not has_cls:
            raise ModelUnavailable("only checkpoints whose vision_feature_select_strategy is 'default' are supported")
        cls_state, features = states[:1], states[1:]
        heads = attend.num_heads
        query = heard["query"][0].unflatten(-1, (heads, -1)).transpose(0, 1).float()  # [heads, 1 + tokens, head dim]
        key = heard["key"][0].unflatten(-1, (heads, -1)).transpose(0, 1).float()
        cls_row = (query[:, :1] @ key.transpose(-1, -2) * attend.scale).softmax(-1)[:, 0, 1:]
        edge = round(len(features) ** 0.5)
        grid = TokenGrid((View(edge, edge, self.seen_box(image_size)),), image_size)
        return VisualTokens.whole(
            features,
            grid,
            {
                Signal.FEATURES: features,
                Signal.PROJECTED: self.model.model.multi_modal_projector(states[None, 1:])[0],
                Signal.CLS_ATTENTION: cls_row,
                Signal.KEYS: key[:, 1:].mean(0),
                Signal.CLS_FEATURE: cls_state,
                Signal.CLS_QUERY: attend.q_proj(cls_state),
                Signal.VALUES: attend.v_proj(features),
            },
        )

    def _pixels(self, image: NDArray[np.uint8]) -> Tensor:
        pixels = self.processor(images=image, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
        return pixels.to(self.device, self.model.dtype)

    # ------------------------------------------------------------------ question
    def prompt(self, question: str, choices: Sequence[str] = ()) -> Prompt:
        """The question in the checkpoint's chat template, or in LLaVA-1.5's plain form where it has none."""
        question = question.strip()
        if not question:
            raise InvalidQuestion("the question is empty; write one, for example: What is in the picture?")
        asked = question + (f"\nAnswer with one of: {', '.join(choices)}." if choices else "")
        if getattr(self.tokenizer, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": asked}]
            text = self.tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
        else:
            text = f"USER: <image>\n{asked} ASSISTANT:"
        return Prompt(question, tuple(choices), str(text))

    def _question_span(self, prompt: Prompt) -> tuple[int, int]:
        if prompt.span is not None:
            return prompt.span
        start = prompt.text.rfind(prompt.question)
        return (start, start + len(prompt.question)) if start >= 0 else (prompt.text.find("<image>") + len("<image>"), len(prompt.text))

    def _sequence(self, prompt: Prompt, blocks: Sequence[NDArray[np.int64]]) -> _Sequence:
        """Input ids with the i-th image placeholder repeated once for each output of the i-th block."""
        coded = self.tokenizer(prompt.text, return_offsets_mapping=True)
        start, end = self._question_span(prompt)
        ids: list[int] = []
        visual: list[int] = []
        question: list[int] = []
        view = 0
        for token, (left, right) in zip(coded["input_ids"], coded["offset_mapping"], strict=True):
            if token == self._image_id:
                if view >= len(blocks):
                    raise InvalidQuestion("the prompt has more image placeholders than views; remove <image> from the question")
                visual += range(len(ids), len(ids) + len(blocks[view]))
                ids += [self._image_id] * len(blocks[view])
                view += 1
                continue
            if left < end and right > start:
                question.append(len(ids))
            ids.append(token)
        if view != len(blocks):
            raise InvalidQuestion(f"the prompt has {view} image placeholders for {len(blocks)} views")
        return _Sequence(
            ids=torch.tensor([ids], device=self.device),
            visual=np.array(visual, dtype=np.int64),
            outputs=np.concatenate(blocks),
            question=np.array(question, dtype=np.int64),
        )

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
        candidates = self._candidates(prompt)
        passes = []
        for turn in range(warmup + max(1, repeats)):
            done = self._prefill(tokens, prompt, plan, seed, None, cancel)
            if turn >= warmup:
                passes.append(done)
        last = passes[-1]
        if probe is not None:
            self._prefill(tokens, prompt, plan, seed, probe, cancel)
        scored = last.logits.log_softmax(-1)
        decode_seconds: list[float] = []
        if prompt.choices:
            logs = [self._sequence_log_probability(ids, scored, last.cache) for ids in candidates]
            names = prompt.choices
            text = names[int(np.argmax(logs))]
            first = candidates[int(np.argmax(logs))][0]
            decode_seconds.append(self._step(first, copy.deepcopy(last.cache))[1])
        else:
            top = scored.topk(min(5, len(scored)))
            names = tuple(self.tokenizer.decode([int(token)]).strip() or repr(int(token)) for token in top.indices)
            logs = top.values.tolist()
            text, decode_seconds = self._continue(int(top.indices[0]), copy.deepcopy(last.cache), max_new_tokens, cancel)
        return Generation(
            text=text,
            choices=tuple(names),
            log_probabilities=tuple(float(value) for value in logs),
            entering=last.entering,
            selection=last.selection,
            tokens_per_layer=tuple(last.tokens_per_layer),
            sequence_per_layer=tuple(last.sequence_per_layer),
            compress=Seconds.of([one.compress_seconds for one in passes]),
            prefill=Seconds.of([one.prefill_seconds for one in passes]),
            decode=Seconds.of(decode_seconds) if decode_seconds else None,
            kv_cache_bytes=_cache_bytes(last.cache),
            notices=prompt.notices,
        )

    def score(self, features: Tensor, tokens: VisualTokens, prompt: Prompt, answer: str) -> Tensor:
        """Differentiable log-probability of the answer's tokens given projected visual tokens [tokens, dim]; a scalar."""
        blocks = _blocks(Selection.prune(len(tokens), np.arange(len(tokens))), tokens.grid)
        sequence = self._sequence(prompt, blocks)
        ids = self._answer_ids(prompt, answer)
        full = torch.cat([sequence.ids, torch.tensor([ids[:-1]], device=self.device, dtype=torch.int64)], dim=1)
        # generate() reads the answer under no_grad; here gradients flow to the features.
        logits = self._forward(full, features, blocks, use_cache=False, logits_to_keep=len(ids)).logits[0].float()
        return logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum()

    def check(self, plan: Plan, total: int) -> None:
        """Refuse a plan that cannot run on `total` visual tokens; see `VLM.check`."""
        missing = plan.needs - self.provides
        if missing:
            raise MissingSignal(
                f"{plan.info.name} needs {', '.join(sorted(missing))}, which {self.card.name} does not provide; choose another strategy"
            )
        for step in plan.steps:
            budget = step.budget.tokens(total)
            if budget is None and not step.compressor.info.adaptive:
                raise InvalidBudget(f"{step.compressor.info.name} needs a budget; write {step.compressor.info.name}@0.25")
            if step.stage is Stage.DECODER and budget is not None:
                kept_after_cut(budget, total, self._cut_layer(step), self.architecture.layers)

    def _cut_layer(self, step: Step) -> int:
        layer: int = step.compressor.cut_layer(self.architecture.layers)  # type: ignore[attr-defined]
        return layer

    def _text_embeddings(self, prompt: Prompt) -> Tensor:
        ids = self.tokenizer(prompt.question, add_special_tokens=False)["input_ids"]
        embedded: Tensor = self.model.get_input_embeddings()(torch.tensor(ids, device=self.device, dtype=torch.int64))
        return embedded

    def _prefill(
        self, tokens: VisualTokens, prompt: Prompt, plan: Plan, seed: int, probe: Probe | None, cancel: Cancel | None
    ) -> _Pass:
        layers = self.architecture.layers
        _stop_if(cancel)
        context = Context(question=prompt.question, seed=seed, text=self._text_embeddings(prompt), layers=layers)
        synchronise(self.device)
        start = time.perf_counter()
        selection, features = self._compress_before(tokens, plan, context, cancel)
        synchronise(self.device)
        compressed = time.perf_counter()
        blocks = _blocks(selection, tokens.grid)
        sequence = self._sequence(prompt, blocks)
        layout = SequenceLayout(
            length=sequence.ids.shape[1],
            visual=sequence.visual,
            outputs=sequence.outputs,
            question=sequence.question,
            answer=sequence.ids.shape[1] - 1,
        )
        inside = {self._cut_layer(step): step for step in plan.steps if step.stage is Stage.DECODER}
        cut = _Cut(layout, Selection.prune(len(selection), np.arange(len(selection))))
        wanted = {layer - 1 for layer in inside}

        def rows(layer: int) -> Tensor | None:
            if layer not in wanted and probe is None:
                return None
            return torch.from_numpy(np.concatenate([[cut.layout.answer], cut.layout.question]))

        def hear(layer: int, weights: Tensor) -> None:
            if layer in wanted:
                cut.rows[layer] = weights
            if probe is not None:
                probe.attention(layer, weights.mean(0), cut.layout)

        def before(layer: int, hidden: Tensor) -> Tensor | None:
            _stop_if(cancel)
            keep = None
            if layer in inside:
                began = time.perf_counter()
                keep = self._compress_inside(inside[layer], layer, hidden, tokens.grid, cut, context)
                cut.seconds += time.perf_counter() - began
            cut.tokens_per_layer.append(len(cut.layout.visual))
            cut.sequence_per_layer.append(cut.layout.length)
            return keep

        with cut_between(self.model.model.language_model.layers, before), attention.listening(rows, hear):
            output = self._forward(sequence.ids, features, blocks, use_cache=True, logits_to_keep=1)
            logits = output.logits[0, -1].float()
            synchronise(self.device)
        end = time.perf_counter()
        return _Pass(
            logits=logits,
            cache=output.past_key_values,
            entering=selection,
            selection=selection.then(cut.selection) if inside else selection,
            tokens_per_layer=cut.tokens_per_layer,
            sequence_per_layer=cut.sequence_per_layer,
            compress_seconds=compressed - start + cut.seconds,
            prefill_seconds=end - compressed - cut.seconds,
        )

    def _compress_before(self, tokens: VisualTokens, plan: Plan, context: Context, cancel: Cancel | None) -> tuple[Selection, Tensor]:
        """All steps before the language model: the selection and the projected features of its outputs."""
        projected = tokens.signals[Signal.PROJECTED]
        steps = [step for step in plan.steps if step.stage is Stage.ENCODER]
        if not steps:
            return Selection.prune(len(tokens), np.arange(len(tokens)), diagnostics={"positions": "original"}), projected
        if len(steps) > 1:
            raise MissingSignal(f"a plan with {len(steps)} steps before the language model is not supported; use one")
        _stop_if(cancel)
        compressor = steps[0].compressor
        selection = compressor.compress(tokens, steps[0].budget.tokens(len(tokens)), context)
        if compressor.info.acts_on == "encoder" and not (selection.is_pruning and not selection.extra):
            merged = selection.apply(tokens.features, tokens.signals[Signal.CLS_FEATURE])
            return selection, self.model.model.multi_modal_projector(merged[None])[0]
        return selection, selection.apply(projected)

    def _compress_inside(
        self, step: Step, layer: int, hidden: Tensor, grid: TokenGrid, cut: _Cut, context: Context
    ) -> Tensor:
        """Ask a strategy before `layer` what to keep of its hidden states; returns ascending positions in the sequence."""
        if layer - 1 not in cut.rows:
            raise AttentionUnavailable(f"layer {layer - 1} gave no attention rows; the language model must use {attention.NAME}")
        total = len(grid)
        average = step.budget.tokens(total)
        if average is None:
            raise InvalidBudget(f"{step.compressor.info.name} needs a budget; write {step.compressor.info.name}@0.25")
        visual = torch.from_numpy(cut.layout.visual).to(cut.rows[layer - 1].device)
        present = len(cut.layout.visual)
        local = Context(
            question=context.question,
            seed=context.seed,
            text=context.text,
            layer=layer,
            layers=context.layers,
            attention=cut.rows[layer - 1][:, :, visual],
        )
        survivors = VisualTokens(hidden[0, visual.to(hidden.device)], grid, np.arange(present))
        keep = min(present, kept_after_cut(average, total, layer, context.layers))
        decision = step.compressor.compress(survivors, keep, local)
        chosen = np.sort(decision.anchor)
        dropped = np.setdiff1d(np.arange(present), chosen)
        positions = np.setdiff1d(np.arange(cut.layout.length), cut.layout.visual[dropped])
        moved = {int(old): new for new, old in enumerate(positions)}
        cut.layout = SequenceLayout(
            length=len(positions),
            visual=np.array([moved[int(at)] for at in cut.layout.visual[chosen]], dtype=np.int64),
            outputs=cut.layout.outputs[chosen],
            question=np.array([moved[int(at)] for at in cut.layout.question], dtype=np.int64),
            answer=moved[cut.layout.answer],
        )
        cut.selection = cut.selection.then(decision)
        return torch.from_numpy(positions).to(self.device)

    def _forward(self, ids: Tensor, features: Tensor, blocks: Sequence[NDArray[np.int64]], **kwargs: Any) -> Any:
        """One pass of the stock model with our visual tokens in place of its own."""
        parts = [features[torch.from_numpy(block).to(features.device)] for block in blocks if len(block)]
        given = BaseModelOutputWithPooling(pooler_output=parts)
        return self.model(input_ids=ids, mm_encoder_outputs={"image": given}, **kwargs)

    # ------------------------------------------------------------------ words after the prompt
    def _answer_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Token ids of an answer as they follow the prompt."""
        before = self.tokenizer(prompt.text)["input_ids"]
        joined = self.tokenizer(f"{prompt.text} {answer}")["input_ids"]
        same = next((i for i, (a, b) in enumerate(zip(before, joined, strict=False)) if a != b), len(before))
        ids = [int(token) for token in joined[same:]]
        if not ids:
            raise InvalidQuestion(f"the choice {answer!r} has no token; write a word")
        return ids

    def _candidates(self, prompt: Prompt) -> list[list[int]]:
        return [self._answer_ids(prompt, choice) for choice in prompt.choices]

    def _step(self, token: int, cache: Any) -> tuple[Tensor, float]:
        """One decoding step: log-probabilities of the next token, and the seconds it took. The cache grows."""
        synchronise(self.device)
        start = time.perf_counter()
        output = self.model(input_ids=torch.tensor([[token]], device=self.device), past_key_values=cache, use_cache=True)
        scored = output.logits[0, -1].float().log_softmax(-1)
        synchronise(self.device)
        return scored, time.perf_counter() - start

    def _sequence_log_probability(self, ids: Sequence[int], first: Tensor, cache: Any) -> float:
        """Log-probability of a whole choice: its first token from the prompt, the others from decoding steps."""
        total = float(first[ids[0]])
        branch = copy.deepcopy(cache) if len(ids) > 1 else None
        for token, following in zip(ids, ids[1:], strict=False):
            scored, _ = self._step(token, branch)
            total += float(scored[following])
        return total

    def _continue(self, token: int, cache: Any, max_new_tokens: int, cancel: Cancel | None) -> tuple[str, list[float]]:
        """Greedy answer from its first token, and the seconds of each decoding step."""
        stops = _ids_of(self.model.generation_config.eos_token_id)
        ids, seconds = [token], []
        while len(ids) < max_new_tokens and ids[-1] not in stops:
            _stop_if(cancel)
            scored, took = self._step(ids[-1], cache)
            seconds.append(took)
            ids.append(int(scored.argmax()))
        return self.tokenizer.decode([one for one in ids if one not in stops], skip_special_tokens=True).strip(), seconds


def _blocks(selection: Selection, grid: TokenGrid) -> list[NDArray[np.int64]]:
    """Outputs per view in the order in which the model reads them; area-less outputs go with their source's view."""
    if len(grid.views) == 1:
        return [np.arange(len(selection))]
    views = grid.view_indices()
    home = np.zeros(len(selection), dtype=np.int64)
    for output, source in zip(selection.weight_output, selection.weight_token, strict=True):
        home[output] = views[source] if source < selection.tokens else source - selection.tokens
    placed = selection.anchor >= 0
    home[placed] = views[selection.anchor[placed]]
    return [np.flatnonzero(home == view) for view in range(len(grid.views))]


def _cache_bytes(cache: Any) -> int:
    return sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


def _ids_of(value: int | list[int] | None) -> frozenset[int]:
    return frozenset() if value is None else frozenset([value] if isinstance(value, int) else value)


def _stop_if(cancel: Callable[[], bool] | None) -> None:
    if cancel is not None and cancel():
        raise Cancelled("the run was cancelled")


def _weights_digest(source: str | Path, model: LlavaForConditionalGeneration) -> str:
    """SHA-256 over the safetensors files in name order; for a hub id, over the commit that was resolved and the id."""
    folder = Path(source)
    digest = hashlib.sha256()
    if folder.is_dir():
        for file in sorted(folder.glob("*.safetensors")):
            digest.update(file.read_bytes())
    else:
        digest.update(f"{source}@{getattr(model.config, '_commit_hash', None)}".encode())
    return digest.hexdigest()
