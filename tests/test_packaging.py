"""What is installed from a checkout, and what the Dockerfile does, performed without a container engine."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import sysconfig
import time
import tomllib
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = ("analysis", "compression", "dashboard", "pid", "storage")
ORDINARY_USER = 1000
START_SECONDS = 300.0  # a guard against waiting for ever, not a claim about speed


def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their words, comments left out and continued lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def words_of(instruction: str) -> list[str]:
    return [words for name, words in dockerfile() if name == instruction]


def environment_of_the_image() -> dict[str, str]:
    return dict(pair.split("=", 1) for words in words_of("ENV") for pair in words.split())


def is_ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a path below the root out of the build; the last line that fits decides."""
    name, ignored = path.as_posix(), False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, keeps = line.removeprefix("!"), line.startswith("!")
        tails = [pattern.removeprefix("**/")] if pattern.startswith("**/") else []
        above = [name, *(parent.as_posix() for parent in path.parents if parent.name)]
        fits = any(_fits(place, pattern) for place in above) or any(
            fnmatch.fnmatchcase(part, tail) for tail in tails for part in path.parts
        )
        ignored = not keeps if fits else ignored
    return ignored


def _fits(place: str, pattern: str) -> bool:
    return place.count("/") == pattern.count("/") and fnmatch.fnmatchcase(place, pattern)


def tracked() -> list[Path]:
    """Files that git would have in a clone, and those that it would have once added."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout, so that nothing says which files belong to it")
    return [Path(line) for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def copy_context(target: Path) -> None:
    """Copy what the Dockerfile copies, as its build would see it."""
    files = [path for path in tracked() if not is_ignored(path)]
    for words in words_of("COPY"):
        *sources, to = words.split()
        for source in sources:
            chosen = [path for path in files if path == Path(source) or Path(source) in path.parents]
            assert chosen, f"COPY {source}: nothing of that name reaches the build"
            for path in chosen:
                into = target / to / (path.name if path == Path(source) else path.relative_to(source))
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, into)


def pip_install(python: Path, source: Path, *options: str) -> None:
    """Install from a source folder without a network: its build needs only the setuptools of the tests' environment."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--ignore-installed", "--no-build-isolation", "--disable-pip-version-check", *options, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that the Dockerfile's files build."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    copy_context(source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*command, "-w", str(built), str(source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(built.glob("keepmap-*.whl")))


def test_the_python_range_ends_before_the_standard_library_has_a_package_of_our_name() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.14"
    version = dict(words.split("=") for words in words_of("ARG") if words.startswith("PYTHON_VERSION"))[
        "PYTHON_VERSION"
    ]
    assert version in {"3.11", "3.12", "3.13"}


def test_every_dependency_has_a_lower_and_an_upper_bound() -> None:
    unbounded = [
        line for line in PROJECT["dependencies"] if not re.fullmatch(r"[\w-]+(==[\d.]+\*|>=[\d.]+,<[\d.]+)", line)
    ]
    assert not unbounded


def test_the_licence_is_the_apache_licence_word_for_word() -> None:
    assert PROJECT["license"] == "Apache-2.0"
    digest = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == digest


def test_vendored_code_carries_its_licence() -> None:
    vendored = {
        path.parts[:4]
        for path in tracked()
        if path.parts[:3] == ("dashboard", "assets", "vendor") and len(path.parts) > 4
    }
    bare = [Path(*folder) for folder in vendored if not list((ROOT / Path(*folder)).glob("LICENSE*"))]
    assert vendored
    assert not bare


def test_torchvision_is_required_by_nothing() -> None:
    asked = [*PROJECT["dependencies"], *(line for extra in PROJECT["optional-dependencies"].values() for line in extra)]
    assert not [line for line in asked if line.lower().startswith("torchvision")]


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    wanted = {path.as_posix() for path in tracked() if path.parts[0] in PACKAGES and not is_ignored(path)}
    missing = sorted(wanted - set(wheel.namelist()))
    assert not missing, f"not in the wheel; see [tool.setuptools] in pyproject.toml: {missing}"


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert tops == {*PACKAGES, f"keepmap-{PROJECT['version']}.dist-info"}


def test_the_build_sees_no_store_no_secret_and_no_environment() -> None:
    for name in (".git/config", ".env", ".venv/pyvenv.cfg", "keepmap.db", "keepmap.db.assets/ab", "tests/conftest.py"):
        assert is_ignored(Path(name)), name
    assert not is_ignored(Path("dashboard/assets/keepmap/tokens.css"))
    assert is_ignored(Path("dashboard/__pycache__/cli.cpython-311.pyc"))


def test_the_image_installs_dependencies_before_it_copies_the_source() -> None:
    steps = dockerfile()
    first = next(i for i, (name, words) in enumerate(steps) if name == "RUN" and "--requirement" in words)
    assert [words.split()[0] for name, words in steps[:first] if name == "COPY"] == ["pyproject.toml"]
    copied = {source for words in words_of("COPY") for source in words.split()[:-1]}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", *PACKAGES}


def test_the_image_runs_as_an_ordinary_user_with_one_port_one_volume_and_no_secret() -> None:
    steps = dockerfile()
    assert words_of("USER") == [str(ORDINARY_USER)]
    assert steps.index(("USER", str(ORDINARY_USER))) < min(i for i, (name, _) in enumerate(steps) if name == "CMD")
    assert words_of("EXPOSE") == ["7860"]
    assert words_of("VOLUME") == ["/data"]
    assert not [name for name in environment_of_the_image() if re.search("TOKEN|SECRET|PASSWORD|KEY", name)]
    assert "/health" in words_of("HEALTHCHECK")[0]


def shared_python() -> Path | None:
    """A Python of this version that the ordinary user can run; None where there is none."""
    here = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for python in (here, Path("/usr/bin") / here.name, Path("/usr/local/bin") / here.name):
        if python.exists() and _can_run(python):
            return python
    return None


def _can_run(python: Path) -> bool:
    command = [str(python), "-c", f"import venv, ssl, sqlite3, os; os.listdir({sysconfig.get_path('purelib')!r})"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(command, user=ORDINARY_USER, cwd="/", capture_output=True, check=False).returncode == 0
    return False


@pytest.fixture
def shared_tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that the ordinary user can reach: pytest's own are closed to others."""
    if os.geteuid() != 0:
        yield tmp_path_factory.mktemp("image")
        return
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    folder.chmod(folder.stat().st_mode | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_steps_of_the_image_install_and_serve_as_an_ordinary_user(shared_tmp_path: Path) -> None:
    """The Dockerfile's COPY, pip install, USER, WORKDIR, ENV and CMD, with this environment's dependencies."""
    user = ORDINARY_USER if os.geteuid() == 0 else None
    python = shared_python() if user else Path(sys.executable)
    if python is None:  # root's own Python, closed to others: everything but the change of user is still tried
        user, python = None, Path(sys.executable)
    context, image, data = (shared_tmp_path / name for name in ("context", "image", "data"))
    copy_context(context)
    if user:
        subprocess.run([python, "-m", "venv", "--without-pip", image], check=True)
    else:
        venv.create(image, with_pip=False, symlinks=True)
    libraries = image / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (libraries / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip_install(image / "bin" / "python", context)
    shutil.rmtree(context)
    data.mkdir()
    if user:
        os.chown(data, user, user)

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = environment_of_the_image() | {
        "HOME": str(data), "PATH": f"{image / 'bin'}:/usr/bin:/bin", "KEEPMAP_PORT": str(port),
        "KEEPMAP_DB": f"sqlite:///{data}/keepmap.db", "OMP_NUM_THREADS": "1",
        # Nobody listens at the proxy: whoever asked another host at the start would fail here.
        "HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1,localhost",
    }  # fmt: skip
    command = json.loads(words_of("CMD")[0])
    check = json.loads(words_of("HEALTHCHECK")[0].split("CMD", 1)[1])
    with (shared_tmp_path / "log").open("w") as log:
        server = subprocess.Popen(
            [str(image / "bin" / command[0]), *command[1:]],
            cwd=data, env=environment, user=user, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + START_SECONDS
            while not answers(port):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"the server ended with {server.wait(0.2)}: {(shared_tmp_path / 'log').read_text()}")
                assert time.monotonic() < deadline, (shared_tmp_path / "log").read_text()
            health = subprocess.run(
                [str(image / "bin" / check[0]), *check[1:]], env=environment, user=user, check=False
            )
            assert health.returncode == 0
            assert (data / "keepmap.db").exists()
        finally:
            server.terminate()
            server.wait()


def answers(port: int) -> bool:
    """Whether the server's health page says "ok"; False while nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as page:
            return bool(json.load(page)["status"] == "ok")
    except urllib.error.URLError:
        return False
