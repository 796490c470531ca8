"""A simulated disk on which only so many descriptors may be open: one for each file, and one for each map, as Python has it."""

from __future__ import annotations

from collections.abc import Sequence

from distlog.errors import DescriptorsExhausted
from distlog.storage.disk import DiskFile, DiskLock, DiskMap, Octets
from distlog.storage.simulated_disk import SimulatedDisk


class LimitedDisk:
    """`disk`, with a limit of open descriptors that a test may change at any time."""

    def __init__(self, disk: SimulatedDisk, limit: int) -> None:
        self.disk = disk
        self.limit = limit
        self.open_count = 0
        # The most that were open at one time.
        self.open_count_max = 0
        self.refused_count = 0

    def take(self, path: str) -> None:
        if self.open_count >= self.limit:
            self.refused_count += 1
            raise DescriptorsExhausted(path=path)
        self.open_count += 1
        self.open_count_max = max(self.open_count_max, self.open_count)

    def give(self) -> None:
        self.open_count -= 1
        assert self.open_count >= 0

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> DiskFile:
        self.take(path)
        try:
            return _LimitedFile(self, self.disk.open(path, create=create, writable=writable))
        except BaseException:
            self.give()
            raise

    def exists(self, path: str) -> bool:
        return self.disk.exists(path)

    def is_directory(self, path: str) -> bool:
        return self.disk.is_directory(path)

    def list_directory(self, path: str) -> list[str]:
        self._pass(path)
        return self.disk.list_directory(path)

    def make_directory(self, path: str, *, durable: bool = True) -> None:
        if not self.disk.is_directory(path):
            self._pass(path)
        self.disk.make_directory(path, durable=durable)

    def rename(self, old: str, new: str) -> None:
        self.disk.rename(old, new)

    def link(self, path: str, new: str) -> None:
        self.disk.link(path, new)

    def remove(self, path: str) -> None:
        self.disk.remove(path)

    def sync_directory(self, path: str) -> None:
        self._pass(path)
        self.disk.sync_directory(path)

    def drop_cache(self, path: str) -> None:
        self._pass(path)
        self.disk.drop_cache(path)

    def lock(self, path: str) -> DiskLock:
        self.take(path)
        try:
            return _LimitedLock(self, self.disk.lock(path))
        except BaseException:
            self.give()
            raise

    def free_space(self, path: str) -> int:
        return self.disk.free_space(path)

    def open_max(self) -> int:
        return self.limit

    def _pass(self, path: str) -> None:
        """Need a descriptor for a moment."""
        self.take(path)
        self.give()


class _LimitedFile:
    def __init__(self, disk: LimitedDisk, file: DiskFile) -> None:
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
        self._disk.take(self.path)
        return _LimitedMap(self._disk, self._file.map(size, writable=writable))

    def close(self) -> None:
        self._disk.give()
        self._file.close()


class _LimitedMap:
    def __init__(self, disk: LimitedDisk, memory: DiskMap) -> None:
        self._disk = disk
        self._memory = memory

    def view(self) -> memoryview:
        return self._memory.view()

    def close(self) -> None:
        self._disk.give()
        self._memory.close()


class _LimitedLock:
    def __init__(self, disk: LimitedDisk, lock: DiskLock) -> None:
        self._disk = disk
        self._lock = lock

    def release(self) -> None:
        self._disk.give()
        self._lock.release()
