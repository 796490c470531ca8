"""The index of one segment: which byte position each offset's frame starts at.

Rows are the seed's: [8-byte LE offset][8-byte LE position], dense, so row k belongs to base_offset
+ k and a lookup is one read.  The index is a cache: everything in it can be rebuilt from the store,
and recovery does so when the two disagree.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from distlog.errors import CorruptIndex, OffsetOutOfRange
from distlog.storage.mapped_file import MappedFile

ROW = struct.Struct("<QQ")
TWO_ROWS = struct.Struct("<QQQQ")
ROW_SIZE = 16


class Index:
    """Rows of one segment, appended in blocks, looked up one by one."""

    def __init__(self, memory: MappedFile, base_offset: int, row_count: int) -> None:
        self._memory = memory
        self.base_offset = base_offset
        # Rows that hold data.  Invariant: the file has them; what lies beyond is zeros or leftovers.
        self.row_count = row_count

    @property
    def path(self) -> str:
        return self._memory.path

    @property
    def size(self) -> int:
        return self.row_count * ROW_SIZE

    def reserve(self, count: int) -> None:
        """Make sure that `count` more rows can be appended.  Raises StorageFull."""
        self._memory.reserve((self.row_count + count) * ROW_SIZE)

    def append(self, positions: npt.NDArray[np.uint64]) -> None:
        """Add one row per position (strictly increasing, bytes into the store) into reserved
        space.
        """
        first, count = self.row_count, len(positions)
        offset = self.base_offset + first
        rows = np.empty((count, 2), dtype="<u8")
        rows[:, 0] = np.arange(offset, offset + count, dtype=np.uint64)
        rows[:, 1] = positions
        self._memory.write(first * ROW_SIZE, rows.tobytes())
        # Last: a reader on this thread never sees a row that is counted but not written.
        self.row_count = first + count

    def append_one(self, position: int) -> None:
        """Add one row: what `append` does, without the price of arrays."""
        row = ROW.pack(self.base_offset + self.row_count, position)
        self._memory.write(self.row_count * ROW_SIZE, row)
        self.row_count += 1

    def position(self, offset: int) -> int:
        """Return where the frame of `offset` starts.

        Raises OffsetOutOfRange if the index has no such row, and CorruptIndex if the row names
        another offset: rebuild the index from the store.
        """
        number = self._number(offset)
        data = self._memory.read(number * ROW_SIZE, ROW_SIZE)
        # A row that the file has no more names no offset.
        found, position = ROW.unpack(data) if len(data) == ROW_SIZE else (offset ^ 1, 0)
        if found != offset:
            raise CorruptIndex(path=self.path, offset=offset, found=found)
        return int(position)

    def span(self, offset: int) -> tuple[int, int]:
        """Return where the frame of `offset` starts, and where the next row's does, in one read.

        There is a next row.  Raises what `position` does, for either row.
        """
        number = self._number(offset)
        data = self._memory.read(number * ROW_SIZE, 2 * ROW_SIZE)
        if len(data) == 2 * ROW_SIZE:
            found, position, following, end = TWO_ROWS.unpack(data)
            if found == offset and following == offset + 1:
                return position, end
        # It says which of the two is wrong.
        return self.position(offset), self.position(offset + 1)

    def _number(self, offset: int) -> int:
        number = offset - self.base_offset
        if 0 <= number < self.row_count:
            return number
        raise OffsetOutOfRange(
            offset=offset,
            start_offset=self.base_offset,
            high_watermark=self.base_offset + self.row_count,
        )

    def rows(self, first: int, end: int) -> npt.NDArray[np.uint64]:
        """Return a copy of rows [first, end): shape (end - first, 2), the columns offset and
        position.
        """
        assert 0 <= first <= end <= self.row_count
        if first == end:
            return np.empty((0, 2), dtype=np.uint64)
        data = self._memory.read(first * ROW_SIZE, (end - first) * ROW_SIZE)
        return np.frombuffer(data, "<u8").reshape(-1, 2).astype(np.uint64)

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
