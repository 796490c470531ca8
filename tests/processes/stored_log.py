"""The files of a stopped node's log, read without the product's recovery, and compared byte by byte.

`distlog.storage` gives the names, the row of the batch table and the checksum; what must follow from what is said here once
more, so that a recovery that repairs what it should not have to repair does not hide it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, crc32c
from distlog.storage.batch_table import ROW_SIZE, BatchRow, decode_row
from distlog.storage.segment_files import STORE, SUFFIXES
from tests.processes.checker import NodeLog

PREFIX = struct.Struct("<Q")
INDEX_ROW = struct.Struct("<QQ")
UNWRITTEN = bytes(ROW_SIZE)


@dataclass(slots=True)
class StoredSegment:
    """One segment: its rows, and its three files within their sizes, reserved space left out."""

    base_offset: int
    rows: list[BatchRow]
    # By suffix.
    data: dict[str, bytes]

    @property
    def next_offset(self) -> int:
        return self.rows[-1].next_offset if self.rows else self.base_offset


@dataclass(slots=True)
class StoredLog:
    """A log's directory: its segments, its records, and what is wrong with it, in sentences."""

    name: str
    segments: list[StoredSegment]
    records: list[tuple[int, bytes]]
    problems: list[str]

    def as_node_log(self) -> NodeLog:
        return NodeLog(self.name, self.records)


def read_stored_log(name: str, directory: Path) -> StoredLog:
    """Read a log's directory.  What is wrong is among its `problems`; nothing is changed or repaired."""
    log = StoredLog(name, [], [], [])
    expected = 0
    for path in sorted(directory.glob(f"*{STORE}")):
        segment = _read_segment(log, path)
        if segment.base_offset != expected:
            log.problems.append(f"{name}: {path.name} follows offset {expected}")
        log.segments.append(segment)
        expected = segment.next_offset
    if not log.segments:
        log.problems.append(f"{name}: {directory} has no segment")
    return log


def _read_segment(log: StoredLog, path: Path) -> StoredSegment:
    files = {suffix: path.with_suffix(suffix).read_bytes() for suffix in SUFFIXES}
    base_offset = int(path.stem)
    rows = list(_rows(log, path, files[".batch"]))
    store_size = rows[-1].end_position if rows else 0
    record_count = (rows[-1].next_offset if rows else base_offset) - base_offset
    sizes = {
        ".log": store_size,
        ".idx": record_count * INDEX_ROW.size,
        ".batch": len(rows) * ROW_SIZE,
    }
    for suffix, size in sizes.items():
        if len(files[suffix]) < size:
            _fault(log, path, f"{suffix} has {len(files[suffix])} bytes and needs {size}")
    data = {suffix: content[: sizes[suffix]] for suffix, content in files.items()}
    index = iter(list(INDEX_ROW.iter_unpack(data[".idx"][: len(data[".idx"]) // 16 * 16])))
    offset, position = base_offset, 0
    for row in rows:
        if (row.base_offset, row.position) != (offset, position):
            _fault(log, path, f"row {row} follows offset {offset} and byte {position}")
        _read_batch(log, path, row, data[".log"], index)
        offset, position = row.next_offset, row.end_position
    return StoredSegment(base_offset, rows, data)


def _rows(log: StoredLog, path: Path, table: bytes) -> Iterator[BatchRow]:
    """Yield the rows up to the first unwritten one; one that is neither is a fault."""
    for position in range(0, len(table), ROW_SIZE):
        data = table[position : position + ROW_SIZE]
        row = decode_row(data) if len(data) == ROW_SIZE else None
        if row is None:
            if data.strip(b"\0"):
                _fault(log, path, f"the table's row at byte {position} is not whole")
            return
        yield row


def _read_batch(
    log: StoredLog, path: Path, row: BatchRow, store: bytes, index: Iterator[tuple[int, int]]
) -> None:
    frames = store[row.position : row.end_position]
    if crc32c(frames) != row.data_crc32c:
        _fault(log, path, f"the checksum of the batch at offset {row.base_offset} is wrong")
        return
    position = 0
    for offset in range(row.base_offset, row.next_offset):
        found = next(index, None)
        if found != (offset, row.position + position):
            _fault(log, path, f"the index has {found} for offset {offset}")
        (size,) = PREFIX.unpack_from(frames, position)
        position += PREFIX.size
        value = frames[position : position + size]
        if row.attributes & ATTRIBUTE_STRUCTURED:
            value = log_pb2.Record.FromString(value).value
        log.records.append((offset, value))
        position += size
    if position != len(frames):
        _fault(log, path, f"the frames at offset {row.base_offset} end at byte {position}")


def _fault(log: StoredLog, path: Path, problem: str) -> None:
    log.problems.append(f"{log.name}: {path.stem}: {problem}")


def differences(logs: Sequence[StoredLog]) -> list[str]:
    """Return a sentence for each file that is not the same, within its size, on all nodes."""
    return [problem for other in logs[1:] for problem in _differences_of_two(logs[0], other)]


def _differences_of_two(one: StoredLog, other: StoredLog) -> Iterator[str]:
    bases = [[segment.base_offset for segment in log.segments] for log in (one, other)]
    if bases[0] != bases[1]:
        yield f"{one.name} has segments {bases[0]} and {other.name} {bases[1]}"
        return
    for left, right in zip(one.segments, other.segments, strict=True):
        for suffix in SUFFIXES:
            if left.data[suffix] != right.data[suffix]:
                place = _first_difference(left.data[suffix], right.data[suffix])
                yield (
                    f"{left.base_offset:020d}{suffix} of {one.name} ({len(left.data[suffix])} bytes) and "
                    f"{other.name} ({len(right.data[suffix])}) differ at byte {place}"
                )


def _first_difference(one: bytes, other: bytes) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next(
        (place for place, (left, right) in pairs if left != right), min(len(one), len(other))
    )
