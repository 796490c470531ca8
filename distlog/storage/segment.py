"""One segment of a log: a range of offsets in three files.

A segment is active (the last one of its log: written and read on the log's thread) or sealed
(complete, read from any thread through files that the cache lends).  It never becomes active again
while the log is open.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

from distlog.block import PREFIX, PREFIX_SIZE, Block, crc32c, frame_positions
from distlog.errors import CorruptBatch, CorruptIndex, DistlogError
from distlog.storage.batch_table import BatchRow
from distlog.storage.disk import Disk
from distlog.storage.listing import SegmentListing
from distlog.storage.open_files import SegmentCache, WrittenFiles
from distlog.storage.segment_files import (
    STORE,
    Counts,
    SegmentFiles,
    SegmentLimits,
    segment_path,
)
from distlog.storage.store import Store
from distlog.storage.stored_batch import StoredBatch

# Batches that one read returns at most: about 3 ms of Python, also where they are tiny.
BATCHES_MAX = 1024
# Batches of this many bytes, on average, are read one by one, smaller ones together.
APART_SIZE_MIN = 32 << 10


class Segment:
    """Batches of offsets [base_offset, next_offset)."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        base_offset: int,
        cache: SegmentCache,
        files: SegmentFiles | None = None,
    ) -> None:
        """`files`, opened for writing, make it the active segment."""
        self._disk = disk
        self._directory = directory
        self._cache = cache
        self._active: WrittenFiles | None = None
        if files is not None:
            self._active = WrittenFiles(disk, directory, base_offset, cache, files)
        self.base_offset = base_offset
        # The path of the store, which names the segment.
        self.path = segment_path(directory, base_offset, STORE)
        # One past the last record.  Invariant: next_offset - base_offset rows of index are data.
        self.next_offset = base_offset
        # Bytes of store, and rows of batch table, that are data.
        self.store_size = 0
        self.batch_count = 0
        # Why nothing of this segment may be read; its files are kept as they were found.
        self.quarantine: CorruptBatch | None = None
        # Of a sealed segment, once somebody has asked: the next search need not open it again.
        self._time_range: tuple[int, int] | None = None
        # Reads that may still need the files; they leave by being finished or forgotten.
        self.readers: WeakSet[object] = WeakSet()

    @classmethod
    def sealed(
        cls, disk: Disk, directory: str, listing: SegmentListing, cache: SegmentCache
    ) -> Segment:
        """Return a segment whose files are there, complete and synced, as the listing says."""
        segment = cls(disk, directory, listing.base_offset, cache)
        segment.next_offset = listing.next_offset
        segment.store_size = listing.store_size
        segment.batch_count = listing.batch_count
        return segment

    @property
    def record_count(self) -> int:
        return self.next_offset - self.base_offset

    # --- Append -----------------------------------------------------------------------------------

    def has_room(self, block: Block, limits: SegmentLimits) -> bool:
        """Tell whether `block` belongs here; an empty segment takes any block."""
        return not self.record_count or (
            self.store_size + block.size <= limits.store_size_max
            and self.record_count + block.record_count <= limits.row_count_max
        )

    def append(self, block: Block, timestamp_ms: int, raft_index: int, term: int) -> None:
        """Append one batch.  Raises StorageFull, and then nothing was appended."""
        active = self._active
        assert active is not None, "only the active segment is written"
        files = active.open()
        record_count, size = block.record_count, block.size
        files.reserve(size, record_count)
        active.changed = True
        try:
            position = files.store.append(block.frames)
            if record_count == 1:
                files.index.append_one(position)
            else:
                files.index.append(frame_positions(block.lengths) + position)
            files.table.append(
                BatchRow(
                    self.next_offset,
                    position,
                    record_count,
                    size,
                    timestamp_ms,
                    raft_index,
                    term,
                    block.attributes,
                    block.data_crc32c,
                )
            )
        except DistlogError:
            # What has no row was not appended: the next batch goes over it.
            files.narrow(Counts(self.store_size, self.record_count, self.batch_count))
            raise
        self.next_offset += record_count
        self.store_size = position + size
        self.batch_count += 1

    def measure(self) -> None:
        """Take sizes and counts from the active files, which recovery has narrowed."""
        self.store_size, record_count, self.batch_count = self.files.counts
        self.next_offset = self.base_offset + record_count

    @property
    def files(self) -> WrittenFiles:
        """The active segment's files, to be synced."""
        assert self._active is not None
        return self._active

    def give_back(self) -> bool:
        """Cut reserved space off the active files; tell whether there was any."""
        files = self.files.open()
        if files.is_exact():
            return False
        self.files.changed = True
        files.truncate()
        return True

    def seal(self) -> WrittenFiles:
        """Make the segment complete.  Returns its files: to be synced, then closed."""
        files = self._active
        assert files is not None, "only the active segment is sealed"
        files.seal()
        self._active = None
        return files

    # --- Read -------------------------------------------------------------------------------------

    def read(self, offset: int, size_max: int) -> list[StoredBatch]:
        """Return whole batches, from the one that holds `offset` on: at least one, and others while
        their bytes fit `size_max`.

        Ends before a batch whose bytes are not those that were appended; raises CorruptBatch if
        that is the first one.
        """
        with self._files() as files:
            guess = (offset - self.base_offset) * self.batch_count // self.record_count
            number, first = files.table.find(offset, guess)
            rows, end = [first], first.position + size_max
            if first.end_position < end:
                rows += files.table.rows_within(number + 1, end, BATCHES_MAX - 1)
            frames = _frames_of(files.store, rows)
        batches: list[StoredBatch] = []
        try:
            for row, data in zip(rows, frames, strict=True):
                batches.append(self._batch(row, data))
        except CorruptBatch:
            self._cache.damaged.add(self.path)
            if not batches:
                raise
        return batches

    def _batch(self, row: BatchRow, frames: bytes) -> StoredBatch:
        (
            base_offset,
            position,
            record_count,
            size,
            timestamp_ms,
            raft_index,
            term,
            attributes,
            crc,
        ) = row
        if len(frames) != size or crc32c(frames) != crc:
            last = base_offset + record_count - 1
            problem = f"the batch of offsets {base_offset} to {last} was changed"
            raise CorruptBatch(path=self.path, position=position, problem=problem)
        return StoredBatch(
            base_offset, record_count, attributes, timestamp_ms, raft_index, term, crc, frames
        )

    def read_record(self, offset: int) -> bytes:
        """Return one record's data, found through the index.

        The checksum of its batch is checked once while the segment's files are open.  Raises CorruptBatch if it is wrong.
        """
        number = offset - self.base_offset
        with self._files() as files:
            record = self._indexed_record(files, offset) if number in files.verified else None
        if record is not None:
            return record
        batch = self.read(offset, 0)[0]
        with self._files() as files:
            first = batch.base_offset - self.base_offset
            files.verified.add(first, first + batch.record_count)
            record = self._indexed_record(files, offset)
        if record is not None:
            return record
        # The index is a cache: the batch says itself what it holds.
        for each, data in enumerate(batch.records(), batch.base_offset):
            if each == offset:
                return data
        problem = f"the batch has fewer records than its row says, none of offset {offset}"
        raise CorruptBatch(path=self.path, position=0, problem=problem)

    def _indexed_record(self, files: SegmentFiles, offset: int) -> bytes | None:
        """Return the data that the index points to; None if the index and the store disagree."""
        try:
            if offset + 1 == self.next_offset:
                position, end = files.index.position(offset), self.store_size
            else:
                position, end = files.index.span(offset)
        except CorruptIndex:
            return None
        if not position + PREFIX_SIZE <= end <= self.store_size:
            return None
        frame = files.store.read(position, end - position)
        return (
            frame[PREFIX_SIZE:]
            if PREFIX.unpack_from(frame)[0] == end - position - PREFIX_SIZE
            else None
        )

    def batch_of(self, offset: int) -> BatchRow:
        """Return the row of the batch that holds `offset`."""
        with self._files() as files:
            guess = (offset - self.base_offset) * self.batch_count // self.record_count
            return files.table.find(offset, guess)[1]

    def time_range(self) -> tuple[int, int]:
        """Return the times of the first and the last batch; there is one.

        Raises CorruptBatch if they cannot be told.
        """
        if self._time_range is None or self._active is not None:
            with self._files() as files:
                last = files.table.row(self.batch_count - 1).timestamp_ms
                self._time_range = files.table.row(0).timestamp_ms, last
        return self._time_range

    def find_time(self, timestamp_ms: int) -> int:
        """Return the offset of the first batch at or after `timestamp_ms`; the last one is."""
        with self._files() as files:
            return files.table.find_time(timestamp_ms).base_offset

    @contextmanager
    def _files(self) -> Iterator[SegmentFiles]:
        """Lend the segment's files for one read."""
        files = self._take()
        try:
            yield files
        except BaseException:
            self._drop(files)
            raise
        self._put(files)

    def _take(self) -> SegmentFiles:
        if self.quarantine is not None:
            raise CorruptBatch(**self.quarantine.fields())
        if self._active is not None:
            return self._active.open()
        files = self._cache.take(self.path)
        if files is None:
            counts = Counts(self.store_size, self.record_count, self.batch_count)
            files = SegmentFiles.open_sealed(self._disk, self._directory, self.base_offset, counts)
        return files

    def _put(self, files: SegmentFiles) -> None:
        if files.limits is None:
            self._cache.put(files)

    def _drop(self, files: SegmentFiles) -> None:
        """Do not lend files again that a read failed with, but for those that are written."""
        if files.limits is None:
            files.close()

    # --- End --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close what is open.  A clean close gives back reserved space before."""
        self._cache.drop(self.path)
        if self._active is not None:
            self._active.close()


def _frames_of(store: Store, rows: list[BatchRow]) -> list[bytes]:
    """Return the bytes of batches that follow each other."""
    first = rows[0].position
    size = rows[-1].end_position - first
    if size >= len(rows) * APART_SIZE_MIN:
        # A copy of each would cost more than a read of each.
        return [store.read(row.position, row.size) for row in rows]
    data = store.read(first, size)
    return [data[row.position - first : row.end_position - first] for row in rows]
