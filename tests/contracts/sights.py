"""A small image and a small vision tower: what strategies that look at the image themselves are tested with.

The tower is two layers of the library's CLIP encoder with random weights behind a linear patch embedding. It reads the
image on tiles of 24 pixels, patches of 4 pixels; what a tile's last column lacks is padding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from compression.backends.blocks import merge_views
from compression.errors import MissingSignal
from compression.grid import Box, TokenGrid, View
from compression.merging import Merging
from compression.selection import Selection
from compression.sight import Prospect, Size
from compression.tokens import Signal, VisualTokens
from compression.zooming.written import Coordinates
from tests.contracts.lenses import ToyLens

PATCH, EDGE, DIM, BLOCKS = 4, 6, 12, 2
SIDE = PATCH * EDGE


@cache
def tower() -> tuple[nn.Linear, Tensor, tuple[CLIPEncoderLayer, ...]]:
    """Patch embedding, class token with position embeddings [1 + patches, dim], and layers; random and always equal."""
    config = CLIPVisionConfig(hidden_size=DIM, intermediate_size=20, num_attention_heads=3)
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        parts = nn.Linear(3 * PATCH**2, DIM), torch.randn(1 + EDGE**2, DIM), [CLIPEncoderLayer(config) for _ in "12"]
        for layer in parts[2]:
            for parameter in layer.parameters():
                nn.init.normal_(parameter, 0, 0.3)
    for module in (parts[0], *parts[2]):
        module.eval().requires_grad_(False)
    return parts[0], parts[1], tuple(parts[2])


@dataclass
class ToySight:
    """A `Sight` of random pixels.

    Args:
        size: (height, width) of the image.
        seed: Of its pixels.
        has_blocks: Whether the tower can merge.
        fixed: Whether every image is squeezed to one tile.
        has_crops: Whether the model can be shown several pictures.
        coordinates: How the model writes boxes, None where it does not.
        encoded: How many encodings were asked for.
    """

    size: Size = (24, 40)
    seed: int = 0
    has_blocks: bool = True
    fixed: bool = False
    has_crops: bool = True
    coordinates: Coordinates | None = None
    encoded: int = 0
    pixels: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = torch.rand(3, *self.size, generator=torch.Generator().manual_seed(self.seed))

    @property
    def prospect(self) -> Prospect:
        """Counts without reading."""
        lengths = tuple(len(view) for view in self._views(self.size))
        return Prospect(self.size, lengths, self.size, self._count, BLOCKS if self.has_blocks else 0)

    def _count(self, size: Size) -> int:
        return sum(len(view) for view in self._views(size))

    def _views(self, size: Size) -> tuple[View, ...]:
        height, width = size
        if self.fixed:
            return (View(EDGE, EDGE, (0.0, 0.0, float(width), float(height))),)
        made = []
        for top in range(0, height, SIDE):
            for left in range(0, width, SIDE):
                rows, cols = (min(EDGE, -(-(end - at) // PATCH)) for end, at in ((height, top), (width, left)))
                box = (float(left), float(top), float(left + cols * PATCH), float(top + rows * PATCH))
                made.append(View(rows, cols, box, f"{top},{left}"))
        return tuple(made)

    def _embedded(self, image: Tensor) -> tuple[Tensor, Tensor, TokenGrid]:
        """What enters the layers [views, 1 + patches, dim], which patches lie on the image, and their grid."""
        self.encoded += 1
        size = image.shape[1], image.shape[2]
        views = self._views(size)
        if self.fixed:
            image = nn.functional.interpolate(image[None], (SIDE, SIDE), mode="area")[0]
        down, right = (-(-edge // SIDE) * SIDE for edge in image.shape[1:])
        sheet = torch.zeros(3, down, right)
        sheet[:, : image.shape[1], : image.shape[2]] = image
        tiles = sheet.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE).permute(1, 2, 0, 3, 4).flatten(0, 1)
        patches = tiles.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
        embed, places, _ = tower()
        front = torch.zeros(len(tiles), 1, DIM)
        hidden = torch.cat([front, embed(patches.flatten(2))], 1) + places
        index = torch.arange(len(tiles) * EDGE**2).reshape(-1, EDGE, EDGE)
        on_image = torch.cat([index[at, : view.rows, : view.cols].flatten() for at, view in enumerate(views)])
        return hidden, on_image, TokenGrid(views, size)

    def encode(self, box: Box | None = None, size: Size | None = None) -> VisualTokens:
        """See `Sight.encode`; boxes hold whole pixels."""
        height, width = self.size
        left, top, right, bottom = (0, 0, width, height) if box is None else (int(edge) for edge in box)
        image = self.pixels[:, top:bottom, left:right]
        if size is not None:
            image = nn.functional.interpolate(image[None], size, mode="area")[0]
        hidden, on_image, grid = self._embedded(image)
        for layer in tower()[2]:
            hidden = layer(hidden, None)
        if box is not None or size is not None:
            grid = grid.placed((float(left), float(top), float(right), float(bottom)), self.size)
        return self._tokens(hidden[:, 1:].flatten(0, 1)[on_image], hidden[:, 0], grid)

    @cached_property
    def lens(self) -> ToyLens:
        """See `Sight.lens`."""
        if not self.has_crops:
            raise MissingSignal(f"the toy model does not provide {Signal.CROPS.value}")
        return ToyLens(self, self.coordinates)

    def encode_merged(self, merging: Merging) -> tuple[VisualTokens, Selection]:
        """See `Sight.encode_merged`."""
        if not self.has_blocks:
            raise MissingSignal(f"the toy tower does not provide {Signal.ENCODER_BLOCKS.value}")
        hidden, on_image, grid = self._embedded(self.pixels)
        features, cls_feature, selection = merge_views(tower()[2], hidden, on_image, merging)
        return self._tokens(features, cls_feature, grid), selection

    def _tokens(self, features: Tensor, cls_feature: Tensor, grid: TokenGrid) -> VisualTokens:
        signals = {Signal.FEATURES: features, Signal.PROJECTED: features.flip(1), Signal.CLS_FEATURE: cls_feature}
        return VisualTokens.whole(features, grid, signals)


def toy_sights() -> tuple[tuple[str, ToySight], ...]:
    """Ordinary and awkward images, by name."""
    return (
        ("two tiles, one of them padded", ToySight()),
        ("one tile", ToySight((24, 24), seed=1)),
        ("one row of pixels", ToySight((1, 50), seed=2)),
        ("one pixel", ToySight((1, 1), seed=3)),
        ("many tiles", ToySight((60, 70), seed=4)),
        ("a model that writes boxes", ToySight((50, 40), seed=5, coordinates=Coordinates.THOUSAND)),
    )
