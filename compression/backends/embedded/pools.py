"""Scenes to train on, with cached vision features; everything is drawn from (seed, number), so it can be made again."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModel

from compression.backends.embedded.cells import MOST_CELLS, SIDE, TOKENS, Layout
from compression.backends.embedded.model import encode_views
from compression.backends.embedded.mosaics import Truth, cut_cells, join_cells, mosaic_of
from compression.backends.embedded.scenes import VIEW, Scene, make_scene
from compression.backends.embedded.textures import COVERS

# Seeds below this one are never trained on: samples and evaluation take theirs from there.
FIRST_TRAINING_SEED = 1_000_000
_SEEDS_PER_RUN = 10_000_000
_VISION_OFFSET, _LARGE_OFFSET = 5_000_000, 8_000_000
SCENES_PER_CHUNK, LARGE_PER_CHUNK = 32, 4
LARGE = MOST_CELLS * VIEW


def _first_seed(seed: int) -> int:
    return FIRST_TRAINING_SEED + seed * _SEEDS_PER_RUN


def labels_of(scene: Scene) -> np.ndarray:
    """Stack a scene's ground truth: uint8 [rows, cols, 4] of cover, object, road links, building + 2 * road."""
    flags = scene.building.astype(np.uint8) + 2 * scene.road.astype(np.uint8)
    return np.stack([scene.cover, scene.object_id, scene.road_links, flags], -1)


def views_of(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Cut a scene into its cells: images uint8 [views, 256, 256, 3] and labels uint8 [views, tokens, 4]."""
    images = cut_cells(scene.image, VIEW).reshape(-1, VIEW, VIEW, 3)
    return images, cut_cells(labels_of(scene), SIDE).reshape(-1, TOKENS, 4)


def thumbnail_of(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The whole scene on one view: image uint8 [256, 256, 3] and labels uint8 [tokens, 4] without objects."""
    image = np.asarray(Image.fromarray(scene.image).resize((VIEW, VIEW), Image.Resampling.BICUBIC))
    times = scene.size // VIEW
    cover = scene.cover.reshape(SIDE, times, SIDE, times)
    counts = np.stack([(cover == index).sum((1, 3)) for index in range(len(COVERS))], -1)
    built = scene.building.reshape(SIDE, times, SIDE, times).any((1, 3))
    labels = np.zeros((SIDE, SIDE, 4), np.uint8)
    labels[..., 0], labels[..., 3] = counts.argmax(-1), built
    return image, labels.reshape(TOKENS, 4)


def vision_batch(seed: int, step: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Make fresh views for the vision stage; every fourth batch is cut out of larger scenes.

    Returns:
        Images uint8 [views, 256, 256, 3] and labels uint8 [views, tokens, 4].
    """
    first = _first_seed(seed) + _VISION_OFFSET + step * views
    cells = MOST_CELLS**2
    if step % 4 or views % cells:
        parts = [views_of(make_scene(first + index)) for index in range(views)]
    else:
        parts = [views_of(make_scene(first + index, LARGE)) for index in range(views // cells)]
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


@dataclass(frozen=True)
class Pictures:
    """What a training step looks at: a batch of images of one layout.

    Args:
        layout: Their views.
        features: Of the vision tower, [images, tokens, dim].
        saliency: Attention of [CLS] in each view, [images, tokens].
        labels: int64 [images, tokens, 4].
        truths: What may be asked about each image.
    """

    layout: Layout
    features: Tensor
    saliency: Tensor
    labels: Tensor
    truths: list[Truth]


@dataclass(frozen=True)
class _Encoded:
    """One scene behind the vision tower; its thumbnail's view is the last one where there is one."""

    truth: Truth
    features: Tensor
    saliency: Tensor
    labels: np.ndarray


class ScenePool:
    """Scenes of one view and of 4 x 4 cells with cached vision features, encoded in chunks when first asked for."""

    def __init__(self, tower: CLIPVisionModel, seed: int, size: int, large: int) -> None:
        self._tower, self.size, self.large = tower, size, large
        self._first = _first_seed(seed)
        self._small_chunks: dict[int, list[_Encoded]] = {}
        self._large_chunks: dict[int, list[_Encoded]] = {}

    def _small(self, index: int) -> _Encoded:
        number, place = divmod(index, SCENES_PER_CHUNK)
        if number not in self._small_chunks:
            start = number * SCENES_PER_CHUNK
            scenes = [make_scene(self._first + at) for at in range(start, min(start + SCENES_PER_CHUNK, self.size))]
            features, saliency = encode_views(self._tower, np.stack([scene.image for scene in scenes]))
            self._small_chunks[number] = [
                _Encoded(_light(scene), features[at : at + 1], saliency[at : at + 1], views_of(scene)[1])
                for at, scene in enumerate(scenes)
            ]
        return self._small_chunks[number][place]

    def _whole(self, index: int) -> _Encoded:
        number, place = divmod(index, LARGE_PER_CHUNK)
        if number not in self._large_chunks:
            start = number * LARGE_PER_CHUNK
            chunk = []
            for at in range(start, min(start + LARGE_PER_CHUNK, self.large)):
                scene = make_scene(self._first + _LARGE_OFFSET + at, LARGE)
                images, labels = views_of(scene)
                thumbnail, its_labels = thumbnail_of(scene)
                features, saliency = encode_views(self._tower, np.concatenate([images, thumbnail[None]]))
                chunk.append(_Encoded(_light(scene), features, saliency, np.concatenate([labels, its_labels[None]])))
            self._large_chunks[number] = chunk
        return self._large_chunks[number][place]

    def singles(self, indices: np.ndarray) -> Pictures:
        """Scenes of one view."""
        found = [self._small(int(index)) for index in indices]
        return _gather(Layout(), [[(one, 0)] for one in found], [one.truth for one in found])

    def coherent(self, indices: np.ndarray, layout: Layout, corners: np.ndarray) -> Pictures:
        """Windows of whole cells out of large scenes.

        Args:
            indices: Which large scenes.
            layout: Rows and columns of the window; a thumbnail only with the whole scene.
            corners: int [images, 2], row and column of each window's first cell.
        """
        pictures, truths = [], []
        whole = layout.rows == layout.cols == MOST_CELLS
        for index, (top, left) in zip(indices, corners, strict=True):
            scene = self._whole(int(index))
            cells = [
                (scene, (int(top) + row) * MOST_CELLS + int(left) + col)
                for row in range(layout.rows)
                for col in range(layout.cols)
            ]
            sheet = np.stack([scene.labels[view] for _, view in cells]).reshape(layout.rows, layout.cols, TOKENS, 4)
            truths.append(scene.truth if whole else mosaic_of(join_cells(sheet)))
            thumbnail = [(scene, MOST_CELLS**2)] if layout.thumbnail else []
            pictures.append(thumbnail + (cells if layout.cells else []))
        return _gather(layout, pictures, list(truths))

    def remixed(self, rng: np.random.Generator, images: int, layout: Layout) -> Pictures:
        """Cells drawn from all scenes; exact, since cells are encoded one by one."""
        pictures, truths = [], []
        for _ in range(images):
            cells = []
            for _ in range(layout.rows * layout.cols):
                if rng.random() < 0.35:
                    cells.append((self._small(int(rng.integers(self.size))), 0))
                else:
                    cells.append((self._whole(int(rng.integers(self.large))), int(rng.integers(MOST_CELLS**2))))
            sheet = np.stack([scene.labels[view] for scene, view in cells])
            truths.append(mosaic_of(join_cells(sheet.reshape(layout.rows, layout.cols, TOKENS, 4))))
            pictures.append(cells)
        return _gather(layout, pictures, list(truths))

    def schedule(self, seed: int, step: int, views: int) -> np.ndarray:
        """Which scenes of one view a step reads: the first pass in order, later passes shuffled."""
        per_pass = max(self.size // views, 1)
        number, place = divmod(step, per_pass)
        order = np.arange(self.size)
        if number:
            order = np.random.default_rng((seed, 7, number)).permutation(self.size)
        return order[place * views : (place + 1) * views]


def _light(scene: Scene) -> Scene:
    """The scene without its image."""
    return replace(scene, image=scene.image[:, :0].copy())


def _gather(layout: Layout, pictures: list[list[tuple[_Encoded, int]]], truths: list[Truth]) -> Pictures:
    features = torch.stack([torch.cat([scene.features[view] for scene, view in views]) for views in pictures])
    saliency = torch.stack([torch.cat([scene.saliency[view] for scene, view in views]) for views in pictures])
    labels = np.stack([np.concatenate([scene.labels[view] for scene, view in views]) for views in pictures])
    return Pictures(layout, features, saliency, torch.as_tensor(labels).long().to(features.device), truths)
