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
from bisect import bisect_left
from collections.abc import Iterator
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
# Rows that a search reads at once: a page.
WINDOW_ROWS = 64
# Rows that are read at once where all are looked at: a MiB.
PIECE_ROWS = 16384
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
    if len(data) != ROW_SIZE:
        return None
    fields = ROW.unpack(data)
    if fields[11] != crc32c(data[:_CHECKED_SIZE]) or fields[8] or fields[9] or not fields[2]:
        return None
    return BatchRow._make((*fields[:8], fields[10]))


class BatchTable:
    """Rows of one segment, appended one by one, found by offset or position."""

    def __init__(self, memory: MappedFile, row_count: int) -> None:
        self._memory = memory
        # Rows that hold data.  Invariant: the file has them; what lies beyond is zeros or leftovers.
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
        self._memory.write(self.size, row.encode())
        self.row_count += 1

    def row(self, number: int) -> BatchRow:
        """Return row `number`.  Raises CorruptBatch if its checksum is wrong."""
        assert 0 <= number < self.row_count
        position = number * ROW_SIZE
        data = self._memory.read(position, ROW_SIZE)
        row = decode_row(data)
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
        rows: list[BatchRow] = []
        # Most reads end after a few rows; long ones take larger and larger pieces.
        count = WINDOW_ROWS
        while first < end:
            count = min(count, end - first)
            data = self._memory.read(first * ROW_SIZE, count * ROW_SIZE)
            for position in range(0, len(data) - ROW_SIZE + 1, ROW_SIZE):
                row = decode_row(data[position : position + ROW_SIZE])
                if row is None or row.position + row.size > end_position:
                    return rows
                rows.append(row)
            if len(data) < count * ROW_SIZE:
                break
            first += count
            count *= 4
        return rows

    def find(self, offset: int, guess: int = 0) -> tuple[int, BatchRow]:
        """Return the row, and its number, whose batch holds `offset`, which lies in the segment.

        guess: about where that row is; a good one saves reads.
        Raises CorruptBatch if that row is damaged, or the damage of another one hides it.
        """
        # Where all batches have the same size, it is right at once.
        row = decode_row(self._memory.read(guess * ROW_SIZE, ROW_SIZE)) if guess else None
        if row is not None and row.base_offset <= offset < row.next_offset:
            return guess, row
        number = max(0, self._count_below(offset + 1, _OFFSET, 0, guess) - 1)
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
        number = self._count_below(
            timestamp_ms, _TIMESTAMP, _TIMESTAMP_POSITION, self.row_count // 2
        )
        row = self.row(min(number, self.row_count - 1))
        before = self.row(number - 1).timestamp_ms if number else timestamp_ms - 1
        if not before < timestamp_ms <= row.timestamp_ms:
            problem = f"no row here has the first batch of time {timestamp_ms} or later"
            raise CorruptBatch(path=self.path, position=number * ROW_SIZE, problem=problem)
        return row

    def _count_below(self, value: int, field: struct.Struct, position: int, guess: int) -> int:
        """Return how many rows, from the first on, have less than `value` in a field that ascends.

        The field is at `position` of each row.  Rows are read by windows, each as cheap as one row: the first at `guess`,
        then in the middle of what is left.
        """
        low, high = 0, self.row_count
        # Invariant: rows before `low` have less, those from `high` on have not.
        while low < high:
            first = max(low, min(guess, high) - WINDOW_ROWS // 2)
            count = min(high - first, WINDOW_ROWS)
            data = self._memory.read(first * ROW_SIZE, count * ROW_SIZE)
            count = len(data) // ROW_SIZE
            below = bisect_left(
                range(count),
                value,
                key=lambda row: field.unpack_from(data, row * ROW_SIZE + position)[0],
            )
            if below == 0:
                high = first
            elif below == count:
                low = first + count
            else:
                return first + below
            guess = (low + high) // 2
        return low

    def find_end_at(self, position: int) -> int | None:
        """Return the number of the first row whose batch ends at `position`, if there is one.

        Rows are not checked, and those behind the wanted one may be anything.
        """
        for first, data in self._pieces(0):
            rows = np.frombuffer(data, ROW_FIELDS)
            found = np.flatnonzero(rows["position"] + rows["size"] == position)
            if len(found):
                return first + int(found[0])
        return None

    def written_after(self, first: int) -> npt.NDArray[np.intp]:
        """Return the numbers, from `first` on, of the rows that are not zeros."""
        found = [
            np.flatnonzero(np.frombuffer(data, "<u8").reshape(-1, ROW_SIZE // 8).any(axis=1))
            + number
            for number, data in self._pieces(first)
        ]
        return np.concatenate(found) if found else np.empty(0, dtype=np.intp)

    def _pieces(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Yield whole rows from `first` on, many at once, and the number of the first of them."""
        for number in range(first, self.row_count, PIECE_ROWS):
            count = min(PIECE_ROWS, self.row_count - number)
            data = self._memory.read(number * ROW_SIZE, count * ROW_SIZE)
            yield number, data[: len(data) // ROW_SIZE * ROW_SIZE]

    def truncate(self) -> None:
        """Give back the space beyond the data."""
        self._memory.truncate(self.size)

    def is_exact(self) -> bool:
        """Tell whether the file ends where the data does."""
        return self._memory.file.size() == self.size

    def sync(self) -> None:
        self._memory.file.sync()

    def unmap(self) -> None:
        """End the map; the descriptor stays."""
        self._memory.unmap()

    def close(self) -> None:
        self._memory.close()
