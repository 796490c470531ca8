"""Space that a node keeps for what it has promised: the file `reserve`, given up piece by piece when the disk is full.

What is committed must be applied, and what was received must be journaled, whatever else has filled the disk meanwhile.  So a
node promises only while its reserve is whole, and no more than the reserve can pay for; when a write finds no space, the reserve
shrinks by what the write needs.  `ReservedDisk` does that under everything that writes.

Any thread may use both: nothing is remembered between two calls, the size of the file is the state, and one thread at a time changes
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

from distlog.errors import DescriptorsExhausted, DiskFailed, DistlogError, StorageFull
from distlog.storage.descriptors import SpareDescriptors
from distlog.storage.disk import Disk, DiskFile, DiskLock, DiskMap, Octets

Result = TypeVar("Result")

# File systems give space in blocks of this size.
BLOCK_SIZE = 4096
# What a new name may take: the directory grows by a block.
NAME_SIZE = BLOCK_SIZE


class Reserve:
    """The file `reserve` of one data directory.

    With `spares` it stands for them too: a node that may open no more files promises as little as one whose disk is full.
    """

    def __init__(
        self, disk: Disk, path: str, size: int, spares: SpareDescriptors | None = None
    ) -> None:
        """Open the reserve, or make it, and fill it up to `size` bytes if there is space.  Blocks.

        A disk that is full already is no error: the reserve is then not whole.
        """
        self.spares = spares
        self._disk = disk
        self.path = path
        # Bytes that it holds when it is whole.
        self.size = size
        self._directory = path.rpartition("/")[0] or "."
        # Whose turn it is to change the file: holds one thing while nobody does.
        self._turns: SimpleQueue[None] = SimpleQueue()
        self._turns.put(None)
        self._file = _open(disk, path)
        if self._file.size() > size:
            self._file.truncate(size)
        self._fill_holes()
        self.restore()

    def _fill_holes(self) -> None:
        """Have a disk block for each byte: a copy of a data directory may have left out what is zeros."""
        held = self._file.size()
        if not held:
            return
        try:
            self._file.reserve(held)
        except StorageFull:
            self._file.truncate(0)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other thread changes the file.

        Its size is read and then set: a size that is old by then would bring back as a hole what another thread has given up.
        """
        turn = self._turns.get()
        try:
            yield turn
        finally:
            self._turns.put(turn)

    @property
    def held(self) -> int:
        """The bytes that are left of it, for who may open the files to use them."""
        return 0 if self._lacks_descriptors else self._file.size()

    @property
    def is_whole(self) -> bool:
        return not self._lacks_descriptors and self._file.size() >= self.size

    @property
    def _lacks_descriptors(self) -> bool:
        return self.spares is not None and self.spares.is_used_up

    def refusal(self) -> DistlogError:
        """Return what is told to who wants a promise while the reserve is not whole."""
        if self._lacks_descriptors:
            return DescriptorsExhausted(path=self._directory)
        return StorageFull(path=self.path)

    def pays_for(self, size: int) -> bool:
        """Tell whether there would be `size` bytes if all of it were given up."""
        return self._file.size() + self._disk.free_space(self._directory) >= size

    def give_up(self, size: int) -> bool:
        """Make `size` bytes of the disk free, or what is left; False if nothing is left."""
        with self._turn():
            held = self._file.size()
            if not held:
                return False
            self._file.truncate(max(0, held - _whole_blocks(size)))
            return True

    def restore(self) -> bool:
        """Fill the reserve up again as far as there is space, and some more; tell whether it is whole.  Blocks."""
        with self._turn():
            held = self._file.size()
            # With a margin: a node that has just enough would promise something, and be full again, every second.
            spare = self._disk.free_space(self._directory) - self.size // 4
            target = min(self.size, held + spare)
            if target <= held:
                return held >= self.size
            try:
                # Also a part of it is worth having: only what it holds pays for trims, and for what waits to be applied.
                self._file.reserve(target)
            except StorageFull:
                return False
            return target >= self.size

    def close(self) -> None:
        self._file.close()


def _open(disk: Disk, path: str) -> DiskFile:
    if disk.exists(path):
        return disk.open(path)
    try:
        return disk.open(path, create=True)
    except StorageFull as error:
        # Not even a name fits: a node that has no reserve can promise nothing, ever.
        raise DiskFailed(
            path=path, operation="create", problem="No space left on the device"
        ) from error


def _whole_blocks(size: int) -> int:
    return -(-size // BLOCK_SIZE) * BLOCK_SIZE


class ReservedDisk:
    """A disk on which an operation that finds no space is repeated with what the reserve gives up for it."""

    def __init__(self, disk: Disk, reserve: Reserve) -> None:
        self._disk = disk
        self._reserve = reserve

    def _with_room(self, size: int, operation: Callable[[], Result]) -> Result:
        """Do an operation that needs `size` bytes.  Raises StorageFull when the reserve is used up too, or could not pay for it."""
        needed = size
        while True:
            try:
                return operation()
            except StorageFull:
                # What cannot succeed must not use up what others need: a large checkpoint, say, what pays for applying.
                if not self._reserve.pays_for(needed) or not self._reserve.give_up(size):
                    raise
                # The file system's own bookkeeping, or somebody else, took some of it.
                size *= 2

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> DiskFile:
        if not writable and not create:
            return self._disk.open(path, writable=False)
        file = self._with_room(
            NAME_SIZE, lambda: self._disk.open(path, create=create, writable=writable)
        )
        return _ReservedFile(self, file)

    def exists(self, path: str) -> bool:
        return self._disk.exists(path)

    def is_directory(self, path: str) -> bool:
        return self._disk.is_directory(path)

    def list_directory(self, path: str) -> list[str]:
        return self._disk.list_directory(path)

    def make_directory(self, path: str, *, durable: bool = True) -> None:
        self._with_room(NAME_SIZE, lambda: self._disk.make_directory(path, durable=durable))

    def rename(self, old: str, new: str) -> None:
        self._with_room(NAME_SIZE, lambda: self._disk.rename(old, new))

    def link(self, path: str, new: str) -> None:
        self._with_room(NAME_SIZE, lambda: self._disk.link(path, new))

    def remove(self, path: str) -> None:
        self._disk.remove(path)

    def sync_directory(self, path: str) -> None:
        self._disk.sync_directory(path)

    def drop_cache(self, path: str) -> None:
        self._disk.drop_cache(path)

    def lock(self, path: str) -> DiskLock:
        return self._disk.lock(path)

    def free_space(self, path: str) -> int:
        return self._disk.free_space(path)

    def open_max(self) -> int:
        return self._disk.open_max()


class _ReservedFile:
    """A file of a `ReservedDisk`, open to be written."""

    def __init__(self, disk: ReservedDisk, file: DiskFile) -> None:
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
        try:
            self._file.write_at(position, parts)
        except StorageFull:
            size = sum(map(len, parts))
            self._disk._with_room(size, lambda: self._file.write_at(position, parts))

    def reserve(self, size: int, wanted: int = 0) -> int:
        if not self._disk._reserve.is_whole:
            # What the reserve has given up is for what is needed, not for what would be comfortable.
            wanted = 0
        needed = max(0, size - self._file.size())
        return self._disk._with_room(needed, lambda: self._file.reserve(size, wanted))

    def truncate(self, size: int) -> None:
        self._file.truncate(size)

    def sync(self) -> None:
        self._file.sync()

    def descriptor(self) -> int | None:
        return self._file.descriptor()

    def map(self, size: int, *, writable: bool) -> DiskMap:
        return self._file.map(size, writable=writable)

    def close(self) -> None:
        self._file.close()
