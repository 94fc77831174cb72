"""Models by name: the embedded one, a directory, or a hub id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compression.backends.known import KnownModel, known_models
from compression.errors import ModelUnavailable, UnknownModel

if TYPE_CHECKING:
    from compression.backends.base import VLM

__all__ = ["KnownModel", "known_models", "load_model"]


def load_model(name: str = "embedded", *, device: str = "auto", dtype: str = "auto") -> VLM:
    """Load a model: "embedded", the directory of a checkpoint of a supported family, a hub id, or `id@revision`.

    Raises:
        UnknownModel: the checkpoint is of a family without a backend.
        ModelUnavailable, DeviceUnavailable: it cannot be loaded here.
    """
    # Here, so that names can be listed without a second of imports.
    from transformers import PreTrainedConfig

    from compression.backends.embedded.backend import EmbeddedBackend
    from compression.backends.hub import ADVICE, Checkpoint
    from compression.backends.idefics3 import Idefics3Backend, SmolVLMBackend
    from compression.backends.internvl import InternVLBackend
    from compression.backends.llava import LlavaBackend
    from compression.backends.llava_next import LlavaNextBackend
    from compression.backends.llava_onevision import LlavaOnevisionBackend
    from compression.backends.qwen2_5_vl import Qwen25VLBackend
    from compression.backends.qwen3_vl import Qwen3VLBackend

    if name == "embedded":
        return EmbeddedBackend(device=device, dtype=dtype)
    checkpoint = Checkpoint.of(name)
    try:
        told, _ = PreTrainedConfig.get_config_dict(checkpoint.source, revision=checkpoint.commit)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelUnavailable(f"the model {name!r} cannot be loaded: {reason}; {ADVICE}") from error
    kind = told.get("model_type")
    backends = (
        LlavaBackend,
        LlavaNextBackend,
        LlavaOnevisionBackend,
        InternVLBackend,
        Qwen25VLBackend,
        Qwen3VLBackend,
        Idefics3Backend,
        SmolVLMBackend,
    )
    families = {backend.family: backend for backend in backends}
    supported = f"supported: {', '.join(families)}; choose a checkpoint of one of them"
    if kind not in families and "auto_map" in told:
        raise ModelUnavailable(
            f"the model {name!r} cannot be loaded: it wants code of its own to be run, which is never done; {supported}"
        )
    if kind is None:
        raise UnknownModel(
            f"the model {name!r} does not say its family: it has no config.json with a model_type; {supported}"
        )
    if kind not in families:
        raise UnknownModel(f"the model {name!r} is of the family {kind!r}; {supported}")
    return families[kind](checkpoint, name=name, device=device, dtype=dtype)
