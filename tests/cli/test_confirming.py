"""Commands that cannot be taken back ask a person, who types the node's id, and want --yes of anybody else."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from distlog.cli.main import main
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk

Capture = pytest.CaptureFixture[str]
COMMANDS = [["cluster", "rejoin"], ["recover", "--force-new-cluster"]]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a node that belongs to a cluster."""
    path = tmp_path / "n1"
    made = DataDirectory.open(RealDisk(), str(path), "n1", Random(1))
    made.form("cluster", {"n1": made.directory_id, "n2": "00" * 16})
    made.close()
    return path


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr("sys.stdin", Terminal(text))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("answer", ["", "y\n", "n2\n"])
def test_anything_but_the_id_changes_nothing(
    command: list[str],
    answer: str,
    directory: Path,
    typed: Callable[[str], None],
    capsys: Capture,
) -> None:
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    typed(answer)
    assert main([*command, "--data-dir", str(directory)]) == 1
    assert "nothing was changed" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_a_terminal_yes_is_required(
    command: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n1\n"))
    assert main([*command, "--data-dir", str(directory)]) == 2
    assert "--yes" in capsys.readouterr().err
    assert not list(directory.glob("backup-*"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_id_or_yes_lets_it_go_on(
    command: list[str], directory: Path, typed: Callable[[str], None], capsys: Capture
) -> None:
    typed("n1\n")
    assert main([*command, "--data-dir", str(directory)]) == 0
    shown = capsys.readouterr().out
    assert "type n1 to go on" in shown
    assert str(directory) in shown
    assert len(list(directory.glob("backup-*"))) == 1
