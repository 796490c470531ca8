"""Disks with a planted fault, composed in front of the simulated one: what a product with that fault would do to its disk.

A crash matrix that does not fail on them is blind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from distlog.storage.disk import Disk, DiskFile, DiskMap, Octets
from distlog.storage.simulated_disk import SimulatedDisk

Matches = Callable[[str], bool]


class FaultyDisk:
    """Passes everything on."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self.disk, name)

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> DiskFile:
        return FaultyFile(self, self.disk.open(path, create=create, writable=writable))

    def sync(self, file: DiskFile) -> None:
        file.sync()

    def write_at(self, file: DiskFile, position: int, parts: Sequence[Octets]) -> None:
        file.write_at(position, parts)


class FaultyFile:
    """A file whose syncs and writes go through its disk."""

    def __init__(self, disk: FaultyDisk, file: DiskFile) -> None:
        self._disk = disk
        self._file = file
        self.path = file.path

    def size(self) -> int:
        return self._file.size()

    def read_at(self, position: int, size: int) -> bytes:
        return self._file.read_at(position, size)

    def read_into(self, position: int, buffer: memoryview) -> int:
        return self._file.read_into(position, buffer)

    def write_at(self, position: int, parts: Sequence[Octets]) -> None:
        self._disk.write_at(self._file, position, parts)

    def reserve(self, size: int, wanted: int = 0) -> int:
        return self._file.reserve(size, wanted)

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def sync(self) -> None:
        self._disk.sync(self._file)

    def descriptor(self) -> int | None:
        return None

    def map(self, size: int, *, writable: bool) -> DiskMap:
        return self._file.map(size, writable=writable)

    def close(self) -> None:
        self._file.close()


class NoSync(FaultyDisk):
    """Never syncs some files."""

    def __init__(self, disk: SimulatedDisk, matches: Matches) -> None:
        super().__init__(disk)
        self._matches = matches

    def sync(self, file: DiskFile) -> None:
        if not self._matches(file.path):
            file.sync()


class NoDirectorySync(FaultyDisk):
    """Never syncs the names of some directories."""

    def __init__(self, disk: SimulatedDisk, matches: Matches) -> None:
        super().__init__(disk)
        self._matches = matches

    def sync_directory(self, path: str) -> None:
        if not self._matches(path):
            self.disk.sync_directory(path)


class LateSync(FaultyDisk):
    """Syncs some files only after the next sync of others, which should have come later."""

    def __init__(self, disk: SimulatedDisk, late: Matches, after: Matches) -> None:
        super().__init__(disk)
        self._late, self._after = late, after
        self._waiting: list[DiskFile] = []

    def sync(self, file: DiskFile) -> None:
        if self._late(file.path):
            self._waiting.append(file)
            return
        file.sync()
        if self._after(file.path):
            for waiting in self._waiting:
                waiting.sync()
            self._waiting.clear()


class NoRewrite(FaultyDisk):
    """Skips writes that change nothing: a recovery that only syncs what it found."""

    def write_at(self, file: DiskFile, position: int, parts: Sequence[Octets]) -> None:
        data = b"".join(parts)
        if file.read_at(position, len(data)) != data:
            file.write_at(position, parts)


def planted(fault: type[FaultyDisk], *arguments: Matches) -> Callable[[SimulatedDisk], Disk]:
    """Return what puts a fault in front of a disk."""
    return lambda disk: fault(disk, *arguments)
