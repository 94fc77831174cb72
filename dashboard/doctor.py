"""What works on this machine and what does not."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from analysis.environment import cpu_threads, gpu
from compression.backends.embedded.backend import CHECKPOINT
from dashboard.settings import Settings
from storage import open_store
from storage.errors import StorageError

ASSETS = Path(__file__).parent / "assets"
_NEEDED_FILES = ("vendor/leaflet/leaflet.js", "keepmap/maps.js", "keepmap/tokens.css")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Args:
        is_needed: Whether Keepmap cannot do its main job without it.
    """

    what: str
    works: bool
    said: str
    is_needed: bool = True


def examine(settings: Settings) -> list[Finding]:
    """Look at Python, the libraries, the device, the weights, the assets and the store."""
    return [_python(), *_libraries(), _device(), _torchvision(), _weights(), _assets(), _store(settings)]


def _python() -> Finding:
    version = platform.python_version_tuple()
    good = (3, 11) <= (int(version[0]), int(version[1])) < (3, 14)
    return Finding(
        "Python", good, f"{platform.python_version()}, {'supported' if good else 'supported are 3.11 to 3.13'}"
    )


def _libraries() -> list[Finding]:
    return [
        Finding(name, True, metadata.version(name))
        for name in ("torch", "transformers", "gradio", "rasterio", "SQLAlchemy")
    ]


def _device() -> Finding:
    if name := gpu():
        return Finding("GPU", True, name, is_needed=False)
    return Finding("GPU", False, f"none; models run on the CPU with {cpu_threads()} threads", is_needed=False)


def _torchvision() -> Finding:
    try:
        version = metadata.version("torchvision")
    except metadata.PackageNotFoundError:
        return Finding("no torchvision", True, "not installed, which is right")
    return Finding(
        "no torchvision",
        False,
        f"{version} is installed; a build that does not fit torch breaks the models: pip uninstall torchvision",
        is_needed=False,
    )


def _weights() -> Finding:
    file = CHECKPOINT / "model.safetensors"
    if not file.is_file():
        return Finding("embedded weights", False, "missing; clone the repository again or run keepmap train-embedded")
    from compression.backends import load_model

    card = load_model("embedded", device="cpu").card
    return Finding(
        "embedded weights",
        True,
        f"{file.stat().st_size / 1e6:.1f} MB, {card.parameters / 1e6:.2f} M parameters, sha256 {card.revision[:12]}",
    )


def _assets() -> Finding:
    missing = [name for name in _NEEDED_FILES if not (ASSETS / name).is_file()]
    return Finding(
        "page assets", not missing, f"missing: {', '.join(missing)}" if missing else "complete, served from here"
    )


def _store(settings: Settings) -> Finding:
    path = Path(settings.db.removeprefix("sqlite:///"))
    if settings.db.startswith("sqlite:///") and not path.exists():
        return Finding("store", True, f"{path.name} will be made on first use")
    try:
        with open_store(settings.db, assets=settings.assets_path, read_only=True) as store:
            return Finding("store", True, f"{settings.store_name}: {store.count()} runs")
    except StorageError as error:
        return Finding("store", False, str(error))
