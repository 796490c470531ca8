"""Adopting a seed's log: the same records in the same segments, with a batch table, and the seed as it was."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from distlog.block import Block
from distlog.errors import CorruptBatch, DataDirectoryUnusable, RecordTooLarge
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, LogMark, SegmentLimits
from distlog.storage.seed_import import import_seed, open_seed
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.storage.survey import survey_log

SEED = Path(__file__).parents[1] / "data" / "seed"
LIMITS = SegmentLimits()


def seed_segment(disk: SimulatedDisk, base_offset: int, records: list[bytes]) -> None:
    disk.make_directory("/seed")
    store = index = b""
    for number, record in enumerate(records):
        index += struct.pack("<QQ", base_offset + number, len(store))
        store += struct.pack("<Q", len(record)) + record
    for suffix, data in ((".log", store), (".idx", index)):
        file = disk.open(f"/seed/{base_offset:020d}{suffix}", create=True)
        file.write_at(0, [data + bytes(500)])


def adopted(disk: SimulatedDisk, record_size_max: int = 1 << 20) -> tuple[Log, LogMark]:
    segments = open_seed(disk, "/seed", record_size_max)
    mark = import_seed(disk, segments, "/log", timestamp_ms=77, raft_index=1, limits=LIMITS)
    return Log.open_at(disk, "/log", LIMITS, mark), mark


def test_the_seeds_own_records_are_adopted_and_can_be_appended_to(tmp_path: Path) -> None:
    disk = RealDisk()
    before = {path.name: path.read_bytes() for path in SEED.iterdir()}
    segments = open_seed(disk, str(SEED), 1 << 20)
    path = f"{tmp_path}/log"
    mark = import_seed(disk, segments, path, timestamp_ms=77, raft_index=1, limits=LIMITS)
    assert mark == LogMark(0, 8, 77, 0, 210)
    log = Log.open_at(disk, path, LIMITS, mark)
    seed = Log.open(disk, str(SEED), LIMITS)
    assert [log.read_record(offset) for offset in range(8)] == [
        seed.read_record(offset) for offset in range(8)
    ]
    row = log.batch_of(3)
    assert (row.record_count, row.timestamp_ms, row.raft_index, row.term) == (8, 77, 1, 0)
    log.append(Block.from_records([b"new"]), timestamp_ms=80, raft_index=3, term=1)
    assert log.read_record(8) == b"new"
    log.close()
    assert survey_log(disk, path, deep=True).faults == []
    assert {path.name: path.read_bytes() for path in SEED.iterdir()} == before
    name = f"{0:020d}"
    kept = (
        Path(path, f"{name}.log").read_bytes()[:210],
        Path(path, f"{name}.idx").read_bytes()[:128],
    )
    assert kept == (before[f"{name}.log"][:210], before[f"{name}.idx"][:128])


def test_segments_stay_as_they_are_and_empty_ones_go() -> None:
    disk = SimulatedDisk()
    seed_segment(disk, 16, [b"a", b"", b"ccc"])
    seed_segment(disk, 19, [b"d"])
    seed_segment(disk, 20, [])
    log, mark = adopted(disk)
    assert mark == LogMark(16, 20, 77, 19, 9)
    assert [(s.base_offset, s.next_offset) for s in log.describe()] == [(16, 19), (19, 20)]
    assert [log.read_record(offset) for offset in range(16, 20)] == [b"a", b"", b"ccc", b"d"]


def test_an_empty_seed_becomes_an_empty_log_that_starts_where_the_seed_did() -> None:
    disk = SimulatedDisk()
    seed_segment(disk, 5, [])
    log, _ = adopted(disk)
    assert (log.start_offset, log.next_offset) == (5, 5)
    assert log.append(Block.from_records([b"x"]), timestamp_ms=1, raft_index=2, term=1) == 5


def test_many_records_become_several_batches() -> None:
    disk = SimulatedDisk()
    seed_segment(disk, 0, [b"%04d" % number * 75_000 for number in range(9)])
    copied: list[int] = []
    segments = open_seed(disk, "/seed", 1 << 20)
    import_seed(
        disk, segments, "/log", timestamp_ms=1, raft_index=1, limits=LIMITS, progress=copied.append
    )
    log = Log.open(disk, "/log", LIMITS)
    assert [log.batch_of(offset).record_count for offset in (0, 3, 6)] == [3, 3, 3]
    assert log.read_record(7) == b"0007" * 75_000
    assert copied == [3 * 300_008, 6 * 300_008, 9 * 300_008]


def test_a_record_that_no_node_would_take_is_refused() -> None:
    disk = SimulatedDisk()
    seed_segment(disk, 0, [b"small", b"x" * 101])
    with pytest.raises(RecordTooLarge) as caught:
        open_seed(disk, "/seed", 100)
    assert (caught.value.size, caught.value.size_max) == (101, 100)


def test_a_seed_with_a_hole_is_refused() -> None:
    disk = SimulatedDisk()
    seed_segment(disk, 0, [b"0"])
    seed_segment(disk, 2, [b"2"])
    with pytest.raises(CorruptBatch, match="end at offset 1"):
        open_seed(disk, "/seed", 100)


def test_what_is_no_seed_is_refused() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/seed")
    Log.create(disk, "/ours", LIMITS).close()
    for path in ("/seed", "/ours"):
        with pytest.raises(DataDirectoryUnusable, match="no log of the seed system"):
            open_seed(disk, path, 100)


def test_a_record_that_changes_while_it_is_read_is_noticed() -> None:
    disk = SimulatedDisk()
    seed_segment(disk, 0, [b"one", b"two"])
    segments = open_seed(disk, "/seed", 100)
    disk.open(f"/seed/{0:020d}.log").write_at(11, [b"\x09"])
    with pytest.raises(CorruptBatch, match="changed while it was read"):
        import_seed(disk, segments, "/log", timestamp_ms=1, raft_index=1, limits=LIMITS)
