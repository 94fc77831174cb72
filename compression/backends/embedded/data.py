"""Batches for training: everything is drawn from (seed, stage, step), so any step can be made again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionModel

from compression.backends.embedded.losses import ANY_OBJECT, COLOUR_IDS, FIRST_CORNER, NAMES, PLURALS, QUARTER_IDS
from compression.backends.embedded.model import TOKENS, encode_views
from compression.backends.embedded.questions import LETTERS, Question, ask, prompt
from compression.backends.embedded.scenes import VIEW, Scene, make_scene
from compression.backends.embedded.textures import PATCH
from compression.backends.embedded.vocabulary import BOS_ID, VOCABULARY

# Seeds below this one are never trained on: samples and evaluation take theirs from there.
FIRST_TRAINING_SEED = 1_000_000
_SEEDS_PER_RUN = 10_000_000
_VISION_OFFSET = 5_000_000
TEXT_TOKENS = 256
QUESTIONS_PER_SCENE = 18
CHUNK = 32


def _first_seed(seed: int) -> int:
    return FIRST_TRAINING_SEED + seed * _SEEDS_PER_RUN


def labels_of(scene: Scene) -> np.ndarray:
    """Stack a scene's ground truth: uint8 [patches, 4] of cover, object, road links, building + 2 * road."""
    flags = scene.building.astype(np.uint8) + 2 * scene.road.astype(np.uint8)
    return np.stack([scene.cover, scene.object_id, scene.road_links, flags], -1).reshape(-1, 4)


def vision_batch(seed: int, step: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Make fresh views for the vision stage; every fourth batch is cut out of larger scenes.

    Returns:
        Images uint8 [views, 256, 256, 3] and labels uint8 [views, patches, 4].
    """
    first = _first_seed(seed) + _VISION_OFFSET + step * views
    if step % 4 or views % 16:
        scenes = [make_scene(first + index) for index in range(views)]
        return np.stack([scene.image for scene in scenes]), np.stack([labels_of(scene) for scene in scenes])
    images, labels = [], []
    cells, side = 4, VIEW // PATCH
    for index in range(views // 16):
        scene = make_scene(first + index, cells * VIEW)
        images.append(scene.image.reshape(cells, VIEW, cells, VIEW, 3).swapaxes(1, 2).reshape(-1, VIEW, VIEW, 3))
        grid = labels_of(scene).reshape(cells, side, cells, side, 4).swapaxes(1, 2)
        labels.append(grid.reshape(cells * cells, side * side, 4))
    return np.concatenate(images), np.concatenate(labels)


class ScenePool:
    """Scenes with cached vision features, encoded in chunks when first asked for."""

    def __init__(self, tower: CLIPVisionModel, seed: int, size: int) -> None:
        self._tower, self._first, self.size = tower, _first_seed(seed), size
        self._chunks: dict[int, tuple[list[Scene], Tensor, Tensor, np.ndarray]] = {}

    def _chunk(self, number: int) -> tuple[list[Scene], Tensor, Tensor, np.ndarray]:
        if number not in self._chunks:
            start = number * CHUNK
            scenes = [make_scene(self._first + index) for index in range(start, min(start + CHUNK, self.size))]
            features, attention = encode_views(self._tower, np.stack([scene.image for scene in scenes]))
            labels = np.stack([labels_of(scene) for scene in scenes])
            light = [replace(scene, image=scene.image[:, :0].copy()) for scene in scenes]
            self._chunks[number] = (light, features, attention, labels)
        return self._chunks[number]

    def take(self, indices: np.ndarray) -> tuple[list[Scene], Tensor, Tensor, Tensor]:
        """Get scenes without their images, features [n, tokens, dim], [CLS] attention [n, tokens] and labels."""
        found = [(self._chunk(int(index) // CHUNK), int(index) % CHUNK) for index in indices]
        labels = torch.as_tensor(np.stack([chunk[3][place] for chunk, place in found])).long()
        features = torch.stack([chunk[1][place] for chunk, place in found])
        attention = torch.stack([chunk[2][place] for chunk, place in found])
        return [chunk[0][place] for chunk, place in found], features, attention, labels.to(features.device)

    def schedule(self, seed: int, step: int, views: int) -> np.ndarray:
        """Which scenes a step reads: the first pass in order, later passes shuffled."""
        per_pass = max(self.size // views, 1)
        number, place = divmod(step, per_pass)
        order = np.arange(self.size)
        if number:
            order = np.random.default_rng((seed, 7, number)).permutation(self.size)
        return order[place * views : (place + 1) * views]


@dataclass(frozen=True)
class TextBatch:
    """Questions packed behind each view; a question sees the view and itself.

    Attributes:
        ids: word ids [views, text].
        segment: number of the question a token belongs to, -1 for padding [views, text].
        offset: place within its question [views, text].
        named, colour, plural: what the grounding loss asks [views, text].
        answer_view, answer_place, answer_id: one entry per question: where its prompt ends and what comes next.
        tasks: task per question; lettered ones carry a star.
    """

    ids: Tensor
    segment: Tensor
    offset: Tensor
    named: Tensor
    colour: Tensor
    plural: Tensor
    answer_view: Tensor
    answer_place: Tensor
    answer_id: Tensor
    tasks: tuple[str, ...]

    def to(self, device: torch.device) -> TextBatch:
        """Copy the tensors to a device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if name != "tasks"}
        return replace(self, **moved)


def pack(questions: list[list[Question]], length: int = TEXT_TOKENS) -> TextBatch:
    """Pack as many questions per view as fit into `length` tokens."""
    shape = (len(questions), length)
    ids, offset = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    segment, named, colour = (np.full(shape, -1, np.int64) for _ in range(3))
    plural = np.zeros(shape, bool)
    ends: list[tuple[int, int, int]] = []
    tasks: list[str] = []
    for view, asked in enumerate(questions):
        start = 0
        for number, question in enumerate(asked):
            words = [VOCABULARY[word] for word in prompt(question.text).split()]
            stop = start + len(words)
            if stop > length:
                continue
            ids[view, start:stop] = words
            segment[view, start:stop] = number
            offset[view, start:stop] = np.arange(len(words))
            if question.task != "knowledge":
                _name_targets(words, named[view, start:stop], colour[view, start:stop], plural[view, start:stop])
            ends.append((view, stop - 1, VOCABULARY[question.answer]))
            tasks.append(question.task + ("*" if question.answer in LETTERS else ""))
            start = stop
    place = torch.as_tensor(np.array(ends, np.int64).reshape(-1, 3))
    return TextBatch(
        ids=torch.as_tensor(ids),
        segment=torch.as_tensor(segment),
        offset=torch.as_tensor(offset),
        named=torch.as_tensor(named),
        colour=torch.as_tensor(colour),
        plural=torch.as_tensor(plural),
        answer_view=place[:, 0],
        answer_place=place[:, 1],
        answer_id=place[:, 2],
        tasks=tuple(tasks),
    )


def _name_targets(words: list[int], named: np.ndarray, colour: np.ndarray, plural: np.ndarray) -> None:
    """Note what each noun of a question names; options are not grounded."""
    before = -1
    for place, word in enumerate(words):
        if word == VOCABULARY["options"]:
            return
        if word in NAMES:
            named[place] = NAMES[word]
            colour[place] = COLOUR_IDS.get(before, -1) if NAMES[word] <= ANY_OBJECT else -1
            plural[place] = word in PLURALS
        elif word == VOCABULARY["corner"] and before in QUARTER_IDS:
            named[place] = FIRST_CORNER + QUARTER_IDS[before]
        before = word


def questions_for(scenes: list[Scene], rng: np.random.Generator) -> list[list[Question]]:
    """Ask fresh questions about every scene of a batch."""
    return [ask(scene, rng, QUESTIONS_PER_SCENE) for scene in scenes]


def choose_tokens(rng: np.random.Generator, labels: Tensor, attention: Tensor, count: int, policy: str) -> Tensor:
    """Choose which visual tokens a training step keeps, as compressors will at inference.

    Args:
        rng: source of chance.
        labels: int [views, tokens, 4].
        attention: of [CLS], [views, tokens].
        count: how many tokens to keep.
        policy: full, oracle (objects first), random, uniform or saliency ([CLS] attention).

    Returns:
        Ascending token indices, int [views, count].
    """
    views, device = len(labels), labels.device
    if policy == "full" or count >= TOKENS:
        return torch.arange(TOKENS, device=device).expand(views, -1)
    if policy == "uniform":
        return torch.as_tensor(np.linspace(0, TOKENS - 1, count).round().astype(np.int64), device=device).expand(
            views, -1
        )
    if policy == "saliency":
        return attention.topk(count, 1).indices.sort(1).values
    score = torch.as_tensor(rng.random((views, TOKENS), dtype=np.float32)).to(device)
    if policy == "oracle":
        score = score + 3.0 * (labels[..., 1] > 0) + 0.4 * (labels[..., 3] > 0)
    return score.topk(count, 1).indices.sort(1).values


def assemble(
    words: Tensor, projected: Tensor, keep: Tensor, text: TextBatch, *, original_positions: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Lay out `<bos> <image>*kept question₁ question₂ …` so that each question reads as if it were alone.

    Args:
        words: word embeddings [vocabulary, dim].
        projected: visual tokens [views, tokens, dim].
        keep: visual tokens to read, int [views, kept].
        text: the packed questions.
        original_positions: keep the position ids of the uncompressed sequence, instead of packing them anew.

    Returns:
        Embeddings [views, sequence, dim], additive mask [views, 1, sequence, sequence], position ids [views, sequence].
    """
    views, kept = keep.shape
    device = keep.device
    start = words[BOS_ID].expand(views, 1, -1)
    visual = projected.gather(1, keep.unsqueeze(-1).expand(-1, -1, projected.shape[-1]))
    embedded = torch.cat([start, visual, words[text.ids]], 1)
    packed = torch.arange(1, kept + 1, device=device).expand(views, -1)
    first = TOKENS + 1 if original_positions else kept + 1
    zero = torch.zeros(views, 1, dtype=torch.long, device=device)
    positions = torch.cat([zero, keep + 1 if original_positions else packed, text.offset + first], 1)
    prefix = torch.full((views, kept + 1), -2, device=device)
    segment = torch.cat([prefix, text.segment], 1)
    length = segment.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    allowed = ((segment.unsqueeze(2) == segment.unsqueeze(1)) | (segment.unsqueeze(1) == -2)) & causal
    mask = torch.zeros(views, 1, length, length, dtype=embedded.dtype, device=device)
    mask = mask.masked_fill(~allowed.unsqueeze(1), torch.finfo(embedded.dtype).min)
    return embedded, mask, positions
