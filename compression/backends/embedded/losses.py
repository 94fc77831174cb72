"""Training-only losses that teach the language model where things are; nothing here is shipped.

The answer token alone leaves every object and relation task near chance for hours on a CPU, because attention starts
uniform over hundreds of visual tokens of which one matters. Word alignment, supervised attention and read-outs at the
nouns of a question cure that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from compression.backends.embedded.assembly import BOS_PLACE, Sequence
from compression.backends.embedded.cells import MOST_CELLS, SIDE, Layout
from compression.backends.embedded.choosing import places
from compression.backends.embedded.mosaics import BUILDING
from compression.backends.embedded.nouns import ANY_OBJECT, BUILDINGS, FIRST_CELL, FIRST_CORNER, RIVER
from compression.backends.embedded.packing import TextBatch
from compression.backends.embedded.textures import COLOUR_NAMES, COVERS, TYPES
from compression.backends.embedded.vocabulary import NUMBERS, QUARTERS, VOCABULARY

# Attention is supervised in the second decoder layer; what a noun knows is read at the input of the fourth.
GROUND_LAYER, GROUND_HEADS, NOUN_LAYER = 1, 2, 3
BOUND_PLACES = 192
"""Visual tokens per image at which the binding to a cell's name is read."""


class Language(nn.Module):
    """Projector and language model with the training-only heads.

    `place` reads row, column and cover from projected tokens; `bound` the cell behind the first decoder layer; `noun`
    row, column, cell and cover of what a noun of the question names; `tally` how many a plural noun names.
    """

    projector: nn.Module
    language: Any  # transformers' decoder, whose layers are reached into

    def __init__(self, projector: nn.Module, language: nn.Module, dim: int) -> None:
        super().__init__()
        self.projector = projector
        self.language = language
        self.place = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * SIDE + 2 + len(COVERS)))
        self.bound = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * MOST_CELLS))
        self.noun = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * SIDE + 2 * MOST_CELLS + len(COVERS)))
        self.tally = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, len(NUMBERS)))

    @property
    def words(self) -> Tensor:
        """The tied word embeddings, [vocabulary, dim]."""
        return cast(Tensor, self.language.embed_tokens.weight)


def align_loss(
    net: Language, projected: Tensor, labels: Tensor, inner: Tensor, *, quarters: bool
) -> tuple[Tensor, Tensor]:
    """Each projected token predicts the words of its patch, its place in its view, and the cover it lies on.

    Args:
        net: Projector, language model and heads.
        projected: [images, tokens, dim].
        labels: int [images, tokens, 4].
        inner: int [images, tokens], each token's index in its view.
        quarters: Whether the quarter of the view is one of the words; where views are cells it is not the image's.

    Returns:
        The loss over words, and the one over places and covers.
    """
    device = labels.device
    cover, item, built = labels[..., 0], labels[..., 1], labels[..., 3]
    is_object = (item > 0).float()
    kind = (item - 1).clamp(min=0)

    def ids(words: tuple[str, ...]) -> Tensor:
        return torch.tensor([VOCABULARY[word] for word in words], device=device)

    rows, cols = inner // SIDE, inner % SIDE
    quarter = ids(QUARTERS)[(rows >= SIDE // 2) * 2 + (cols >= SIDE // 2)]
    target = torch.zeros(*labels.shape[:2], len(VOCABULARY), device=device)
    for words, amount in (
        # An object hides the cover it stands on; the question what surrounds it reads its token alone.
        (ids(COVERS)[cover], 0.5 + 1.5 * is_object),
        (quarter, (0.7 + 1.3 * is_object) * float(quarters)),
        (ids(TYPES)[kind // len(COLOUR_NAMES)], 2.0 * is_object),
        (ids(COLOUR_NAMES)[kind % len(COLOUR_NAMES)], 2.0 * is_object),
        (torch.full_like(item, VOCABULARY["object"]), is_object),
        (torch.full_like(item, VOCABULARY["buildings"]), 1.5 * (built % 2)),
        (torch.full_like(item, VOCABULARY["road"]), 1.5 * (built // 2)),
    ):
        target.scatter_add_(2, words.unsqueeze(-1), amount.unsqueeze(-1))
    log_words = functional.log_softmax((projected @ net.words.T).float() * 4, -1)
    words_loss = -(target * log_words).sum() / target.sum()
    weight = (1 + 9 * is_object + 2 * (built > 0)).flatten()
    read = net.place(projected).float().flatten(0, 1)
    flat_rows, flat_cols = rows.flatten(), cols.flatten()
    error = functional.cross_entropy(read[:, :SIDE], flat_rows, reduction="none")
    error = error + functional.cross_entropy(read[:, SIDE : 2 * SIDE], flat_cols, reduction="none")
    centre = (SIDE - 1) / 2
    error = error + 0.5 * (read[:, 2 * SIDE] - (flat_rows - centre) / 4) ** 2
    error = error + 0.5 * (read[:, 2 * SIDE + 1] - (flat_cols - centre) / 4) ** 2
    error = error + functional.cross_entropy(read[:, 2 * SIDE + 2 :], cover.flatten(), reduction="none")
    return words_loss, (error * weight).sum() / weight.sum()


@dataclass
class Tap:
    """What the language model showed during one forward pass."""

    ground_input: Tensor | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    noun_input: Tensor | None = None


@contextmanager
def tapped(net: Language) -> Iterator[Tap]:
    """Listen at the two supervised layers; the hooks come off whatever happens."""
    tap = Tap()

    def at_ground(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
        tap.ground_input = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]  # type: ignore[assignment]
        tap.rotary = kwargs["position_embeddings"]  # type: ignore[assignment]

    def at_nouns(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
        tap.noun_input = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]  # type: ignore[assignment]

    layers = net.language.layers
    handles = [
        layers[GROUND_LAYER].self_attn.register_forward_pre_hook(at_ground, with_kwargs=True),
        layers[NOUN_LAYER].register_forward_pre_hook(at_nouns, with_kwargs=True),
    ]
    try:
        yield tap
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Guidance:
    """The losses that guide a language step.

    Args:
        ground: Attention from nouns to what they name, less the entropy of its target: 0 is perfect.
        bound: Cell of visual tokens behind the first layer; 0 for one view.
        cell: Cell of the one thing that a noun names; 0 for one view.
        location: Row and column of it in its view.
        cover: Cover on which the named thing lies.
        tally: How many visual tokens a plural noun names.
    """

    ground: Tensor
    bound: Tensor
    cell: Tensor
    location: Tensor
    cover: Tensor
    tally: Tensor

    def total(self) -> Tensor:
        """The weighted sum."""
        of_places = 0.3 * self.bound + 0.3 * self.cell + 0.15 * self.location
        return 0.5 * self.ground + of_places + 0.3 * self.cover + 0.3 * self.tally

    def line(self) -> str:
        """For the log."""
        return " ".join(f"{part.name} {getattr(self, part.name).item():.2f}" for part in fields(self))


def guidance(net: Language, tap: Tap, sequence: Sequence, layout: Layout, labels: Tensor, text: TextBatch) -> Guidance:
    """Teach two heads to look from a noun to what it names, and the noun to know where that is and on what.

    Args:
        net: Projector, language model and heads.
        tap: What the forward pass showed.
        sequence: What was read.
        layout: Its views.
        labels: int [images, tokens, 4] of all visual tokens.
        text: The packed questions.
    """
    if tap.ground_input is None or tap.rotary is None or tap.noun_input is None:
        raise RuntimeError("no forward pass of the language model was tapped; run it inside `tapped`")
    at = places(layout, labels.device)
    is_visual = sequence.token >= 0
    token = sequence.token.clamp(min=0)
    seen = labels.gather(1, token.unsqueeze(-1).expand(-1, -1, 4)) * is_visual.unsqueeze(-1)
    is_named = _named(layout, at, token, is_visual, seen, text)
    ground = _ground_loss(net, tap, sequence, is_named, text)
    zero = ground * 0
    is_thing = (text.named >= 0) & (text.named <= ANY_OBJECT)
    single = (is_named.sum(-1) == 1) & is_thing
    is_area = (text.named >= FIRST_CORNER) & is_named.any(-1)
    bound = cell = location = cover = tally = zero
    if not layout.is_single:
        some = torch.randperm(sequence.prefix, device=labels.device)[:BOUND_PLACES]
        of = is_visual[:, some]
        read = net.bound(tap.ground_input[:, some][of]).float()
        where = token[:, some][of]
        bound = _cell_loss(read, at, where)
    if (single | is_area).any():
        share = functional.one_hot(seen[..., 0], len(COVERS)).float() * is_visual.unsqueeze(-1)
        weight = is_named.float() / is_named.sum(-1, keepdim=True).clamp(min=1)
        covers = (weight @ share)[single | is_area]
        read = net.noun(tap.noun_input[:, sequence.prefix :][single | is_area]).float()
        log_cover = functional.log_softmax(read[:, 2 * SIDE + 2 * MOST_CELLS :], -1)
        cover = -(covers * log_cover).sum(-1).mean()
    if single.any():
        found = is_named.float().argmax(-1)[single]
        image = torch.arange(len(token), device=token.device).unsqueeze(1).expand_as(single)[single]
        where = token[image, found]
        read = net.noun(tap.noun_input[:, sequence.prefix :][single]).float()
        inner = at["inner"][where]
        location = functional.cross_entropy(read[:, :SIDE], inner // SIDE)
        location = location + functional.cross_entropy(read[:, SIDE : 2 * SIDE], inner % SIDE)
        if not layout.is_single:
            cell = _cell_loss(read[:, 2 * SIDE : 2 * SIDE + 2 * MOST_CELLS], at, where)
    if text.plural.any():
        number = is_named.sum(-1)[text.plural].clamp(max=len(NUMBERS) - 1)
        tally = functional.cross_entropy(net.tally(tap.noun_input[:, sequence.prefix :][text.plural]).float(), number)
    return Guidance(ground, bound, cell, location, cover, tally)


def _cell_loss(read: Tensor, at: dict[str, Tensor], where: Tensor) -> Tensor:
    loss = functional.cross_entropy(read[:, :MOST_CELLS], at["cell_row"][where])
    return loss + functional.cross_entropy(read[:, MOST_CELLS : 2 * MOST_CELLS], at["cell_col"][where])


def _named(
    layout: Layout, at: dict[str, Tensor], token: Tensor, is_visual: Tensor, seen: Tensor, text: TextBatch
) -> Tensor:
    """Which places of the prefix each word of the text names, bool [images, text, prefix]."""
    cover, item, built = (seen[..., index].unsqueeze(1) for index in (0, 1, 3))
    kind = (item - 1).clamp(min=0)
    row, col = at["row"][token], at["col"][token]
    rows, cols = layout.rows * SIDE, layout.cols * SIDE
    is_corner = ((row < rows // 4) | (row >= rows - rows // 4)) & ((col < cols // 4) | (col >= cols - cols // 4))
    corner = FIRST_CORNER + 2 * (row >= rows // 2).long() + (col >= cols // 2).long()
    corner = torch.where(is_corner, corner, -9).unsqueeze(1)
    cell = FIRST_CELL + at["cell_row"][token] * MOST_CELLS + at["cell_col"][token]
    noun, shade = text.named.unsqueeze(-1), text.colour.unsqueeze(-1)
    is_thing = (
        (item > 0)
        & ((noun == ANY_OBJECT) | (noun == kind // len(COLOUR_NAMES)))
        & (noun >= 0)
        & (noun <= ANY_OBJECT)
        & ((shade < 0) | (shade == kind % len(COLOUR_NAMES)))
    )
    is_area = ((noun == BUILDINGS) & ((built & BUILDING) > 0)) | ((noun == RIVER) & (cover == 0))
    is_area = is_area | (noun == corner) | (noun == cell.unsqueeze(1))
    named: Tensor = (is_thing | is_area) & is_visual.unsqueeze(1)
    return named


def _ground_loss(net: Language, tap: Tap, sequence: Sequence, is_named: Tensor, text: TextBatch) -> Tensor:
    attention = net.language.layers[GROUND_LAYER].self_attn
    hidden = cast(Tensor, tap.ground_input)
    images, length, _ = hidden.shape
    width = attention.head_dim

    def first_heads(weight: Tensor) -> Tensor:
        out = functional.linear(hidden, weight[: GROUND_HEADS * width])
        return out.view(images, length, GROUND_HEADS, width).transpose(1, 2)

    query, key = apply_rotary_pos_emb(
        first_heads(attention.q_proj.weight), first_heads(attention.k_proj.weight), *cast(Any, tap.rotary)
    )
    prefix = sequence.prefix
    asked = text.named >= 0
    # Only the nouns' rows: a long prefix would make the whole matrix large.
    if not asked.any():
        return hidden.sum() * 0
    most = int(asked.sum(1).max())
    order = asked.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    rows = query[:, :, prefix:].gather(2, order[:, None, :, None].expand(-1, GROUND_HEADS, -1, width))
    logits = (rows @ key[:, :, :prefix].transpose(-1, -2)).float() * width**-0.5
    is_named = is_named.gather(1, order.unsqueeze(-1).expand(-1, -1, prefix))
    plural, noun = text.plural.gather(1, order), text.named.gather(1, order)
    # Nothing there: look at <bos>. A count shares attention with <bos>, whose part 1 / (n + 1) then tells n.
    to_bos = (noun >= 0) & (~is_named.any(-1) | plural)
    target = (is_named | ((sequence.token == BOS_PLACE).unsqueeze(1) & to_bos.unsqueeze(-1))).float()
    target = target * (noun >= 0).unsqueeze(-1)
    size = target.sum(-1)
    crossed = -(functional.log_softmax(logits, -1) * (target / size.clamp(min=1).unsqueeze(-1)).unsqueeze(1)).sum(-1)
    excess = crossed.mean(1) - torch.where(size > 0, size.clamp(min=1).log(), 0.0)
    return excess[size > 0].mean()
