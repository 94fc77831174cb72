"""How much memory a model needs, worked out from its configuration before anything is downloaded.

The configurations are read by the field names of a checkpoint's `config.json`. Parameters are counted part by part and
agree exactly with the library's classes; the cache follows from the layers; what a pass holds besides is an estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TEXT = 128
"""Positions of a prompt that are no visual tokens: its words, and the separators of a picture; a generous question."""

KEEPS_STATES = frozenset({"llava", "llava_next", "llava_onevision", "internvl"})
"""Families whose backend reads the states of any layer of the tower, and queries and keys of three."""

Config = Mapping[str, Any]
"""A checkpoint's `config.json`."""


@dataclass(frozen=True)
class Memory:
    """What a model holds while it answers one question about an image of full size with all visual tokens.

    Args:
        parameters: Number of parameters.
        visual_tokens: The most that it makes of an image.
        weights_bytes: The parameters at `width` bytes each.
        kv_cache_bytes: Keys and values of all layers after the prefill.
        activation_bytes: Estimated, the widest moment of a pass.
        width: Bytes of a number: 2 on a GPU (the checkpoint's own 16 bits), 4 on a CPU.
    """

    parameters: int
    visual_tokens: int
    weights_bytes: int
    kv_cache_bytes: int
    activation_bytes: int
    width: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.weights_bytes + self.kv_cache_bytes + self.activation_bytes

    @classmethod
    def of(cls, config: Config, views: int, width: int = 2, tokens_per_view: int | None = None) -> Memory:
        """Memory of a model that reads `views` tiles of an image at most.

        Args:
            config: The model's.
            views: Tiles.
            width: Bytes of a number.
            tokens_per_view: Visual tokens of a tile at most, where the image decides; None where tiles have one size.

        Raises:
            KeyError: a field is missing, or the family is unknown.
        """
        merged = _merge(config) ** 2
        tokens = views * (_patches(config) ** 2 // merged if tokens_per_view is None else tokens_per_view)
        patches = tokens * merged if tokens_per_view is not None else views * _patches(config) ** 2
        count = parameters(config)
        return cls(
            parameters=count,
            visual_tokens=tokens,
            weights_bytes=count * width,
            kv_cache_bytes=kv_cache_bytes(config, tokens + TEXT, width),
            activation_bytes=activation_bytes(config, tokens + TEXT, patches, width),
            width=width,
        )


def parameters(config: Config) -> int:
    """The number of parameters of a model with this configuration, exactly.

    Raises:
        KeyError: a field is missing, or the family is unknown.
    """
    return _language(config) + _TOWERS[config["model_type"]](config)


def kv_cache_bytes(config: Config, positions: int, width: int) -> int:
    """Keys and values of `positions` in every layer, at `width` bytes a number: 2·layers·kv heads·head dim each."""
    text = config["text_config"]
    return int(2 * text["num_hidden_layers"] * _kv_heads(text) * _head_dim(text) * positions * width)


def activation_bytes(config: Config, positions: int, patches: int, width: int) -> int:
    """Estimate what a pass holds at its widest, at `width` bytes a number: in the language model or in the tower.

    In a layer's MLP each position has the residual, its norm, and the gate, the other half and their product; the
    embeddings, the features and their packed copy stay through the pass: five of width d, three of width m. In the
    tower each patch has the residual, its norm and both halves of the MLP, and what the backend keeps for the signals:
    the states of all layers where the features are those of a layer before the last, and the queries and keys that it
    listens to. Attention is fused and holds no square. Left out: the rows of attention that a strategy asks for, what
    an allocator keeps in reserve, and the logits of one position. On a LLaVA of eight layers of width 1,024 with 4 and
    24 layers in the tower, the most that was allocated was 8 to 29 % above this.
    """
    text, vision = config["text_config"], config["vision_config"]
    language = positions * (5 * text["hidden_size"] + 3 * text["intermediate_size"])
    states, heard = 0, 2
    if config["model_type"] in KEEPS_STATES:
        states, heard = vision["num_hidden_layers"] + 1, 6
    tower = patches * (vision["hidden_size"] * (2 + states + heard) + 2 * vision["intermediate_size"])
    return int(width * max(language, tower))


def _head_dim(text: Config) -> int:
    return int(text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"])


def _kv_heads(text: Config) -> int:
    return int(text.get("num_key_value_heads") or text["num_attention_heads"])


def _patches(config: Config) -> int:
    """Patches along one edge of a tile."""
    return _edge(config["vision_config"], "image_size") // _edge(config["vision_config"], "patch_size")


def _edge(vision: Config, name: str) -> int:
    """One edge in pixels; some configurations name both."""
    told = vision[name]
    return int(told[0] if isinstance(told, list | tuple) else told)


def _merge(config: Config) -> int:
    """Patches along one edge of a token."""
    if "downsample_ratio" in config:
        return round(1 / float(config["downsample_ratio"]))
    return int(config.get("scale_factor") or config["vision_config"].get("spatial_merge_size", 1))


def _language(config: Config) -> int:
    """Embeddings, layers with a gated MLP, the final norm, and the head where it is not the embeddings'."""
    text = config["text_config"]
    d, m, head = text["hidden_size"], text["intermediate_size"], _head_dim(text)
    queries, keys = text["num_attention_heads"] * head, _kv_heads(text) * head
    layer = 2 * d * queries + 2 * d * keys + 3 * d * m + 2 * d
    if text["model_type"] == "qwen2" or "qwen2_5" in text["model_type"]:
        layer += queries + 2 * keys  # biases
    if "qwen3" in text["model_type"]:
        layer += 2 * head  # norms of queries and keys
    embeddings = text["vocab_size"] * d * (1 if config.get("tie_word_embeddings") else 2)
    return int(embeddings + text["num_hidden_layers"] * layer + d)


def _blocks(vision: Config) -> int:
    """Layers of a plain vision transformer: four projections, a two-layer MLP and two norms, all with biases.

    Where `attention_bias` is false, queries, keys and values have none.
    """
    d, m = vision["hidden_size"], vision["intermediate_size"]
    layers = vision.get("num_hidden_layers") or vision["depth"]
    biases = 6 * d + m + (3 * d if vision.get("attention_bias", True) else 0)
    return int(layers * (4 * d * d + 2 * d * m + biases))


def _two_layers(inside: int, width: int, outside: int) -> int:
    """A projector of two layers with biases."""
    return (inside + 1) * width + (width + 1) * outside


def _clip(config: Config) -> int:
    """A CLIP tower with [CLS] and a norm before and behind its layers, and the projector."""
    vision, d = config["vision_config"], config["vision_config"]["hidden_size"]
    around = 3 * _edge(vision, "patch_size") ** 2 * d + d + (_patches(config) ** 2 + 1) * d + 4 * d
    out = config["text_config"]["hidden_size"]
    return int(_blocks(vision) + around + _two_layers(d, out, out))


def _siglip(config: Config) -> int:
    """A SigLIP tower without its pooling head."""
    vision, d = config["vision_config"], config["vision_config"]["hidden_size"]
    return int(_blocks(vision) + (3 * _edge(vision, "patch_size") ** 2 + 1) * d + _patches(config) ** 2 * d + 2 * d)


def _next(config: Config) -> int:
    """CLIP and its projector, and the newline."""
    return _clip(config) + int(config["text_config"]["hidden_size"])


def _onevision(config: Config) -> int:
    """SigLIP, the projector and the newline."""
    out = int(config["text_config"]["hidden_size"])
    return _siglip(config) + _two_layers(int(config["vision_config"]["hidden_size"]), out, out) + out


def _internvl(config: Config) -> int:
    """InternViT with [CLS], scales of both halves of a layer and no last norm; a norm and the projector."""
    vision, d = config["vision_config"], config["vision_config"]["hidden_size"]
    around = (3 * _edge(vision, "patch_size") ** 2 + 1) * d + d + (_patches(config) ** 2 + 1) * d
    wide, out = d * _merge(config) ** 2, config["text_config"]["hidden_size"]
    scales = 2 * d * vision["num_hidden_layers"]
    return int(_blocks(vision) + scales + around + 2 * wide + _two_layers(wide, out, out))


def _idefics3(config: Config) -> int:
    """SigLIP and a projection without bias of the shuffled patches."""
    wide = config["vision_config"]["hidden_size"] * _merge(config) ** 2
    return _siglip(config) + int(wide * config["text_config"]["hidden_size"])


def _qwen2_5(config: Config) -> int:
    """Patches of two frames, layers with a gated MLP and root-mean-square norms, and the merger."""
    vision, d = config["vision_config"], config["vision_config"]["hidden_size"]
    m, wide = vision["intermediate_size"], d * _merge(config) ** 2
    layer = 4 * d * d + 4 * d + 3 * d * m + 2 * m + d + 2 * d
    merger = d + _two_layers(wide, wide, vision["out_hidden_size"])
    return int(2 * 3 * _edge(vision, "patch_size") ** 2 * d + vision["depth"] * layer + merger)


def _qwen3(config: Config) -> int:
    """Patches of two frames, learnt positions, plain layers, the merger and one more for each deep-stack plane."""
    vision, d = config["vision_config"], config["vision_config"]["hidden_size"]
    wide, planes = d * _merge(config) ** 2, len(vision["deepstack_visual_indexes"])
    around = (2 * 3 * _edge(vision, "patch_size") ** 2 + 1) * d + vision["num_position_embeddings"] * d
    two = _two_layers(wide, wide, vision["out_hidden_size"])
    return int(_blocks(vision) + around + (2 * d + two) + planes * (2 * wide + two))


_TOWERS = {
    "llava": _clip,
    "llava_next": _next,
    "llava_onevision": _onevision,
    "internvl": _internvl,
    "idefics3": _idefics3,
    "smolvlm": _idefics3,
    "qwen2_5_vl": _qwen2_5,
    "qwen3_vl": _qwen3,
}
"""For each family, what counts the parameters of all that is not the language model."""
