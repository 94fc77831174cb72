"""A checkpoint that answers many questions about one image in one pass: for evaluation, regimes and the router."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from compression.backends.embedded.assembly import attach
from compression.backends.embedded.backend import EmbeddedBackend
from compression.backends.embedded.packing import pack
from compression.backends.embedded.questions import Question, prompt
from compression.backends.embedded.scenes import VIEW
from compression.backends.embedded.vocabulary import BOS_ID, VOCABULARY
from compression.backends.prefill import compress_before
from compression.backends.sequence import blocks_of
from compression.compressor import Context, Plan
from compression.grid import TokenGrid
from compression.selection import Selection
from compression.tokens import Signal, VisualTokens

WORDS_AT_ONCE = 512
_WORD_OF = {number: word for word, number in VOCABULARY.items()}


@dataclass(frozen=True)
class Prefix:
    """What all questions about an image see: <bos>, and the views behind their names.

    Args:
        embedded: [length, dim].
        visual: Number of visual tokens in it.
    """

    embedded: Tensor
    visual: int


class Reader:
    """A checkpoint opened as the product opens it, asked many questions in one pass.

    A question sees the image and itself only, and its positions follow the image: the logits are those of asking it
    alone, up to the rounding of another summation order.
    """

    def __init__(self, checkpoint: Path, *, device: str = "cpu") -> None:
        self.vlm = EmbeddedBackend(checkpoint, name="checkpoint", device=device)
        self.model: Any = self.vlm.model

    @property
    def words(self) -> Tensor:
        """Word embeddings, [vocabulary, dim]."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def look(self, image: NDArray[np.uint8]) -> VisualTokens:
        """The visual tokens of an image with all signals."""
        return self.vlm.encode(image, (image.shape[0], image.shape[1]))

    def thumbnail(self, image: NDArray[np.uint8]) -> Tensor:
        """The projected tokens of the whole image on one view, [256, dim]."""
        small = np.asarray(Image.fromarray(image).resize((VIEW, VIEW), Image.Resampling.BICUBIC))
        projected: Tensor = self.look(small).signals[Signal.PROJECTED]
        return projected

    def prefix(self, blocks: Sequence[Tensor], names: Sequence[str]) -> Prefix:
        """Put views behind their names; an unnamed view is "image".

        Args:
            blocks: Projected tokens [kept, dim] of each view.
            names: One for each.
        """
        parts = [self.words[BOS_ID].unsqueeze(0)]
        for block, name in zip(blocks, names, strict=True):
            if name != "image":
                parts.append(self.words[VOCABULARY[name]].unsqueeze(0))
            parts.append(block)
        return Prefix(torch.cat(parts), sum(len(block) for block in blocks))

    @torch.inference_mode()
    def read(self, tokens: VisualTokens, by: Selection | Plan | None = None, question: str = "") -> Prefix:
        """The prefix of an image.

        Args:
            tokens: All of its visual tokens.
            by: Which of them are read: a selection of projected tokens, a plan that acts before the language model, or
                all of them.
            question: What the plan may look at.
        """
        grid, projected = tokens.grid, tokens.signals[Signal.PROJECTED]
        if by is None:
            return self.prefix([projected[part] for part in tokens.view_slices()], _names(grid))
        if isinstance(by, Selection):
            selection, features = by, by.apply(projected)
        else:
            text = self.vlm.embed_question(self.vlm.prompt(question)) if question else None
            layers = self.vlm.architecture.layers
            context = Context(question=question, text=text, layers=layers, router=self.vlm.router)
            selection, features = compress_before(self.vlm, tokens, by, context)
        blocks = [features[torch.from_numpy(block)] for block in blocks_of(selection, grid)]
        return self.prefix(blocks, _names(grid))

    @torch.inference_mode()
    def logits(self, prefix: Prefix, texts: Sequence[str], *, instead: Tensor | None = None) -> Tensor:
        """Logits of the word that follows each question, float32 [questions, vocabulary].

        Args:
            prefix: What they see.
            texts: The questions.
            instead: Embedding [dim] that takes the place of every word of the questions themselves; the frame
                ("question :", "answer :") stays.
        """
        asked = [Question(text, (), "yes", "", "", ()) for text in texts]
        parts, at = [], 0
        while at < len(asked):
            length, until = 0, at
            while until < len(asked):
                size = len(prompt(asked[until].text).split())
                if length and length + size > WORDS_AT_ONCE:
                    break
                length, until = length + size, until + 1
            parts.append(self._pass(prefix, asked[at:until], length, instead))
            at = until
        return torch.cat(parts)

    def _pass(self, prefix: Prefix, asked: list[Question], length: int, instead: Tensor | None) -> Tensor:
        text = pack([asked], length)
        said = self.words[text.ids]
        if instead is not None:
            said = torch.where(inside(text.ids).unsqueeze(-1), instead.to(said), said)
        before = torch.arange(len(prefix.embedded)).unsqueeze(0)
        embedded, mask, positions = attach(prefix.embedded.unsqueeze(0), before, before.shape[1], said, text)
        hidden = self.model.model.language_model(
            inputs_embeds=embedded, attention_mask=mask, position_ids=positions, use_cache=False
        ).last_hidden_state
        ends = hidden[0, text.answer_place + before.shape[1]]
        found: Tensor = self.model.lm_head(ends).float()
        return found

    def answers(self, prefix: Prefix, texts: Sequence[str]) -> list[str]:
        """The likeliest word of the whole vocabulary behind each question."""
        if not texts:
            return []
        return [_WORD_OF[int(index)] for index in self.logits(prefix, texts).argmax(-1)]


def inside(ids: Tensor) -> Tensor:
    """Which words of packed prompts belong to the question: behind "question :", before "answer :"; bool like ids."""
    at = torch.zeros_like(ids, dtype=torch.bool)
    for row in range(len(ids)):
        within, skip = False, 0
        for place, word in enumerate(ids[row].tolist()):
            if word == VOCABULARY["question"]:
                within, skip = True, 2
            elif word == VOCABULARY["answer"]:
                within = False
            if skip:
                skip -= 1
            else:
                at[row, place] = within
    return at


def _names(grid: TokenGrid) -> list[str]:
    return [view.name for view in grid.views]
