"""Several pictures in one prompt, crops, and texts that a model writes on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.recorder import Recorder
from compression.backends import load_model
from compression.backends.base import Prompt
from compression.backends.embedded.backend import Fit
from compression.errors import Cancelled, MissingSignal
from compression.sight import as_it_is
from compression.strategies import CATALOGUE
from compression.tokens import Signal
from compression.zooming.boxes import encloses
from compression.zooming.lens import joined
from tests.compression.backends.conftest import WORDS
from tests.compression.backends.families import FAMILIES
from tests.compression.backends.test_llava import hooks_on

QUESTION = "where is the red ship"
LLAVA = FAMILIES[0]


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """A tiny LLaVA, its directory and its stock model."""
    folder = LLAVA.save(tmp_path_factory.mktemp("llava"))
    stock = LLAVA.model.from_pretrained(folder, attn_implementation="sdpa").eval()
    return load_model(str(folder), device="cpu"), folder, stock


@pytest.fixture(scope="module")
def embedded():
    return load_model("embedded", device="cpu")


def picture(seed, height=64, width=64):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@torch.no_grad()
def test_two_pictures_in_one_prompt_are_those_that_the_stock_model_reads(llava):
    vlm, folder, stock = llava
    images = picture(1), picture(2)
    tokens = joined([vlm.encode(images[0], (64, 64)), vlm.encode_crop(images[1], (8.0, 8.0, 24.0, 24.0), (64, 64))])
    prompt = Prompt(QUESTION, tuple(WORDS[2:7]), f"USER: <image> {QUESTION} ASSISTANT:")
    recorder = Recorder()
    ours = vlm.generate(tokens, prompt, as_it_is(len(tokens)), probe=recorder)
    each = len(tokens) // 2
    coded = vlm.tokenizer(f"USER: <image> <image> {QUESTION} ASSISTANT:")["input_ids"]
    ids = torch.tensor([[token for one in coded for token in ([4] * each if one == 4 else [one])]])
    pixels = torch.cat([LLAVA.read(folder, image)["pixel_values"] for image in images])
    theirs = stock(input_ids=ids, pixel_values=pixels).logits[0, -1].log_softmax(-1)
    words = [vlm.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in prompt.choices]
    torch.testing.assert_close(torch.tensor(ours.log_probabilities), theirs[words], atol=1e-5, rtol=0)
    assert recorder.finish(ours.entering).answer.shape == (4, 2 * each)


def test_a_crop_lies_where_it_was_taken(llava):
    vlm, _, _ = llava
    tokens = vlm.encode_crop(picture(2, 40, 40), (8.0, 8.0, 24.0, 24.0), (64, 64))
    assert tokens.grid.image_size == (64, 64)
    assert tokens.grid.views[0].box == (8, 8, 24, 24)


@pytest.mark.parametrize(
    ("box", "square"),
    [((10, 20, 30, 24), (10, 12, 30, 32)), ((0, 0, 4, 30), (0, 0, 30, 30)), ((0, 0, 100, 64), (18, 0, 82, 64))],
    ids=["around the centre", "moved inside", "as large as the image has one"],
)
def test_llava_is_shown_the_square_around_a_box(llava, box, square):
    assert llava[0].frames(box, (64, 100)) == (square,)


def test_a_greedy_text_is_the_free_answer(llava):
    vlm, _, _ = llava
    tokens = vlm.encode(picture(1), (64, 64))
    said = vlm.generate(tokens, vlm.prompt(QUESTION), CATALOGUE.plan("identity"), max_new_tokens=256)
    written = vlm.write(tokens, QUESTION, count=2, temperature=0.0, seed=0)
    assert written.texts == (said.text, said.text)
    assert written.sequence_per_layer == said.sequence_per_layer


def test_sampled_texts_differ_between_attempts_and_follow_the_seed(llava):
    vlm, _, _ = llava
    tokens = vlm.encode(picture(1), (64, 64))
    first = vlm.write(tokens, QUESTION, count=4, temperature=1.5, seed=3)
    before = torch.get_rng_state()
    assert vlm.write(tokens, QUESTION, count=4, temperature=1.5, seed=3) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set(first.texts)) > 1
    assert vlm.write(tokens, QUESTION, count=2, temperature=1.5, seed=4).texts == first.texts[1:3]
    assert all(steps <= 255 for steps in first.steps)


def test_writing_can_be_cancelled_and_leaves_no_hook(llava):
    vlm, _, _ = llava
    before = hooks_on(vlm)
    calls = iter([False] * 9)
    with pytest.raises(Cancelled):
        vlm.write(
            vlm.encode(picture(1), (64, 64)),
            QUESTION,
            count=1,
            temperature=0.0,
            seed=0,
            cancel=lambda: next(calls, True),
        )
    assert hooks_on(vlm) == before


@pytest.mark.parametrize("family", [one for one in FAMILIES[1:] if one.axes == 1], ids=lambda family: family.name)
@pytest.mark.parametrize("strategy", ["sparc", "zoom@1.0"])
def test_families_of_one_picture_refuse_a_zoom_before_anything_runs(family, strategy, tmp_path):
    vlm = load_model(str(family.save(tmp_path)), device="cpu")
    with pytest.raises(MissingSignal, match="needs crops, which .* does not provide; choose another strategy"):
        vlm.check(CATALOGUE.plan(strategy), 100, (64, 64))


@pytest.mark.parametrize("size", [(1024, 1024), (512, 900), (700, 300)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_a_crop_of_the_embedded_model_is_the_cell_of_the_whole_image(embedded, size):
    fit = Fit.of(size)
    image = picture(5, fit.height, fit.width)
    whole = embedded.encode(image, size)
    for number, view in enumerate(whole.grid.views):
        middle = (view.box[0] + view.box[2]) / 2, (view.box[1] + view.box[3]) / 2
        [frame] = embedded.frames((*middle, *middle), size)
        left, top = round(frame[0] * fit.scale), round(frame[1] * fit.scale)
        height, width = embedded.crop_size(frame, size)
        crop = embedded.encode_crop(image[top : top + height, left : left + width], frame, size)
        assert crop.grid.views == (view,)
        assert len(crop) == embedded.count_crop(frame, size)
        part = whole.grid.tokens_of(number)
        torch.testing.assert_close(crop.features, whole.features[part], atol=1e-4, rtol=0)


def test_boxes_are_brought_onto_the_cells_that_they_mostly_cover_and_the_one_under_their_centre(embedded):
    size = (1024, 1024)
    a1, b1, a2 = (0, 0, 256, 256), (256, 0, 512, 256), (0, 256, 256, 512)
    assert embedded.frames((10, 10, 20, 20), size) == (a1,)
    assert embedded.frames((200, 10, 300, 20), size) == (a1,)
    assert embedded.frames((200, 0, 500, 256), size) == (b1,)
    assert embedded.frames((0, 0, 250, 400), size) == (a1, a2)
    assert embedded.frames((0, 0, 100, 100), (200, 200)) == ()


def test_an_overview_stands_behind_the_name_of_the_map(embedded):
    overview = embedded.encode_overview(picture(3, 256, 256))
    crop = embedded.encode_crop(picture(4, 256, 256), (256.0, 0.0, 512.0, 256.0), (1024, 1024))
    grid = replace(overview.grid.placed((0, 0, 1024, 1024), (1024, 1024)))
    both = joined([replace(overview, grid=grid), crop])
    assert embedded.picture_text(overview.grid) == "map <image>"
    assert embedded.picture_text(both.grid) == "map <image> b1 <image>"
    assert embedded.picture_text(embedded.encode(picture(3, 256, 256), (256, 256)).grid) == "<image>"
    assert encloses((0, 0, 1024, 1024), both.grid.views[1].box)


def test_joined_pictures_keep_the_signals_of_each(embedded):
    one, other = (embedded.encode(picture(seed, 256, 256), (256, 256)) for seed in (6, 7))
    both = joined([one, other])
    assert len(both) == 512
    for name in one.signals:
        axis = 1 if name in (Signal.CLS_ATTENTION, Signal.EARLY_CLS_ATTENTION) else 0
        torch.testing.assert_close(both.signals[name], torch.cat([one.signals[name], other.signals[name]], axis))
    assert set(both.signals) == set(one.signals)
