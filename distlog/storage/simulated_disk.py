"""A file system in memory that forgets what was not synced: the twin of `RealDisk` in tests and in
the simulation.

Every file has what a process reads now and what the medium holds; they differ by pages of 4 KiB, by
sizes and by names until `sync` and `sync_directory` make them equal.  `crash` returns the disk that
a machine finds after a power cut: what was synced, plus any subset of the rest, in any order, which
is all that POSIX promises.  A page that is not kept has its synced content, or zeros if it never
had one.  `kill` returns the disk that the next process finds when only the process died.

Faults: `capacity` (StorageFull), `fail_at` (the n-th operation is refused), `fail_syncs` (after which
the pages look clean, see simulated_medium.py), and
`hook`, which is called before each operation and may raise, crash or look around.  Writes through a
map are not operations.  Nothing here draws randomness of its own: the same calls give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from random import Random

from distlog.errors import DataDirectoryInUse, DiskFailed, StorageFull
from distlog.storage.disk import Octets
from distlog.storage.simulated_medium import (
    ChosenSurvival,
    MediumDirectory,
    MediumFile,
    RandomSurvival,
    Survival,
    Unsynced,
)

# Free space of a disk without a capacity.
UNLIMITED = 1 << 50
# What many systems grant by themselves.
OPEN_MAX = 1024

Hook = Callable[[str, str], None]


class SimulatedDisk:
    """A tree of directories and files that starts empty."""

    def __init__(self, *, capacity: int | None = None, hook: Hook | None = None) -> None:
        # Bytes that all files together may have, by their sizes; None for no limit.
        self.capacity = capacity
        # Called as hook(operation, path) before each operation.
        self.hook = hook
        # Operations so far; the n-th is refused with DiskFailed when `fail_at` is n (from 1).
        self.operation_count = 0
        self.fail_at: int | None = None
        self.fail_syncs = False
        self.used = 0
        # How many unsynced pages the `crash` took that this disk comes from.
        self.lost_page_count = 0
        self._root = MediumDirectory()
        # Some file has, or had, two names.
        self._has_links = False
        self._locked: set[str] = set()

    # --- What happens to the machine ------------------------------------------------------------

    def crash(self, random: Random) -> SimulatedDisk:
        """Return the disk as the machine finds it after a power cut now.

        This one, and what is open on it, stays as it is.
        """
        survival = RandomSurvival(random)
        disk = self._after_crash(survival)
        disk.lost_page_count = survival.lost_page_count
        return disk

    def unsynced(self) -> list[Unsynced]:
        """Return everything that a power cut now keeps or takes, in the same order for the same calls."""
        return list(self._root.unsynced(set()))

    def crash_keeping(self, kept: Collection[Unsynced]) -> SimulatedDisk:
        """Return the disk after a power cut that took all of `unsynced` but `kept`."""
        return self._after_crash(ChosenSurvival(kept))

    def _after_crash(self, survival: Survival) -> SimulatedDisk:
        disk = SimulatedDisk(capacity=self.capacity)
        disk._root = self._root.after_crash(survival, {})
        disk.used = sum(len(file) for file in set(disk._root.files()))
        disk._has_links = self._has_links
        return disk

    def kill(self) -> SimulatedDisk:
        """Return the disk as the next process finds it after this one was killed.

        Nothing is lost, locks are free.
        """
        disk = SimulatedDisk(capacity=self.capacity)
        disk._root = self._root.copy({})
        disk.used = self.used
        disk._has_links = self._has_links
        return disk

    def write_back(self, random: Random) -> None:
        """Make a random part of the unsynced pages and sizes durable, as an operating system
        does at any time.
        """
        for file in self._root.files():
            file.write_back(random)

    # --- Disk -----------------------------------------------------------------------------------

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> SimulatedFile:
        self._operation("open", path)
        directory, name = self._parent("open", path)
        node = directory.names.get(name)
        if create:
            if node is not None:
                raise DiskFailed(path=path, operation="open", problem="File exists")
            node = directory.names[name] = MediumFile()
        if node is None:
            raise DiskFailed(path=path, operation="open", problem="No such file or directory")
        if isinstance(node, MediumDirectory):
            raise DiskFailed(path=path, operation="open", problem="Is a directory")
        return SimulatedFile(self, path, node, writable or create)

    def exists(self, path: str) -> bool:
        return self._find(path) is not None

    def is_directory(self, path: str) -> bool:
        return isinstance(self._find(path), MediumDirectory)

    def list_directory(self, path: str) -> list[str]:
        return sorted(self._directory("list", path).names)

    def make_directory(self, path: str, *, durable: bool = True) -> None:
        if self.is_directory(path):
            return
        self._operation("make directory", path)
        directory = self._root
        names = _names(path)
        for place, name in enumerate(names, 1):
            node = directory.names.get(name)
            if node is None:
                node = directory.names[name] = MediumDirectory()
                if durable or place < len(names):
                    directory.durable_names[name] = node
            if not isinstance(node, MediumDirectory):
                raise DiskFailed(path=path, operation="make directory", problem="Not a directory")
            directory = node

    def rename(self, old: str, new: str) -> None:
        self._operation("rename", old)
        old_directory, old_name = self._parent("rename", old)
        new_directory, new_name = self._parent("rename", new)
        if old_name not in old_directory.names:
            raise DiskFailed(path=old, operation="rename", problem="No such file or directory")
        replaced = new_directory.names.get(new_name)
        node = old_directory.names.pop(old_name)
        new_directory.names[new_name] = node
        if isinstance(replaced, MediumFile) and replaced is not node:
            self._unnamed(replaced)

    def link(self, path: str, new: str) -> None:
        self._operation("link", path)
        directory, name = self._parent("link", path)
        new_directory, new_name = self._parent("link", new)
        node = directory.names.get(name)
        if not isinstance(node, MediumFile):
            raise DiskFailed(path=path, operation="link", problem="No such file")
        if new_name in new_directory.names:
            raise DiskFailed(path=new, operation="link", problem="File exists")
        new_directory.names[new_name] = node
        self._has_links = True

    def remove(self, path: str) -> None:
        self._operation("remove", path)
        directory, name = self._parent("remove", path)
        node = directory.names.get(name)
        if node is None:
            raise DiskFailed(path=path, operation="remove", problem="No such file or directory")
        if isinstance(node, MediumDirectory) and node.names:
            raise DiskFailed(path=path, operation="remove", problem="Directory not empty")
        del directory.names[name]
        if isinstance(node, MediumFile):
            self._unnamed(node)

    def sync_directory(self, path: str) -> None:
        self._operation("sync directory", path)
        directory = self._directory("sync directory", path)
        if self.fail_syncs:
            raise DiskFailed(path=path, operation="sync directory", problem="Input/output error")
        directory.durable_names = dict(directory.names)

    def drop_cache(self, path: str) -> None:
        # There is no memory that caches anything.
        self.open(path, writable=False).close()

    def lock(self, path: str) -> SimulatedLock:
        if path in self._locked:
            raise DataDirectoryInUse(path=path)
        if not self.exists(path):
            self.open(path, create=True).close()
        self._locked.add(path)
        return SimulatedLock(self._locked, path)

    def free_space(self, path: str) -> int:
        return UNLIMITED if self.capacity is None else max(0, self.capacity - self.used)

    def open_max(self) -> int:
        return OPEN_MAX

    # --- Below the operations -------------------------------------------------------------------

    def _operation(self, operation: str, path: str) -> None:
        self.operation_count += 1
        if self.hook is not None:
            self.hook(operation, path)
        if self.operation_count == self.fail_at:
            raise DiskFailed(path=path, operation=operation, problem="Input/output error")

    def _resize(self, path: str, file: MediumFile, size: int) -> None:
        growth = size - len(file)
        if self.capacity is not None and growth > 0 and self.used + growth > self.capacity:
            raise StorageFull(path=path)
        file.resize(size)
        self.used += growth

    def _unnamed(self, file: MediumFile) -> None:
        """Count a file that has lost a name as gone, unless it has another one."""
        if not self._has_links or all(each is not file for each in self._root.files()):
            self.used -= len(file)

    def _find(self, path: str) -> MediumDirectory | MediumFile | None:
        node: MediumDirectory | MediumFile | None = self._root
        for name in _names(path):
            if not isinstance(node, MediumDirectory):
                return None
            node = node.names.get(name)
        return node

    def _directory(self, operation: str, path: str) -> MediumDirectory:
        node = self._find(path)
        if not isinstance(node, MediumDirectory):
            problem = "No such file or directory" if node is None else "Not a directory"
            raise DiskFailed(path=path, operation=operation, problem=problem)
        return node

    def _parent(self, operation: str, path: str) -> tuple[MediumDirectory, str]:
        names = _names(path)
        assert names, "the root has no parent"
        node: MediumDirectory | MediumFile | None = self._root
        for name in names[:-1]:
            node = node.names.get(name) if isinstance(node, MediumDirectory) else None
        if not isinstance(node, MediumDirectory):
            raise DiskFailed(path=path, operation=operation, problem="No such file or directory")
        return node, names[-1]


class SimulatedFile:
    """An open file of a SimulatedDisk."""

    def __init__(self, disk: SimulatedDisk, path: str, file: MediumFile, writable: bool) -> None:
        self.path = path
        self._disk = disk
        self._file = file
        self._writable = writable

    def size(self) -> int:
        return len(self._file)

    def read_at(self, position: int, size: int) -> bytes:
        self._disk._operation("read", self.path)
        return self._file.read(position, size)

    def read_into(self, position: int, buffer: memoryview) -> int:
        data = self.read_at(position, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write_at(self, position: int, parts: Sequence[Octets]) -> None:
        assert self._writable, f"{self.path} was opened to be read"
        self._disk._operation("write", self.path)
        data = b"".join(parts)
        if position + len(data) > len(self._file):
            self._disk._resize(self.path, self._file, position + len(data))
        self._file.write(position, data)

    def reserve(self, size: int, wanted: int = 0) -> int:
        assert self._writable, f"{self.path} was opened to be read"
        self._disk._operation("reserve", self.path)
        for target in (max(size, wanted), size):
            try:
                if target > len(self._file):
                    self._disk._resize(self.path, self._file, target)
                break
            except StorageFull:
                if target == size:
                    raise
        return len(self._file)

    def truncate(self, size: int) -> None:
        assert self._writable, f"{self.path} was opened to be read"
        self._disk._operation("truncate", self.path)
        self._disk._resize(self.path, self._file, size)

    def sync(self) -> None:
        try:
            self._disk._operation("sync", self.path)
            if self._disk.fail_syncs:
                raise DiskFailed(path=self.path, operation="sync", problem="Input/output error")
        except DiskFailed:
            self._file.forget()
            raise
        self._file.sync()

    def descriptor(self) -> None:
        return None

    def map(self, size: int, *, writable: bool) -> SimulatedMap:
        self._disk._operation("map", self.path)
        assert 0 < size <= len(self._file), "bytes beyond the end of a file cannot be touched"
        assert self._writable or not writable, f"{self.path} was opened to be read"
        return SimulatedMap(self._file, size, writable)

    def close(self) -> None:
        pass


class SimulatedMap:
    """A view of a file's current bytes."""

    def __init__(self, file: MediumFile, size: int, writable: bool) -> None:
        self._file = file
        self._size = size
        self._writable = writable
        file.map_count += 1
        if writable:
            file.mapped_size = max(file.mapped_size, size)

    def view(self) -> memoryview:
        view = memoryview(self._file.content)[: self._size]
        return view if self._writable else view.toreadonly()

    def close(self) -> None:
        self._file.map_count -= 1


class SimulatedLock:
    """An entry in the set of what is locked."""

    def __init__(self, locked: set[str], path: str) -> None:
        self._locked = locked
        self._path = path

    def release(self) -> None:
        self._locked.discard(self._path)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]
