"""The models of this server: loaded once, on first use or in the background, and asked for the sizes the page needs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from compression.backends import known_models, load_model
from compression.backends.base import VLM
from compression.backends.planning import lowest_of
from compression.compressor import Plan
from compression.errors import CompressionError
from compression.sight import Size, looking

log = logging.getLogger(__name__)


class Models:
    """Models by name. Loading happens once per name; a failed load is tried again when asked again.

    Args:
        default: The model that the page asks.
        device: "auto", "cpu" or "cuda".
        load: How a model is loaded; tests give their own.
    """

    def __init__(
        self, default: str = "embedded", *, device: str = "auto", load: Callable[..., VLM] = load_model
    ) -> None:
        self.default = default
        self._device = device
        self._load = load
        self._loaded: dict[str, VLM] = {}
        self._totals: dict[tuple[str, tuple[int, int]], int] = {}
        self._lock = threading.Lock()

    def get(self, name: str = "") -> VLM:
        """The model of that name, the default for "".

        Raises:
            UnknownModel, ModelUnavailable: it cannot be loaded here.
        """
        name = name or self.default
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._load(name, device=self._device)
            return self._loaded[name]

    def warm(self) -> None:
        """Load the default model in the background, so that the page is there at once."""
        threading.Thread(target=self._try, name="keepmap-load", daemon=True).start()

    def _try(self) -> None:
        try:
            self.tokens((256, 256))
        except CompressionError as error:
            log.warning("the model %s is not available: %s", self.default, error)

    def is_ready(self, name: str = "") -> bool:
        """Whether the model is loaded, so that asking it something costs nothing."""
        return (name or self.default) in self._loaded

    def title(self, name: str = "") -> str:
        """The model as people call it."""
        name = name or self.default
        titles = {known.name: known.title for known in known_models()}
        return titles.get(name, name.rstrip("/").rsplit("/", 1)[-1])

    def where(self, name: str = "") -> str:
        """What answers, and on what: "embedded model · CPU"."""
        name = name or self.default
        title = self.title(name)
        title = title[:1].lower() + title[1:] if name == "embedded" else title
        return f"{title} · {device_words(self._loaded[name].device)}" if self.is_ready(name) else title

    def tokens(self, image_size: tuple[int, int], name: str = "") -> int:
        """The number of visual tokens of an image of (height, width), remembered."""
        key = (name or self.default, image_size)
        if key not in self._totals:
            self._totals[key] = self.get(name).count_tokens(image_size)
        return self._totals[key]

    def lowest(self, plan: Plan, total: int, name: str = "", *, image_size: Size | None = None) -> int:
        """The smallest budget in visual tokens that a plan can reach on an image of `total` tokens, by its last step.

        Args:
            plan: The plan.
            total: Visual tokens of the image.
            name: The model's.
            image_size: (height, width); without it, nothing is known of a strategy that looks at the image itself.

        Raises:
            StrategyError: an earlier step cannot run.
        """
        looks = looking(plan)
        if looks and image_size and len(plan.steps) == 1:
            return looks.lowest(self.get(name).prospect(image_size))
        return lowest_of(plan, total, self.get(name).architecture.layers)


def device_words(device: str) -> str:
    """A device as people write it."""
    return "CPU" if device == "cpu" else "GPU" if device.startswith("cuda") else device
