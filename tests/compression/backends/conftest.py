"""A tiny LLaVA with random weights, saved and loaded as an ordinary checkpoint: the real classes, nothing
downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from compression.backends.llava import LlavaBackend
from compression.tokens import VisualTokens

WORDS = [
    "USER:",
    "ASSISTANT:",
    "where",
    "is",
    "the",
    "red",
    "ship",
    "what",
    "north",
    "south",
    "east",
    "west",
    "a",
    "b",
    "c",
    "d",
]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<image>"]


def save_tiny_llava(folder: Path, *, centre_crop: bool = False) -> Path:
    """Write a checkpoint with 16 visual tokens, 4 language layers, grouped key heads and the second-last feature
    layer."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(SPECIAL) + len(WORDS), hidden_size=24, intermediate_size=40, num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_id=4,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
    )
    randomise(model).save_pretrained(folder)
    size = {"shortest_edge": 32} if centre_crop else {"height": 32, "width": 32}
    pictures = CLIPImageProcessorPil(size=size, do_center_crop=centre_crop, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=tiny_tokenizer(),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def randomise(model: PreTrainedModel) -> PreTrainedModel:
    """Random weights, large enough that every part matters."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def tiny_tokenizer(image: str = "<image>", **more: str) -> PreTrainedTokenizerFast:
    """One token for each of `SPECIAL` and `WORDS`, and for more special ones; that of the image is number 4."""
    words = [*SPECIAL[:4], image, *WORDS, *more.values()]
    coded = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="<unk>"))
    coded.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    coded.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=coded, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        extra_special_tokens={"image_token": image, **more},
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint's directory."""
    return save_tiny_llava(tmp_path_factory.mktemp("tiny_llava"))


@pytest.fixture(scope="session")
def tiny_vlm(tiny_folder: Path) -> LlavaBackend:
    """The tiny model behind our interface, float32 on the CPU."""
    return LlavaBackend(tiny_folder, name="tiny", device="cpu")


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A picture of 32 x 32 pixels, drawn."""
    return np.random.default_rng(7).integers(0, 256, (32, 32, 3), dtype=np.uint8)


@pytest.fixture
def photo_tokens(tiny_vlm: LlavaBackend, photo: NDArray[np.uint8]) -> VisualTokens:
    """The picture's visual tokens."""
    return tiny_vlm.encode(photo, (320, 320))
