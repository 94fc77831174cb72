"""What each package offers by name: sorted, complete, documented."""

from __future__ import annotations

import importlib
import inspect
import re
from types import ModuleType

import pytest

PACKAGES = (
    "analysis",
    "analysis.imagery",
    "compression",
    "compression.backends",
    "compression.strategies",
    "pid",
    "pid.measures",
    "storage",
)
OURS = ("analysis", "compression", "dashboard", "pid", "storage")


def reading_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, each by the alphabet: the order that the linter asks for."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def error_classes(name: str) -> set[str]:
    """Names of the classes that a package's errors.py defines."""
    errors = importlib.import_module(f"{name}.errors")
    return {
        key for key, value in vars(errors).items() if inspect.isclass(value) and value.__module__ == errors.__name__
    }


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_the_public_names_are_listed_once_and_in_order(package: ModuleType) -> None:
    assert list(package.__all__) == sorted(set(package.__all__), key=reading_order)


def test_every_listed_name_can_be_imported(package: ModuleType) -> None:
    assert not [name for name in package.__all__ if not hasattr(package, name)]


@pytest.mark.parametrize("name", ["analysis", "compression", "pid", "storage"])
def test_every_public_name_of_ours_is_listed(name: str) -> None:
    package = importlib.import_module(name)
    found = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__.partition(".")[0] in OURS
    }
    assert not sorted(found - set(package.__all__))


@pytest.mark.parametrize("name", ["analysis", "compression", "pid", "storage"])
def test_all_errors_of_a_package_can_be_caught_by_one_public_name(name: str) -> None:
    package, errors = importlib.import_module(name), importlib.import_module(f"{name}.errors")
    base = next(getattr(errors, key) for key in error_classes(name) if getattr(errors, key).__base__ is Exception)
    assert base.__name__ in package.__all__
    assert all(issubclass(getattr(errors, key), base) for key in error_classes(name))


@pytest.mark.parametrize("name", ["analysis", "compression", "pid", "storage", "dashboard"])
def test_the_tree_of_errors_is_drawn_at_the_top_of_its_module(name: str) -> None:
    drawn = set(re.findall(r"\b[A-Z]\w+", importlib.import_module(f"{name}.errors").__doc__ or ""))
    assert not sorted(error_classes(name) - drawn)


def test_every_public_name_is_documented_by_a_sentence(package: ModuleType) -> None:
    silent = []
    for name in package.__all__:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            text = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
            first = (text or "").strip().partition("\n")[0]
            if not first.endswith((".", "?", ":")) or first.startswith(
                f"{name}("
            ):  # a dataclass writes that one itself
                silent.append(name)
    assert not silent


def test_every_package_says_what_it_is(package: ModuleType) -> None:
    assert (package.__doc__ or "").strip().partition("\n")[0].endswith(".")
