"""Who may import whom, where each library lives, and what stands nowhere: read from the source, not from running it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "compression": set(),
    "pid": set(),
    "analysis": {"compression", "pid"},
    "storage": {"analysis", "compression", "pid"},
    "dashboard": {"storage", "analysis", "compression", "pid"},
}
"""Arrows of the dependency picture, with what is reachable along them."""

HOMES = {
    "PIL": ["analysis/imagery*", "compression/backends/embedded/*"],
    "alembic": ["storage/*"],
    "branca": ["dashboard/maps*"],
    "captum": ["analysis/attribution.py"],
    "fastapi": ["dashboard/*"],
    "folium": ["dashboard/maps*"],
    "gradio": ["dashboard/*"],
    "jinja2": ["dashboard/*"],
    "markupsafe": ["dashboard/*"],
    "matplotlib": ["dashboard/*"],
    "numpy": ["*"],
    "pandas": ["storage/*", "dashboard/*"],
    "plotly": ["dashboard/*"],
    "rasterio": ["analysis/imagery*"],
    "safetensors": ["compression/backends/*"],
    "scipy": ["pid/*"],
    "sqlalchemy": ["storage/*"],
    "starlette": ["dashboard/*"],
    "tokenizers": ["compression/backends/*"],
    "torch": ["compression/*", "analysis/*", "pid/batch.py"],
    "transformers": ["compression/backends/*"],
    "uvicorn": ["dashboard/*"],
}
"""One library, one home. A library that is not listed has none yet."""

NOWHERE = {
    "torchvision": "beside a torch that it was not built for, it breaks the transformers library",
    "pickle": "a pickle runs code when it is read; use safetensors, or storage/arrays.py",
    "marshal": "it reads code; use JSON",
    "shelve": "it pickles; use the store",
    "dill": "it pickles",
    "joblib": "it pickles",
    "cloudpickle": "it pickles",
    "requests": "nothing is fetched at run time",
    "httpx": "nothing is fetched at run time",
    "aiohttp": "nothing is fetched at run time",
    "urllib.request": "nothing is fetched at run time",
    "ftplib": "nothing is fetched at run time",
    "smtplib": "nothing is sent at run time",
}

DRAWING = {"Image.new", "Image.fromarray", "Image.merge", "Image.composite", "Image.blend"}
"""What the scene generator may ask of Pillow."""

TOP_LEVEL = {
    *MAY_IMPORT, "tests", "pyproject.toml", "Dockerfile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
    "LICENSE", "Makefile", ".ci", ".pre-commit-config.yaml", ".gitignore", ".dockerignore", ".gitattributes",
}  # fmt: skip


def tracked() -> list[Path]:
    """Files of the checkout, those included that are not committed yet; relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0:
        return sorted(Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file())
    return sorted(path.relative_to(ROOT) for name in (*MAY_IMPORT, "tests") for path in (ROOT / name).rglob("*.*"))


MODULES = [path for path in tracked() if path.suffix == ".py" and path.parts[0] in MAY_IMPORT]
ALL_PYTHON = [path for path in tracked() if path.suffix == ".py"]


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def imports_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything imported, inside functions and by `import_module("…")` as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif (
            isinstance(node, ast.Call)
            and name_of(node.func).rpartition(".")[2] in ("import_module", "__import__")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield node.lineno, str(node.args[0].value)


def name_of(node: ast.expr) -> str:
    """ "torch.load" for the expression of that form; "" for others."""
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def wrong_imports(path: Path, tree: ast.Module) -> list[str]:
    """Sentences about the imports of a module that break the picture or the table."""
    home, wrong = path.parts[0], []
    for line, name in imports_of(tree):
        top = name.partition(".")[0]
        if banned := next((word for word in NOWHERE if name == word or name.startswith(word + ".")), None):
            wrong.append(f"{path}:{line} imports {banned}: {NOWHERE[banned]}")
        elif top in MAY_IMPORT:
            if top != home and top not in MAY_IMPORT[home]:
                allowed = ", ".join(sorted(MAY_IMPORT[home])) or "no other package"
                wrong.append(f"{path}:{line} imports {top}; {home} may import {allowed}")
        elif top in HOMES:
            if not any(fnmatchcase(path.as_posix(), place) for place in HOMES[top]):
                wrong.append(f"{path}:{line} imports {top}, which lives in {', '.join(HOMES[top])}")
        elif top not in sys.stdlib_module_names:
            wrong.append(
                f"{path}:{line} imports {top}, which has no home; give it one here, and a bound in pyproject.toml"
            )
    return wrong


def wrong_calls(path: Path, tree: ast.Module) -> list[str]:
    """Sentences about calls that run code from data, or a shell."""
    wrong = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        flags = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
        if name in ("eval", "exec", "compile"):
            wrong.append(f"{path}:{node.lineno} calls {name}")
        if path.match("compression/backends/embedded/*") and name.startswith("Image.") and name not in DRAWING:
            wrong.append(f"{path}:{node.lineno} calls {name}; image files are the business of analysis/imagery")
        if name in ("torch.load", "torch.save", "pandas.read_pickle", "os.system", "os.popen"):
            wrong.append(f"{path}:{node.lineno} calls {name}")
        wrong += [
            f"{path}:{node.lineno} sets {word}=True"
            for word in ("allow_pickle", "shell", "trust_remote_code")
            if flags.get(word)
        ]
    return wrong


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_each_package_imports_only_along_the_arrows_and_each_library_stays_at_home(path: Path) -> None:
    assert not wrong_imports(path, tree_of(path))


@pytest.mark.parametrize("path", ALL_PYTHON, ids=str)
def test_no_code_is_run_from_data(path: Path) -> None:
    tree = tree_of(path)
    banned = [
        f"{path}:{line} imports {name}"
        for line, name in imports_of(tree)
        if name.split(".")[0] in ("pickle", "torchvision", "dill")
    ]
    assert not banned + wrong_calls(path, tree)


@pytest.mark.parametrize("path", ALL_PYTHON, ids=str)
def test_imports_name_their_package_in_full(path: Path) -> None:
    relative = [node.lineno for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom) and node.level]
    assert not relative, f"{path}: relative imports in lines {relative}"


@pytest.mark.parametrize(
    ("module", "source", "reason"),
    [
        ("compression/grid.py", "import analysis.run", "may import no other package"),
        ("compression/grid.py", "def f():\n    from pid import atoms", "may import no other package"),
        ("pid/atoms.py", "import torch", "lives in"),
        ("analysis/cost.py", "from storage import open_store", "may import compression, pid"),
        ("analysis/cost.py", "from PIL import Image", "lives in analysis/imagery"),
        ("storage/store.py", "import dashboard", "may import"),
        ("dashboard/app.py", "import importlib\nimportlib.import_module('torch')", "lives in"),
        ("dashboard/app.py", "from urllib import request", "nothing is fetched"),
        ("dashboard/app.py", "import polars", "has no home"),
    ],
)
def test_the_rule_sees_what_breaks_it(module: str, source: str, reason: str) -> None:
    (sentence,) = wrong_imports(Path(module), ast.parse(source))
    assert reason in sentence


@pytest.mark.parametrize(
    "source",
    [
        "eval('1')",
        "torch.load(f)",
        "np.load(f, allow_pickle=True)",
        "run('ls', shell=True)",
        "M(trust_remote_code=True)",
    ],
)
def test_the_rule_sees_calls_that_run_code(source: str) -> None:
    assert len(wrong_calls(Path("x.py"), ast.parse(source))) == 1


def test_switching_a_model_to_evaluation_is_no_evaluation_of_text() -> None:
    assert not wrong_calls(Path("x.py"), ast.parse("model.eval(); re.compile('a')"))


def test_the_top_level_holds_what_the_layout_names_and_nothing_else() -> None:
    assert {path.parts[0] for path in tracked()} <= TOP_LEVEL


def test_every_library_that_is_imported_is_required_and_the_other_way_round() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {re.split(r"[^\w-]", line)[0].lower() for line in project["dependencies"]}
    imported = {name.partition(".")[0] for path in MODULES for _, name in imports_of(tree_of(path))} & set(HOMES)
    assert {"pillow" if name == "PIL" else name for name in imported} == required


def test_every_package_is_a_package() -> None:
    bare = sorted({path.parent.as_posix() for path in MODULES if not (ROOT / path.parent / "__init__.py").is_file()})
    assert not bare, f"folders with modules and no __init__.py are left out of the installation: {bare}"
    assert all((ROOT / name / "__init__.py").is_file() for name in MAY_IMPORT)


def test_no_module_is_a_drawer_of_odds_and_ends() -> None:
    assert not [path for path in MODULES if path.stem in ("utils", "util", "helpers", "misc", "common")]


def test_no_weights_or_arrays_are_kept_in_a_format_that_runs_code() -> None:
    assert not [
        path for path in tracked() if path.suffix in (".pt", ".pth", ".bin", ".pkl", ".pickle", ".joblib", ".ckpt")
    ]


def test_no_file_names_a_place_of_one_machine() -> None:
    place = re.compile(
        r"(?<![\w.:/~-])/(?:root|work|home/(?!keepmap\b|someone\b)[a-z]\w*|Users/\w+|mnt|opt/(?!keepmap\b)\w+)(?=/|\b)"
    )
    found = []
    for path in tracked():
        if path.suffix in (".py", ".toml", ".md", ".yaml", ".css", ".js", ".json", ".sh") or path.suffix == "":
            text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
            found += [
                f"{path}: {match[0]}" for match in place.finditer(text) if path != Path("tests/test_architecture.py")
            ]
    assert not found


def test_no_file_of_the_packages_is_above_a_megabyte_except_the_weights_and_the_samples_images() -> None:
    large = [path for path in tracked() if (ROOT / path).stat().st_size > 2**20]
    samples = [path for path in large if path.match("dashboard/assets/bundles/*/image")]
    assert all("checkpoint" in path.parts or path.suffix in (".png", ".db") or path in samples for path in large)
    assert all((ROOT / path).stat().st_size <= 2 * 2**20 for path in samples)
    assert sum((ROOT / path).stat().st_size for path in large if path.suffix == ".safetensors") <= 25 * 2**20
