"""A file whose first bytes are mapped into memory: how the files of a segment are written, and
index and table read.

Space is reserved in steps before it is written, so that a full disk is an error and never a SIGBUS
in the middle of a write.
"""

from __future__ import annotations

from distlog.storage.disk import DiskFile, DiskMap

# The first step of reserved space; each further one doubles the file, up to its limit.
RESERVE_SIZE_MIN = 64 << 10


class MappedFile:
    """A file and the map of [0, len(view)).  `view` is replaced when the map grows: never keep
    it.
    """

    def __init__(self, file: DiskFile, size: int, *, size_max: int | None = None) -> None:
        """Map the first `size` bytes: to be read, or, with `size_max`, to be written and grown.

        `size_max` is where doubling ends; a single larger need is met exactly.
        """
        self.file = file
        self.view = memoryview(b"")
        self._size_max = size_max
        self._map: DiskMap | None = None
        self._map_bytes(size)

    @property
    def path(self) -> str:
        return self.file.path

    def reserve(self, size: int) -> None:
        """Make bytes [0, size) writable through `view`.  Raises StorageFull; the file is then
        as it was.
        """
        if size > len(self.view):
            self._grow(size)

    def truncate(self, size: int) -> None:
        """Give back the space beyond `size`, and map what is left."""
        self.unmap()
        self.file.truncate(size)
        self._map_bytes(size)

    def unmap(self) -> None:
        """End the map; the file stays open, to be synced."""
        self.view.release()
        self.view = memoryview(b"")
        if self._map is not None:
            self._map.close()
            self._map = None

    def close(self) -> None:
        self.unmap()
        self.file.close()

    def _grow(self, size: int) -> None:
        assert self._size_max is not None, f"{self.path} is mapped to be read"
        mapped = len(self.view)
        step = max(size, min(max(2 * mapped, RESERVE_SIZE_MIN), self._size_max))
        self.unmap()
        try:
            mapped = min(step, self.file.reserve(size, step))
        finally:
            self._map_bytes(mapped)

    def _map_bytes(self, size: int) -> None:
        if size:
            self._map = self.file.map(size, writable=self._size_max is not None)
            self.view = self._map.view()
