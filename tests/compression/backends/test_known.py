"""The memory that a model needs: worked out from its configuration, and measured."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from compression.backends import KnownModel, known_models, load_model
from compression.backends.base import Prompt
from compression.backends.known import gigabytes
from compression.backends.memory import TEXT, Memory, activation_bytes, kv_cache_bytes, parameters
from compression.strategies import CATALOGUE
from tests.compression.backends.families import FAMILIES, Family

BY_NAME = {model.name: model for model in known_models()}
PUBLISHED = {"llava-hf/llava-1.5-7b-hf": 7_063_427_072, "HuggingFaceTB/SmolVLM-256M-Instruct": 256_484_928}
"""Parameters as others counted them in the published weights."""
QWEN = {
    "Qwen2.5-VL 7B": (
        8_292_166_656,
        {
            "model_type": "qwen2_5_vl",
            "tie_word_embeddings": False,
            "text_config": {
                "model_type": "qwen2_5_vl_text", "num_hidden_layers": 28, "hidden_size": 3584,
                "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
            },
            "vision_config": {
                "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
                "spatial_merge_size": 2, "out_hidden_size": 3584,
            },
        },
    ),
    "Qwen3-VL 2B": (
        2_127_532_032,
        {
            "model_type": "qwen3_vl",
            "tie_word_embeddings": True,
            "text_config": {
                "model_type": "qwen3_vl_text", "num_hidden_layers": 28, "hidden_size": 2048,
                "intermediate_size": 6144, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128,
                "vocab_size": 151936,
            },
            "vision_config": {
                "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "patch_size": 16,
                "spatial_merge_size": 2, "out_hidden_size": 2048, "num_position_embeddings": 2304,
                "deepstack_visual_indexes": [5, 11, 17],
            },
        },
    ),
}  # fmt: skip
CONFIGS = {name: model.config for name, model in BY_NAME.items()} | {name: one[1] for name, one in QWEN.items()}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_parameters_are_those_of_the_librarys_class(config) -> None:
    settings = copy.deepcopy(dict(config))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
    assert parameters(config) == sum(part.numel() for part in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_published_weights(name: str) -> None:
    assert BY_NAME[name].on_gpu.parameters == PUBLISHED[name]


@pytest.mark.parametrize("name", QWEN)
def test_a_tower_with_a_merger_is_counted_too(name: str) -> None:
    assert parameters(QWEN[name][1]) == QWEN[name][0]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.label)
def test_a_real_model_has_the_parameters_and_the_cache_that_were_worked_out(family: Family, tmp_path) -> None:
    vlm = load_model(str(family.save(tmp_path)), device="cpu")
    config = vlm.config.to_dict()
    assert parameters(config) == vlm.card.parameters
    tokens = vlm.encode(np.zeros((*family.sizes[-1], 3), np.uint8), family.sizes[-1])
    made = vlm.generate(tokens, Prompt("red", ("a", "b"), "USER: <image> red ASSISTANT:"), CATALOGUE.plan("identity"))
    assert kv_cache_bytes(config, made.sequence_per_layer[0], 4) == made.kv_cache_bytes


def test_the_embedded_model_has_the_parameters_that_were_worked_out() -> None:
    model = load_model("embedded", device="cpu")
    known = BY_NAME["embedded"]
    assert known.on_cpu.parameters == model.card.parameters
    assert known.on_cpu.visual_tokens == model.count_tokens((1024, 1024)) == 4096
    assert known.needs == "nothing"


def test_llava_7b_by_hand() -> None:
    # 576 tokens and 128 of text: 2 x 32 layers x 32 heads x 128 x 704 positions x 2 bytes; the MLP's moment is
    # 704 x (5 x 4096 + 3 x 11008) x 2, and the tower's 576 x (1024 x (2 + 25 + 6) + 2 x 4096) x 2.
    config = BY_NAME["llava-hf/llava-1.5-7b-hf"].config
    memory = Memory.of(config, 1)
    assert memory.visual_tokens == 576
    assert memory.weights_bytes == 2 * 7_063_427_072
    assert memory.kv_cache_bytes == 369_098_752
    assert memory.activation_bytes == max(75_333_632, 48_365_568) == activation_bytes(config, 576 + TEXT, 576, 2)
    assert memory.total_bytes == 14_126_854_144 + 369_098_752 + 75_333_632
    assert gigabytes(memory.total_bytes) == "15"


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("llava-hf/llama3-llava-next-8b-hf", 2880),  # five times 24 x 24
        ("OpenGVLab/InternVL3-8B-hf", 3328),  # thirteen times 256
        ("HuggingFaceM4/Idefics3-8B-Llama3", 2873),  # seventeen times 169
        ("HuggingFaceTB/SmolVLM-Instruct", 1377),  # seventeen times 81
        ("HuggingFaceTB/SmolVLM-256M-Instruct", 1088),  # seventeen times 64
    ],
)
def test_a_full_image_is_as_many_tokens_as_the_papers_say(name: str, tokens: int) -> None:
    assert BY_NAME[name].on_gpu.visual_tokens == tokens


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.name)
def test_what_a_model_needs_is_said_in_words(model: KnownModel) -> None:
    if not model.is_embedded:
        assert gigabytes(model.on_gpu.total_bytes) in model.needs
        assert model.on_cpu.total_bytes == 2 * model.on_gpu.total_bytes
        assert "network" in model.needs


@pytest.mark.parametrize(
    ("count", "words"), [(4_000_000, "0.00"), (520_000_000, "0.52"), (4_600_000_000, "4.6"), (17_400_000_000, "17")]
)
def test_gigabytes_have_two_digits(count: int, words: str) -> None:
    assert gigabytes(count) == words
