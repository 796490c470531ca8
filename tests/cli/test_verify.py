"""verify: what it finds, what it says to do about it, and that it leaves everything as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from distlog.block import Block
from distlog.cli.main import main
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log
from tests.cli.directories import (
    LIMITS,
    SEED,
    Capture,
    flip,
    imported,
    json_of,
    topic_path,
    tree,
    two_segments,
)


@pytest.fixture
def node(tmp_path: Path, capsys: Capture) -> Path:
    path = imported(tmp_path)
    capsys.readouterr()
    return path


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return two_segments(tmp_path)


def test_verify_finds_nothing_wrong_and_changes_nothing(
    node: Path, log_path: Path, capsys: Capture
) -> None:
    for path, records in ((node, 8), (log_path, 20), (SEED, 8)):
        before = tree(path)
        assert main(["verify", str(path)]) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines()[-1] == f"nothing is wrong with {records} records"
        assert ": whole" in shown.out
        assert shown.err == "", "there is no terminal"
        assert tree(path) == before


@pytest.mark.parametrize("suffix", ["log", "idx", "batch"])
def test_verify_names_file_byte_offset_and_remedy(
    log_path: Path, capsys: Capture, suffix: str
) -> None:
    row = {"log": 16, "idx": 16, "batch": 64}[suffix]
    path = log_path / f"{0:020d}.{suffix}"
    flip(path, 3 * row + 9)
    assert main(["verify", str(log_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": damaged")
    assert lines[1].startswith(f"fault: {path} at byte {3 * row}, offset 3: ")
    assert lines[2].startswith("  what to do: ")
    assert (f"rm {path} and start the node" in lines[2]) == (suffix == "idx")
    assert lines[3] == "1 fault"
    code, shown = json_of(capsys, "verify", str(log_path))
    (fault,) = shown["directories"][0]["faults"]
    assert (code, fault["path"], fault["byte"], fault["offset"]) == (1, str(path), 3 * row, 3)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda group: flip(group / "checkpoint", 60), "checksum is wrong"),
        (lambda group: flip(group / "checkpoint", 3), "no checkpoint"),
        (lambda group: flip(next((group / "journal").iterdir()), 60), "operation 2, which was"),
        (lambda group: shutil.rmtree(group / "journal"), "directory is missing"),
        (lambda group: next((group / "journal").iterdir()).unlink(), "files are missing"),
        (lambda group: shutil.rmtree(group / "topics" / f"{1:020d}"), "directory is missing"),
        (lambda group: (group / "topics" / f"{1:020d}" / f"{0:020d}.log").unlink(), "missing"),
    ],
)
def test_verify_checks_checkpoint_journal_and_topics(
    node: Path, capsys: Capture, damage: Callable[[Path], object], problem: str
) -> None:
    damage(node / "groups" / "0")
    before = tree(node)
    code, shown = json_of(capsys, "verify", str(node))
    faults = shown["directories"][0]["faults"]
    assert code == 1
    assert any(problem in fault["problem"] for fault in faults), faults
    assert all(fault["remedy"] for fault in faults)
    assert tree(node) == before


def test_verify_notices_a_checkpoint_of_another_node(node: Path, capsys: Capture) -> None:
    identity = json.loads((node / "node.json").read_text())
    identity["voters"]["n2"] = "00" * 16
    (node / "node.json").write_text(json.dumps(identity))
    code, shown = json_of(capsys, "verify", str(node))
    assert code == 1
    assert "voters" in shown["directories"][0]["faults"][0]["problem"]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_a_running_nodes_directory_is_refused(node: Path, capsys: Capture, command: str) -> None:
    running = DataDirectory.open(RealDisk(), str(node), "n1", Random(1))
    for path in (node, topic_path(node)):
        assert main([command, str(path)]) == 1
        assert "in use by another process" in capsys.readouterr().err
    running.close()
    assert main([command, str(topic_path(node))]) == 0


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_holds_no_log_is_refused(tmp_path: Path, capsys: Capture, command: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, problem in (
        ("none", "there is no such directory"),
        ("file", "it is a file"),
        ("empty", "there is no log in it"),
    ):
        assert main([command, str(tmp_path / name)]) == 1
        error = capsys.readouterr().err
        assert problem in error
        assert error.count("\n") == 1


def test_verify_takes_one_directory_or_two_to_compare(node: Path, capsys: Capture) -> None:
    assert main(["verify"]) == 2
    assert "--compare" in capsys.readouterr().err
    assert main(["verify", str(node), "--compare", str(node), str(node)]) == 2


# --- Two directories ------------------------------------------------------------------------------


def test_compare_says_that_copies_are_equal(node: Path, tmp_path: Path, capsys: Capture) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(node, twin)
    assert main(["verify", "--compare", str(node), str(twin)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "note: topic default: compared offsets 0 to 7" in lines
    assert lines[-1] == "nothing is wrong with 16 records, and the two are equal"


def test_compare_finds_a_record_that_differs_though_both_copies_are_whole(
    tmp_path: Path, capsys: Capture
) -> None:
    for name, record in (("a", b"this"), ("b", b"that")):
        log = Log.create(RealDisk(), f"{tmp_path}/{name}", LIMITS)
        for value in (b"same", record):
            block = Block.from_records([value])
            log.append(block, timestamp_ms=1, raft_index=1, term=1)
        log.close()
    code, shown = json_of(capsys, "verify", "--compare", f"{tmp_path}/a", f"{tmp_path}/b")
    assert code == 1
    assert [directory["faults"] for directory in shown["directories"]] == [[], []]
    (difference,) = shown["differences"]
    # The row's checksum of the frames is what differs first.
    assert difference["path"] == f"{tmp_path}/a/{0:020d}.batch"
    assert (difference["byte"], difference["offset"]) == (64 + 56, 1)
    assert main(["verify", "--compare", f"{tmp_path}/a", f"{tmp_path}/b"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 difference"


def test_compare_does_not_mix_kinds(node: Path, log_path: Path, capsys: Capture) -> None:
    assert main(["verify", "--compare", str(node), str(log_path)]) == 1
    assert "compare like with like" in capsys.readouterr().err
