"""What the tests of commands share: directories to look at, and no configuration from the shell that runs the tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.directories import Capture, imported, two_segments


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DISTLOG_"):
            monkeypatch.delenv(name)


@pytest.fixture
def node(tmp_path: Path, capsys: Capture) -> Path:
    """The data directory of a node that never ran, with the seed's records."""
    path = imported(tmp_path)
    capsys.readouterr()
    return path


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    """The directory of one log: 20 records in two segments."""
    return two_segments(tmp_path)
