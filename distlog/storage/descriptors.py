"""File descriptors that a node keeps for what it has promised, given up one by one when it may open no more files.

What is committed must be applied and journaled, and that rolls segments and begins files, whatever else has used up the
descriptors meanwhile.  So some are held on a file that is there anyway.  When an open meets the limit, first the idle files
of sealed segments are closed, then a spare is given up, and the open is repeated.  `SparingDisk` does that under everything
that opens.

Any thread may open; `refresh` belongs to the loop's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from distlog.errors import DescriptorsExhausted
from distlog.storage.disk import Disk, DiskFile, DiskLock, DiskMap, Octets

Result = TypeVar("Result")


class SpareDescriptors:
    """Descriptors that stand for room below the limit."""

    def __init__(self, disk: Disk, path: str, count: int) -> None:
        """Hold `count` descriptors on the file `path`, or as many as may be had."""
        self._disk = disk
        self._path = path
        self.count = count
        # Each step on it is one operation of a list, which the interpreter does not interrupt.  The last is given first: the
        # highest number, which a lowered limit makes useless first.
        self._spares: list[DiskFile] = []
        # Closes what nobody uses at the moment; set by who has such files.
        self.close_idle: Callable[[], None] = lambda: None
        self._take_back()

    @property
    def held(self) -> int:
        return len(self._spares)

    @property
    def is_whole(self) -> bool:
        return len(self._spares) >= self.count

    @property
    def is_used_up(self) -> bool:
        """Tell whether less is left than one step of the node may take: it must promise nothing new."""
        return 3 * len(self._spares) < 2 * self.count

    def give_up(self) -> bool:
        """Make room for one descriptor; False if nothing is left."""
        try:
            spare = self._spares.pop()
        except IndexError:
            return False
        spare.close()
        return True

    def refresh(self) -> bool:
        """Take back what may be had again; tell whether all is there.

        A limit that was lowered shows here, before anything depends on it: the last spare is given up and taken back, and
        those that cannot be had any more are let go.
        """
        while self.give_up() and not self._take():
            continue
        if not self.is_whole:
            self.close_idle()
            self._take_back()
        return self.is_whole

    def close(self) -> None:
        while self.give_up():
            continue

    def _take_back(self) -> None:
        while len(self._spares) < self.count and self._take():
            continue

    def _take(self) -> bool:
        try:
            self._spares.append(self._disk.open(self._path, writable=False))
        except DescriptorsExhausted:
            return False
        return True


class SparingDisk:
    """A disk on which an operation that finds no descriptor is repeated with a spare one."""

    def __init__(self, disk: Disk, spares: SpareDescriptors) -> None:
        self._disk = disk
        self._spares = spares

    def with_descriptor(self, operation: Callable[[], Result]) -> Result:
        """Do an operation that needs a descriptor.  Raises DescriptorsExhausted when there are no spares either."""
        try:
            return operation()
        except DescriptorsExhausted:
            self._spares.close_idle()
        while True:
            try:
                return operation()
            except DescriptorsExhausted:
                # Somebody else may have been faster with the last one, or a lowered limit has made it useless.
                if not self._spares.give_up():
                    raise

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> DiskFile:
        file = self.with_descriptor(lambda: self._disk.open(path, create=create, writable=writable))
        return _SparingFile(self, file)

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def is_directory(self, path: str) -> bool:
        return self._disk.is_directory(path)

    def list_directory(self, path: str) -> list[str]:
        return self.with_descriptor(lambda: self._disk.list_directory(path))

    def make_directory(self, path: str, *, durable: bool = True) -> None:
        self.with_descriptor(lambda: self._disk.make_directory(path, durable=durable))

    def rename(self, old: str, new: str) -> None:
        self._disk.rename(old, new)

    def link(self, path: str, new: str) -> None:
        self._disk.link(path, new)

    def remove(self, path: str) -> None:
        self._disk.remove(path)

    def sync_directory(self, path: str) -> None:
        self.with_descriptor(lambda: self._disk.sync_directory(path))

    def drop_cache(self, path: str) -> None:
        self.with_descriptor(lambda: self._disk.drop_cache(path))

    def lock(self, path: str) -> DiskLock:
        return self.with_descriptor(lambda: self._disk.lock(path))

    def free_space(self, path: str) -> int:
        return self._disk.free_space(path)

    def open_max(self) -> int:
        return self._disk.open_max()


class _SparingFile:
    """A file of a `SparingDisk`: a map takes a descriptor of its own."""

    def __init__(self, disk: SparingDisk, file: DiskFile) -> None:
        self.path = file.path
        self._disk = disk
        self._file = file

    def size(self) -> int:
        return self._file.size()

    def read_at(self, position: int, size: int) -> bytes:
        return self._file.read_at(position, size)

    def read_into(self, position: int, buffer: memoryview) -> int:
        return self._file.read_into(position, buffer)

    def write_at(self, position: int, parts: Sequence[Octets]) -> None:
        self._file.write_at(position, parts)

    def reserve(self, size: int, wanted: int = 0) -> int:
        return self._file.reserve(size, wanted)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def sync(self) -> None:
        self._file.sync()

    def descriptor(self) -> int | None:
        return self._file.descriptor()

    def map(self, size: int, *, writable: bool) -> DiskMap:
        return self._disk.with_descriptor(lambda: self._file.map(size, writable=writable))

    def close(self) -> None:
        self._file.close()
