"""Training-only losses that teach the model where things are; nothing here is shipped.

The answer token alone leaves every object and relation task near chance for hours on a CPU, because attention starts
uniform over 256 visual tokens of which one matters. Dense labels, word alignment and supervised attention cure that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModel
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from compression.backends.embedded.model import TOKENS
from compression.backends.embedded.scenes import COLOUR_NAMES
from compression.backends.embedded.textures import COVERS, TYPES
from compression.backends.embedded.vocabulary import QUARTERS, VOCABULARY

SIDE = int(TOKENS**0.5)
OBJECTS = len(TYPES) * len(COLOUR_NAMES)
# Attention is supervised in the second decoder layer, positions are read at the input of the fourth.
GROUND_LAYER, GROUND_HEADS, LOCATION_LAYER = 1, 2, 3

# What a word of a question names: a type's index, or one of these.
ANY_OBJECT, BUILDINGS, RIVER, FIRST_CORNER = 6, 7, 8, 10
NAMES: dict[int, int] = {
    **{VOCABULARY[kind]: index for index, kind in enumerate(TYPES)},
    **{VOCABULARY[f"{kind}s"]: index for index, kind in enumerate(TYPES)},
    VOCABULARY["object"]: ANY_OBJECT,
    VOCABULARY["objects"]: ANY_OBJECT,
    VOCABULARY["buildings"]: BUILDINGS,
    VOCABULARY["river"]: RIVER,
}
PLURALS = {VOCABULARY["objects"], *(VOCABULARY[f"{kind}s"] for kind in TYPES)}
COLOUR_IDS = {VOCABULARY[colour]: index for index, colour in enumerate(COLOUR_NAMES)}
QUARTER_IDS = {VOCABULARY[quarter]: index for index, quarter in enumerate(QUARTERS)}


class DenseHeads(nn.Module):
    """The vision tower with heads that read every label of every patch."""

    tower: CLIPVisionModel
    SIZES = (len(COVERS), OBJECTS + 1, 16, 4, SIDE, SIDE)

    def __init__(self, tower: CLIPVisionModel, dim: int) -> None:
        super().__init__()
        self.tower = tower
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, sum(self.SIZES))
        self.cls_norm = nn.LayerNorm(dim)
        self.cls_head = nn.Linear(dim, OBJECTS)

    def forward(self, pixels: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """Pixels → logits per label [views, tokens, classes], and of each object's presence from [CLS]."""
        hidden = self.tower(pixels).last_hidden_state
        dense = self.head(self.norm(hidden[:, 1:])).float().split(self.SIZES, -1)
        return dense, self.cls_head(self.cls_norm(hidden[:, 0])).float()


def dense_loss(dense: tuple[Tensor, ...], presence: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Loss over all labels of all patches, objects weighted up.

    Args:
        dense: logits of DenseHeads.
        presence: logits [views, objects] read from [CLS]; they make its attention look at objects.
        labels: int [views, tokens, 4]: cover, object, road links, building + 2 * road.

    Returns:
        The loss and the accuracies to log.
    """
    views = len(labels)
    cover, item, links, built = (logits.flatten(0, 1) for logits in dense[:4])
    flat = labels.flatten(0, 1)
    is_object, is_linked = flat[:, 1] > 0, flat[:, 2] > 0

    def weighted(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        return (functional.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()

    rows, cols = _rows_cols(labels.device)
    # An object's token must carry its place: averages over all patches would hide that it does not.
    place_weight = torch.where(is_object, 5.0, 1.0)
    place = weighted(dense[4].flatten(0, 1), rows.repeat(views), place_weight)
    place = place + weighted(dense[5].flatten(0, 1), cols.repeat(views), place_weight)
    there = torch.zeros(views, OBJECTS + 1, device=labels.device).scatter_(1, labels[..., 1], 1.0)[:, 1:]
    loss = (
        1.5 * weighted(item, flat[:, 1], torch.where(is_object, 6.0, 0.3))
        + functional.cross_entropy(cover, flat[:, 0])
        + weighted(links, flat[:, 2], torch.where(is_linked, 2.0, 0.3))
        + functional.cross_entropy(built, flat[:, 3])
        + 0.3 * place
        + functional.binary_cross_entropy_with_logits(presence, there)
    )
    with torch.no_grad():
        row_right = dense[4].flatten(0, 1).argmax(-1) == rows.repeat(views)
        figures = {
            "cover": (cover.argmax(-1) == flat[:, 0]).float().mean().item(),
            "object": (item.argmax(-1) == flat[:, 1])[is_object].float().mean().item(),
            "false_object": (item.argmax(-1) > 0)[~is_object].float().mean().item(),
            "road": (links.argmax(-1) == flat[:, 2])[is_linked].float().mean().item(),
            "object_row": row_right[is_object].float().mean().item(),
            "cls_recall": (presence > 0)[there > 0].float().mean().item(),
        }
    return loss, figures


def _rows_cols(device: torch.device) -> tuple[Tensor, Tensor]:
    index = torch.arange(TOKENS, device=device)
    return index // SIDE, index % SIDE


class Language(nn.Module):
    """Projector and language model with the training-only heads that read positions."""

    projector: nn.Module
    language: Any  # transformers' decoder, whose layers are reached into

    def __init__(self, projector: nn.Module, language: nn.Module, dim: int) -> None:
        super().__init__()
        self.projector = projector
        self.language = language
        self.place = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * SIDE + 2))
        self.noun_place = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * SIDE))

    @property
    def words(self) -> Tensor:
        """The tied word embeddings, [vocabulary, dim]."""
        return cast(Tensor, self.language.embed_tokens.weight)


def align_loss(net: Language, projected: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each projected token predicts the words of its patch and its place.

    Args:
        net: projector, language model and heads.
        projected: [views, tokens, dim].
        labels: int [views, tokens, 4].

    Returns:
        The loss over words, and the one over row and column.
    """
    views, device = len(labels), labels.device
    cover, item, built = labels[..., 0], labels[..., 1], labels[..., 3]
    is_object = (item > 0).float()
    kind = (item - 1).clamp(min=0)

    def ids(words: tuple[str, ...]) -> Tensor:
        return torch.tensor([VOCABULARY[word] for word in words], device=device)

    rows, cols = _rows_cols(device)
    quarter = ids(QUARTERS)[(rows >= SIDE // 2) * 2 + (cols >= SIDE // 2)].expand(views, -1)
    target = torch.zeros(views, TOKENS, len(VOCABULARY), device=device)
    for words, amount in (
        (ids(COVERS)[cover], torch.full_like(is_object, 0.5)),
        (quarter, 0.7 + 1.3 * is_object),
        (ids(TYPES)[kind // len(COLOUR_NAMES)], 2.0 * is_object),
        (ids(COLOUR_NAMES)[kind % len(COLOUR_NAMES)], 2.0 * is_object),
        (torch.full_like(item, VOCABULARY["object"]), is_object),
        (torch.full_like(item, VOCABULARY["buildings"]), 1.5 * (built % 2)),
        (torch.full_like(item, VOCABULARY["road"]), 1.5 * (built // 2)),
    ):
        target.scatter_add_(2, words.unsqueeze(-1), amount.unsqueeze(-1))
    log_words = functional.log_softmax((projected @ net.words.T).float() * 4, -1)
    total = target.sum()
    words_loss = -(target * log_words).sum() / total
    weight = (1 + 9 * is_object + 2 * (built > 0)).flatten()
    read = net.place(projected).float().flatten(0, 1)
    all_rows, all_cols = rows.repeat(views), cols.repeat(views)
    error = functional.cross_entropy(read[:, :SIDE], all_rows, reduction="none")
    error = error + functional.cross_entropy(read[:, SIDE : 2 * SIDE], all_cols, reduction="none")
    centre = (SIDE - 1) / 2
    error = error + 0.5 * (read[:, -2] - (all_rows - centre) / 4) ** 2
    error = error + 0.5 * (read[:, -1] - (all_cols - centre) / 4) ** 2
    return words_loss, (error * weight).sum() / weight.sum()


@dataclass
class Tap:
    """What the language model showed during one forward pass."""

    ground_input: Tensor | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    location_input: Tensor | None = None


@contextmanager
def tapped(net: Language) -> Iterator[Tap]:
    """Listen at the two supervised layers; the hooks come off whatever happens."""
    tap = Tap()

    def at_ground(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
        tap.ground_input = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]  # type: ignore[assignment]
        tap.rotary = kwargs["position_embeddings"]  # type: ignore[assignment]

    def at_location(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
        tap.location_input = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]  # type: ignore[assignment]

    layers = net.language.layers
    handles = [
        layers[GROUND_LAYER].self_attn.register_forward_pre_hook(at_ground, with_kwargs=True),
        layers[LOCATION_LAYER].register_forward_pre_hook(at_location, with_kwargs=True),
    ]
    try:
        yield tap
    finally:
        for handle in handles:
            handle.remove()


def grounding_losses(
    net: Language, tap: Tap, keep: Tensor, labels: Tensor, named: Tensor, colour: Tensor, plural: Tensor
) -> tuple[Tensor, Tensor]:
    """Teach two heads to look from a noun to what it names, and the noun to know where that is.

    Args:
        net: projector, language model and heads.
        tap: what the forward pass showed.
        keep: int [views, kept], the visual tokens that were read.
        labels: int [views, tokens, 4].
        named: int [views, text], what each text token names (see NAMES), -1 for nothing.
        colour: int [views, text], colour word before it, -1 for none.
        plural: bool [views, text], whether it is a plural that asks for a count.

    Returns:
        The attention loss (less the entropy of its target, so 0 is perfect) and the location loss.
    """
    if tap.ground_input is None or tap.rotary is None or tap.location_input is None:
        raise RuntimeError("no forward pass of the language model was tapped; run it inside `tapped`")
    attention = net.language.layers[GROUND_LAYER].self_attn
    views, length, _ = tap.ground_input.shape
    kept, width = keep.shape[1], attention.head_dim

    read_by_heads = tap.ground_input

    def first_heads(weight: Tensor) -> Tensor:
        out = functional.linear(read_by_heads, weight[: GROUND_HEADS * width])
        return out.view(views, length, GROUND_HEADS, width).transpose(1, 2)

    query, key = apply_rotary_pos_emb(
        first_heads(attention.q_proj.weight), first_heads(attention.k_proj.weight), *tap.rotary
    )
    logits = (query[:, :, kept + 1 :] @ key[:, :, : kept + 1].transpose(-1, -2)).float() * width**-0.5

    seen = labels.gather(1, keep.unsqueeze(-1).expand(-1, -1, 4)).unsqueeze(1)
    cover, item, built = seen[..., 0], seen[..., 1], seen[..., 3]
    kind = (item - 1).clamp(min=0)
    rows, cols = keep // SIDE, keep % SIDE
    edge = SIDE // 4
    corner = 2 * (rows >= SIDE - edge).long() + (cols >= SIDE - edge).long()
    in_corner = ((rows < edge) | (rows >= SIDE - edge)) & ((cols < edge) | (cols >= SIDE - edge))
    corner = torch.where(in_corner, FIRST_CORNER + corner, -9).unsqueeze(1)
    noun, shade = named.unsqueeze(-1), colour.unsqueeze(-1)
    is_named = (
        (item > 0)
        & ((noun == ANY_OBJECT) | (noun == kind // len(COLOUR_NAMES)))
        & (noun >= 0)
        & (noun <= ANY_OBJECT)
        & ((shade < 0) | (shade == kind % len(COLOUR_NAMES)))
    )
    is_named = is_named | ((noun == BUILDINGS) & (built % 2 > 0)) | ((noun == RIVER) & (cover == 0)) | (noun == corner)

    # Nothing there: look at <bos>. A count shares attention with <bos>, whose part 1 / (n + 1) then tells n.
    at_bos = (noun >= 0) & (~is_named.any(-1, keepdim=True) | plural.unsqueeze(-1))
    target = torch.cat([at_bos, is_named], -1).float()
    size = target.sum(-1)
    crossed = -(functional.log_softmax(logits, -1) * (target / size.clamp(min=1).unsqueeze(-1)).unsqueeze(1)).sum(-1)
    excess = crossed.mean(1) - torch.where(size > 0, size.clamp(min=1).log(), 0.0)
    has_target = size > 0
    ground = excess[has_target].mean() if has_target.any() else logits.sum() * 0

    single = (is_named.sum(-1) == 1) & (named >= 0) & (named <= ANY_OBJECT)
    if not single.any():
        return ground, logits.sum() * 0
    where = keep.unsqueeze(1).expand(-1, named.shape[1], -1).gather(2, is_named.float().argmax(-1, keepdim=True))
    where = where.squeeze(-1)[single]
    read = net.noun_place(tap.location_input[:, kept + 1 :][single]).float()
    location = functional.cross_entropy(read[:, :SIDE], where // SIDE)
    return ground, location + functional.cross_entropy(read[:, SIDE:], where % SIDE)
