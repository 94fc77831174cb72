"""The vision stage: every label of every patch is read from the tower, and each object's presence from [CLS]."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionModel

from compression.backends.embedded.cells import SIDE, TOKENS
from compression.backends.embedded.textures import COLOUR_NAMES, COVERS, TYPES

OBJECTS = len(TYPES) * len(COLOUR_NAMES)


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
