"""Arrays worth keeping between tiles, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Something that knows its memory."""

    @property
    def nbytes(self) -> int:
        """Bytes held in memory."""


Value = TypeVar("Value", bound=Sized)


class ByteCache(Generic[Value]):
    """Keep the values used last, up to `max_bytes` together; safe to use from several threads.

    A value is made once even when many threads ask for it at the same time: a map asks for twenty tiles at once, and
    each of them would otherwise decode the same image. A value above the limit is kept alone, until the next one.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._makers: dict[Hashable, Lock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of `key`, made by `make` where it is not there; what `make` raises is passed on."""
        with self._lock:
            maker = self._makers.setdefault(key, Lock())
        with maker:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key]
            try:
                value = make()
                with self._lock:
                    self._values[key] = value
                    while len(self._values) > 1 and self.nbytes > self._max_bytes:
                        self._values.popitem(last=False)
            finally:
                with self._lock:
                    self._makers.pop(key, None)
            return value

    @property
    def nbytes(self) -> int:
        """Bytes held by all values together."""
        return sum(value.nbytes for value in self._values.values())

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
