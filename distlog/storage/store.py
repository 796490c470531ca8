"""The store of one segment: the records' bytes, as the frames [8-byte LE length][data] and nothing
else.

The store knows no records: it appends frames that a checked block brings, and returns bytes by
position.  The active segment's store is written and read through its map; a sealed one is read with
pread, so that a bad sector is an error and a cold page does not stop every thread.
"""

from __future__ import annotations

from distlog.errors import CorruptBatch
from distlog.storage.disk import DiskFile
from distlog.storage.mapped_file import MappedFile


class Store:
    """Frames, appended in blocks, read by position."""

    def __init__(self, file: DiskFile, size: int, memory: MappedFile | None = None) -> None:
        """`memory` maps `file` for writing; without it the store can only be read."""
        self._file = file
        self._memory = memory
        # Bytes that hold frames.  Invariant: size <= the file's size; what lies beyond was never
        # promised.
        self.size = size

    @property
    def path(self) -> str:
        return self._file.path

    def reserve(self, size: int) -> None:
        """Make sure that `size` more bytes can be appended.  Raises StorageFull."""
        assert self._memory is not None, f"{self.path} was opened to be read"
        self._memory.reserve(self.size + size)

    def append(self, frames: bytes) -> int:
        """Write `frames` into reserved space and return their position."""
        assert self._memory is not None, f"{self.path} was opened to be read"
        position = self.size
        self._memory.view[position : position + len(frames)] = frames
        self.size = position + len(frames)
        return position

    def read(self, position: int, size: int) -> bytes:
        """Return exactly `size` bytes from `position`.

        Raises CorruptBatch if the store ends before: another file promised what this one lacks.
        """
        if position + size <= self.size:
            if self._memory is not None:
                return bytes(self._memory.view[position : position + size])
            data = self._file.read_at(position, size)
            if len(data) == size:
                return data
        problem = f"{size} bytes were expected here and the store ends before"
        raise CorruptBatch(path=self.path, position=position, problem=problem)

    def truncate(self) -> None:
        """Give back the space beyond the data; the map stays, over what is left."""
        assert self._memory is not None, f"{self.path} was opened to be read"
        self._memory.truncate(self.size)

    def is_exact(self) -> bool:
        """Tell whether the file ends where the data does."""
        return self._file.size() == self.size

    def give_back(self) -> None:
        """Cut reserved space off the file.  Safe in a worker after `unmap`."""
        self._file.truncate(self.size)

    def sync(self) -> None:
        self._file.sync()

    def unmap(self) -> None:
        if self._memory is not None:
            self._memory.unmap()

    def close(self) -> None:
        self.unmap()
        self._file.close()
