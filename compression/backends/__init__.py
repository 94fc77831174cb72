"""Models by name: the embedded one, a directory, or a hub id."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from compression.errors import ModelUnavailable, UnknownModel

if TYPE_CHECKING:
    from compression.backends.base import VLM

__all__ = ["KnownModel", "known_models", "load_model"]


@dataclass(frozen=True)
class KnownModel:
    """A model that the menus offer.

    Args:
        name: What a user writes after --model.
        family: Backend family.
        title: For people.
        source: Where the weights come from.
        needs: What it needs to run.
    """

    name: str
    family: str
    title: str
    source: str
    needs: str


_KNOWN = (
    KnownModel(
        "embedded", "embedded", "Embedded model", "in this repository, trained by keepmap train-embedded", "nothing"
    ),
    KnownModel(
        "llava-hf/llava-1.5-7b-hf",
        "llava",
        "LLaVA-1.5 7B",
        "model hub",
        "a network on first use, about 14 GB of memory",
    ),
    KnownModel(
        "llava-hf/llava-1.5-13b-hf",
        "llava",
        "LLaVA-1.5 13B",
        "model hub",
        "a network on first use, about 26 GB of memory",
    ),
    KnownModel(
        "llava-hf/llama3-llava-next-8b-hf",
        "llava_next",
        "LLaVA-NeXT 8B",
        "model hub",
        "a network on first use, about 17 GB of memory",
    ),
    KnownModel(
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf",
        "llava_onevision",
        "LLaVA-OneVision 0.5B",
        "model hub",
        "a network on first use, about 2 GB of memory",
    ),
    KnownModel(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf",
        "llava_onevision",
        "LLaVA-OneVision 7B",
        "model hub",
        "a network on first use, about 16 GB of memory",
    ),
    KnownModel(
        "OpenGVLab/InternVL3-1B-hf",
        "internvl",
        "InternVL3 1B",
        "model hub",
        "a network on first use, about 2 GB of memory",
    ),
    KnownModel(
        "OpenGVLab/InternVL3-8B-hf",
        "internvl",
        "InternVL3 8B",
        "model hub",
        "a network on first use, about 16 GB of memory",
    ),
)


def known_models() -> tuple[KnownModel, ...]:
    """The models that are offered by name; any directory or hub id of a supported family works as well."""
    return _KNOWN


def load_model(name: str = "embedded", *, device: str = "auto", dtype: str = "auto") -> VLM:
    """Load a model: "embedded", the directory of a checkpoint of a supported family, or a hub id.

    Raises:
        UnknownModel: the checkpoint is of a family without a backend.
        ModelUnavailable, DeviceUnavailable: it cannot be loaded here.
    """
    # Here, so that names can be listed without a second of imports.
    from transformers import AutoConfig

    from compression.backends.embedded.backend import EmbeddedBackend
    from compression.backends.internvl import InternVLBackend
    from compression.backends.llava import LlavaBackend
    from compression.backends.llava_next import LlavaNextBackend
    from compression.backends.llava_onevision import LlavaOnevisionBackend

    # It says six times that it tries again, where one line says all.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    if name == "embedded":
        return EmbeddedBackend(device=device, dtype=dtype)
    try:
        kind = AutoConfig.from_pretrained(name, trust_remote_code=False).model_type
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnavailable(
            f"the model {name!r} cannot be loaded: {reason}; give a directory, a hub id on a machine with a "
            "network, or use the embedded model"
        ) from error
    backends = (LlavaBackend, LlavaNextBackend, LlavaOnevisionBackend, InternVLBackend)
    families = {backend.family: backend for backend in backends}
    if kind not in families:
        raise UnknownModel(
            f"the model {name!r} is of the family {kind!r}; supported: {', '.join(families)}; choose a checkpoint of "
            "one of them"
        )
    return families[kind](name, device=device, dtype=dtype)
