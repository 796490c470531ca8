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
ROW_SIZE = 16


class Index:
    """Rows of one segment, appended in blocks, looked up one by one."""

    def __init__(self, memory: MappedFile, base_offset: int, row_count: int) -> None:
        self._memory = memory
        self.base_offset = base_offset
        # Rows that hold data.  Invariant: they are mapped; what lies beyond is zeros or leftovers.
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
        rows = np.frombuffer(self._memory.view, "<u8", 2 * count, first * ROW_SIZE)
        offset = self.base_offset + first
        rows[0::2] = np.arange(offset, offset + count, dtype="<u8")
        rows[1::2] = positions
        # Last: a reader on this thread never sees a row that is counted but not written.
        self.row_count = first + count

    def append_one(self, position: int) -> None:
        """Add one row: what `append` does, without the price of arrays."""
        offset = self.base_offset + self.row_count
        ROW.pack_into(self._memory.view, self.row_count * ROW_SIZE, offset, position)
        self.row_count += 1

    def position(self, offset: int) -> int:
        """Return where the frame of `offset` starts.

        Raises OffsetOutOfRange if the index has no such row, and CorruptIndex if the row names
        another offset: rebuild the index from the store.
        """
        row = offset - self.base_offset
        if not 0 <= row < self.row_count:
            raise OffsetOutOfRange(
                offset=offset,
                start_offset=self.base_offset,
                high_watermark=self.base_offset + self.row_count,
            )
        found, position = ROW.unpack_from(self._memory.view, row * ROW_SIZE)
        if found != offset:
            raise CorruptIndex(path=self.path, offset=offset, found=found)
        return int(position)

    def rows(self, first: int, end: int) -> npt.NDArray[np.uint64]:
        """Return a copy of rows [first, end): shape (end - first, 2), the columns offset and
        position.
        """
        assert 0 <= first <= end <= self.row_count
        if first == end:
            return np.empty((0, 2), dtype=np.uint64)
        flat = np.frombuffer(self._memory.view, "<u8", 2 * (end - first), first * ROW_SIZE)
        return flat.reshape(-1, 2).astype(np.uint64)

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
