"""A file of a segment: written with pwrite in space reserved before, read through a map while it is written, with pread otherwise.

Both see the same pages, so what was written is read back at once.  Writes do not go through the map: the first touch of a mapped page
may have to wait for the file system's journal, and nothing can be done meanwhile (docs/decisions/0010).  Nor do reads of files that
are not written any more: a cold page of a map would stop every thread until the disk has answered.

Space is reserved in steps, so that a full disk is an error before anything has changed.
"""

from __future__ import annotations

from distlog.errors import DescriptorsExhausted
from distlog.storage.disk import DiskFile, DiskMap, Octets

# The first step of reserved space; each further one doubles the file, up to its limit.
RESERVE_SIZE_MIN = 64 << 10
# Reads before a map is made: what is looked at once is not worth a map, and a cold map reads far more around it.
MAP_AFTER = 8


class MappedFile:
    """A file of which bytes [0, size) may be read and, where it is written, written."""

    def __init__(self, file: DiskFile, size: int, *, size_max: int | None = None) -> None:
        """`size` bytes exist, to be read; or, with `size_max`, to be written too, and to grow.

        `size_max` is where doubling ends; a single larger need is met exactly.
        """
        self.file = file
        # Bytes that exist and may be used.
        self.size = size
        self._size_max = size_max
        # Reads that were not served by the map.
        self._read_count = 0
        # Of bytes [0, len(view)), made when reads repeat and ended when the size changes.
        self._map: DiskMap | None = None
        self._view = memoryview(b"")

    @property
    def path(self) -> str:
        return self.file.path

    # --- Space --------------------------------------------------------------------------------------

    def reserve(self, size: int) -> None:
        """Make bytes [0, size) writable.  Raises StorageFull; the file is then as it was."""
        if size > self.size:
            assert self._size_max is not None, f"{self.path} was opened to be read"
            step = max(size, min(max(2 * self.size, RESERVE_SIZE_MIN), self._size_max))
            # A map ends where the file did.
            self.unmap()
            self.size = min(step, self.file.reserve(size, step))

    def truncate(self, size: int) -> None:
        """Give back the space beyond `size`."""
        self.unmap()
        self.file.truncate(size)
        self.size = size

    # --- Bytes --------------------------------------------------------------------------------------

    def write(self, position: int, data: Octets) -> None:
        """Write into reserved space."""
        assert position + len(data) <= self.size, "space is reserved before it is written"
        self.file.write_at(position, (data,))

    def read(self, position: int, size: int) -> bytes:
        """Return `size` bytes from `position`; fewer only where the file is shorter than was said."""
        end = position + size
        if self._size_max is None or end > self.size:
            return self.file.read_at(position, size)
        if end > len(self._view):
            self._read_count += 1
            if self._read_count <= MAP_AFTER:
                return self.file.read_at(position, size)
            self._read_count = 0
            self.unmap()
            if not end:
                return b""
            try:
                self._map = self.file.map(self.size, writable=False)
            except DescriptorsExhausted:
                # A map takes one too.
                return self.file.read_at(position, size)
            self._view = self._map.view()
        return bytes(self._view[position:end])

    # --- End ----------------------------------------------------------------------------------------

    def unmap(self) -> None:
        """End the map; the next read makes it again."""
        if self._map is not None:
            self._view.release()
            self._view = memoryview(b"")
            self._map.close()
            self._map = None

    def close(self) -> None:
        self.unmap()
        self.file.close()
