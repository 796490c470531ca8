"""What a log has, segment by segment, up to a mark: what a copy of it must have too, and how much of that is there already.

Nodes that applied the same entries have the same segments with the same bytes.  A row of the batch table has the checksum of its
batch, so a checksum of the table stands for all of the segment: two segments whose tables are equal are equal where each fits its
own table.
"""

from __future__ import annotations

from typing import NamedTuple

import google_crc32c

from distlog.errors import DiskFailed
from distlog.storage.disk import Disk, DiskFile
from distlog.storage.invariants import Fault
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_check import marked_extent, sealed_extent
from distlog.storage.segment_files import (
    STORE,
    SUFFIXES,
    TABLE,
    Counts,
    SegmentFiles,
    list_segments,
    segment_path,
)
from distlog.storage.segment_scan import SegmentScan
from distlog.storage.table_scan import TableScan

READ_SIZE = 1 << 20
# Rows that are read for one page of a list.
TABLES_SIZE_MAX = 64 << 20


class SegmentListing(NamedTuple):
    """One segment, as far as a mark goes."""

    base_offset: int
    next_offset: int
    store_size: int
    batch_count: int
    # Of the rows of the table.
    table_crc32c: int

    @property
    def counts(self) -> Counts:
        return Counts(self.store_size, self.next_offset - self.base_offset, self.batch_count)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Bytes of data in each file, in the order of SUFFIXES."""
        return self.counts.sizes


def list_log(
    disk: Disk, path: str, mark: LogMark, from_base: int, count_max: int
) -> tuple[list[SegmentListing], bool]:
    """Return up to `count_max` segments of a log, from `from_base` on, that hold what lies before a checkpoint's mark.

    The second value tells whether these are the last.  Blocks.  Raises CorruptBatch or DiskFailed if one is damaged, or is gone because
    it was trimmed since.
    """
    bases = [base for base in list_segments(disk, path) if base < mark.next_offset]
    ends = [*bases[1:], mark.next_offset][: len(bases)]
    wanted = [
        base
        for base, end in zip(bases, ends, strict=True)
        if base >= from_base and (end > mark.start_offset or base == mark.segment_base_offset)
    ]
    listings: list[SegmentListing] = []
    table_size = 0
    for base in wanted[:count_max]:
        listings.append(list_segment(disk, path, base, mark))
        table_size += listings[-1].sizes[2]
        if table_size > TABLES_SIZE_MAX:
            # The rest in the next page: who waits for it has a deadline.
            break
    return listings, len(listings) == len(wanted)


def list_segment(disk: Disk, path: str, base_offset: int, mark: LogMark) -> SegmentListing:
    """Describe one segment up to the mark.  Raises as `list_log`."""
    files = SegmentFiles.open(disk, path, base_offset)
    try:
        if base_offset == mark.segment_base_offset:
            extent = marked_extent(files, mark)
        else:
            extent = sealed_extent(files, mark.segment_base_offset)
    finally:
        files.close()
    record_count = extent.next_offset - base_offset
    size = Counts(extent.store_size, record_count, extent.batch_count).sizes[2]
    table_crc32c = checksum_of(disk, segment_path(path, base_offset, TABLE), size)
    return SegmentListing(
        base_offset, extent.next_offset, extent.store_size, extent.batch_count, table_crc32c
    )


def checksum_of(disk: Disk, path: str, size: int) -> int:
    """Return the CRC-32C of the first `size` bytes of a file, or of all that it has.  Blocks."""
    file = disk.open(path, writable=False)
    checksum = 0
    try:
        for position in range(0, size, READ_SIZE):
            data = file.read_at(position, min(READ_SIZE, size - position))
            checksum = google_crc32c.extend(checksum, data)
    finally:
        file.close()
    return checksum


def has_segment(disk: Disk, path: str, listing: SegmentListing, *, exact: bool) -> bool:
    """Tell whether a directory has a segment's files with these sizes and this table.  Blocks.

    exact: they must end there, as those of a complete segment that was synced; otherwise more may follow.
    """
    try:
        return _has_segment(disk, path, listing, exact)
    except DiskFailed:
        # What cannot be read is not there.
        return False


def _has_segment(disk: Disk, path: str, listing: SegmentListing, exact: bool) -> bool:
    for suffix, size in zip(SUFFIXES, listing.sizes, strict=True):
        file_path = segment_path(path, listing.base_offset, suffix)
        if not disk.exists(file_path):
            return False
        file = disk.open(file_path, writable=False)
        found = file.size()
        file.close()
        if found < size or (exact and found != size):
            return False
    table_path = segment_path(path, listing.base_offset, TABLE)
    return checksum_of(disk, table_path, listing.sizes[2]) == listing.table_crc32c


def first_fault(disk: Disk, path: str, listing: SegmentListing) -> Fault | None:
    """Check every byte of a segment, up to what its listing says; return what is wrong first, if anything is.  Blocks."""
    scan = SegmentScan(disk, path, listing.base_offset, row_count=listing.batch_count)
    try:
        fault = next(scan.faults(), None)
        scanned = scan.scanned
        found = (scanned.next_offset, scanned.store_size, scanned.batch_count)
    finally:
        scan.close()
    if fault is None and found != listing[1:4]:
        store = segment_path(path, listing.base_offset, STORE)
        problem = f"it ends at offset {found[0]} and byte {found[1]}, not at {listing.next_offset} and {listing.store_size}"
        fault = Fault(store, found[1], found[0], problem)
    return fault


class Prefix(NamedTuple):
    """How much of a segment is there: whole batches from the first on."""

    record_count: int
    store_size: int


def verified_prefix(
    disk: Disk, table_path: str, base_offset: int, store_path: str, batch_count: int
) -> Prefix:
    """Return how much of a store has the checksums that the first rows of a table say.  Blocks."""
    if not disk.exists(store_path):
        return Prefix(0, 0)
    table, store = (disk.open(path, writable=False) for path in (table_path, store_path))
    try:
        return _matching(table, base_offset, store, batch_count)
    finally:
        table.close()
        store.close()


def _matching(table: DiskFile, base_offset: int, store: DiskFile, batch_count: int) -> Prefix:
    prefix = Prefix(0, 0)
    for run in TableScan(table, base_offset):
        if isinstance(run, Fault):
            return prefix
        rows = run.rows[: max(0, batch_count - run.number)]
        for position, size, count, crc in zip(
            *(rows[name].tolist() for name in ("position", "size", "record_count", "data_crc32c")),
            strict=True,
        ):
            try:
                data = store.read_at(position, size)
            except DiskFailed:
                # A bad sector ends what is of use.
                return prefix
            if (
                position != prefix.store_size
                or len(data) != size
                or google_crc32c.value(data) != crc
            ):
                return prefix
            prefix = Prefix(prefix.record_count + count, position + size)
    return prefix
