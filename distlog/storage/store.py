"""The store of one segment: the records' bytes, as the frames [8-byte LE length][data] and nothing
else.

The store knows no records: it appends frames that a checked block brings, and returns bytes by
position.
"""

from __future__ import annotations

from distlog.errors import CorruptBatch
from distlog.storage.mapped_file import MappedFile


class Store:
    """Frames, appended in blocks, read by position."""

    def __init__(self, memory: MappedFile, size: int) -> None:
        self._memory = memory
        # Bytes that hold frames.  Invariant: size <= the file's size; what lies beyond was never
        # promised.
        self.size = size

    @property
    def path(self) -> str:
        return self._memory.path

    def reserve(self, size: int) -> None:
        """Make sure that `size` more bytes can be appended.  Raises StorageFull."""
        self._memory.reserve(self.size + size)

    def append(self, frames: bytes | memoryview) -> int:
        """Write `frames` into reserved space and return their position."""
        position = self.size
        self._memory.write(position, frames)
        self.size = position + len(frames)
        return position

    def read(self, position: int, size: int) -> bytes:
        """Return exactly `size` bytes from `position`.

        Raises CorruptBatch if the store ends before: another file promised what this one lacks.
        """
        if position + size <= self.size:
            data = self._memory.read(position, size)
            if len(data) == size:
                return data
        problem = f"{size} bytes were expected here and the store ends before"
        raise CorruptBatch(path=self.path, position=position, problem=problem)

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
