"""Images of any size on cells of 256 pixels: nothing stretched, nothing without area, every patch in its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compression.backends.embedded.backend import EmbeddedBackend, Fit
from compression.backends.embedded.cells import CELL_NAMES, Layout, layout_for
from compression.backends.embedded.model import ModelSize, new_language_parts, new_vision_tower, save_checkpoint
from compression.backends.embedded.questions import VOCABULARY, ask
from compression.backends.embedded.reading import Reader, inside
from compression.backends.embedded.scenes import make_scene
from compression.backends.prefill import prefill
from compression.strategies import CATALOGUE
from compression.tokens import Signal
from tests.contracts.toys import PER_HEAD

TINY = ModelSize(dim=32, heads=2, vision_layers=1, vision_mlp=32, text_layers=4, text_mlp=32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the real classes."""
    folder = tmp_path_factory.mktemp("random") / "checkpoint"
    projector, language = new_language_parts(TINY, 1, 1.0)
    tower = new_vision_tower(TINY, 0)
    save_checkpoint(folder, TINY, tower.state_dict(), projector.state_dict(), language.state_dict(), "# Random\n")
    return folder


@pytest.fixture(scope="module")
def reader(checkpoint: Path) -> Reader:
    return Reader(checkpoint)


@pytest.fixture(scope="module")
def vlm(reader: Reader) -> EmbeddedBackend:
    return reader.vlm


SIZES = [(256, 256), (1024, 1024), (512, 768), (300, 200), (600, 1000), (1, 1), (1, 5000), (8192, 8192), (700, 90)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_views_cover_the_image_once_and_none_lies_outside(size: tuple[int, int]) -> None:
    height, width = size
    views = Fit.of(size).views()
    patch = 16 / Fit.of(size).scale
    boxes = np.array([view.box for view in views])
    assert boxes[:, :2].min() == 0
    assert (boxes[:, 0] < width).all()
    assert (boxes[:, 1] < height).all()
    assert width <= boxes[:, 2].max() < width + patch + 1 / Fit.of(size).scale
    assert height <= boxes[:, 3].max() < height + patch + 1 / Fit.of(size).scale
    for view in views:
        left, top, right, bottom = view.box
        assert (right - left) / view.cols == pytest.approx(patch)
        assert (bottom - top) / view.rows == pytest.approx(patch)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_as_many_tokens_are_counted_as_are_made(vlm: EmbeddedBackend, size: tuple[int, int]) -> None:
    wanted = vlm.wanted_size(size)
    assert max(wanted) <= 2048
    tokens = vlm.encode(np.zeros((*wanted, 3), np.uint8), size)
    assert len(tokens) == len(tokens.grid) == vlm.count_tokens(size)
    assert tokens.signals[Signal.CLS_FEATURE].shape[0] == len(tokens.grid.views)
    assert all(
        tokens.signals[name].shape[1 if name in PER_HEAD else 0] == len(tokens)
        for name in (*PER_HEAD, Signal.RECEIVED_ATTENTION, Signal.PROJECTED, Signal.KEYS, Signal.VALUES)
    )


def test_a_cell_is_read_as_if_it_were_an_image_of_its_own(vlm: EmbeddedBackend) -> None:
    scene = make_scene(3, 1024)
    whole = vlm.encode(scene.image, (1024, 1024))
    row, col = 2, 1
    alone = vlm.encode(scene.image[row * 256 : (row + 1) * 256, col * 256 : (col + 1) * 256], (256, 256))
    part = whole.grid.tokens_of(4 * row + col)
    assert whole.grid.views[4 * row + col].name == "b3"
    torch.testing.assert_close(whole.features[part], alone.features, rtol=1e-4, atol=1e-5)
    cls_rows = whole.signals[Signal.CLS_ATTENTION][:, part]
    torch.testing.assert_close(cls_rows, alone.signals[Signal.CLS_ATTENTION], rtol=1e-4, atol=1e-6)


def test_patches_of_padding_are_no_tokens(vlm: EmbeddedBackend) -> None:
    tokens = vlm.encode(np.zeros((300, 200, 3), np.uint8), (300, 200))
    assert [(view.rows, view.cols) for view in tokens.grid.views] == [(16, 11)]


def test_views_stand_behind_their_names_in_the_prompt(vlm: EmbeddedBackend) -> None:
    grid = vlm.encode(np.zeros((256, 512, 3), np.uint8), (256, 512)).grid
    assert vlm.picture_text(grid) == "a1 <image> b1 <image>"
    prompt = vlm.prompt("How many ships are there?")
    ids, layout = vlm.lay_out(prompt, [np.array([0, 1]), np.array([2])], grid)
    words = vlm.tokenizer.convert_ids_to_tokens(ids[0].tolist())
    assert words[:7] == ["<bos>", "a1", "<image>", "<image>", "b1", "<image>", "question"]
    assert [words[place] for place in layout.question] == ["how", "many", "ships", "are", "there", "?"]
    assert layout.visual.tolist() == [2, 3, 5]


def test_what_is_resized_is_said(vlm: EmbeddedBackend) -> None:
    assert vlm.notices((1024, 1024)) == vlm.notices((256, 512)) == ()
    assert "8.0 pixels of the image became one" in vlm.notices((8192, 8192))[0]
    assert "853 × 512 pixels: 2 × 4 cells" in vlm.notices((600, 1000))[0]


def test_every_layout_of_the_model_has_names_that_it_knows() -> None:
    assert set(Layout(4, 4, thumbnail=True).names) == {"map", *CELL_NAMES} <= VOCABULARY.keys()
    assert layout_for((10_000, 10_000)) == Layout(4, 4)


@pytest.mark.parametrize("size", [256, 1024])
@pytest.mark.parametrize("strategy", ["identity", "uniform_grid@96", "dualcomp:lam=0.8@96", "visionzip@96"])
def test_questions_packed_behind_an_image_are_answered_as_if_asked_alone(
    reader: Reader, strategy: str, size: int
) -> None:
    plan = CATALOGUE.plan(strategy)
    scene = make_scene(500_003, size)
    tokens = reader.look(scene.image)
    asked = ask(scene, np.random.default_rng(1), 3)
    packed = reader.logits(reader.read(tokens, plan), [question.text for question in asked])
    for question, logits in zip(asked, packed, strict=True):
        alone = prefill(reader.vlm, tokens, reader.vlm.prompt(question.text), plan).logits
        torch.testing.assert_close(logits, alone, rtol=1e-4, atol=1e-4)


def test_the_words_of_a_question_can_be_replaced_and_its_frame_stays(reader: Reader) -> None:
    ids = torch.tensor(
        [[VOCABULARY[word] for word in ["question", ":", "how", "many", "ships", "are", "there", "?", "answer", ":"]]]
    )
    assert inside(ids)[0].tolist() == [False, False, *[True] * 6, False, False]
    prefix = reader.prefix([torch.zeros(4, TINY.dim)], ["image"])
    texts = ["How many ships are there?", "How many cars are there?"]
    as_asked, erased = reader.logits(prefix, texts), reader.logits(prefix, texts, instead=torch.ones(TINY.dim))
    assert not torch.allclose(as_asked[0], as_asked[1])
    torch.testing.assert_close(erased[0], erased[1], rtol=1e-4, atol=1e-4)
