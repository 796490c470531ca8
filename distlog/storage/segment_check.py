"""Checks of one segment's files against each other: what recovery cuts by.  (`distlog verify` looks at
everything, in segment_scan.py.)

Nothing here changes a file but `rebuild_index`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from distlog.block import PREFIX, PREFIX_SIZE, crc32c
from distlog.errors import CorruptBatch, CorruptIndex
from distlog.storage.batch_table import ROW_SIZE as TABLE_ROW_SIZE
from distlog.storage.batch_table import BatchRow, BatchTable
from distlog.storage.index import Index
from distlog.storage.invariants import Fault as Fault
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_files import SegmentFiles
from distlog.storage.store import Store

# Rows of index that are checked at once: enough to make the cost of one numpy call small.
CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a segment is whole: batches, one past the last offset, bytes of store."""

    batch_count: int
    next_offset: int
    store_size: int
    last_timestamp_ms: int


def sealed_extent(files: SegmentFiles, end: int) -> Extent:
    """Return how far a sealed segment goes by its last row; at most to offset `end`.

    Raises CorruptBatch if that row is damaged, or the store is too short for it.
    """
    table = files.table
    if table.row_count:
        row = table.row(table.row_count - 1)
        if files.index.base_offset < row.next_offset <= end:
            if row.end_position <= files.store.size:
                return Extent(table.row_count, row.next_offset, row.end_position, row.timestamp_ms)
            raise _too_short(files, row.end_position)
    problem = f"the table does not end with a batch of this segment, which ends at offset {end}"
    raise CorruptBatch(path=table.path, position=table.size, problem=problem)


def marked_extent(files: SegmentFiles, mark: LogMark) -> Extent:
    """Return how far the segment of a mark goes at the mark.

    Raises CorruptBatch if no batch ends there, or the store is too short for it.
    """
    if mark.next_offset == files.index.base_offset:
        return Extent(0, mark.next_offset, 0, mark.last_timestamp_ms)
    # Rows before the mark are right, so the first that ends there is the one; leftovers come after.
    number = files.table.find_end_at(mark.store_position)
    if number is None or files.table.row(number).next_offset != mark.next_offset:
        problem = f"no row ends at offset {mark.next_offset} and byte {mark.store_position}"
        raise CorruptBatch(path=files.table.path, position=files.table.size, problem=problem)
    if files.store.size < mark.store_position:
        raise _too_short(files, mark.store_position)
    return Extent(number + 1, mark.next_offset, mark.store_position, mark.last_timestamp_ms)


def _too_short(files: SegmentFiles, size: int) -> CorruptBatch:
    problem = f"the file ends here and had {size} bytes"
    return CorruptBatch(path=files.store.path, position=files.store.size, problem=problem)


def walk_batches(files: SegmentFiles, start: Extent) -> tuple[Extent, Fault | None]:
    """Check batch after batch from `start`; return how far they are whole, and why it ended there.

    No fault means that the rows ended, or that only rows follow that were never written.
    """
    extent = start
    written = files.table.written_after(start.batch_count)
    end = int(written[-1]) + 1 if len(written) else start.batch_count
    for number in range(start.batch_count, end):
        try:
            extent = check_batch(files, number, extent)
        except CorruptBatch as error:
            return extent, Fault(error.path, error.position, extent.next_offset, error.problem)
    return extent, None


def check_batch(files: SegmentFiles, number: int, before: Extent) -> Extent:
    """Check batch `number`, which follows `before`; return how far the segment is whole with it.

    Raises CorruptBatch if row and frames are not those of a batch that was appended there.
    """
    row = files.table.row(number)
    problem = ""
    if row.base_offset != before.next_offset:
        problem = f"the row has offset {row.base_offset} where {before.next_offset} comes next"
    elif row.position != before.store_size:
        problem = f"the row has position {row.position} where {before.store_size} comes next"
    elif row.timestamp_ms < before.last_timestamp_ms:
        problem = "the row's time is before that of the row above"
    if problem:
        position = number * TABLE_ROW_SIZE
        raise CorruptBatch(path=files.table.path, position=position, problem=problem)
    if crc32c(files.store.read(row.position, row.size)) != row.data_crc32c:
        problem = "the batch that begins here does not have the checksum that its row says"
        raise CorruptBatch(path=files.store.path, position=row.position, problem=problem)
    return Extent(number + 1, row.next_offset, row.end_position, row.timestamp_ms)


def last_whole_row(table: BatchTable, first: int) -> BatchRow | None:
    """Return the last row, from `first` on, whose checksum is right."""
    for number in reversed(table.written_after(first).tolist()):
        try:
            return table.row(number)
        except CorruptBatch:
            continue
    return None


def check_index(
    index: Index, store: Store, start: tuple[int, int], end: tuple[int, int]
) -> tuple[tuple[int, int], str]:
    """Compare rows with the frames that they name, which are whole, from `start` to `end`.

    Both are (number of rows, position of the frame after them).  Returns how far the rows are
    right, and what is wrong with the next one: nothing if that is `end`.
    """
    count, position = start
    record_count, store_size = end
    available = min(index.row_count, record_count)
    while count < available:
        rows = index.rows(count, min(count + CHUNK_ROWS, available))
        good, position = _right_rows(rows, index.base_offset + count, position, store, store_size)
        count += good
        if good < len(rows):
            offset, found = rows[good].tolist()
            expected = index.base_offset + count
            problem = f"the row says offset {offset} at {found}, not {expected} at {position}"
            return (count, position), problem
    if count < record_count:
        return (count, position), f"{record_count - count} rows are missing"
    if position != store_size:
        return (count, position), f"the frames end at {position}, the batches at {store_size}"
    return end, ""


def ends_right(index: Index, store: Store, end: tuple[int, int]) -> bool:
    """Tell whether the last row and the frame that it names end at `end`: a look, not a check."""
    record_count, store_size = end
    if index.row_count < record_count:
        return False
    if not record_count:
        return True
    try:
        position = index.position(index.base_offset + record_count - 1)
    except CorruptIndex:
        return False
    if position + PREFIX_SIZE > store_size:
        return False
    (length,) = PREFIX.unpack(store.read(position, PREFIX_SIZE))
    return bool(position + PREFIX_SIZE + length == store_size)


def _right_rows(
    rows: npt.NDArray[np.uint64], offset: int, position: int, store: Store, store_size: int
) -> tuple[int, int]:
    """Return how many of `rows` are right, if the first frame is at `position`; and where they
    end.
    """
    positions = rows[:, 1]
    plausible = rows[:, 0] == np.arange(offset, offset + len(rows), dtype=np.uint64)
    # Not positions + 8 <= size: a damaged row must not wrap around.
    plausible &= positions <= max(0, store_size - PREFIX_SIZE)
    plausible[0] &= int(positions[0]) == position
    plausible[1:] &= positions[1:] > positions[:-1]
    count = _leading(plausible)
    if not count or position + PREFIX_SIZE > store_size:
        return 0, position
    size = int(positions[count - 1]) + PREFIX_SIZE - position
    octets = np.frombuffer(store.read(position, size), dtype=np.uint8)
    starts = (positions[:count] - np.uint64(position)).astype(np.intp)
    prefixes = octets[starts[:, None] + np.arange(PREFIX_SIZE, dtype=np.intp)].view("<u8").ravel()
    # A damaged prefix must not wrap around to a plausible end.
    lengths = np.minimum(prefixes, np.uint64(store_size + 1))
    ends = positions[:count] + np.uint64(PREFIX_SIZE) + lengths
    chained = ends <= store_size
    chained[:-1] &= ends[:-1] == positions[1:count]
    good = _leading(chained)
    if good < count and int(ends[good]) <= store_size:
        # This frame is where its row says; it is the next row that does not follow it.
        good += 1
    return good, int(ends[good - 1]) if good else position


def _leading(flags: npt.NDArray[np.bool_]) -> int:
    """Return how many of `flags` are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def rebuild_index(index: Index, store: Store, start: tuple[int, int], end: tuple[int, int]) -> int:
    """Make the rows from `start` to `end` what the frames say.

    Returns how many rows were written again: 0 if all were right, and then nothing was touched.
    Raises CorruptBatch if the frames are not that many records: nothing was touched either.
    """
    (good, position), problem = check_index(index, store, start, end)
    if not problem:
        return 0
    record_count, store_size = end
    positions = np.empty(record_count - good, dtype=np.uint64)
    frames = store.read(position, store_size - position)
    at = 0
    for number in range(len(positions)):
        if at + PREFIX_SIZE > len(frames):
            break
        positions[number] = position + at
        at += PREFIX_SIZE + int(PREFIX.unpack_from(frames, at)[0])
    if at != len(frames):
        problem = f"the frames from here on are not {len(positions)} records"
        raise CorruptBatch(path=store.path, position=position, problem=problem)
    index.row_count = good
    index.reserve(len(positions))
    index.append(positions)
    return len(positions)
