"""The file that a sweep follows: TOML in, checked whole before anything runs.

name = "families"                           # under which the store knows it
models = ["embedded"]                       # left out: the model of the settings
strategies = ["identity", "dualcomp", "fastv:layer=2"]
ratios = [0.5, 0.25]                        # each strategy without a budget, at each of them
seeds = [0]
questions = "samples"                       # a folder with questions.jsonl, seen from this file
record = []                                 # "attention" costs a pass; scores and routes cost room only
repeats = 1                                 # measurements of each time
warmup = 0                                  # passes before them

[scenes]                                    # instead of questions: scenes written beside the store
count = 8
size = 256
seed = 0
questions = 12                              # for each scene
per_family = 200                            # instead of count: scenes until each family has so many questions
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.annotations import FILE_NAME
from analysis.pipeline import RECORD_ALL
from compression.backends.embedded.scenes import MAX_SIZE, VIEW
from compression.compressor import Budget, Plan, split_strategy
from compression.errors import CompressionError
from compression.registry import Registry
from compression.strategies import CATALOGUE
from dashboard.errors import InvalidSweep
from dashboard.settings import LARGEST_SEED

KEYS = ("name", "models", "strategies", "ratios", "seeds", "questions", "record", "repeats", "warmup", "scenes")
SCENE_KEYS = ("count", "size", "seed", "questions", "per_family")


@dataclass(frozen=True)
class Scenes:
    """Scenes to be drawn: how many, their edge in pixels, the first one's seed, and questions for each.

    With `per_family` the questions are balanced: scenes are drawn until each of the three families has so many, at most
    a third of a scene's questions being of one family; `count` is not looked at then.
    """

    count: int = 8
    size: int = 256
    seed: int = 0
    questions: int = 12
    per_family: int | None = None

    @property
    def name(self) -> str:
        """A folder's name for them."""
        many = f"{self.per_family}each" if self.per_family else f"{self.count}"
        return f"{many}x{self.size}-seed{self.seed}-{self.questions}"


@dataclass(frozen=True)
class SweepFile:
    """What a sweep consists of, valid as far as can be told without a model.

    Args:
        models: As users ask for them; empty for the model of the settings.
        plans: Each strategy at each of its budgets, once.
        folder: Where questions.jsonl lies, or None where `scenes` are to be drawn.
        record: What is recorded beside the decisions.
        repeats: Measurements of each time.
        warmup: Passes before the measured ones.
    """

    name: str
    models: tuple[str, ...]
    plans: tuple[Plan, ...]
    seeds: tuple[int, ...]
    folder: Path | None
    scenes: Scenes
    record: tuple[str, ...]
    repeats: int
    warmup: int


def read_sweep(file: Path, catalogue: Registry = CATALOGUE) -> SweepFile:
    """Read a sweep's file.

    Raises:
        InvalidSweep: it cannot be read, or a value in it cannot be used; the message names the key.
    """
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InvalidSweep(f"{file} cannot be read: {error.strerror or error}; name a sweep's TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidSweep(f"{file.name} is not TOML: {error}; see keepmap sweep --help for an example") from error
    except RecursionError as error:
        raise InvalidSweep(
            f"{file.name} is nested too deeply to be read; a sweep has plain values, lists of them and a table [scenes]"
        ) from error
    try:
        return _checked(given, file.parent, catalogue)
    except InvalidSweep as error:
        raise InvalidSweep(f"{file.name}: {error}") from error


def _checked(given: Mapping[str, Any], beside: Path, catalogue: Registry) -> SweepFile:
    _known_keys(given, KEYS, "a sweep")
    name = given.get("name")
    # The name becomes part of a folder's.
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise InvalidSweep(f"name must be up to 64 letters, digits, dots, dashes and underscores, got {name!r}")
    record = _texts(given, "record", [])
    for one in record:
        if one not in RECORD_ALL:
            raise InvalidSweep(f"record: {one!r} cannot be recorded; choose among {', '.join(RECORD_ALL)}")
    if ("questions" in given) == ("scenes" in given):
        raise InvalidSweep('give either questions = "FOLDER" or a table [scenes]')
    return SweepFile(
        name=name,
        models=_texts(given, "models", []),
        plans=_plans(_texts(given, "strategies"), _ratios(given), catalogue),
        seeds=_seeds(given),
        folder=_folder(given, beside) if "questions" in given else None,
        scenes=_scenes(given.get("scenes", {})),
        record=record,
        repeats=_whole(given, "repeats", 1, 1, 50),
        warmup=_whole(given, "warmup", 0, 0, 50),
    )


def expand(strategies: Sequence[str], ratios: Sequence[float], catalogue: Registry = CATALOGUE) -> list[str]:
    """Strategy texts with each ratio where they have no budget of their own; of a plan the last step counts.

    >>> expand(["identity@1.0", "visionzip@0.5+fastv:layer=2"], [0.5, 0.25])
    ['identity@1.0', 'visionzip@0.5+fastv:layer=2@0.5', 'visionzip@0.5+fastv:layer=2@0.25']
    """
    return [
        one
        for text in strategies
        for one in (
            [text]
            if "@" in catalogue.split(text)[-1] or not ratios
            else [f"{text}@{Budget(ratio=ratio)}" for ratio in ratios]
        )
    ]


def _plans(strategies: Sequence[str], ratios: Sequence[float], catalogue: Registry) -> tuple[Plan, ...]:
    plans: dict[str, Plan] = {}
    for text in strategies:
        try:
            last = catalogue.get(split_strategy(catalogue.split(text)[-1])[0])
            for one in expand([text], () if last.info.reduces == "nothing" else ratios, catalogue):
                plan = catalogue.plan(one)
                plans[str(plan)] = plan
        except CompressionError as error:
            raise InvalidSweep(f"strategies: {error}") from error
    return tuple(plans.values())


def _known_keys(given: Mapping[str, Any], allowed: Sequence[str], what: str) -> None:
    if unknown := [key for key in given if key not in allowed]:
        raise InvalidSweep(f"{what} has no key {unknown[0]!r}; it has: {', '.join(allowed)}")


def _texts(given: Mapping[str, Any], key: str, default: list[str] | None = None) -> tuple[str, ...]:
    values = given.get(key, default)
    if not isinstance(values, list) or not all(isinstance(value, str) and value.strip() for value in values):
        raise InvalidSweep(f'{key} must be a list of texts such as ["identity"], got {values!r}')
    if not values and (default is None or (key in given and key != "record")):
        raise InvalidSweep(f"{key} is empty; name at least one")
    return tuple(dict.fromkeys(values))


def _ratios(given: Mapping[str, Any]) -> tuple[float, ...]:
    values = given.get("ratios", [])
    if not isinstance(values, list) or not all(type(value) is float and 0 < value <= 1 for value in values):
        raise InvalidSweep(f"ratios must be a list of numbers with a decimal point in (0, 1], got {values!r}")
    return tuple(dict.fromkeys(values))


def _seeds(given: Mapping[str, Any]) -> tuple[int, ...]:
    values = given.get("seeds", [0])
    fits = isinstance(values, list) and all(type(value) is int and 0 <= value <= LARGEST_SEED for value in values)
    if not fits or not values:
        raise InvalidSweep(f"seeds must be a list of whole numbers from 0 to {LARGEST_SEED}, got {values!r}")
    return tuple(dict.fromkeys(values))


def _whole(given: Mapping[str, Any], key: str, default: int, low: int, high: int) -> int:
    value = given.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise InvalidSweep(f"{key} must be a whole number from {low} to {high}, got {value!r}")
    return value


def _folder(given: Mapping[str, Any], beside: Path) -> Path:
    value = given["questions"]
    if not isinstance(value, str) or not value.strip():
        raise InvalidSweep(f"questions must be the path of a folder, got {value!r}")
    folder = beside / value
    if not (folder / FILE_NAME).is_file():
        raise InvalidSweep(f"questions: there is no {FILE_NAME} in {folder}; keepmap scenes writes one")
    return folder


def _scenes(given: Any) -> Scenes:
    if not isinstance(given, dict):
        raise InvalidSweep(f"scenes must be a table [scenes], got {given!r}")
    _known_keys(given, SCENE_KEYS, "[scenes]")
    size = _whole(given, "size", Scenes.size, VIEW, MAX_SIZE)
    if size % VIEW:
        raise InvalidSweep(f"size must be a multiple of {VIEW} from {VIEW} to {MAX_SIZE}, got {size}")
    if "count" in given and "per_family" in given:
        raise InvalidSweep(
            "give either count or per_family in [scenes]: how many scenes, or how many questions of each family"
        )
    return Scenes(
        count=_whole(given, "count", Scenes.count, 1, 100_000),
        size=size,
        seed=_whole(given, "seed", Scenes.seed, 0, LARGEST_SEED),
        questions=_whole(given, "questions", Scenes.questions, 1, 1000),
        per_family=_whole(given, "per_family", 1, 1, 10_000) if "per_family" in given else None,
    )
