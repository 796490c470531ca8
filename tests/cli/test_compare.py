"""verify --compare: what is equal, what differs, and what could not be compared."""

from __future__ import annotations

import shutil
from pathlib import Path

from distlog.block import Block
from distlog.cli.main import main
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log
from tests.cli.directories import LIMITS, Capture, json_of, topic_path


def test_compare_says_that_copies_are_equal(node: Path, tmp_path: Path, capsys: Capture) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(node, twin)
    assert main(["verify", "--compare", str(node), str(twin)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "note: topic default: compared offsets 0 to 7" in lines
    assert lines[-1] == (
        "nothing is wrong with 16 records, and the two are equal in the 8 records that both keep"
    )


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
    assert capsys.readouterr().out.splitlines()[-1] == (
        "1 difference among the 2 records that both keep"
    )


def log_from(path: Path, first: int, count: int) -> str:
    """Make a log of `count` records that was trimmed up to `first`."""
    log = Log.create(RealDisk(), str(path), LIMITS)
    for number in range(count):
        block = Block.from_records([b"%d" % number])
        log.append(block, timestamp_ms=1, raft_index=1, term=1)
    log.trim(first)
    log.close()
    return str(path)


def test_logs_without_a_common_offset_are_not_equal(tmp_path: Path, capsys: Capture) -> None:
    early, late = log_from(tmp_path / "a", 0, 10), log_from(tmp_path / "b", 20, 40)
    for one, other in ((early, late), (late, early)):
        assert main(["verify", "--compare", one, other]) == 1
        lines = capsys.readouterr().out.splitlines()
        assert "note: a log: no offset is in both" in lines
        assert lines[-1] == (
            "nothing is wrong with 30 records, but they have no offset in common: nothing was compared"
        )
        code, shown = json_of(capsys, "verify", "--compare", one, other)
        assert (code, shown["is_equal"], shown["compared_record_count"]) == (1, False, 0)
        assert shown["differences"] == []


def test_empty_logs_are_equal_if_they_go_on_alike(tmp_path: Path, capsys: Capture) -> None:
    empty, twin, filled = (
        log_from(tmp_path / "a", 0, 0),
        log_from(tmp_path / "b", 0, 0),
        log_from(tmp_path / "c", 0, 3),
    )
    assert main(["verify", "--compare", empty, twin]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "nothing is wrong with 0 records, and the two are equal: both are empty"
    code, shown = json_of(capsys, "verify", "--compare", empty, twin)
    assert (code, shown["is_equal"], shown["compared_record_count"]) == (0, True, 0)
    trimmed = log_from(tmp_path / "d", 3, 3)
    for other in (filled, trimmed):
        assert main(["verify", "--compare", empty, other]) == 1
        assert "nothing was compared" in capsys.readouterr().out


def test_directories_without_a_common_topic_are_not_equal(
    node: Path, tmp_path: Path, capsys: Capture
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(node, twin)
    # Neither checkpoint nor journal: every log is as its own mark says, and has its own id.
    for path in (node, twin):
        (path / "groups" / "0" / "checkpoint").unlink()
        shutil.rmtree(path / "groups" / "0" / "journal")
    shutil.move(topic_path(twin), topic_path(twin).with_name(f"{2:020d}"))
    code, shown = json_of(capsys, "verify", "--compare", str(node), str(twin))
    assert (code, shown["is_equal"], shown["compared_record_count"]) == (1, False, 0)
    assert [note.split(" has ")[0] for note in shown["notes"]] == [f"only {node}", f"only {twin}"]


def test_nothing_is_said_of_equality_where_nothing_is_compared(node: Path, capsys: Capture) -> None:
    code, shown = json_of(capsys, "verify", str(node))
    assert (code, shown["is_equal"], shown["compared_record_count"]) == (0, None, None)


def test_compare_does_not_mix_kinds(node: Path, log_path: Path, capsys: Capture) -> None:
    assert main(["verify", "--compare", str(node), str(log_path)]) == 1
    assert "compare like with like" in capsys.readouterr().err


def test_compare_says_what_only_one_of_them_keeps(tmp_path: Path, capsys: Capture) -> None:
    for name, count in (("a", 40), ("b", 30)):
        log = Log.create(RealDisk(), f"{tmp_path}/{name}", LIMITS)
        for number in range(count):
            block = Block.from_records([b"%d" % number])
            log.append(block, timestamp_ms=1, raft_index=1, term=1)
        if name == "b":
            log.trim(20)
            log.begin_sync()()
        log.close()
    assert main(["verify", "--compare", f"{tmp_path}/a", f"{tmp_path}/b"]) == 0
    notes = [
        line for line in capsys.readouterr().out.splitlines() if line.startswith("note: a log")
    ]
    assert notes == [
        "note: a log: compared offsets 20 to 29",
        f"note: a log: only {tmp_path}/a keeps offsets 0 to 19",
        f"note: a log: only {tmp_path}/a goes on, with offsets 30 to 39",
    ]
