"""The wheel, installed elsewhere, runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Installation:
    """A wheel, the environment that it is installed in, and a directory far from the source."""

    wheel: Path
    environment: Path
    elsewhere: Path

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, away from the source."""
        return subprocess.run(
            [str(self.environment / "bin" / command), *arguments],
            cwd=self.elsewhere,
            env={"PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Build the wheel from a copy of the source, and install it where only its dependencies are."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    # A copy: a build leaves its files beside the source, and would take up what an earlier one left there.
    shutil.copytree(
        ROOT / "distlog", source / "distlog", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(source))
    (wheel,) = directory.glob("*.whl")

    environment = directory / "environment"
    venv.create(environment, with_pip=False)
    pip(
        "--python",
        str(environment / "bin" / "python"),
        "install",
        "--no-deps",
        "--no-index",
        str(wheel),
    )
    paths = sysconfig.get_paths(
        "venv", vars={"base": str(environment), "platbase": str(environment)}
    )
    # The dependencies are those of the running environment.  Nothing of its own .pth files is followed, so an editable
    # installation there stays out of sight.
    own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(paths["purelib"], "dependencies.pth").write_text(
        "".join(f"{path}\n" for path in sorted(own)), "utf-8"
    )

    elsewhere = directory / "elsewhere"
    elsewhere.mkdir()
    return Installation(wheel, environment, elsewhere)


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_generated_code_types_and_the_proto_file(
    installation: Installation,
) -> None:
    with zipfile.ZipFile(installation.wheel) as archive:
        names = set(archive.namelist())
        proto = archive.read("distlog/api/log/v1/log.proto")
    assert {
        "distlog/py.typed",
        "distlog/api/log/v1/log_pb2.py",
        "distlog/api/log/v1/log_pb2.pyi",
    } <= names
    assert proto == (ROOT / "proto/log/v1/log.proto").read_bytes()


def test_the_wheel_holds_every_module_and_nothing_else(installation: Installation) -> None:
    with zipfile.ZipFile(installation.wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    assert packed == {path.relative_to(ROOT).as_posix() for path in ROOT.glob("distlog/**/*.py")}


def test_the_generated_code_imports_away_from_the_source(installation: Installation) -> None:
    program = "import distlog.api.log.v1.log_pb2 as module; print(module.__file__)"
    done = installation.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert str(installation.environment) in done.stdout


def test_every_module_imports_away_from_the_source(installation: Installation) -> None:
    program = (
        "import importlib, pkgutil, distlog\n"
        "for module in pkgutil.walk_packages(distlog.__path__, 'distlog.'):\n"
        "    if not module.name.endswith('__main__'): print(importlib.import_module(module.name).__file__)"
    )
    done = installation.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    files = done.stdout.splitlines()
    assert files
    assert [name for name in files if not name.startswith(str(installation.environment))] == []


def test_the_command_runs_away_from_the_source(installation: Installation) -> None:
    done = installation.run("distlog", "--help")
    assert done.returncode == 0, done.stderr
    assert "produce" in done.stdout
    assert done.stderr == ""


def test_the_proto_file_is_found_from_the_installed_package(installation: Installation) -> None:
    program = "from importlib.resources import files; print(files('distlog.api.log.v1').joinpath('log.proto').read_text())"
    done = installation.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    assert "service Log {" in done.stdout
