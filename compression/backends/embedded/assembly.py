"""The sequence that the language model reads in training and evaluation: views behind their names, then questions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compression.backends.embedded.cells import TOKENS, Layout
from compression.backends.embedded.packing import TextBatch
from compression.backends.embedded.vocabulary import BOS_ID, VOCABULARY

BOS_PLACE, NAME_PLACE = -2, -1


@dataclass(frozen=True)
class Sequence:
    """A batch in the language model's terms.

    Args:
        embedded: [images, length, dim].
        mask: Additive, [images, 1, length, length].
        positions: int64 [images, length].
        token: int64 [images, prefix], the visual token at each place of the prefix; negative where <bos> or a view's
            name stands.
    """

    embedded: Tensor
    mask: Tensor
    positions: Tensor
    token: Tensor

    @property
    def prefix(self) -> int:
        """Places before the text."""
        return self.token.shape[1]


def assemble(
    words: Tensor, visual: Tensor, keep: Tensor, layout: Layout, text: TextBatch, *, original_positions: bool
) -> Sequence:
    """Lay out `<bos> name <image>*kept name <image>*kept ... question question ...`.

    Each question reads as if it were alone: it sees the images and itself, and its positions follow the images.

    Args:
        words: Word embeddings [vocabulary, dim].
        visual: Projected kept tokens [images, kept, dim].
        keep: Which they are, ascending over all views, int64 [images, kept].
        layout: The views; names come before them unless there is only one.
        text: The packed questions.
        original_positions: Keep the position ids of the uncompressed sequence, instead of packing them anew.
    """
    images = len(keep)
    device = keep.device
    view = keep // TOKENS
    if layout.is_single:
        order, names = 1 + keep, torch.empty(0, dtype=torch.int64, device=device)
    else:
        # The place of everything in the uncompressed sequence: <bos> is 0, a view is its name and its tokens.
        order = 1 + view * (TOKENS + 1) + 1 + keep % TOKENS
        names = torch.tensor([VOCABULARY[name] for name in layout.names], device=device)
    at_names = 1 + torch.arange(len(names), device=device) * (TOKENS + 1)
    place = torch.cat([torch.zeros(images, 1, dtype=torch.int64, device=device), at_names.expand(images, -1), order], 1)
    said = torch.cat([torch.tensor([BOS_ID], device=device), names])
    embedded = torch.cat([words[said].expand(images, -1, -1), visual], 1)
    token = torch.cat([torch.full((images, len(said)), NAME_PLACE, device=device), keep], 1)
    token[:, 0] = BOS_PLACE
    sorted_places = place.argsort(1)
    embedded = embedded.gather(1, sorted_places.unsqueeze(-1).expand(-1, -1, embedded.shape[-1]))
    token = token.gather(1, sorted_places)
    prefix = token.shape[1]
    full = 1 + layout.tokens + len(names)
    if original_positions:
        before, first = place.gather(1, sorted_places), full
    else:
        before, first = torch.arange(prefix, device=device).expand(images, -1), prefix
    embedded, mask, positions = attach(embedded, before, first, words[text.ids], text)
    return Sequence(embedded, mask, positions, token)


def attach(prefix: Tensor, before: Tensor, first: int, said: Tensor, text: TextBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Put packed questions behind a prefix that all of them see, none of them seeing another.

    Args:
        prefix: What they see, [images, prefix, dim].
        before: Position ids of it, int64 [images, prefix].
        first: Position id of each question's first word.
        said: The words' embeddings, [images, text, dim].
        text: The packed questions.

    Returns:
        Embeddings [images, length, dim], additive mask [images, 1, length, length], position ids [images, length].
    """
    embedded = torch.cat([prefix, said], 1)
    seen = torch.full(prefix.shape[:2], BOS_PLACE, device=prefix.device)
    segment = torch.cat([seen, text.segment], 1)
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=prefix.device).tril()
    allowed = ((segment.unsqueeze(2) == segment.unsqueeze(1)) | (segment.unsqueeze(1) == BOS_PLACE)) & causal
    mask = torch.zeros(len(prefix), 1, length, length, dtype=embedded.dtype, device=prefix.device)
    mask = mask.masked_fill(~allowed.unsqueeze(1), torch.finfo(embedded.dtype).min)
    return embedded, mask, torch.cat([before, text.offset + first], 1)
