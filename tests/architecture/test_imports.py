"""Imports point down only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.imports import LAYERS, Layer, layer_of, modules_of, violations

ROOT = Path(__file__).parents[2]

SAMPLE_LAYERS = (
    Layer("distlog"),
    Layer("distlog.errors", never=("asyncio",)),
    Layer("distlog.storage", ("distlog.errors",), ("numpy",)),
    Layer("distlog.storage.log", ("distlog.errors",)),
    Layer("distlog.server", ("distlog.storage.log",), ("google.rpc",)),
)


def test_imports_point_down_only() -> None:
    assert violations(ROOT) == []


def test_every_row_of_the_table_is_a_module_that_exists() -> None:
    modules = {name for name, _ in modules_of(ROOT)}
    assert [layer.name for layer in LAYERS if layer.name not in modules] == []
    named = {name for layer in LAYERS for name in layer.below}
    assert sorted(named - modules) == []


def test_rows_are_unique() -> None:
    names = [layer.name for layer in LAYERS]
    assert len(names) == len(set(names))


def test_only_one_module_sees_the_raft_library() -> None:
    assert [layer.name for layer in LAYERS if "pysyncobj" in layer.libraries] == [
        "distlog.consensus.library"
    ]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors", "import distlog.storage"),
        ("errors", "from distlog import storage"),
        ("errors", "from . import storage"),
        ("errors", "def late():\n    from distlog.storage.log import Log"),
        ("errors", "import asyncio"),
        ("errors", "from asyncio import events"),
        ("errors", "import numpy as np"),
        ("storage/index", "from ..server import service"),
        ("storage/index", "import grpc"),
        # A row of its own narrows what its package may.
        ("storage/log", "import numpy"),
        ("storage/log", "from distlog.storage import index"),
        # Only the door, not the room behind it.
        ("server/service", "from distlog.storage import index"),
        ("server/service", "from distlog.storage.index import Index"),
        ("server/service", "from google.protobuf import any_pb2"),
        # A module that nobody gave a layer.
        ("surprise", ""),
    ],
)
def test_a_planted_violation_is_found(module: str, line: str, tmp_path: Path) -> None:
    write_package(tmp_path, {module: line})
    found = violations(tmp_path, SAMPLE_LAYERS)
    assert len(found) == 1
    assert module.replace("/", ".") in found[0].replace("/", ".")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("errors", "import dataclasses"),
        ("errors", "from distlog import __version__"),
        ("storage/index", "import numpy.typing as npt"),
        ("storage/index", "from distlog.storage import log"),
        ("storage/index", "from . import log"),
        ("storage/index", "from .log import Log"),
        ("storage/log", "from distlog.errors import DistlogError"),
        ("server/service", "from distlog.storage.log import Log"),
        ("server/service", "from google.rpc import error_details_pb2"),
    ],
)
def test_what_the_table_allows_is_not_reported(module: str, line: str, tmp_path: Path) -> None:
    write_package(tmp_path, {module: line})
    assert violations(tmp_path, SAMPLE_LAYERS) == []


def test_the_longest_row_decides() -> None:
    layer = layer_of("distlog.storage.log", SAMPLE_LAYERS)
    assert layer is not None
    assert layer.name == "distlog.storage.log"


def write_package(root: Path, sources: dict[str, str]) -> None:
    """Write a small package with one file for each layer of the sample, and `sources` on top."""
    names = (
        "__init__",
        "errors",
        "storage/__init__",
        "storage/log",
        "storage/index",
        "server/__init__",
        "server/service",
    )
    for name in (*names, *sources):
        path = root / "distlog" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(sources.get(name, ""), "utf-8")
