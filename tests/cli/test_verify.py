"""verify: what it finds, what it says to do about it, and that it leaves everything as it is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from distlog.block import Block
from distlog.cli.main import main
from distlog.cli.progress_bar import line
from distlog.cli.terminal import CLEAR_LINE
from distlog.consensus.journal_format import HEADER
from distlog.consensus.journal_recovery import read_operations
from distlog.errors import DiskFailed
from distlog.storage.batch_table import decode_row
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import RealDisk, RealFile
from distlog.storage.log import Log, SegmentLimits
from tests.cli.directories import (
    LIMITS,
    SEED,
    Capture,
    flip,
    json_of,
    topic_path,
    tree,
)


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


def into_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_dangling_link(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to("nothing")


def into_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "replace", "problem"),
    [
        ("checkpoint", into_directory, "it is a directory, not a file"),
        ("checkpoint", into_dangling_link, "it is a link to what does not exist"),
        (f"journal/{1:020d}.journal", into_directory, "it is a directory, not a file"),
        (f"journal/{1:020d}.journal", into_dangling_link, "it is a link to what does not exist"),
        ("journal", into_dangling_link, "it is a link to what does not exist"),
        ("journal", into_file, "it is a file, not a directory"),
    ],
)
def test_what_is_no_file_is_a_fault_with_its_remedy(
    node: Path, capsys: Capture, name: str, replace: Callable[[Path], None], problem: str
) -> None:
    path = node / "groups" / "0" / name
    replace(path)
    invariant = "checkpoint-readable" if name == "checkpoint" else "journal-chain"
    code, shown = json_of(capsys, "verify", str(node))
    fault = next(each for each in shown["directories"][0]["faults"] if each["path"] == str(path))
    assert (code, fault["problem"], fault["invariant"]) == (1, problem, invariant)
    assert fault["remedy"].startswith("restore the data directory from a backup")
    assert main(["verify", str(node)]) == 1
    said = capsys.readouterr()
    assert f"fault: {path} at byte 0: {problem} ({invariant})" in said.out.splitlines()
    assert said.err == ""
    for flags in ([], ["--journal"], ["--checkpoint"]):
        assert main(["inspect", str(node), *flags]) == 0
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["synced", f"{0:020d}.log"])
def test_a_file_of_a_log_that_links_to_nothing_is_a_fault(
    node: Path, capsys: Capture, name: str
) -> None:
    (node / "groups" / "0" / "checkpoint").unlink()
    shutil.rmtree(node / "groups" / "0" / "journal")
    path = topic_path(node) / name
    into_dangling_link(path)
    code, shown = json_of(capsys, "verify", str(node))
    faults = {each["path"]: each for each in shown["directories"][0]["faults"]}
    assert (code, faults[str(path)]["invariant"]) == (1, "file-present")
    assert faults[str(path)]["remedy"].startswith("restore")


def test_a_file_that_the_disk_does_not_give_is_a_fault(
    node: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the checkpoint unread, the log's own mark says what was promised."""
    opened = RealDisk.open

    def refuse(disk: RealDisk, path: str, **options: bool) -> RealFile:
        if path.endswith(("checkpoint", ".journal")):
            raise DiskFailed(path, "open", "Input/output error")
        return opened(disk, path, **options)

    monkeypatch.setattr(RealDisk, "open", refuse)
    code, shown = json_of(capsys, "verify", str(node))
    (directory,) = shown["directories"]
    assert code == 1
    assert [fault["invariant"] for fault in directory["faults"]] == ["readable"] * 2
    assert all("dmesg" in fault["remedy"] for fault in directory["faults"])
    assert directory["topics"][0]["next_offset"] == 8
    (topic_path(node) / f"{0:020d}.log").write_bytes(b"")
    _, shown = json_of(capsys, "verify", str(node))
    assert len(shown["directories"][0]["faults"]) > 2


def test_verify_notices_a_checkpoint_of_another_node(node: Path, capsys: Capture) -> None:
    identity = json.loads((node / "node.json").read_text())
    del identity["crc32c"]
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


# --- More than one fault --------------------------------------------------------------------------


def test_verify_names_the_first_fault_and_counts_the_others(
    log_path: Path, capsys: Capture
) -> None:
    first, second = (log_path / f"{base:020d}" for base in (0, 16))
    flip(first.with_suffix(".log"), 4 * 16 + 9)
    flip(first.with_suffix(".batch"), 9 * 64 + 30)
    flip(second.with_suffix(".idx"), 2 * 16 + 3)
    code, shown = json_of(capsys, "verify", str(log_path))
    found = [
        (Path(fault["path"]).name, fault["byte"], fault["offset"], fault["invariant"])
        for fault in shown["directories"][0]["faults"]
    ]
    assert code == 1
    assert found == [
        (f"{0:020d}.log", 4 * 16, 4, "batch-checksum"),
        (f"{0:020d}.batch", 9 * 64, 9, "row-checksum"),
        (f"{16:020d}.idx", 2 * 16, 18, "index-matches"),
    ]
    assert main(["verify", str(log_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "3 faults"


def test_verify_stops_counting_at_a_hundred(tmp_path: Path, capsys: Capture) -> None:
    log = Log.create(RealDisk(), f"{tmp_path}/log", SegmentLimits(row_count_max=1000))
    for number in range(300):
        log.append(Block.from_records([b"x"]), timestamp_ms=number, raft_index=number, term=1)
    log.close()
    for number in range(0, 300, 2):
        flip(tmp_path / "log" / f"{0:020d}.log", 9 * number + 8)
    assert main(["verify", f"{tmp_path}/log"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "at least 100 faults"
    assert sum(line.startswith("fault: ") for line in lines) == 100


def test_what_to_do_is_said_once_for_faults_that_share_it(log_path: Path, capsys: Capture) -> None:
    for number in (3, 5):
        flip(log_path / f"{0:020d}.log", 16 * number + 9)
    assert main(["verify", str(log_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "fault",
        "what to do",
        "fault",
        "2 faults",
    ]


# --- A data directory -----------------------------------------------------------------------------


def test_what_is_nobodys_is_noted_and_no_fault(node: Path, capsys: Capture) -> None:
    for name in (
        "notes.txt",
        "node.json.tmp",
        "groups/1",
        "groups/0/checkpoint.new",
        "groups/0/topics/latest",
        f"groups/0/topics/{1:020d}/core",
        "groups/0/journal/old",
    ):
        (node / name).write_text("")
    (node / "groups" / "0" / "topics" / f"{77:020d}").mkdir()
    # That of the node's own agent is known.
    (node / "serf").mkdir()
    code, shown = json_of(capsys, "verify", str(node))
    notes = shown["directories"][0]["notes"]
    assert (code, len(notes)) == (0, 8)
    for name in ("notes.txt", "groups/1", "topics/latest", f"{1:020d}/core", "journal/old"):
        assert any(f"{name} is " in note and "left alone" in note for note in notes)
    for name in ("node.json.tmp", "checkpoint.new", f"{77:020d}"):
        assert any(f"{name} " in note and "interrupted" in note for note in notes)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("directory_id", "ab" * 16),
        ("cluster_id", "0123456789abcdef"),
        ("voters", {"n1": "cd" * 16}),
    ],
)
def test_a_changed_identity_is_a_fault(
    node: Path, capsys: Capture, key: str, value: object
) -> None:
    identity = json.loads((node / "node.json").read_text())
    del identity["crc32c"]
    (node / "node.json").write_text(json.dumps({**identity, key: value}))
    code, shown = json_of(capsys, "verify", str(node))
    faults = shown["directories"][0]["faults"]
    assert code == 1
    assert {fault["invariant"] for fault in faults} == {"identity-fits"}
    assert {fault["offset"] for fault in faults} == {None}


def test_a_mark_that_does_not_reach_the_checkpoint_is_a_fault(node: Path, capsys: Capture) -> None:
    path = topic_path(node)
    Log.create(RealDisk(), f"{path}/other", LIMITS).close()
    shutil.copy(path / "other" / "synced", path / "synced")
    shutil.rmtree(path / "other")
    code, shown = json_of(capsys, "verify", str(node))
    (fault,) = shown["directories"][0]["faults"]
    assert (code, fault["invariant"], fault["offset"]) == (1, "mark-fits", 0)
    assert fault["path"] == str(path / "synced")


def test_every_byte_of_the_mark_that_counts_is_checked(node: Path, capsys: Capture) -> None:
    path = topic_path(node) / "synced"
    data = path.read_bytes()
    written = [at for at in (0, 64) if data[at : at + 64].strip(b"\0")]
    for at in written:
        for position in range(at, at + 64):
            flip(path, position)
            code, shown = json_of(capsys, "verify", str(node))
            (fault,) = shown["directories"][0]["faults"]
            assert (code, fault["invariant"], fault["byte"]) == (1, "mark-readable", at)
            path.write_bytes(data)


def test_a_batch_that_the_journal_never_had_is_a_fault(node: Path, capsys: Capture) -> None:
    table = topic_path(node) / f"{0:020d}.batch"
    row = decode_row(table.read_bytes())
    assert row is not None
    for changed in (row._replace(raft_index=9), row._replace(term=5)):
        table.write_bytes(changed.encode())
        code, shown = json_of(capsys, "verify", str(node))
        (fault,) = shown["directories"][0]["faults"]
        assert (code, fault["invariant"]) == (1, "provenance")


def test_every_flipped_bit_of_a_small_data_directory_is_found_or_harmless(
    node: Path, capsys: Capture
) -> None:
    """Harmless are the zeros between the operations of the journal, which nothing reads."""
    random = Random(5)
    operations = list(read_operations(RealDisk(), str(node / "groups" / "0" / "journal")))
    ends = [each.position + HEADER.size + len(each.payload) for each in operations]
    padding = {end + at for end in ends for at in range(-end % 8)}
    for path in sorted(each for each in node.rglob("*") if each.is_file() and each.stat().st_size):
        data = path.read_bytes()
        for position in random.sample(range(len(data)), min(len(data), 40)):
            flip(path, position)
            code = main(["verify", str(node)])
            seen = capsys.readouterr()
            harmless = path.suffix == ".journal" and position in padding
            assert bool(code) != harmless, f"{path} {position}: {seen.out}"
            path.write_bytes(data)


# --- Where nothing can be written -----------------------------------------------------------------


@contextlib.contextmanager
def read_only(path: Path) -> Iterator[Path]:
    """Yield `path` as it is on a file system that is mounted read-only."""
    target = path.parent / "read-only"
    target.mkdir()
    subprocess.run(["mount", "--bind", str(path), str(target)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI has it")
def test_a_read_only_file_system_is_enough_to_look_at(
    node: Path, log_path: Path, capsys: Capture
) -> None:
    for path in (node, log_path):
        with read_only(path) as mounted:
            with pytest.raises(OSError, match="Read-only"):
                (mounted / "x").touch()
            assert main(["verify", str(mounted)]) == 0
            assert main(["inspect", str(mounted)]) == 0
            assert main(["inspect", str(mounted), "--record", "3"]) == 0
        (path.parent / "read-only").rmdir()
    capsys.readouterr()


# --- The bar --------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_that_goes_away(
    log_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert main(["verify", str(log_path)]) == 0
    shown = terminal.getvalue().split(CLEAR_LINE)
    assert shown[1].startswith("log: [")
    assert shown[1].endswith(" of 330 B checked")
    assert shown[-1] == ""


@pytest.mark.parametrize(
    ("size", "total", "text"),
    [
        (0, 1 << 30, "x: [........................]   0% 0 B of 1.0 GiB"),
        (1 << 29, 1 << 30, "x: [############............]  50% 512.0 MiB of 1.0 GiB"),
        (9, 8, "x: [########################] 100% 8 B of 8 B"),
        (0, 0, "x: [########################] 100% 0 B of 0 B"),
    ],
)
def test_the_bar_says_how_much_of_how_much(size: int, total: int, text: str) -> None:
    assert line("x", size, total) == text


# --- What was never promised ----------------------------------------------------------------------


def test_a_checkpoint_that_is_missing_is_a_fault_where_the_journal_does_not_have_everything(
    node: Path, capsys: Capture
) -> None:
    (node / "groups" / "0" / "checkpoint").unlink()
    # The journal begins with entry 1: a start makes everything anew from it.
    assert main(["verify", str(node)]) == 0
    capsys.readouterr()
    for path in (node / "groups" / "0" / "journal").iterdir():
        path.unlink()
    code, shown = json_of(capsys, "verify", str(node))
    (fault,) = shown["directories"][0]["faults"]
    assert (code, fault["invariant"]) == (1, "journal-fits")
    assert fault["path"] == str(node / "groups" / "0" / "checkpoint")


@pytest.mark.parametrize(
    ("damaged", "remedy"),
    [
        (
            f"groups/0/topics/{1:020d}/{0:020d}.log",
            f"cp OTHER_DATA_DIR/groups/0/topics/{1:020d}/{0:020d}.* ",
        ),
        (f"groups/0/topics/{1:020d}/{0:020d}.batch", "another member has the same bytes"),
        (f"groups/0/topics/{1:020d}/{0:020d}.idx", "rm "),
        ("groups/0/checkpoint", "let the node come back as a new member"),
    ],
)
def test_in_a_cluster_the_remedy_is_what_another_member_has(
    node: Path, capsys: Capture, damaged: str, remedy: str
) -> None:
    identity = json.loads((node / "node.json").read_text())
    del identity["crc32c"]
    identity["voters"]["n2"] = "00" * 16
    (node / "node.json").write_text(json.dumps(identity))
    flip(node / damaged, 40)
    _, shown = json_of(capsys, "verify", str(node))
    remedies = [
        fault["remedy"]
        for fault in shown["directories"][0]["faults"]
        if fault["path"] == str(node / damaged)
    ]
    assert any(remedy in each for each in remedies), remedies


def test_alone_the_remedy_is_a_backup(node: Path, capsys: Capture) -> None:
    flip(topic_path(node) / f"{0:020d}.log", 40)
    _, shown = json_of(capsys, "verify", str(node))
    assert "from a backup" in shown["directories"][0]["faults"][0]["remedy"]
