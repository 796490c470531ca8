"""A segment of the seed system, read in place: a store and an index, no batch table, never changed.

The seed reserved its files with zeros and was often killed, so nothing but the content says where
the records end. A record is there if its frame fits the store and either its length is not zero, or
its index row says so (the right offset at the right position).  Zeros otherwise are space that was
never written; so is a first row of offset 0 at position 0 with no record after it, which looks the
same either way.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from distlog.block import PREFIX, PREFIX_SIZE, crc32c, frames_match
from distlog.errors import CorruptBatch
from distlog.storage.batch_table import BatchRow
from distlog.storage.disk import Disk, DiskFile
from distlog.storage.index import ROW_SIZE
from distlog.storage.segment_files import INDEX, STORE, segment_path
from distlog.storage.stored_batch import StoredBatch

# What the seed's recovery takes for a length.
RECORD_SIZE_MAX = 100 << 20
# Records are handed out, and imported, in batches of about this many bytes.
BATCH_SIZE = 1 << 20
# Index rows, and bytes of store, that are looked at together.
CHUNK_ROWS = 4096
CHUNK_SIZE = 4 << 20


class SeedSegment:
    """Records of offsets [base_offset, next_offset), in batches made up for the reader."""

    def __init__(
        self, disk: Disk, directory: str, base_offset: int, record_count_max: int | None
    ) -> None:
        """Find the records.  `record_count_max` is where the next segment begins, if there is
        one.
        """
        self.path = segment_path(directory, base_offset, STORE)
        self.base_offset = base_offset
        self._file = disk.open(self.path, writable=False)
        self._size = self._file.size()
        index_path = segment_path(directory, base_offset, INDEX)
        index_file = disk.open(index_path, writable=False) if disk.exists(index_path) else None
        try:
            positions = self._find_records(index_file, record_count_max)
        finally:
            if index_file is not None:
                index_file.close()
        # Where each frame starts and, last, where the frames end: bytes, uint64.
        self.positions = positions
        # Why nothing of this segment may be read.
        self.quarantine: CorruptBatch | None = None
        self.readers: WeakSet[object] = WeakSet()

    @property
    def record_count(self) -> int:
        return len(self.positions) - 1

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.record_count

    @property
    def store_size(self) -> int:
        return int(self.positions[-1])

    @property
    def batch_count(self) -> int:
        """The seed kept no batches."""
        return 0

    def read(self, offset: int, size_max: int) -> list[StoredBatch]:
        """Return the records from `offset` on as one batch of about `size_max` bytes, without
        provenance.
        """
        row = self._row(offset - self.base_offset, min(size_max, BATCH_SIZE))
        frames = self._frames(row)
        return [StoredBatch(row.base_offset, row.record_count, 0, 0, 0, 0, crc32c(frames), frames)]

    def read_record(self, offset: int) -> bytes:
        """Return one record's data."""
        return self._frames(self._row(offset - self.base_offset, 0))[PREFIX_SIZE:]

    def batch_of(self, offset: int) -> BatchRow:
        """Return the row that `read` stands for; its checksum is that of the bytes as they are
        now.
        """
        row = self._row(offset - self.base_offset, BATCH_SIZE)
        return row._replace(data_crc32c=crc32c(self._frames(row)))

    def time_range(self) -> tuple[int, int]:
        """The seed kept no times: all that it has is of time 0."""
        return 0, 0

    def find_time(self, timestamp_ms: int) -> int:
        """Return the offset of the first record at or after `timestamp_ms`; the last one is."""
        return self.base_offset

    def batches(self) -> Iterator[tuple[BatchRow, bytes, npt.NDArray[np.uint64]]]:
        """Yield the batches that an import writes: row, frames, and where each frame starts.

        Raises CorruptBatch if a prefix has changed since the records were found.
        """
        first = 0
        while first < self.record_count:
            row = self._row(first, BATCH_SIZE)
            frames = self._frames(row)
            positions = self.positions[first : first + row.record_count + 1]
            lengths = np.diff(positions) - np.uint64(PREFIX_SIZE)
            if not frames_match(frames, lengths.astype(np.uint32)):
                problem = "a record's prefix has changed while it was read"
                raise CorruptBatch(path=self.path, position=row.position, problem=problem)
            yield row._replace(data_crc32c=crc32c(frames)), frames, positions[:-1]
            first += row.record_count

    @property
    def largest_record_size(self) -> int:
        """Bytes of the largest record's data; 0 if there is none."""
        if not self.record_count:
            return 0
        return int(np.diff(self.positions).max()) - PREFIX_SIZE

    def oddities(self) -> list[str]:
        """Return what is not as the seed leaves it, in sentences; none of it keeps a record from being read."""
        found = self._indexed[: self.record_count]
        offsets = np.arange(self.base_offset, self.base_offset + len(found), dtype=np.uint64)
        right = (found[:, 0] == offsets) & (found[:, 1] == self.positions[: len(found)])
        index_path = self.path.removesuffix(STORE) + INDEX
        sentences = []
        if int(right.sum()) < self.record_count:
            sentences.append(
                f"{index_path} is right about {int(right.sum())} of {self.record_count} records; the rest was found in the store"
            )
        for position in range(self.store_size, self._size, CHUNK_SIZE):
            if self._file.read_at(position, CHUNK_SIZE).strip(b"\0"):
                sentences.append(
                    f"{self.path}: what begins at byte {self.store_size} is no whole record, and was left out"
                )
                break
        return sentences

    def close(self) -> None:
        self._file.close()

    def _row(self, first: int, size_max: int) -> BatchRow:
        if first >= self.record_count:
            problem = f"the records end at offset {self.next_offset}, before the next segment"
            raise CorruptBatch(path=self.path, position=self.store_size, problem=problem)
        start = int(self.positions[first])
        end = int(np.searchsorted(self.positions, start + size_max, side="right")) - 1
        end = max(first + 1, end)
        size = int(self.positions[end]) - start
        return BatchRow(self.base_offset + first, start, end - first, size, 0, 0, 0, 0, 0)

    def _frames(self, row: BatchRow) -> bytes:
        frames = self._file.read_at(row.position, row.size)
        if len(frames) != row.size:
            problem = "the file has become shorter"
            raise CorruptBatch(path=self.path, position=row.position, problem=problem)
        return frames

    # --- Where the records are --------------------------------------------------------------------

    def _find_records(
        self, index_file: DiskFile | None, record_count_max: int | None
    ) -> npt.NDArray[np.uint64]:
        self._indexed = _read_rows(index_file, record_count_max)
        # As long as rows and frames agree, thousands are checked at once.
        count, position = self._follow_index()
        positions = self._scan(self._indexed, count, position, record_count_max)
        if len(positions) == 2 and positions[1] == PREFIX_SIZE and self.base_offset == 0:
            return positions[:1]
        return positions

    def _follow_index(self) -> tuple[int, int]:
        """Return how many records the index is right about, from the first on, and where they end."""
        count = position = 0
        while count < len(self._indexed):
            rows = self._indexed[count : count + CHUNK_ROWS]
            good, position = self._right_rows(rows, self.base_offset + count, position)
            count += good
            if not good:
                break
        return count, position

    def _right_rows(
        self, rows: npt.NDArray[np.uint64], offset: int, position: int
    ) -> tuple[int, int]:
        """Return how many of `rows` are right, if the first frame is at `position`; and where they
        end.
        """
        plausible = rows[:, 0] == np.arange(offset, offset + len(rows), dtype=np.uint64)
        # Not positions + 8 <= size: a damaged row must not wrap around.
        plausible &= rows[:, 1] <= max(0, self._size - PREFIX_SIZE)
        plausible[0] &= int(rows[0, 1]) == position
        plausible[1:] &= rows[1:, 1] > rows[:-1, 1]
        # Records may be large, and what is read at once is not.
        plausible[1:] &= rows[1:, 1] < position + CHUNK_SIZE
        count = _leading(plausible)
        if not count or position + PREFIX_SIZE > self._size:
            return 0, position
        positions = rows[:count, 1]
        octets = np.frombuffer(
            self._file.read_at(position, int(positions[-1]) + PREFIX_SIZE - position), np.uint8
        )
        starts = (positions - np.uint64(position)).astype(np.intp)
        prefixes = octets[starts[:, None] + np.arange(PREFIX_SIZE)].view("<u8").ravel()
        lengths = np.minimum(prefixes, np.uint64(RECORD_SIZE_MAX + 1))
        ends = positions + np.uint64(PREFIX_SIZE) + lengths
        # The last one may end anywhere in the file: the next row says whether it follows.
        right = (lengths <= RECORD_SIZE_MAX) & (ends <= self._size)
        good = _leading(right[:-1] & (ends[:-1] == positions[1:])) if count > 1 else 0
        good += bool(right[good])
        return good, int(ends[good - 1]) if good else position

    def _scan(
        self,
        indexed: npt.NDArray[np.uint64],
        count: int,
        position: int,
        record_count_max: int | None,
    ) -> npt.NDArray[np.uint64]:
        """Go on record by record where the index leaves off: the first `count` end at
        `position`.
        """
        found = [position]
        while record_count_max is None or count < record_count_max:
            prefix = self._file.read_at(position, PREFIX_SIZE)
            if len(prefix) < PREFIX_SIZE:
                break
            length = PREFIX.unpack(prefix)[0]
            in_index = count < len(indexed) and indexed[count].tolist() == [
                self.base_offset + count,
                position,
            ]
            if length > RECORD_SIZE_MAX or (length == 0 and not in_index):
                break
            if position + PREFIX_SIZE + length > self._size:
                break
            position += PREFIX_SIZE + length
            found.append(position)
            count += 1
        known = indexed[: count - len(found) + 1, 1]
        return np.concatenate([known, np.array(found, dtype=np.uint64)])


def _read_rows(file: DiskFile | None, count_max: int | None) -> npt.NDArray[np.uint64]:
    """Return the whole rows of an index, `count_max` at most: the columns offset and position."""
    if file is None:
        return np.empty((0, 2), dtype=np.uint64)
    count = file.size() // ROW_SIZE
    count = count if count_max is None else min(count, count_max)
    data = file.read_at(0, count * ROW_SIZE)
    return np.frombuffer(data, dtype="<u8").reshape(-1, 2).astype(np.uint64)


def _leading(flags: npt.NDArray[np.bool_]) -> int:
    """Return how many of `flags` are true before the first that is not."""
    return len(flags) if flags.all() else int(np.argmin(flags))


def seed_segments(disk: Disk, directory: str, bases: list[int]) -> list[SeedSegment]:
    """Open all segments of a seed's directory; `bases` are their base offsets, ascending."""
    counts = [end - base for base, end in pairwise(bases)]
    return [
        SeedSegment(disk, directory, base, count)
        for base, count in zip(bases, [*counts, None], strict=True)
    ]
