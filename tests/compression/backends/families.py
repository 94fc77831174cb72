"""A tiny random checkpoint of each family, and how the stock model reads a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    GotOcr2ImageProcessorPil,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)
from transformers.models.llava_next.modeling_llava_next import get_anyres_image_grid_shape, unpad_image
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from tests.compression.backends.conftest import SPECIAL, WORDS, randomise, tiny_tokenizer

Size = tuple[int, int]
READ = ("pixel_values", "image_sizes", "pixel_attention_mask", "image_grid_thw")
"""What stock models are given of what image processors make."""
TOWER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Family:
    """What a test needs to know of a family.

    Args:
        name: The configuration's model type.
        model: The library's class.
        config: Its tiny configuration.
        images: The image processor of the checkpoint.
        sizes: (height, width) of images that take different ways through it.
        has_cls: Whether the tower has a class token.
        picture: What stands for the picture in the text that the stock model reads.
        tokenizer: The checkpoint's tokenizer.
        reading: What the family's processor asks of the image processor.
        merge: Patches along one edge of a visual token.
        axes: Axes of its position ids.
        is_tiled: Whether the tower reads squares of one size.
        seed: Of its weights; some speak one word only, or none.
        splits: Whether each tile has a placeholder of its own, behind words.
        variant: What sets the checkpoint apart from others of its family.
    """

    name: str
    model: Any
    config: Callable[[], Any]
    images: Callable[[], Any]
    sizes: tuple[Size, ...]
    has_cls: bool
    picture: str = "<image>"
    tokenizer: Callable[[], Any] = tiny_tokenizer
    reading: Mapping[str, Any] = field(default_factory=dict)
    merge: int = 1
    axes: int = 1
    is_tiled: bool = True
    seed: int = 0
    splits: bool = False
    variant: str = ""

    @property
    def label(self) -> str:
        """The name of the checkpoint in test ids."""
        return f"{self.name}-{self.variant}" if self.variant else self.name

    def save(self, folder: Path) -> Path:
        """Write the checkpoint."""
        torch.manual_seed(self.seed)
        randomise(self.model(self.config())).save_pretrained(folder)
        self.images().save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)
        return folder

    def read(self, folder: Path, image: NDArray[np.uint8]) -> dict[str, Tensor]:
        """What the family's own image processor makes of an image."""
        made = type(self.images()).from_pretrained(folder)(
            images=image, input_data_format="channels_last", return_tensors="pt", **self.reading
        )
        return {name: made[name] for name in READ if name in made}

    def picture_text(self, folder: Path, image: NDArray[np.uint8]) -> str:
        """What stands for an image in the text that the stock model reads; a placeholder for all tokens of a view."""
        if not self.splits:
            return self.picture
        made = type(self.images()).from_pretrained(folder)(
            images=image, input_data_format="channels_last", return_row_col_info=True
        )
        words = ("<fake_token_around_image>", "<image>", "<global-img>")
        return str(get_image_prompt_string(made["rows"][0][0], made["cols"][0][0], 1, *words))


def llava_config() -> LlavaConfig:
    return LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=32, **TOWER),
        text_config=LlamaConfig(**TEXT),
        image_token_id=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def next_config() -> LlavaNextConfig:
    return LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=32, **TOWER),
        text_config=LlamaConfig(**TEXT),
        image_token_id=4,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_grid_pinpoints=NEXT_SHEETS,
    )


def onevision_config() -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(image_size=34, vision_use_head=False, **TOWER),
        text_config=Qwen2Config(**TEXT),
        image_token_id=4,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=ONEVISION_SHEETS,
    )


def internvl_config() -> InternVLConfig:
    return InternVLConfig(
        vision_config=InternVLVisionConfig(image_size=64, **TOWER),
        text_config=Qwen2Config(**{**TEXT, "vocab_size": TEXT["vocab_size"] + 2}),
        image_token_id=4,
        image_seq_length=16,
    )


def internvl_tokenizer() -> Any:
    made = tiny_tokenizer("<IMG_CONTEXT>", start_image_token="<img>", end_image_token="</img>")
    made.chat_template = (
        "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}USER: <IMG_CONTEXT> "
        "{% else %}{{ part['text'] }} ASSISTANT:{% endif %}{% endfor %}"
    )
    return made


# Two blocks of four have no window (tokens 4 x 4), and the last one has.
QWEN_TOWER: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "depth": 4, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2,
    "out_hidden_size": TEXT["hidden_size"],
}  # fmt: skip
QWEN_IDS = {"image_token_id": 4, "vision_start_token_id": 21, "vision_end_token_id": 22, "video_token_id": 23}


def qwen_text(head_dim: int, section: list[int]) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": section}
    return {**TEXT, "vocab_size": TEXT["vocab_size"] + 3, "head_dim": head_dim, "rope_parameters": rope}


def qwen2_5_config() -> Qwen2_5_VLConfig:
    return Qwen2_5_VLConfig(
        vision_config={**QWEN_TOWER, "window_size": 64, "fullatt_block_indexes": [0, 2]},
        text_config=qwen_text(6, [1, 1, 1]),
        **QWEN_IDS,
    )


def qwen3_config() -> Qwen3VLConfig:
    return Qwen3VLConfig(
        vision_config={**QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 2]},
        text_config=qwen_text(12, [2, 2, 2]),
        **QWEN_IDS,
    )


def qwen_tokenizer() -> Any:
    words = {"vision_bos_token": "<vision>", "vision_eos_token": "</vision>", "video_token": "<video>"}
    made = tiny_tokenizer("<pad_image>", **words)
    made.chat_template = (
        "{% for part in messages[0]['content'] %}{% if part['type'] == 'image' %}USER: <vision><pad_image></vision> "
        "{% else %}{{ part['text'] }} ASSISTANT:{% endif %}{% endfor %}"
    )
    return made


def idefics3_config() -> Idefics3Config:
    return Idefics3Config(
        vision_config={"image_size": 34, **TOWER},
        text_config={**SPLIT_TEXT, "model_type": "llama"},
        image_token_id=4,
        scale_factor=2,
    )


def smolvlm_config() -> SmolVLMConfig:
    return SmolVLMConfig(
        vision_config={"image_size": 48, **TOWER},
        text_config={**SPLIT_TEXT, "model_type": "llama"},
        image_token_id=4,
        scale_factor=3,
    )


def split_tokenizer() -> Any:
    return tiny_tokenizer("<image>", **SPLIT_WORDS)


SPLIT_WORDS = {
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_row_token": "\n",
    **{f"tile_{row}_{col}": f"<row_{row}_col_{col}>" for row in range(1, 5) for col in range(1, 5)},
}
SPLIT_TEXT = {**TEXT, "vocab_size": TEXT["vocab_size"] + len(SPLIT_WORDS)}
NEXT_SHEETS = [[32, 64], [64, 32], [64, 64], [96, 32], [32, 96]]
ONEVISION_SHEETS = [[34 * rows, 34 * cols] for rows in range(1, 5) for cols in range(1, 5)]
SQUARE = {"height": 32, "width": 32}
FAMILIES = (
    Family(
        "llava",
        LlavaForConditionalGeneration,
        llava_config,
        lambda: CLIPImageProcessorPil(size=SQUARE, do_center_crop=False, crop_size=SQUARE),
        ((32, 32), (50, 100)),
        has_cls=True,
    ),
    Family(
        "llava_next",
        LlavaNextForConditionalGeneration,
        next_config,
        lambda: LlavaNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_size=SQUARE, image_grid_pinpoints=NEXT_SHEETS
        ),
        ((32, 32), (64, 64), (50, 100), (90, 37), (33, 200), (61, 83)),
        has_cls=True,
    ),
    Family(
        "llava_onevision",
        LlavaOnevisionForConditionalGeneration,
        onevision_config,
        # The margin of two pixels behind the last patch is that of 384 pixels and patches of 14.
        lambda: LlavaOnevisionImageProcessorPil(
            size={"height": 34, "width": 34}, image_grid_pinpoints=ONEVISION_SHEETS
        ),
        ((34, 34), (50, 100), (90, 37), (136, 136), (120, 150)),  # the last two are interpolated
        has_cls=False,
    ),
    Family(
        "internvl",
        InternVLForConditionalGeneration,
        internvl_config,
        lambda: GotOcr2ImageProcessorPil(size={"height": 64, "width": 64}, max_patches=6),
        ((64, 64), (50, 100), (190, 70), (61, 83)),
        has_cls=True,
        picture="<img><IMG_CONTEXT></img>",
        tokenizer=internvl_tokenizer,
        reading={"crop_to_patches": True},
        merge=2,
    ),
    Family(
        "qwen2_5_vl",
        Qwen2_5_VLForConditionalGeneration,
        qwen2_5_config,
        lambda: Qwen2VLImageProcessorPil(
            size={"shortest_edge": 48 * 48, "longest_edge": 128 * 128}, patch_size=8, merge_size=2
        ),
        ((48, 48), (64, 96), (50, 100), (37, 90), (200, 33), (200, 150)),
        has_cls=False,
        picture="<vision><pad_image></vision>",
        tokenizer=qwen_tokenizer,
        merge=2,
        axes=3,
        is_tiled=False,
        seed=6,
    ),
    Family(
        "qwen3_vl",
        Qwen3VLForConditionalGeneration,
        qwen3_config,
        lambda: Qwen2VLImageProcessorPil(
            size={"shortest_edge": 48 * 48, "longest_edge": 128 * 128}, patch_size=8, merge_size=2
        ),
        ((48, 48), (64, 96), (50, 100), (37, 90), (200, 33), (200, 150)),
        has_cls=False,
        picture="<vision><pad_image></vision>",
        tokenizer=qwen_tokenizer,
        merge=2,
        axes=3,
        is_tiled=False,
        seed=7,
    ),
    Family(
        "idefics3",
        Idefics3ForConditionalGeneration,
        idefics3_config,
        # The margin of two pixels behind the last patch is that of 384 pixels and patches of 14.
        lambda: Idefics3ImageProcessorPil(size={"longest_edge": 102}, max_image_size={"longest_edge": 34}),
        ((34, 34), (90, 37), (61, 83)),
        has_cls=False,
        splits=True,
        tokenizer=split_tokenizer,
        merge=2,
    ),
    Family(
        "idefics3",
        Idefics3ForConditionalGeneration,
        idefics3_config,
        # A tile larger than the tower's own size: its positions are stretched.
        lambda: Idefics3ImageProcessorPil(
            size={"longest_edge": 102}, max_image_size={"longest_edge": 66}, do_image_splitting=False
        ),
        ((61, 83),),
        has_cls=False,
        splits=True,
        tokenizer=split_tokenizer,
        merge=2,
        variant="whole",
    ),
    Family(
        "idefics3",
        Idefics3ForConditionalGeneration,
        idefics3_config,
        # The longest edge is that of one tile: nothing to split.
        lambda: Idefics3ImageProcessorPil(size={"longest_edge": 66}, max_image_size={"longest_edge": 66}),
        ((61, 83),),
        has_cls=False,
        splits=True,
        tokenizer=split_tokenizer,
        merge=2,
        variant="single",
    ),
    Family(
        "smolvlm",
        SmolVLMForConditionalGeneration,
        smolvlm_config,
        lambda: SmolVLMImageProcessorPil(size={"longest_edge": 120}, max_image_size={"longest_edge": 48}),
        ((48, 48), (50, 100), (190, 70)),
        has_cls=False,
        splits=True,
        tokenizer=split_tokenizer,
        merge=3,
    ),
)


def packing(family: Family, config: Any, size: Size, tokens: int) -> list[list[int]]:
    """The rows of the picture in the stock model's order, each a list of token numbers of our grid; no newlines.

    The first row is the whole view. Numbers are laid out and unpadded by the library's own functions.
    """
    if family.name in ("llava", "internvl", "qwen2_5_vl", "qwen3_vl") or family.splits:
        return [list(range(tokens))]
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    edge = side // patch
    rows, cols = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, side)
    numbers = torch.arange(rows * cols * edge**2).view(1, rows, cols, edge, edge)
    sheet = unpad_image(numbers.permute(0, 1, 3, 2, 4).reshape(1, rows * edge, cols * edge), size)[0].tolist()
    if sum(map(len, sheet)) == tokens - edge**2:
        ours = {number: at for at, number in enumerate(sorted(number for row in sheet for number in row))}
        return [list(range(edge**2))] + [[edge**2 + ours[number] for number in row] for row in sheet]
    ratio = (len(sheet) * len(sheet[0]) / (9 * edge**2)) ** 0.5
    lines, across = int(len(sheet) // ratio), int(len(sheet[0]) // ratio)
    return [list(range(edge**2))] + [[edge**2 + row * across + col for col in range(across)] for row in range(lines)]


def ids_of_axes(ids: list[int], *shapes: Size) -> Tensor:
    """Position ids [3, 1, length] of a sequence with pictures of (rows, cols) tokens, written down one by one.

    The paper of Qwen2-VL, arXiv 2409.12191, section 2.1: words count up on all three axes; a picture's tokens have the
    temporal id of its beginning and the ids of their row and column; words go on behind the largest id so far.
    """
    made: list[tuple[int, int, int]] = []
    pictures, coming, seen = list(shapes), 0, 0
    for one in ids:
        if one == 4:
            row, col = divmod(seen, pictures[0][1])
            made.append((coming, coming + row, coming + col))
            seen += 1
            continue
        if seen:
            pictures, seen = pictures[1:], 0
        if made:
            coming = max(map(max, made)) + 1
        made.append((coming, coming, coming))
        coming += 1
    return torch.tensor(made).T[:, None]
