"""The repository keeps its own habits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tidy.checks import (
    LONG_FUNCTIONS,
    Source,
    functions,
    problems_of,
    unused_test_directories,
)

ROOT = Path(__file__).parents[2]
# Generated, or somebody else's words.
EXEMPT = ("distlog/api/log/", "LICENSE")
TEXT = (
    ".py",
    ".pyi",
    ".md",
    ".toml",
    ".txt",
    ".sh",
    ".proto",
    ".yml",
    ".yaml",
    "Makefile",
    "Procfile",
    ".ci/run",
    ".gitignore",
)


# Made by the tools, and not kept.  (Also while the tests are collected: several workers must find the same ones.)
CACHES = {".pytest_cache", ".mypy_cache", ".ruff_cache", ".hypothesis", "distlog.egg-info"}
MADE = {".git", ".venv", "build", "dist", "data", "__pycache__", *CACHES}


def sources() -> list[Source]:
    """Return every text file of the repository."""
    return [Source(name, text) for name, text in sorted(texts_below(ROOT))]


def texts_below(directory: Path) -> Iterator[tuple[str, str]]:
    """Yield the path relative to the repository, with slashes, and the text of each file to check."""
    for path in directory.iterdir():
        name = path.relative_to(ROOT).as_posix()
        if path.is_symlink() or path.name in MADE or name.startswith(EXEMPT):
            continue
        if path.is_dir():
            yield from texts_below(path)
        elif name.endswith(TEXT):
            yield name, path.read_text("utf-8")


@pytest.mark.parametrize("source", sources(), ids=lambda source: source.path)
def test_the_repository_is_tidy(source: Source) -> None:
    assert problems_of(source) == []


def test_the_files_to_check_were_found() -> None:
    paths = {source.path for source in sources()}
    assert {
        "distlog/__init__.py",
        "tests/tidy/checks.py",
        "README.md",
        "Makefile",
        ".ci/run",
    } <= paths


def test_every_test_directory_has_tests() -> None:
    assert unused_test_directories(ROOT / "tests") == []


def test_every_long_function_that_is_allowed_exists() -> None:
    present = {
        f"{source.path}:{name}"
        for source in sources()
        if source.is_python
        for _, name in functions(source.tree)
    }
    assert [name for name in LONG_FUNCTIONS if name not in present] == []
