"""Directories of the seed system: read in place, exactly the records that are there, nothing changed."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from distlog.block import Block
from distlog.errors import CorruptBatch, OffsetOutOfRange
from distlog.storage.disk import RealDisk
from distlog.storage.log import Log, SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk

SEED = Path(__file__).parents[1] / "data" / "seed"
LIMITS = SegmentLimits()
RECORDS = [
    b"Hello, gRPC!",
    b"This is record 2",
    b"Testing the distributed log",
    b"Fourth record here",
] * 2


def seed_log(
    records: list[bytes],
    *,
    base_offset: int = 0,
    store_size: int | None = None,
    index_rows: int | None = None,
    row_count: int = 1000,
    disk: SimulatedDisk | None = None,
) -> SimulatedDisk:
    """A segment as the seed leaves it: `index_rows` of the records are in the index, zeros follow."""
    disk = disk or SimulatedDisk()
    disk.make_directory("/seed")
    store, index = b"", b""
    for number, record in enumerate(records):
        if index_rows is None or number < index_rows:
            index += struct.pack("<QQ", base_offset + number, len(store))
        store += struct.pack("<Q", len(record)) + record
    files = {".log": store.ljust(store_size or len(store) + 1000, b"\0"), ".idx": index}
    files[".idx"] = index.ljust(16 * row_count, b"\0")
    for suffix, data in files.items():
        disk.open(f"/seed/{base_offset:020d}{suffix}", create=True).write_at(0, [data])
    return disk


def records_of(disk: SimulatedDisk) -> list[bytes]:
    log = Log.open(disk, "/seed", LIMITS)
    assert log.is_read_only
    by_offset = [log.read_record(offset) for offset in range(log.next_offset)]
    read: list[bytes] = []
    while len(read) < log.next_offset:
        for batch in log.read(len(read), 50):
            assert batch.base_offset == len(read)
            read += batch.records()
    assert read == by_offset
    return read


def checksums(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }


def test_the_seeds_own_directory_opens_with_exactly_8_records_and_stays_as_it_is() -> None:
    before = checksums(SEED)
    log = Log.open(RealDisk(), str(SEED), LIMITS)
    assert (log.start_offset, log.next_offset) == (0, 8)
    assert [log.read_record(offset) for offset in range(8)] == RECORDS
    (batch,) = log.read(0, 1 << 20)
    assert list(batch.records()) == RECORDS
    assert batch.data_crc32c == Block.from_records(RECORDS).data_crc32c
    with pytest.raises(OffsetOutOfRange):
        log.read_record(8)
    log.close()
    assert checksums(SEED) == before


def test_a_reader_of_a_seed_gets_about_as_many_bytes_as_it_asked_for() -> None:
    log = Log.open(RealDisk(), str(SEED), LIMITS)
    assert [batch.record_count for batch in log.read(3, 0)] == [1]
    assert [batch.record_count for batch in log.read(3, 46)] == [2]
    assert log.batch_of(5).base_offset == 5


def test_a_seed_is_never_appended_to_or_trimmed() -> None:
    disk = seed_log([b"0", b"1"])
    log = Log.open(disk, "/seed", LIMITS)
    block = Block.from_records([b"x"])
    for change in (
        lambda: log.append(block, timestamp_ms=1, raft_index=1, term=1),
        lambda: log.trim(1),
        lambda: log.begin_sync(),
    ):
        with pytest.raises(AssertionError, match="only read"):
            change()
    assert len(disk.list_directory("/seed")) == 2


def test_space_that_was_never_written_is_not_a_record() -> None:
    assert records_of(seed_log([], store_size=1 << 20)) == []
    assert records_of(seed_log([b"one"], store_size=1 << 20)) == [b"one"]


def test_empty_records_are_records_if_the_index_says_so() -> None:
    assert records_of(seed_log([b"", b"a", b""])) == [b"", b"a", b""]
    assert records_of(seed_log([b"a", b"", b""])) == [b"a", b"", b""]
    # Not in the index: nothing tells them from space.
    assert records_of(seed_log([b"a", b"", b""], index_rows=1)) == [b"a"]


def test_an_empty_first_record_is_one_unless_nothing_follows() -> None:
    assert records_of(seed_log([b"", b""])) == [b"", b""]
    # All zeros: one empty record and none look the same, and a killed empty log is the likelier.
    assert records_of(seed_log([b""])) == []


@pytest.mark.parametrize("index_rows", range(5))
def test_records_that_the_index_lacks_are_found_in_the_store(index_rows: int) -> None:
    records = [b"zero", b"one", b"two", b"three"]
    assert records_of(seed_log(records, index_rows=index_rows)) == records
    assert records_of(seed_log(records, index_rows=index_rows, row_count=index_rows)) == records


def test_a_seed_without_an_index_is_scanned() -> None:
    disk = seed_log([b"zero", b"one"])
    disk.remove(f"/seed/{0:020d}.idx")
    assert records_of(disk) == [b"zero", b"one"]


@pytest.mark.parametrize("row", range(4))
def test_a_wrong_index_row_does_not_hide_or_invent_records(row: int) -> None:
    records = [b"zero", b"one", b"two", b"three"]
    for value in (0, 1, 13, 1 << 63, (1 << 64) - 1):
        for column in (0, 8):
            disk = seed_log(records)
            file = disk.open(f"/seed/{0:020d}.idx")
            file.write_at(16 * row + column, [struct.pack("<Q", value)])
            assert records_of(disk) == records


@pytest.mark.parametrize("size", range(4 + 8, 4 + 8 + 3 + 8))
def test_a_record_torn_at_the_end_of_the_file_is_not_there(size: int) -> None:
    disk = seed_log([b"zero", b"one"])
    disk.open(f"/seed/{0:020d}.log").truncate(size)
    assert records_of(disk) == [b"zero"]


@pytest.mark.parametrize("length", [1 << 62, (1 << 64) - 1, 101 << 20])
def test_an_impossible_length_ends_the_records(length: int) -> None:
    disk = seed_log([b"zero", b"one"])
    disk.open(f"/seed/{0:020d}.log").write_at(12, [struct.pack("<Q", length)])
    assert records_of(disk) == [b"zero"]


def test_a_seed_of_several_segments_reads_as_one_log() -> None:
    disk = seed_log([b"0", b"1", b"2"])
    seed_log([b"3", b""], base_offset=3, disk=disk)
    seed_log([], base_offset=5, disk=disk)
    log = Log.open(disk, "/seed", LIMITS)
    assert log.next_offset == 5
    assert records_of(disk) == [b"0", b"1", b"2", b"3", b""]
    assert [segment.base_offset for segment in log.describe()] == [0, 3, 5]


def test_a_seed_that_starts_later_was_trimmed() -> None:
    disk = seed_log([b"16", b"17"], base_offset=16)
    log = Log.open(disk, "/seed", LIMITS)
    assert (log.start_offset, log.next_offset) == (16, 18)
    assert log.read_record(17) == b"17"
    with pytest.raises(OffsetOutOfRange):
        log.read_record(15)


def test_records_that_are_missing_between_two_segments_are_an_error_where_they_are() -> None:
    disk = seed_log([b"0", b"1"])
    seed_log([b"5"], base_offset=5, disk=disk)
    log = Log.open(disk, "/seed", LIMITS)
    assert [log.read_record(offset) for offset in (0, 1, 5)] == [b"0", b"1", b"5"]
    for offset in (2, 4):
        with pytest.raises(CorruptBatch, match="end at offset 2"):
            log.read_record(offset)


def test_a_segment_does_not_reach_into_the_next_one() -> None:
    disk = seed_log([b"0", b"1", b"not this"])
    seed_log([b"2"], base_offset=2, disk=disk)
    assert records_of(disk) == [b"0", b"1", b"2"]


def test_many_records_are_checked_in_chunks() -> None:
    records = [b"%d" % number for number in range(10_000)]
    disk = seed_log(records, row_count=10_000)
    log = Log.open(disk, "/seed", LIMITS)
    assert log.next_offset == 10_000
    assert [log.read_record(offset) for offset in (0, 4095, 4096, 9999)] == [
        b"0",
        b"4095",
        b"4096",
        b"9999",
    ]
