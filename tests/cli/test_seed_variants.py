"""Every state in which a directory of the seed system may be found: exactly the records that are whole are opened, verified, inspected
and imported, and the directory stays as it is, to the byte.

A directory is built by the seed's own rules: store and index are made with 1 MiB and 1,000 rows of zeros, records are written from
the start, and a killed process leaves the rest as it was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from random import Random

import pytest

from distlog.cli.import_seed import adopt
from distlog.cli.main import main
from distlog.cli.stopped_node import look_at
from distlog.cli.stored_records import record_of
from distlog.storage.disk import Disk, RealDisk
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from tests.cli.directories import RECORDS, SEED, Capture, tree

STORE_SIZE, ROW_COUNT = 1 << 20, 1000
LIMITS = SegmentLimits()
NAME = f"{0:020d}"


def segment(base_offset: int, records: list[bytes]) -> dict[str, bytes]:
    """Return the two files of a segment as a killed process of the seed leaves them."""
    sizes = [8 + len(record) for record in records]
    starts = [0, *accumulate(sizes)]
    store = b"".join(struct.pack("<Q", len(record)) + record for record in records)
    index = b"".join(
        struct.pack("<QQ", base_offset + row, start) for row, start in enumerate(starts[:-1])
    )
    return {
        f"{base_offset:020d}.log": store.ljust(STORE_SIZE, b"\0"),
        f"{base_offset:020d}.idx": index.ljust(ROW_COUNT * 16, b"\0"),
    }


def write(directory: Path, *files: dict[str, bytes]) -> Path:
    directory.mkdir()
    for some in files:
        for name, data in some.items():
            (directory / name).write_bytes(data)
    return directory


def expect(
    seed: Path, records: list[bytes], tmp_path: Path, capsys: Capture, first: int = 0
) -> None:
    """Hold every way to look at a seed against the records that it has."""
    before = tree(seed)
    log = Log.open(RealDisk(), str(seed), LIMITS)
    assert (log.start_offset, log.next_offset) == (first, first + len(records))
    assert [log.read_record(offset) for offset in range(first, log.next_offset)] == records
    log.close()
    assert main(["verify", str(seed)]) == 0
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert verdict == f"nothing is wrong with {len(records)} records"
    assert main(["inspect", str(seed), "--json"]) == 0
    (topic,) = json.loads(capsys.readouterr().out)["topics"]
    assert (topic["start_offset"], topic["next_offset"]) == (first, first + len(records))
    survey = look_at(RealDisk(), str(seed), deep=False).topics[0].log
    for row in range(0, len(records), 1 + len(records) // 50):
        assert record_of(RealDisk(), survey, first + row).value == records[row]
    assert imported_records(RealDisk(), str(seed), f"{tmp_path}/adopted") == records
    assert main(["verify", f"{tmp_path}/adopted"]) == 0
    capsys.readouterr()
    assert tree(seed) == before


def imported_records(disk: Disk, seed: str, target: str) -> list[bytes]:
    """Adopt a seed, and read what its new log holds."""
    mark = adopt(disk, seed, target, "n1", random=Random(1), now_ms=5)
    log = Log.open_at(disk, f"{target}/groups/0/topics/{1:020d}", LIMITS, mark)
    found = [log.read_record(offset) for offset in range(log.start_offset, log.next_offset)]
    log.close()
    return found


@pytest.fixture
def seed_path(tmp_path: Path) -> Path:
    """The seed's own directory, left by a killed process: 8 records."""
    shutil.copytree(SEED, tmp_path / "seed")
    return tmp_path / "seed"


def test_the_seeds_own_directory_is_what_its_rules_make() -> None:
    assert tree(SEED) == segment(0, RECORDS)


# --- The index ------------------------------------------------------------------------------------

ROWS = segment(0, RECORDS)[f"{NAME}.idx"]
INDEXES: dict[str, bytes | None] = {
    "as it is": ROWS,
    "missing": None,
    "empty": b"",
    "of zeros": bytes(16_000),
    "of zeros, short": bytes(40),
    "too long": ROWS + bytes(1 << 20),
    "too long, of ones": ROWS + b"\xff" * 16_000,
    "garbage": Random(1).randbytes(16_000),
    "garbage that is no whole row": Random(2).randbytes(13),
    "of another segment": segment(100, RECORDS)[f"{100:020d}.idx"],
    "of other records": segment(0, [b"a", b"bc"] * 10)[f"{NAME}.idx"],
    "shifted by a row": ROWS[16:],
    "shifted by a byte": ROWS[1:],
    **{f"{size} bytes": ROWS[:size] for size in (1, 15, 16, 17, 64, 127, 128)},
    **{
        f"row {row} of zeros": ROWS[: 16 * row] + bytes(16) + ROWS[16 * row + 16 :]
        for row in range(8)
    },
}


@pytest.mark.parametrize("index", INDEXES)
def test_whatever_the_index_is_the_records_of_the_store_are_found(
    seed_path: Path, tmp_path: Path, capsys: Capture, index: str
) -> None:
    path, data = seed_path / f"{NAME}.idx", INDEXES[index]
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    expect(seed_path, RECORDS, tmp_path, capsys)


@pytest.mark.parametrize("index", ["missing", "garbage", "row 3 of zeros"])
def test_an_index_that_is_not_right_is_noted(seed_path: Path, capsys: Capture, index: str) -> None:
    path, data = seed_path / f"{NAME}.idx", INDEXES[index]
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    right = {"missing": 0, "garbage": 0, "row 3 of zeros": 7}[index]
    assert main(["verify", str(seed_path)]) == 0
    assert f"is right about {right} of 8 records" in capsys.readouterr().out


# --- The store ------------------------------------------------------------------------------------


def test_a_store_that_is_cut_at_any_byte_keeps_the_records_before() -> None:
    files = segment(0, RECORDS)
    ends = list(accumulate(8 + len(record) for record in RECORDS))
    for size in range(ends[-1] + 9):
        disk = SimulatedDisk()
        disk.make_directory("/seed")
        for name, data in files.items():
            disk.open(f"/seed/{name}", create=True).write_at(
                0, [data[:size] if name.endswith(".log") else data]
            )
        whole = [record for record, end in zip(RECORDS, ends, strict=True) if end <= size]
        log = Log.open(disk, "/seed", LIMITS)
        assert [log.read_record(offset) for offset in range(log.next_offset)] == whole
        look = look_at(disk, "/seed", deep=True)
        assert (look.all_faults(), look.topics[0].log.next_offset) == ([], len(whole))
        torn = size < ends[-1] and files[f"{NAME}.log"][([0, *ends])[len(whole)] : size].strip(
            b"\0"
        )
        assert any("no whole record" in note for note in look.all_notes()) == bool(torn)
        assert imported_records(disk, "/seed", "/adopted") == whole
        kept = disk.open(f"/seed/{NAME}.log").read_at(0, 1 << 20)
        assert kept == files[f"{NAME}.log"][:size]


@pytest.mark.parametrize(
    "records",
    [
        [b""] * 5,
        [b"", b"a"],
        [b"a", b"", b"", b"b", b""],
        [b"\0" * 100, b"", b"\0"],
        [bytes(8), bytes(16)],
    ],
    ids=repr,
)
def test_empty_records_and_records_of_zeros_are_records(
    tmp_path: Path, capsys: Capture, records: list[bytes]
) -> None:
    expect(write(tmp_path / "seed", segment(0, records)), records, tmp_path, capsys)


@pytest.mark.parametrize("size", [STORE_SIZE - 8, STORE_SIZE, 3 * STORE_SIZE + 5])
def test_a_store_may_have_grown_beyond_what_was_reserved(
    tmp_path: Path, capsys: Capture, size: int
) -> None:
    records = [b"first", bytes(size), b"last"]
    expect(write(tmp_path / "seed", segment(0, records)), records, tmp_path, capsys)


def test_more_records_than_rows_were_reserved(tmp_path: Path, capsys: Capture) -> None:
    records = [b"%d" % number for number in range(ROW_COUNT + 500)]
    files = segment(0, records)
    files[f"{NAME}.idx"] = files[f"{NAME}.idx"][: 16 * ROW_COUNT]
    expect(write(tmp_path / "seed", files), records, tmp_path, capsys)


# --- Several segments -----------------------------------------------------------------------------


def three_segments(first: int = 0) -> tuple[list[bytes], list[dict[str, bytes]]]:
    records = [b"%d" % number * (number % 5) for number in range(1, 31)]
    bases = [first, first + 10, first + 25]
    parts = [records[:10], records[10:25], records[25:]]
    return records, [segment(*each) for each in zip(bases, parts, strict=True)]


@pytest.mark.parametrize("first", [0, 4000])
def test_several_segments_are_one_log(tmp_path: Path, capsys: Capture, first: int) -> None:
    records, files = three_segments(first)
    expect(write(tmp_path / "seed", *files), records, tmp_path, capsys, first)


@pytest.mark.parametrize("damage", ["missing", "empty", "of zeros", "garbage"])
def test_several_segments_need_no_index_either(
    tmp_path: Path, capsys: Capture, damage: str
) -> None:
    # Without an index an empty record cannot be told from space.
    records = [b"record %d" % number for number in range(30)]
    files = [segment(0, records[:10]), segment(10, records[10:25]), segment(25, records[25:])]
    seed = write(tmp_path / "seed", *files)
    for path in seed.glob("*.idx"):
        data = INDEXES[damage]
        path.unlink()
        if data is not None:
            path.write_bytes(data)
    expect(seed, records, tmp_path, capsys)


def test_a_last_segment_that_was_only_reserved_holds_nothing(
    tmp_path: Path, capsys: Capture
) -> None:
    records, files = three_segments()
    expect(write(tmp_path / "seed", *files, segment(30, [])), records, tmp_path, capsys)


def test_records_that_are_missing_between_segments_are_a_fault_and_are_not_imported(
    tmp_path: Path, capsys: Capture
) -> None:
    _, files = three_segments()
    seed = write(tmp_path / "seed", *files)
    os.truncate(seed / f"{10:020d}.log", 40)
    before = tree(seed)
    assert main(["verify", str(seed), "--json"]) == 1
    (fault,) = json.loads(capsys.readouterr().out)["directories"][0]["faults"]
    whole = struct.unpack("<Q", files[1][f"{10:020d}.log"][:8])
    assert whole == (len(b"11"),), "record 10 is what was written there"
    assert fault["path"] == str(seed / f"{10:020d}.log")
    assert (fault["invariant"], 10 < fault["offset"] < 25) == ("segments-chain", True)
    assert "restore" in fault["remedy"]
    assert main(["import", str(seed), "--data-dir", f"{tmp_path}/adopted"]) == 1
    assert not (tmp_path / "adopted").exists()
    capsys.readouterr()
    assert tree(seed) == before


# --- Where nothing can be written -----------------------------------------------------------------


@contextlib.contextmanager
def mounted_read_only(path: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", str(path), str(path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root; CI has it")
def test_a_read_only_directory_is_as_good(seed_path: Path, tmp_path: Path, capsys: Capture) -> None:
    with mounted_read_only(seed_path):
        with pytest.raises(OSError, match="Read-only"):
            (seed_path / "x").touch()
        expect(seed_path, RECORDS, tmp_path, capsys)


# --- Whatever comes -------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(40))
def test_any_damage_to_a_store_leaves_a_run_of_records_that_all_ways_agree_on(number: int) -> None:
    """Without checksums damage inside a record cannot be seen; but nothing fails, and nothing is seen twice."""
    random = Random(number)
    records = [random.randbytes(random.randrange(1, 30)) for _ in range(20)]
    files = segment(0, records)
    damages: list[Callable[[bytearray], None]] = [
        lambda data: data.__setitem__(random.randrange(500), random.randrange(256)),
        lambda data: data.__setitem__(
            slice(a := random.randrange(500), a + 8), random.randbytes(8)
        ),
        lambda data: data.__delitem__(slice(random.randrange(600), None)),
    ]
    disk = SimulatedDisk()
    disk.make_directory("/seed")
    for name, content in files.items():
        data = bytearray(content)
        random.choice(damages)(data)
        disk.open(f"/seed/{name}", create=True).write_at(0, [bytes(data)])
    log = Log.open(disk, "/seed", LIMITS)
    opened = [log.read_record(offset) for offset in range(log.next_offset)]
    survey = look_at(disk, "/seed", deep=True).topics[0].log
    assert survey.next_offset == log.next_offset
    assert [record_of(disk, survey, offset).value for offset in range(log.next_offset)] == opened
    assert imported_records(disk, "/seed", "/adopted") == opened
