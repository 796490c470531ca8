"""Adopting a directory of the seed system: its segments, copied record by record, with a batch
table each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from distlog.errors import CorruptBatch, DataDirectoryUnusable, RecordTooLarge
from distlog.storage.disk import Disk
from distlog.storage.log_mark import LogMark, MarkFile
from distlog.storage.seed_segment import SeedSegment, seed_segments
from distlog.storage.segment_files import (
    TABLE,
    SegmentFiles,
    SegmentLimits,
    list_segments,
)


def open_seed(disk: Disk, path: str, record_size_max: int) -> list[SeedSegment]:
    """Open a seed's directory, to be imported; close the segments.  Blocks.

    Raises DataDirectoryUnusable if it is none, RecordTooLarge, and CorruptBatch if records are
    missing between two segments.
    """
    found = list_segments(disk, path)
    if not found or any(TABLE in suffixes for suffixes in found.values()):
        raise DataDirectoryUnusable(path=path, problem="there is no log of the seed system in it")
    segments = seed_segments(disk, path, list(found))
    _require_whole(segments, record_size_max)
    return segments


def import_seed(
    disk: Disk,
    segments: Sequence[SeedSegment],
    log_path: str,
    *,
    timestamp_ms: int,
    raft_index: int,
    limits: SegmentLimits,
    progress: Callable[[int], None] = lambda size: None,
) -> LogMark:
    """Copy the records of a seed into a new log, durably; return the log's mark.  Blocks.

    The segments and their bytes stay the same, reserved space left out; the batches are made up and
    carry `timestamp_ms` and `raft_index`.  progress: called with the bytes copied so far.
    """
    disk.make_directory(log_path)
    copied = 0
    last = segments[0]
    for segment in segments:
        # An empty segment says nothing, unless there is no other to append to.
        if segment.record_count or segment is segments[0]:
            last = segment
            files = SegmentFiles.create(disk, log_path, segment.base_offset, limits)
            copied = _copy(segment, files, timestamp_ms, raft_index, copied, progress)
    mark = LogMark(
        start_offset=segments[0].base_offset,
        next_offset=last.next_offset,
        last_timestamp_ms=timestamp_ms if last.record_count else 0,
        segment_base_offset=last.base_offset,
        store_position=last.store_size,
    )
    marks = MarkFile.create(disk, log_path)
    marks.write(mark)
    disk.sync_directory(log_path)
    return mark


def _require_whole(segments: list[SeedSegment], record_size_max: int) -> None:
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        if following is not None and segment.next_offset != following.base_offset:
            problem = (
                f"the records end at offset {segment.next_offset}, and the next segment begins at "
                f"{following.base_offset}"
            )
            raise CorruptBatch(path=segment.path, position=segment.store_size, problem=problem)
        size = segment.largest_record_size
        if size > record_size_max:
            raise RecordTooLarge(size=size, size_max=record_size_max)


def _copy(
    segment: SeedSegment,
    files: SegmentFiles,
    timestamp_ms: int,
    raft_index: int,
    copied: int,
    progress: Callable[[int], None],
) -> int:
    for row, frames, positions in segment.batches():
        files.reserve(row.size, row.record_count)
        files.store.append(frames)
        files.index.append(positions)
        files.table.append(row._replace(timestamp_ms=timestamp_ms, raft_index=raft_index))
        copied += row.size
        progress(copied)
    files.truncate()
    files.sync()
    files.close()
    return copied
