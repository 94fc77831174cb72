"""Every mistake that a caller of `compression` can make, one class each.

CompressionError
├── InvalidGrid            a token grid that cannot lie on an image
├── InvalidSelection       a selection whose arrays contradict each other
├── StrategyError
│   ├── UnknownStrategy    no strategy of that name
│   ├── InvalidStrategyText  text that is not name[:param=value,…][@budget]
│   ├── InvalidParameter   a parameter that the strategy does not have, or a value outside its range
│   ├── InvalidBudget      a budget outside 1..tokens, or one that the strategy cannot reach
│   └── NeedsSight         a strategy that reads the image itself was given its visual tokens
└── BackendError
    ├── UnknownModel       no backend for that model
    ├── ModelUnavailable   the model exists but cannot be loaded here
    ├── DeviceUnavailable  no such device, or this machine does not have it
    ├── MissingSignal      a strategy needs a signal that the model does not provide
    ├── AttentionUnavailable  attention rows were asked for and the kernel gave none
    ├── InvalidQuestion    a question that the model cannot read at all
    └── Cancelled          the caller asked to stop
"""

from __future__ import annotations


class CompressionError(Exception):
    """Base of every error raised by `compression`."""


class InvalidGrid(CompressionError):
    """A token grid that cannot lie on an image."""


class InvalidSelection(CompressionError):
    """A selection whose arrays contradict each other."""


class StrategyError(CompressionError):
    """Base of the mistakes made when naming or configuring a strategy."""


class UnknownStrategy(StrategyError):
    """No strategy of that name is registered."""


class InvalidStrategyText(StrategyError):
    """Text that does not read as name[:param=value,…][@budget]."""


class InvalidParameter(StrategyError):
    """A parameter that the strategy does not have, or a value outside its range."""


class InvalidBudget(StrategyError):
    """A budget outside 1..tokens, or one that the strategy cannot reach.

    `lowest` is the smallest reachable budget in visual tokens where there is one, so that a page can offer it.
    """

    def __init__(self, message: str, lowest: int | None = None) -> None:
        super().__init__(message)
        self.lowest = lowest


class NeedsSight(StrategyError):
    """A strategy that reads the image itself was given visual tokens instead of the image."""


class BackendError(CompressionError):
    """Base of the mistakes made when naming, loading or asking a model."""


class UnknownModel(BackendError):
    """No backend knows a model of that name."""


class ModelUnavailable(BackendError):
    """The model exists but cannot be loaded here."""


class DeviceUnavailable(BackendError):
    """No such device, or this machine does not have it."""


class MissingSignal(BackendError):
    """A strategy needs a signal that the model does not provide."""


class AttentionUnavailable(BackendError):
    """Attention rows were asked for and the kernel gave none."""


class InvalidQuestion(BackendError):
    """A question that the model cannot read at all."""


class Cancelled(BackendError):
    """The caller asked to stop."""
