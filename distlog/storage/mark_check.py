"""Whether the mark that a log keeps itself fits the checkpoint's, and what there is of the log.

A checkpoint is written after the marks of its logs, a mark after what it speaks of, and a start cuts nothing before it has
written the checkpoint's mark.  So whenever the power fails, the log's own mark is not behind the checkpoint's, and what it
speaks of is there.
"""

from __future__ import annotations

from distlog.errors import CorruptBatch
from distlog.storage.disk import Disk
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_check import marked_extent
from distlog.storage.segment_files import SUFFIXES, SegmentFiles


def misfit(own: LogMark, checkpointed: LogMark) -> str:
    """Return why a mark cannot have been written before this checkpoint or after it; empty if it can."""
    for what, said, known in (
        ("was synced up to offset", own.next_offset, checkpointed.next_offset),
        ("was trimmed up to offset", own.start_offset, checkpointed.start_offset),
        ("goes on in segment", own.segment_base_offset, checkpointed.segment_base_offset),
        ("has a last batch of time", own.last_timestamp_ms, checkpointed.last_timestamp_ms),
    ):
        if said < known:
            return f"it {what} {said}, and the checkpoint says {known}"
    if max(own.start_offset, own.segment_base_offset) > own.next_offset:
        return (
            f"it says start offset {own.start_offset} and segment {own.segment_base_offset}, and ends before, "
            f"at offset {own.next_offset}"
        )
    return ""


def misfit_of_log(
    disk: Disk, path: str, own: LogMark, found: dict[int, set[str]], next_offset: int
) -> str:
    """Return why a mark cannot be that of a log that is whole up to `next_offset`; empty if it can.

    found: the suffixes that there are, by base offset.
    """
    end, base_offset = own.next_offset, own.segment_base_offset
    if end > next_offset:
        return f"it was synced up to offset {end}, and the log is whole up to {next_offset}"
    if base_offset == end:
        # Not all names of an empty segment need to have reached the disk.
        if base_offset in found or base_offset == next_offset:
            return ""
        return f"it names segment {base_offset}, and there is none"
    if found.get(base_offset) != set(SUFFIXES):
        # A trim takes the segment of a mark only up to a checkpoint that has the same mark.
        return f"it names segment {base_offset}, and there is none"
    files = SegmentFiles.open(disk, path, base_offset)
    try:
        extent = marked_extent(files, own)
        row = files.table.row(extent.batch_count - 1)
    except CorruptBatch:
        return (
            f"no batch of segment {base_offset} ends at offset {end} and byte {own.store_position}"
        )
    finally:
        files.close()
    if row.timestamp_ms != own.last_timestamp_ms:
        return f"the batch that ends at offset {end} is not of time {own.last_timestamp_ms}"
    return ""
