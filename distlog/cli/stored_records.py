"""Single batches and records of a log that is looked at, damaged or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from google.protobuf.message import DecodeError

from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, PREFIX, PREFIX_SIZE, crc32c
from distlog.errors import CorruptBatch, OffsetOutOfRange
from distlog.storage.disk import Disk
from distlog.storage.seed_segment import seed_segments
from distlog.storage.segment_files import STORE, TABLE, list_segments, segment_path
from distlog.storage.survey import LogSurvey
from distlog.storage.table_scan import Run, TableScan


@dataclass(frozen=True, slots=True)
class ShownBatch:
    """One row of a table, and the segment that it is in."""

    segment_base_offset: int
    # Of its table, from 0.
    row_number: int
    base_offset: int
    record_count: int
    position: int
    size: int
    # None in a log of the seed system, which kept neither time nor provenance.
    timestamp_ms: int | None
    raft_index: int | None
    term: int | None
    attributes: int
    data_crc32c: int | None

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.record_count


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """One record, taken apart."""

    offset: int
    # The file, and the bytes of its frame, prefix included.
    path: str
    position: int
    size: int
    batch: ShownBatch
    # None in a log of the seed system, which kept no checksums.
    is_whole: bool | None
    key: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    value: bytes


def batches_of(disk: Disk, log: LogSurvey, first: int, end: int) -> Iterator[ShownBatch]:
    """Yield the batches that hold one of the offsets [first, end); what is damaged is left out."""
    if log.is_seed:
        return
    # Not the segments of the survey, and not where it says that one ends: it leaves out what lacks a file, and stops at damage.
    found = list_segments(disk, log.path)
    bases = list(found)
    for base_offset, following in pairwise([*bases, max([log.next_offset, *bases])]):
        if following <= max(first, log.start_offset) or base_offset >= end:
            continue
        if TABLE not in found[base_offset]:
            continue
        path = segment_path(log.path, base_offset, TABLE)
        file = disk.open(path, writable=False)
        try:
            for run in TableScan(file, base_offset):
                if isinstance(run, Run):
                    yield from _shown(base_offset, run, first, min(end, following))
        finally:
            file.close()


def _shown(segment_base_offset: int, run: Run, first: int, end: int) -> Iterator[ShownBatch]:
    rows = run.rows
    inside = (rows["base_offset"] + rows["record_count"] > first) & (rows["base_offset"] < end)
    for place in np.flatnonzero(inside).tolist():
        row = rows[place]
        yield ShownBatch(
            segment_base_offset,
            run.number + place,
            int(row["base_offset"]),
            int(row["record_count"]),
            int(row["position"]),
            int(row["size"]),
            int(row["timestamp_ms"]),
            int(row["raft_index"]),
            int(row["term"]),
            int(row["attributes"]),
            int(row["data_crc32c"]),
        )


def record_of(disk: Disk, log: LogSurvey, offset: int) -> ShownRecord:
    """Return one record as its bytes are now.

    Raises OffsetOutOfRange, and CorruptBatch if nothing says where the record is.
    """
    if not log.start_offset <= offset < log.next_offset:
        raise OffsetOutOfRange(offset, log.start_offset, log.next_offset)
    if log.is_seed:
        return _seed_record(disk, log, offset)
    for batch in batches_of(disk, log, offset, offset + 1):
        return _record(disk, log, batch, offset)
    bases = [base for base in list_segments(disk, log.path) if base <= offset]
    path = segment_path(log.path, max(bases, default=log.start_offset), TABLE)
    raise CorruptBatch(path=path, position=0, problem=f"no row has the batch of offset {offset}")


def _record(disk: Disk, log: LogSurvey, batch: ShownBatch, offset: int) -> ShownRecord:
    path = segment_path(log.path, batch.segment_base_offset, STORE)
    file = disk.open(path, writable=False)
    try:
        frames = file.read_at(batch.position, batch.size)
    finally:
        file.close()
    at = 0
    for _ in range(offset - batch.base_offset):
        at += PREFIX_SIZE + _length(frames, at, path, batch)
    size = PREFIX_SIZE + _length(frames, at, path, batch)
    key, headers, value = _parts(frames[at + PREFIX_SIZE : at + size], batch.attributes)
    is_whole = crc32c(frames) == batch.data_crc32c
    return ShownRecord(
        offset, path, batch.position + at, size, batch, is_whole, key, headers, value
    )


def _length(frames: bytes, at: int, path: str, batch: ShownBatch) -> int:
    """Return the length of the frame that begins at `at`, which must lie within the batch."""
    if at + PREFIX_SIZE <= len(frames):
        length = int(PREFIX.unpack_from(frames, at)[0])
        if at + PREFIX_SIZE + length <= len(frames):
            return length
    problem = f"the frames of the batch at byte {batch.position} cannot be told apart from here on"
    raise CorruptBatch(path=path, position=batch.position + at, problem=problem)


def _parts(
    data: bytes, attributes: int
) -> tuple[bytes | None, tuple[tuple[str, bytes], ...], bytes]:
    """Return key, headers and value; data that cannot be taken apart is shown as the value."""
    if attributes & ATTRIBUTE_STRUCTURED:
        try:
            record = log_pb2.Record.FromString(data)
        except DecodeError:
            return None, (), data
        headers = tuple((header.name, header.value) for header in record.headers)
        return record.key if record.HasField("key") else None, headers, record.value
    return None, (), data


def _seed_record(disk: Disk, log: LogSurvey, offset: int) -> ShownRecord:
    segments = seed_segments(disk, log.path, [segment.base_offset for segment in log.segments])
    try:
        for segment in segments:
            if segment.base_offset <= offset < segment.next_offset:
                row = segment.batch_of(offset)
                value = segment.read_record(offset)
                batch = ShownBatch(
                    segment.base_offset,
                    0,
                    offset,
                    1,
                    row.position,
                    PREFIX_SIZE + len(value),
                    None,
                    None,
                    None,
                    0,
                    None,
                )
                return ShownRecord(
                    offset, segment.path, row.position, batch.size, batch, None, None, (), value
                )
    finally:
        for segment in segments:
            segment.close()
    path = segment_path(log.path, log.segments[0].base_offset, STORE)
    raise CorruptBatch(path=path, position=0, problem=f"no segment has offset {offset}")
