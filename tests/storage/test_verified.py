"""Bits for the records whose batch was checked, against a set."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from distlog.block import Block
from distlog.errors import CorruptBatch
from distlog.storage.log import Log, LogMark
from distlog.storage.segment_files import INDEX, STORE, TABLE, SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk
from distlog.storage.verified import VerifiedRecords


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40)), max_size=8))
def test_the_records_of_each_range_and_no_others_are_verified(
    ranges: list[tuple[int, int]],
) -> None:
    verified = VerifiedRecords()
    expected: set[int] = set()
    for first, count in ranges:
        verified.add(first, first + count)
        expected.update(range(first, first + count))
    assert {number for number in range(200) if number in verified} == expected


def test_a_record_read_alone_is_never_other_bytes_than_were_written() -> None:
    """Every bit of the store, the index and the table of a log, flipped while the log was closed."""
    disk = SimulatedDisk()
    log = Log.create(disk, "/log", SegmentLimits(store_size_max=64, row_count_max=16))
    records = [b"%d" % number * 5 for number in range(14)]
    for first in range(0, len(records), 2):
        block = Block.from_records(records[first : first + 2])
        log.append(block, timestamp_ms=0, raft_index=0, term=0)
    mark = log.mark()
    log.close()
    for suffix in (STORE, INDEX, TABLE):
        path = f"/log/{0:020d}{suffix}"
        for position in range(disk.open(path).size() * 8):
            damaged = disk.kill()
            file = damaged.open(path)
            octet = file.read_at(position // 8, 1)[0] ^ 1 << position % 8
            file.write_at(position // 8, [bytes([octet])])
            check_records(damaged, mark, records)


def check_records(disk: SimulatedDisk, mark: LogMark, records: list[bytes]) -> None:
    try:
        log = Log.open_at(disk, "/log", SegmentLimits(store_size_max=64, row_count_max=16), mark)
    except CorruptBatch:
        return
    for _ in range(2):
        for offset, record in enumerate(records):
            with contextlib.suppress(CorruptBatch):
                assert log.read_record(offset) == record
