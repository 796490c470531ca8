"""The batch table of one segment: where each batch lies in the store, when it came, and its
checksum.

One row of 64 bytes per batch, little-endian:

    base_offset u64   position u64   record_count u32   size u32   timestamp_ms i64   raft_index u64
    term u64   attributes u16   zero u16   zero u32   data_crc32c u32   row_crc32c u32

`size` counts the frames' bytes in the store, prefixes included; `data_crc32c` is theirs;
`row_crc32c` is that of the 60 bytes before it.  A row is written after its frames and its index
rows: what has no row was not appended, so the end of the data is never guessed from zeros.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from distlog.block import crc32c
from distlog.errors import CorruptBatch
from distlog.storage.mapped_file import MappedFile

ROW = struct.Struct("<QQIIqQQHHIII")
ROW_SIZE = 64
_CHECKED_SIZE = 60
_CHECKED = struct.Struct("<QQIIqQQHHII")
_CRC = struct.Struct("<I")
_OFFSET = struct.Struct("<Q")
_TIMESTAMP = struct.Struct("<q")
_TIMESTAMP_POSITION = 24
# The fields that are searched without decoding rows.
ROW_FIELDS = np.dtype(
    {
        "names": ["position", "size"],
        "formats": ["<u8", "<u4"],
        "offsets": [8, 20],
        "itemsize": ROW_SIZE,
    }
)


class BatchRow(NamedTuple):
    """What the table says of one batch.  A plain tuple: a read makes one for each batch."""

    base_offset: int
    position: int
    record_count: int
    size: int
    timestamp_ms: int
    raft_index: int
    term: int
    attributes: int
    data_crc32c: int

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.record_count

    @property
    def end_position(self) -> int:
        """One past the batch's last byte in the store."""
        return self.position + self.size

    def encode(self) -> bytes:
        """Return the row's 64 bytes."""
        checked = _CHECKED.pack(
            self.base_offset,
            self.position,
            self.record_count,
            self.size,
            self.timestamp_ms,
            self.raft_index,
            self.term,
            self.attributes,
            0,
            0,
            self.data_crc32c,
        )
        return checked + _CRC.pack(crc32c(checked))


def decode_row(data: bytes) -> BatchRow | None:
    """Return the row, or None if these 64 bytes are none: torn, changed, or never written."""
    fields = ROW.unpack(data)
    if fields[11] != crc32c(data[:_CHECKED_SIZE]) or fields[8] or fields[9] or not fields[2]:
        return None
    return BatchRow._make((*fields[:8], fields[10]))


class BatchTable:
    """Rows of one segment, appended one by one, found by offset or position."""

    def __init__(self, memory: MappedFile, row_count: int) -> None:
        self._memory = memory
        # Rows that hold data.  Invariant: they are mapped; what lies beyond is zeros or leftovers.
        self.row_count = row_count

    @property
    def path(self) -> str:
        return self._memory.path

    @property
    def size(self) -> int:
        return self.row_count * ROW_SIZE

    def reserve(self) -> None:
        """Make sure that one more row can be appended.  Raises StorageFull."""
        self._memory.reserve(self.size + ROW_SIZE)

    def append(self, row: BatchRow) -> None:
        """Add a row into reserved space."""
        self._memory.view[self.size : self.size + ROW_SIZE] = row.encode()
        self.row_count += 1

    def row(self, number: int) -> BatchRow:
        """Return row `number`.  Raises CorruptBatch if its checksum is wrong."""
        assert 0 <= number < self.row_count
        position = number * ROW_SIZE
        row = decode_row(bytes(self._memory.view[position : position + ROW_SIZE]))
        if row is None:
            raise CorruptBatch(
                path=self.path, position=position, problem="the row's checksum is wrong"
            )
        return row

    def rows_within(self, first: int, end_position: int, count_max: int) -> list[BatchRow]:
        """Return the rows from `first` on whose batches end by `end_position`, `count_max` at most.

        Ends before a damaged row.
        """
        end = min(first + count_max, self.row_count)
        data = bytes(self._memory.view[first * ROW_SIZE : end * ROW_SIZE])
        rows: list[BatchRow] = []
        for position in range(0, len(data), ROW_SIZE):
            row = decode_row(data[position : position + ROW_SIZE])
            if row is None or row.position + row.size > end_position:
                break
            rows.append(row)
        return rows

    def find(self, offset: int) -> tuple[int, BatchRow]:
        """Return the row, and its number, whose batch holds `offset`, which lies in the segment.

        Raises CorruptBatch if that row is damaged, or the damage of another one hides it.
        """
        view = self._memory.view
        number = bisect_right(
            range(self.row_count),
            offset,
            key=lambda row: _OFFSET.unpack_from(view, row * ROW_SIZE)[0],
        )
        number = max(0, number - 1)
        row = self.row(number)
        if not row.base_offset <= offset < row.next_offset:
            problem = f"no row from here on has the batch of offset {offset}"
            raise CorruptBatch(path=self.path, position=number * ROW_SIZE, problem=problem)
        return number, row

    def find_time(self, timestamp_ms: int) -> BatchRow:
        """Return the row of the first batch at or after `timestamp_ms`; the last one's is.

        Raises CorruptBatch if that row or the one before it is damaged, or the damage of another one hides it: the two
        together are the proof.
        """
        view = self._memory.view
        number = bisect_left(
            range(self.row_count),
            timestamp_ms,
            key=lambda row: _TIMESTAMP.unpack_from(view, row * ROW_SIZE + _TIMESTAMP_POSITION)[0],
        )
        row = self.row(min(number, self.row_count - 1))
        before = self.row(number - 1).timestamp_ms if number else timestamp_ms - 1
        if not before < timestamp_ms <= row.timestamp_ms:
            problem = f"no row here has the first batch of time {timestamp_ms} or later"
            raise CorruptBatch(path=self.path, position=number * ROW_SIZE, problem=problem)
        return row

    def find_end_at(self, position: int) -> int | None:
        """Return the number of the first row whose batch ends at `position`, if there is one.

        Rows are not checked, and those behind the wanted one may be anything.
        """
        if not self.row_count:
            return None
        rows = np.frombuffer(self._memory.view, ROW_FIELDS, self.row_count)
        found = np.flatnonzero(rows["position"] + rows["size"] == position)
        return int(found[0]) if len(found) else None

    def written_after(self, first: int) -> npt.NDArray[np.intp]:
        """Return the numbers, from `first` on, of the rows that are not zeros."""
        if first >= self.row_count:
            return np.empty(0, dtype=np.intp)
        count = self.row_count - first
        words = np.frombuffer(
            self._memory.view, "<u8", count * (ROW_SIZE // 8), first * ROW_SIZE
        ).reshape(count, -1)
        return np.flatnonzero(words.any(axis=1)) + first

    def truncate(self) -> None:
        """Give back the space beyond the data; the map stays, over what is left."""
        self._memory.truncate(self.size)

    def is_exact(self) -> bool:
        """Tell whether the file ends where the data does."""
        return self._memory.file.size() == self.size

    def give_back(self) -> None:
        """Cut reserved space off the file.  Safe in a worker after `unmap`."""
        self._memory.file.truncate(self.size)

    def sync(self) -> None:
        self._memory.file.sync()

    def unmap(self) -> None:
        self._memory.unmap()

    def close(self) -> None:
        self._memory.close()
