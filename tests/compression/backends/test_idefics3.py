"""What is Idefics3's and SmolVLM's own: the words around each tile, and where the tokens of a tile lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import Idefics3ImageProcessorPil, Idefics3Processor

from compression.backends import load_model
from compression.backends.idefics3 import Idefics3Backend
from compression.selection import Selection
from compression.strategies import CATALOGUE
from tests.compression.backends.families import FAMILIES, split_tokenizer

TEMPLATE = (
    "<bos>{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}USER: <image> {% else %}"
    "{{ part['text'] }} ASSISTANT:{% endif %}{% endfor %}"
)
BY_LABEL = {family.label: family for family in FAMILIES}
SPLIT = [pytest.param(family, id=family.label) for family in FAMILIES if family.splits]


@pytest.fixture
def folder(request, tmp_path: Path) -> Path:
    """A checkpoint whose processor has a template, and whose tokenizer has another."""
    tokenizer = split_tokenizer()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    request.param.save(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path


@pytest.mark.parametrize("size", [(34, 34), (61, 83), (20, 300), (300, 41), (400, 399)], ids=str)
@pytest.mark.parametrize("folder", SPLIT, indirect=True)
def test_the_input_ids_are_those_of_the_librarys_processor(folder: Path, size: tuple[int, int]) -> None:
    vlm = load_model(str(folder), device="cpu")
    assert isinstance(vlm, Idefics3Backend)
    tokens = vlm.encode(np.zeros((*size, 3), np.uint8), size)
    prompt = vlm.prompt("where is the ship", ("a", "b"))
    blocks = vlm.blocks(Selection.prune(len(tokens), np.arange(len(tokens))), tokens.grid)
    ids, _ = vlm.lay_out(prompt, blocks, tokens.grid)
    images = type(vlm.processor).from_pretrained(folder)
    processor = Idefics3Processor(images, split_tokenizer(), image_seq_len=vlm.edge**2, chat_template=TEMPLATE)
    picture = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    asked = "where is the ship\nAnswer with one of: a, b."
    content = [{"type": "image", "image": picture}, {"type": "text", "text": asked}]
    theirs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        input_data_format="channels_last",
    )
    assert ids[0].tolist() == theirs["input_ids"][0]


def test_the_margin_of_a_tile_that_its_patches_do_not_fill_belongs_to_no_token(tmp_path: Path) -> None:
    # SmolVLM-Instruct: 27 patches of 14 pixels in a tile of 384, six pixels over. Here: four of eight in 34, two over;
    # a tile is 340 pixels of the original, a token 16 / 34 of that.
    vlm = load_model(str(BY_LABEL["idefics3"].save(tmp_path)), device="cpu")
    grid = vlm.encode(np.zeros((102, 102, 3), np.uint8), (1020, 1020)).grid
    assert [view.name for view in grid.views] == ["a1", "b1", "c1", "a2", "b2", "c2", "a3", "b3", "c3", "thumbnail"]
    assert grid.boxes()[:4] == pytest.approx(
        np.array([[0, 0, 160, 160], [160, 0, 320, 160], [0, 160, 160, 320], [160, 160, 320, 320]])
    )
    assert grid.views[4].box == pytest.approx((340, 340, 660, 660))
    assert grid.views[-1].box == pytest.approx((0, 0, 960, 960))


@pytest.mark.parametrize("folder", SPLIT[:1], indirect=True)
def test_the_words_of_a_tile_stay_when_nothing_is_left_of_it(folder: Path) -> None:
    vlm = load_model(str(folder), device="cpu")
    tokens = vlm.encode(np.zeros((34, 34, 3), np.uint8), (34, 34))
    prompt = vlm.prompt("where is the ship", ("a", "b"))
    whole = vlm.generate(tokens, prompt, CATALOGUE.plan("identity"))
    one = vlm.generate(tokens, prompt, CATALOGUE.plan("random_subset@1"))
    assert whole.sequence_per_layer[0] - one.sequence_per_layer[0] == len(tokens) - 1


@pytest.mark.parametrize(
    ("size", "rows", "cols"), [((1000, 1000), 4, 4), ((1000, 500), 4, 2), ((300, 3000), 1, 4), ((768, 1024), 3, 4)]
)
def test_smolvlm_cuts_an_image_as_its_processor_does(
    tmp_path: Path, size: tuple[int, int], rows: int, cols: int
) -> None:
    # HuggingFaceTB/SmolVLM-Instruct, preprocessor_config.json: size.longest_edge 1536, max_image_size.longest_edge 384.
    images = Idefics3ImageProcessorPil(size={"longest_edge": 1536}, max_image_size={"longest_edge": 384})
    made = images(images=np.zeros((*size, 3), np.uint8), input_data_format="channels_last", return_row_col_info=True)
    assert (made["rows"][0][0], made["cols"][0][0]) == (rows, cols)
    vlm = load_model(str(BY_LABEL["smolvlm"].save(tmp_path)), device="cpu")
    vlm.processor = images
    assert vlm.canvas(size) == (rows, cols)
