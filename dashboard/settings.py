"""What an operator can set: flags first, then KEEPMAP_ variables, then defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dashboard.errors import InvalidSetting

PREFIX = "KEEPMAP_"
LARGEST_SEED = 2**32 - 1
"""The largest seed of anything that is drawn; it is stored in 32 bits at least."""
_TRUE, _FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def _setting(default: Any, meaning: str, *, minimum: int | None = None, maximum: int | None = None) -> Any:
    return field(default=default, metadata={"meaning": meaning, "minimum": minimum, "maximum": maximum})


@dataclass(frozen=True)
class Settings:
    """Everything that can be set, built valid or not at all.

    >>> Settings.from_env({"KEEPMAP_PORT": "8000"}).port
    8000

    Raises:
        InvalidSetting: a value is of another kind or out of range.
    """

    host: str = _setting("127.0.0.1", "Address to listen on; 0.0.0.0 for every interface.")
    port: int = _setting(7860, "Port of the page, its maps and its tiles.", minimum=1, maximum=65535)
    db: str = _setting("sqlite:///keepmap.db", "The store, as an SQLAlchemy URL.")
    assets: str = _setting("", "Folder of the stored images; empty for a folder beside the store.")
    model: str = _setting("embedded", "Model that answers: embedded, a hub id, or a checkpoint's folder.")
    device: str = _setting("auto", "Where the model runs: auto, cpu, or cuda.")
    public: bool = _setting(False, "Many visitors: each sees the own runs and the samples only.")
    repeats: int = _setting(3, "How often each time is measured; the median is shown.", minimum=1, maximum=50)
    queue: int = _setting(16, "Comparisons that may wait; more are refused.", minimum=1, maximum=1000)
    jobs_per_visitor: int = _setting(
        2, "Comparisons that one visitor may have waiting, with --public.", minimum=1, maximum=100
    )
    upload_mb: int = _setting(512, "Largest upload in megabytes.", minimum=1, maximum=16384)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            low, high = item.metadata["minimum"], item.metadata["maximum"]
            if type(value) is not type(item.default):
                raise InvalidSetting(f"{item.name} must be {_kind(item.default)}, got {value!r}")
            if low is not None and not low <= value <= high:
                raise InvalidSetting(f"{item.name} must lie in {low} to {high}, got {value}")
        if not self.db.strip() or "://" not in self.db:
            raise InvalidSetting(
                f"db must be an SQLAlchemy URL, got {self.db!r}; write for example sqlite:///keepmap.db"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **flags: Any) -> Settings:
        """The settings of an environment; flags that are not None go first.

        Raises:
            InvalidSetting: a variable or a flag cannot be used.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        known = {item.name: item for item in fields(cls)}
        if unknown := sorted(set(flags) - set(known)):
            raise InvalidSetting(f"there is no setting {unknown[0]!r}; there are: {', '.join(known)}")
        for name, item in known.items():
            text = environ.get(PREFIX + name.upper())
            if text is not None and text != "":
                values[name] = _parse(PREFIX + name.upper(), text, item.default)
            if flags.get(name) is not None:
                flag = flags[name]
                values[name] = str(flag) if isinstance(flag, Path) else flag
        return cls(**values)

    @classmethod
    def table(cls) -> list[tuple[str, str, str, str]]:
        """One row per setting for the README: flag, variable, default, meaning."""
        rows = []
        for item in fields(cls):
            default = str(item.default).lower() if isinstance(item.default, bool) else str(item.default)
            rows.append(
                (f"--{item.name.replace('_', '-')}", PREFIX + item.name.upper(), default, item.metadata["meaning"])
            )
        return rows

    @property
    def assets_path(self) -> Path | None:
        """Folder of the stored images, or None for the one beside the store."""
        return Path(self.assets) if self.assets else None

    @property
    def is_in_memory(self) -> bool:
        """Whether the store ends with the process."""
        return self.db.partition("?")[0] in ("sqlite://", "sqlite:///", "sqlite:///:memory:")

    @property
    def store_name(self) -> str:
        """The store as people call it: the file's name, or the database's without its password."""
        return self.db.rsplit("/", 1)[-1].partition("?")[0] or "memory"


def _kind(default: Any) -> str:
    return "true or false" if isinstance(default, bool) else "a whole number" if isinstance(default, int) else "text"


def _parse(name: str, text: str, default: Any) -> Any:
    """The value that a variable's text stands for."""
    if isinstance(default, bool):
        if text.lower() in _TRUE + _FALSE:
            return text.lower() in _TRUE
        raise InvalidSetting(f"{name} must be true or false, got {text!r}")
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError as error:
            raise InvalidSetting(f"{name} must be a whole number, got {text!r}") from error
    return text
