"""The models that the menus offer, and what their configurations say of their size.

Each number is a field of the checkpoint's `config.json` on the hub, under that field's name; fields that a checkpoint
leaves to the library's default are written out. `views` is the most passes of the vision tower over one image, from
`preprocessor_config.json`, in the comment beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from compression.backends.memory import Config, Memory

EMBEDDED = Path(__file__).parent / "embedded" / "checkpoint" / "config.json"


@dataclass(frozen=True)
class KnownModel:
    """A model that the menus offer.

    Args:
        name: What a user writes after --model.
        title: For people.
        views: The most tiles that its vision tower reads of an image.
        config: The fields of its `config.json` that say how large it is.
        source: Where the weights come from.
        tokens_per_view: The most visual tokens of a tile, where the image decides; None where tiles have one size.
    """

    name: str
    title: str
    views: int
    config: Config = field(repr=False)
    source: str = "model hub"
    tokens_per_view: int | None = None

    @property
    def family(self) -> str:
        """Backend family."""
        return "embedded" if self.is_embedded else str(self.config["model_type"])

    @property
    def is_embedded(self) -> bool:
        """Whether its weights are in this repository."""
        return self.source != "model hub"

    @cached_property
    def on_gpu(self) -> Memory:
        """Memory with the checkpoint's own 16 bits a number; the embedded model has 32."""
        return Memory.of(self.config, self.views, 4 if self.is_embedded else 2, self.tokens_per_view)

    @cached_property
    def on_cpu(self) -> Memory:
        """Memory with 32 bits a number."""
        return Memory.of(self.config, self.views, 4, self.tokens_per_view)

    @property
    def needs(self) -> str:
        """What it needs to run."""
        if self.is_embedded:
            return "nothing"
        gpu, cpu = gigabytes(self.on_gpu.total_bytes), gigabytes(self.on_cpu.total_bytes)
        return f"a network on first use, about {gpu} GB of memory on a GPU, {cpu} GB on a CPU"


def gigabytes(count: int) -> str:
    """Bytes in units of 10^9, two digits: "0.52", "4.6", "17"."""
    value = count / 1e9
    return f"{value:.{2 if value < 1 else 1 if value < 10 else 0}f}"


def _llama(layers: int, dim: int, ffn: int, heads: int, kv_heads: int, vocabulary: int, kind: str = "llama") -> Config:
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": dim,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
    }


def _vit(layers: int, dim: int, ffn: int, heads: int, image: int, patch: int, kind: str) -> Config:
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": dim,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "image_size": image,
        "patch_size": patch,
    }


def _config(kind: str, text: Config, vision: Config, *, tied: bool = False, **more: Any) -> Config:
    return {"model_type": kind, "text_config": text, "vision_config": vision, "tie_word_embeddings": tied, **more}


_CLIP = _vit(24, 1024, 4096, 16, 336, 14, "clip_vision_model")
_SIGLIP = {**_vit(26, 1152, 4304, 16, 384, 14, "siglip_vision_model"), "vision_use_head": False}
_INTERN = {**_vit(24, 1024, 4096, 16, 448, 14, "internvl_vision"), "attention_bias": True}
_LLAMA3 = _llama(32, 4096, 14336, 32, 8, 128320)
_IDEFICS3 = "idefics3_vision"
_SMOLVLM = "smolvlm_vision"


def _qwen(size: str, kind: str, text: Config, vision: Config, *, tied: bool) -> KnownModel:
    """One view of any shape; size.longest_edge or max_pixels is 16,384 times the square of a token's edge."""
    name, title = {"qwen2_5_vl": ("Qwen2.5-VL", "Qwen2.5-VL"), "qwen3_vl": ("Qwen3-VL", "Qwen3-VL")}[kind]
    vision = {**vision, "out_hidden_size": text["hidden_size"], "spatial_merge_size": 2}
    config = _config(kind, {**text, "model_type": f"{kind}_text"}, vision, tied=tied)
    return KnownModel(f"Qwen/{name}-{size}-Instruct", f"{title} {size}", 1, config, tokens_per_view=16_384)


_QWEN2_5 = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14}
_QWEN3 = {"num_heads": 16, "patch_size": 16, "num_position_embeddings": 2304}
_QWEN3_SMALL = {
    **_QWEN3,
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_QWEN3_LARGE = {
    **_QWEN3,
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}


def _embedded() -> Mapping[str, Any]:
    told: Mapping[str, Any] = json.loads(EMBEDDED.read_text(encoding="utf-8"))
    return told


def known_models() -> tuple[KnownModel, ...]:
    """The models that are offered by name; any directory or hub id of a supported family works as well."""
    return (
        KnownModel(
            "embedded",
            "Embedded model",
            16,  # 4 x 4 cells
            _embedded(),
            "in this repository, trained by keepmap train-embedded",
        ),
        *_HUB,
    )


_HUB = (
    KnownModel(
        "llava-hf/llava-1.5-7b-hf",
        "LLaVA-1.5 7B",
        1,
        _config("llava", _llama(32, 4096, 11008, 32, 32, 32064), _CLIP),
    ),
    KnownModel(
        "llava-hf/llava-1.5-13b-hf",
        "LLaVA-1.5 13B",
        1,
        _config("llava", _llama(40, 5120, 13824, 40, 40, 32064), _CLIP),
    ),
    KnownModel(
        "llava-hf/llama3-llava-next-8b-hf",
        "LLaVA-NeXT 8B",
        5,  # image_grid_pinpoints: 672 x 672 and the whole
        _config("llava_next", _LLAMA3, _CLIP),
    ),
    KnownModel(
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        "LLaVA-OneVision 0.5B",
        11,  # vision_aspect_ratio anyres_max_9: 2 x 5 tiles are the most that are not interpolated, and the whole
        _config("llava_onevision", _llama(24, 896, 4864, 14, 2, 152000, "qwen2"), _SIGLIP, tied=True),
    ),
    KnownModel(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "LLaVA-OneVision 7B",
        11,
        _config("llava_onevision", _llama(28, 3584, 18944, 28, 4, 152128, "qwen2"), _SIGLIP),
    ),
    KnownModel(
        "OpenGVLab/InternVL3-1B-hf",
        "InternVL3 1B",
        13,  # max_patches 12, and the whole
        _config("internvl", _llama(24, 896, 4864, 14, 2, 151674, "qwen2"), _INTERN, downsample_ratio=0.5),
    ),
    KnownModel(
        "OpenGVLab/InternVL3-8B-hf",
        "InternVL3 8B",
        13,
        _config("internvl", _llama(28, 3584, 18944, 28, 4, 151674, "qwen2"), _INTERN, downsample_ratio=0.5),
    ),
    _qwen("3B", "qwen2_5_vl", _llama(36, 2048, 11008, 16, 2, 151936), _QWEN2_5, tied=True),
    _qwen("7B", "qwen2_5_vl", _llama(28, 3584, 18944, 28, 4, 152064), _QWEN2_5, tied=False),
    _qwen("2B", "qwen3_vl", {**_llama(28, 2048, 6144, 16, 8, 151936), "head_dim": 128}, _QWEN3_SMALL, tied=True),
    _qwen("4B", "qwen3_vl", {**_llama(36, 2560, 9728, 32, 8, 151936), "head_dim": 128}, _QWEN3_SMALL, tied=True),
    _qwen("8B", "qwen3_vl", {**_llama(36, 4096, 12288, 32, 8, 151936), "head_dim": 128}, _QWEN3_LARGE, tied=False),
    KnownModel(
        "HuggingFaceM4/Idefics3-8B-Llama3",
        "Idefics3 8B",
        17,  # size.longest_edge is four times max_image_size.longest_edge: 4 x 4 tiles, and the whole
        _config(
            "idefics3",
            _llama(32, 4096, 14336, 32, 8, 128259),
            _vit(27, 1152, 4304, 16, 364, 14, _IDEFICS3),
            scale_factor=2,
        ),
    ),
    KnownModel(
        "HuggingFaceTB/SmolVLM-256M-Instruct",
        "SmolVLM 256M",
        17,
        _config(
            "idefics3",
            _llama(30, 576, 1536, 9, 3, 49280),
            _vit(12, 768, 3072, 12, 512, 16, _IDEFICS3),
            scale_factor=4,
        ),
    ),
    KnownModel(
        "HuggingFaceTB/SmolVLM-500M-Instruct",
        "SmolVLM 500M",
        17,
        _config(
            "idefics3",
            _llama(32, 960, 2560, 15, 5, 49280),
            _vit(12, 768, 3072, 12, 512, 16, _IDEFICS3),
            scale_factor=4,
        ),
    ),
    KnownModel(
        "HuggingFaceTB/SmolVLM-Instruct",
        "SmolVLM 2.2B",
        17,
        _config(
            "idefics3",
            _llama(24, 2048, 8192, 32, 32, 49155),
            _vit(27, 1152, 4304, 16, 384, 14, _IDEFICS3),
            scale_factor=3,
        ),
    ),
    KnownModel(
        "HuggingFaceTB/SmolVLM2-2.2B-Instruct",
        "SmolVLM2 2.2B",
        17,
        _config(
            "smolvlm",
            _llama(24, 2048, 8192, 32, 32, 49280),
            _vit(27, 1152, 4304, 16, 384, 14, _SMOLVLM),
            scale_factor=3,
        ),
    ),
)
