"""The embedded model's shape, initial weights and checkpoint files: an ordinary small LLaVA."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from compression.backends.embedded.cells import MOST_CELLS, cell_name
from compression.backends.embedded.textures import PATCH, VIEW
from compression.backends.embedded.vocabulary import (
    BOS_ID,
    EOS_ID,
    IMAGE_ID,
    PAD_ID,
    SPECIAL_TOKENS,
    VOCABULARY,
)

IMAGE_MEAN, IMAGE_STD = 0.45, 0.25
PAD, BOS, EOS, UNKNOWN, IMAGE = SPECIAL_TOKENS


@dataclass(frozen=True)
class ModelSize:
    """Widths and depths; the default is the one that is trained and shipped."""

    dim: int = 192
    heads: int = 6
    vision_layers: int = 4
    vision_mlp: int = 576
    text_layers: int = 6
    text_mlp: int = 512


def llava_config(size: ModelSize) -> LlavaConfig:
    """Describe the model to transformers; the last vision layer's features feed the language model."""
    vision = CLIPVisionConfig(
        hidden_size=size.dim,
        intermediate_size=size.vision_mlp,
        num_hidden_layers=size.vision_layers,
        num_attention_heads=size.heads,
        image_size=VIEW,
        patch_size=PATCH,
        hidden_act="gelu",
        projection_dim=size.dim,
    )
    text = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=size.dim,
        intermediate_size=size.text_mlp,
        num_hidden_layers=size.text_layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        # Room for sixteen views of 256 visual tokens, and to measure four times as many.
        max_position_embeddings=32768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=IMAGE_ID,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )


def new_vision_tower(size: ModelSize, seed: int) -> CLIPVisionModel:
    """Make the vision tower with fresh weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPVisionModel(cast(CLIPVisionConfig, llava_config(size).vision_config))


def new_language_parts(size: ModelSize, seed: int, feature_scale: float) -> tuple[nn.Module, nn.Module]:
    """Make projector and language model with fresh weights.

    Keys start as copies of queries, so that a word looks for tokens like itself from the first step.

    Args:
        size: widths and depths.
        seed: of the weights.
        feature_scale: standard deviation of the vision features that the projector will read.

    Returns:
        The projector and the language model without its head (the head is tied to the embeddings).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        llava = LlavaForConditionalGeneration(llava_config(size))
        projector, language = llava.model.multi_modal_projector, llava.model.language_model
        with torch.no_grad():
            for name, weight in language.named_parameters():
                if weight.ndim == 2:
                    weight.normal_(0, 0.07 if "embed" in name else 0.05)
                if "o_proj" in name or "down_proj" in name:
                    weight.mul_(0.4)
            words = language.embed_tokens.weight
            # A cell's name starts as its row plus its column, so that what is learnt of one helps its neighbours.
            lines = torch.randn(2, MOST_CELLS, size.dim) * 0.07 / math.sqrt(2)
            for row in range(MOST_CELLS):
                for col in range(MOST_CELLS):
                    words[VOCABULARY[cell_name(row, col)]] = lines[0, row] + lines[1, col]
            for layer in language.layers:
                layer.self_attn.q_proj.weight.mul_(1.3)
                layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
            projector.linear_1.weight.normal_(0, size.dim**-0.5 / feature_scale)
            projector.linear_2.weight.normal_(0, size.dim**-0.5 * 0.15)
    return projector, language


def pixel_values(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Normalise images as the processor does: uint8 [views, height, width, 3] → float [views, 3, height, width]."""
    tensor = torch.as_tensor(images).to(device).permute(0, 3, 1, 2).float()
    return (tensor / 255 - IMAGE_MEAN) / IMAGE_STD


@torch.no_grad()
def encode_views(tower: CLIPVisionModel, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Run the vision tower.

    Returns:
        Features [views, tokens, dim] of the last layer without [CLS], and the head-mean attention of [CLS] to the
        tokens in that layer, float32 [views, tokens].
    """
    weight = next(tower.parameters())
    out = tower(pixel_values(images, weight.device).to(weight.dtype), output_hidden_states=True)
    core: Any = getattr(tower, "vision_model", tower)
    layer = core.encoder.layers[-1]
    before = layer.layer_norm1(out.hidden_states[-2])
    views, length, dim = before.shape
    heads = layer.self_attn.num_heads
    query = layer.self_attn.q_proj(before[:, :1]).view(views, 1, heads, -1).transpose(1, 2).float()
    key = layer.self_attn.k_proj(before).view(views, length, heads, -1).transpose(1, 2).float()
    rows = (query @ key.transpose(-1, -2) / math.sqrt(dim // heads)).softmax(-1)
    return out.hidden_states[-1][:, 1:], rows[:, :, 0, 1:].mean(1)


def build_processor() -> LlavaProcessor:
    """Make the tokenizer (whole words only) and image processor (squash to 256 pixels, no crop)."""
    words = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        extra_special_tokens={"image_token": IMAGE},
        clean_up_tokenization_spaces=False,
        model_max_length=32768,
    )
    images = CLIPImageProcessorPil(
        size={"height": VIEW, "width": VIEW},
        do_center_crop=False,
        image_mean=[IMAGE_MEAN] * 3,
        image_std=[IMAGE_STD] * 3,
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def save_checkpoint(
    directory: Path,
    size: ModelSize,
    tower: dict[str, Tensor],
    projector: dict[str, Tensor],
    language: dict[str, Tensor],
    card: str,
) -> None:
    """Write an ordinary checkpoint directory in bfloat16, complete or not at all.

    Args:
        directory: where it goes; an older one is replaced by a rename.
        size: widths and depths.
        tower: weights of the vision tower.
        projector: weights of the projector.
        language: weights of the language model.
        card: text of the model card, README.md.
    """
    model = LlavaForConditionalGeneration(llava_config(size))
    model.model.vision_tower.load_state_dict(tower)
    model.model.multi_modal_projector.load_state_dict(projector)
    model.model.language_model.load_state_dict(language)
    model.tie_weights()
    model.bfloat16()
    model.generation_config.max_new_tokens = 1
    model.generation_config.do_sample = False
    fresh = directory.with_name(f"{directory.name}.new{os.getpid()}")
    stale = directory.with_name(f"{directory.name}.old{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(fresh)
        build_processor().save_pretrained(fresh)
    (fresh / "README.md").write_text(card, encoding="utf-8")
    if directory.exists():
        directory.rename(stale)
    fresh.rename(directory)
    shutil.rmtree(stale, ignore_errors=True)
