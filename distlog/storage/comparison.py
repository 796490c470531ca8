"""Are two copies of a log the same: byte for byte, for the offsets that both keep.

Nodes that applied the same entries have the same segments with the same bytes, each within the
sizes that its table gives; one may end earlier or have been trimmed further.
"""

from __future__ import annotations

import numpy as np

from distlog.storage.batch_table import ROW_SIZE as TABLE_ROW_SIZE
from distlog.storage.disk import Disk
from distlog.storage.index import ROW_SIZE as INDEX_ROW_SIZE
from distlog.storage.invariants import Fault, Invariant
from distlog.storage.segment_files import INDEX, STORE, TABLE, segment_path
from distlog.storage.survey import LogSurvey, SegmentSurvey

CHUNK_SIZE = 1 << 20


def common_offsets(one: LogSurvey, other: LogSurvey) -> range:
    """Return the offsets that both keep; empty if there are none."""
    first = max(one.start_offset, other.start_offset)
    return range(first, max(first, min(one.next_offset, other.next_offset)))


def compare_logs(disk: Disk, one: LogSurvey, other: LogSurvey) -> list[Fault]:
    """Return the first difference of each segment, by the file and the byte of `one`."""
    common = common_offsets(one, other)
    if not common:
        return []
    first, end = common.start, common.stop
    faults: list[Fault] = []
    segments, others = _by_base(one, first, end), _by_base(other, first, end)
    for base_offset in sorted(segments.keys() | others.keys()):
        path = segment_path(one.path, base_offset, STORE)
        if base_offset not in segments:
            faults.append(
                Fault(path, 0, base_offset, f"only {other.path} has this segment", Invariant.EQUAL)
            )
        elif base_offset not in others:
            faults.append(
                Fault(path, 0, base_offset, f"{other.path} has no such segment", Invariant.EQUAL)
            )
        else:
            pair = (segments[base_offset], others[base_offset])
            fault = _compare_segments(disk, (one.path, other.path), pair, end)
            if fault is not None:
                faults.append(fault)
    return faults


def _by_base(log: LogSurvey, first: int, end: int) -> dict[int, SegmentSurvey]:
    return {
        segment.base_offset: segment
        for segment in log.segments
        if segment.next_offset > first and segment.base_offset < end
    }


def _compare_segments(
    disk: Disk, paths: tuple[str, str], pair: tuple[SegmentSurvey, SegmentSurvey], end: int
) -> Fault | None:
    """Compare the whole batches that both have: tables first, for they say where the rest ends."""
    base_offset = pair[0].base_offset
    batch_count = min(pair[0].batch_count, pair[1].batch_count)
    store_size = min(pair[0].store_size, pair[1].store_size)
    record_count = min(pair[0].record_count, pair[1].record_count)
    sizes = {
        TABLE: batch_count * TABLE_ROW_SIZE,
        INDEX: record_count * INDEX_ROW_SIZE,
        STORE: store_size,
    }
    if not batch_count:
        # The seed keeps no table.
        del sizes[TABLE]
    for suffix, size in sizes.items():
        files = [segment_path(path, base_offset, suffix) for path in paths]
        position = _first_difference(disk, files[0], files[1], size)
        if position is not None:
            offset = _offset_at(disk, paths[0], base_offset, suffix, position)
            return Fault(
                files[0], position, offset, f"{files[1]} differs from here on", Invariant.EQUAL
            )
    if (
        pair[0].next_offset != pair[1].next_offset
        and max(segment.next_offset for segment in pair) <= end
    ):
        problem = f"{paths[1]} ends this segment at offset {pair[1].next_offset}"
        return Fault(
            segment_path(paths[0], base_offset, STORE),
            store_size,
            pair[0].next_offset,
            problem,
            Invariant.EQUAL,
        )
    return None


def _first_difference(disk: Disk, path: str, other_path: str, size: int) -> int | None:
    """Return the first of `size` bytes that differs between two files."""
    file, other = disk.open(path, writable=False), disk.open(other_path, writable=False)
    try:
        for position in range(0, size, CHUNK_SIZE):
            count = min(CHUNK_SIZE, size - position)
            data, other_data = file.read_at(position, count), other.read_at(position, count)
            if data == other_data:
                continue
            common = min(len(data), len(other_data))
            octets = np.frombuffer(data, dtype=np.uint8, count=common)
            different = np.flatnonzero(
                octets != np.frombuffer(other_data, dtype=np.uint8, count=common)
            )
            return position + (int(different[0]) if len(different) else common)
    finally:
        file.close()
        other.close()
    return None


def _offset_at(disk: Disk, path: str, base_offset: int, suffix: str, position: int) -> int:
    """Return the first offset that a byte of a segment's file speaks of."""
    if suffix == INDEX:
        return base_offset + position // INDEX_ROW_SIZE
    # Tables are compared first, indexes next: up to here, what is read is the same in both.
    if suffix == TABLE:
        row = position // TABLE_ROW_SIZE * TABLE_ROW_SIZE
        data = _read(disk, segment_path(path, base_offset, TABLE), row, 8)
        return int.from_bytes(data, "little")
    file = disk.open(segment_path(path, base_offset, INDEX), writable=False)
    try:
        rows = np.frombuffer(file.read_at(0, file.size()), dtype="<u8")
    finally:
        file.close()
    row_count = len(rows) // 2
    positions = rows[1 : 2 * row_count : 2]
    # Reserved rows are zeros: only those in front ascend.
    ascending = np.flatnonzero(positions[1:] <= positions[:-1])
    known = positions[: int(ascending[0]) + 1] if len(ascending) else positions
    return base_offset + int(np.searchsorted(known, position, side="right")) - 1


def _read(disk: Disk, path: str, position: int, size: int) -> bytes:
    file = disk.open(path, writable=False)
    try:
        return file.read_at(position, size)
    finally:
        file.close()
