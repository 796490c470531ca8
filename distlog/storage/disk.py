"""The one place that opens, maps, reserves, syncs, renames or removes files.

`Disk` is the port: `RealDisk` is the machine's file system; `SimulatedDisk` (simulated_disk.py) is
a model of one that can lose what was not synced.  Everything that stores bytes takes a `Disk`, so
that the simulation runs the product's own code.  Paths are strings, absolute or relative to the
process, joined with "/".

Errors, from every call: StorageFull when there is no space, DescriptorsExhausted when no more files
may be open (nothing was changed that was there before), DiskFailed for anything else that the
operating system refuses.  A failed `sync` is DiskFailed and must stop the process: after it the
page cache no longer says what the disk holds.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
from collections.abc import Sequence
from typing import Protocol

from distlog.errors import (
    DataDirectoryInUse,
    DescriptorsExhausted,
    DiskFailed,
    DistlogError,
    StorageFull,
)

Octets = bytes | bytearray | memoryview
# What one pwritev takes (IOV_MAX on Linux).
PARTS_MAX = 1024
# What to do where a disk fails, in words that follow what the system says.
REMEDIES = {
    errno.EIO: "the disk below fails; see dmesg, replace or repair it and check the file system",
    errno.EROFS: "see dmesg for why; check the file system and remount it to be written",
}
SYNC_REMEDY = "what was written may be lost; see dmesg, and check the disk and its file system"
# Of a disk that fails, file systems report what they like, out of memory too.
WRITE_REMEDY = "see dmesg, and check the disk and its file system"
WRITING = ("write", "reserve", "truncate")


class DiskMap(Protocol):
    """A file mapped into memory, shared: what is written here is the file."""

    def view(self) -> memoryview:
        """Return the mapped bytes (writable if the map is).  Release every view before `close`."""

    def close(self) -> None:
        """Unmap.  The file's bytes stay; they are durable only after the file's `sync`."""


class DiskFile(Protocol):
    """An open file."""

    path: str

    def size(self) -> int:
        """Return the file's size in bytes."""

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to `size` bytes from `position`; fewer only at the end of the file."""

    def read_into(self, position: int, buffer: memoryview) -> int:
        """Fill `buffer` from `position`; return how many bytes, fewer only at the end of the file."""

    def write_at(self, position: int, parts: Sequence[Octets]) -> None:
        """Write all of `parts`, one after the other, from `position`; the file grows as needed."""

    def reserve(self, size: int, wanted: int = 0) -> int:
        """Make sure that bytes [0, size) exist on the disk, and [0, wanted) if that can be had; a
        smaller file grows with zeros.

        Returns how many bytes the file has now, at least `size`.  Raises StorageFull before
        anything is promised; the file is as it was then.
        """

    def truncate(self, size: int) -> None:
        """Set the file's size; beyond the old end are zeros."""

    def sync(self) -> None:
        """Make the file's bytes and size durable (fdatasync).  Blocks: call it in a worker when
        an event loop runs.
        """

    def descriptor(self) -> int | None:
        """Return the operating system's number of the open file, for who can have it synced without a thread; None where
        `sync` is the only way.
        """

    def map(self, size: int, *, writable: bool) -> DiskMap:
        """Map bytes [0, size), which must exist."""

    def close(self) -> None:
        """Close.  Maps stay valid."""


class DiskLock(Protocol):
    """An exclusive hold on a file, which ends with `release` or with the process."""

    def release(self) -> None:
        """Let go."""


class Disk(Protocol):
    """A file system."""

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> DiskFile:
        """Open a file; with `create`, one that must not exist yet.  A new name is durable after
        `sync_directory`.
        """

    def exists(self, path: str) -> bool:
        """Tell whether a file or directory has this name."""

    def is_directory(self, path: str) -> bool:
        """Tell whether `path` is a directory."""

    def list_directory(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""

    def make_directory(self, path: str, *, durable: bool = True) -> None:
        """Create a directory and its parents, if missing, and make them durable; without `durable`, the directory itself is
        so after `sync_directory` of its parent.
        """

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, replacing what had it.  Durable after `sync_directory` of
        both parents.
        """

    def link(self, path: str, new: str) -> None:
        """Give a file a second name, which must be free.  Durable after `sync_directory` of its parent."""

    def remove(self, path: str) -> None:
        """Remove a file or an empty directory.  Durable after `sync_directory` of the parent."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable.  Blocks."""

    def drop_cache(self, path: str) -> None:
        """Give back the memory that caches a durable file, which nobody will read soon.  Only a hint."""

    def lock(self, path: str) -> DiskLock:
        """Take the exclusive lock on a file, made if missing.  Raises DataDirectoryInUse if
        another process has it.
        """

    def free_space(self, path: str) -> int:
        """Return the bytes that this process may still write to the file system of `path`."""

    def open_max(self) -> int:
        """Return how many files this process may have open, maps and connections counted in."""


class RealDisk:
    """The machine's file system."""

    def open(self, path: str, *, create: bool = False, writable: bool = True) -> RealFile:
        flags = (os.O_RDWR if writable or create else os.O_RDONLY) | os.O_CLOEXEC
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        try:
            return RealFile(path, os.open(path, flags, 0o640))
        except OSError as error:
            raise _refusal("open", path, error) from error

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def list_directory(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(path))
        except OSError as error:
            raise _refusal("list", path, error) from error

    def make_directory(self, path: str, *, durable: bool = True) -> None:
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path.rstrip("/")) or "."
        self.make_directory(parent)
        try:
            os.mkdir(path, 0o750)
        except OSError as error:
            # Another node that starts at this moment may have the same parent, and has perhaps not synced it yet.
            if not os.path.isdir(path):
                raise _refusal("make directory", path, error) from error
        if durable:
            self.sync_directory(parent)

    def rename(self, old: str, new: str) -> None:
        try:
            os.replace(old, new)
        except OSError as error:
            raise _refusal("rename", old, error) from error

    def link(self, path: str, new: str) -> None:
        try:
            os.link(path, new)
        except OSError as error:
            raise _refusal("link", path, error) from error

    def remove(self, path: str) -> None:
        try:
            if os.path.isdir(path):
                os.rmdir(path)
            else:
                os.unlink(path)
        except OSError as error:
            raise _refusal("remove", path, error) from error

    def sync_directory(self, path: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal("sync directory", path, error) from error
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise _failure("sync directory", path, error) from error
        finally:
            os.close(descriptor)

    def drop_cache(self, path: str) -> None:
        if hasattr(os, "posix_fadvise"):
            file = self.open(path, writable=False)
            try:
                os.posix_fadvise(file.descriptor(), 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                file.close()

    def lock(self, path: str) -> RealLock:
        try:
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                # An inspector may only be allowed to read; on a local file system that is enough
                # for flock.
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _refusal("lock", path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise DataDirectoryInUse(path=path) from error
            raise _refusal("lock", path, error) from error
        return RealLock(descriptor)

    def free_space(self, path: str) -> int:
        try:
            status = os.statvfs(path)
        except OSError as error:
            raise _refusal("measure", path, error) from error
        return status.f_bavail * status.f_frsize

    def open_max(self) -> int:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


class RealFile:
    """A file descriptor."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def size(self) -> int:
        try:
            return os.fstat(self._descriptor).st_size
        except OSError as error:
            raise _refusal("measure", self.path, error) from error

    def read_at(self, position: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, position)
            if len(data) == size or not data:
                return data
            # A short read is the end of the file, or the 2 GiB that Linux reads at most at once.
            parts = [data]
            done = len(data)
            while done < size and (
                data := os.pread(self._descriptor, size - done, position + done)
            ):
                parts.append(data)
                done += len(data)
            return b"".join(parts)
        except OSError as error:
            raise _refusal("read", self.path, error) from error

    def read_into(self, position: int, buffer: memoryview) -> int:
        try:
            done = os.preadv(self._descriptor, [buffer], position)
            while 0 < done < len(buffer):
                more = os.preadv(self._descriptor, [buffer[done:]], position + done)
                if not more:
                    break
                done += more
        except OSError as error:
            raise _refusal("read", self.path, error) from error
        return done

    def write_at(self, position: int, parts: Sequence[Octets]) -> None:
        try:
            if len(parts) == 1:
                # Most writes: without the price of a list.
                written = os.pwrite(self._descriptor, parts[0], position)
                if written < len(parts[0]):
                    self._write_rest(position + written, bytes(parts[0][written:]))
                return
            for first in range(0, len(parts), PARTS_MAX):
                some = parts[first : first + PARTS_MAX]
                size = sum(map(len, some))
                written = os.pwritev(self._descriptor, some, position)
                if written < size:
                    self._write_rest(position + written, b"".join(some)[written:])
                position += size
        except OSError as error:
            raise _refusal("write", self.path, error) from error

    def _write_rest(self, position: int, data: bytes) -> None:
        # A signal, a nearly full disk or a very large write ends a write early; the next one says
        # which it was.
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, position)
            position += written
            rest = rest[written:]

    def reserve(self, size: int, wanted: int = 0) -> int:
        before = self.size()
        if wanted > size:
            try:
                self._allocate(before, wanted)
                return max(before, wanted)
            except StorageFull:
                # A nearly full disk may still have what is needed now.
                pass
        self._allocate(before, size)
        return max(before, size)

    def _allocate(self, before: int, size: int) -> None:
        try:
            os.posix_fallocate(self._descriptor, 0, size)
        except OSError as error:
            # A refused reservation may have grown the file by what there was.
            self.truncate(before)
            raise _refusal("reserve", self.path, error) from error

    def truncate(self, size: int) -> None:
        try:
            os.ftruncate(self._descriptor, size)
        except OSError as error:
            raise _refusal("truncate", self.path, error) from error

    def sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            # Also for lack of space: what was written before may be lost, so it is no refusal.
            raise sync_failure(self.path, error) from error

    def descriptor(self) -> int:
        return self._descriptor

    def map(self, size: int, *, writable: bool) -> RealMap:
        assert 0 < size <= self.size(), "bytes beyond the end of a file cannot be touched"
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        try:
            return RealMap(mmap.mmap(self._descriptor, size, access=access))
        except OSError as error:
            raise _refusal("map", self.path, error) from error

    def close(self) -> None:
        os.close(self._descriptor)


class RealMap:
    """A mapping of the operating system."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    def view(self) -> memoryview:
        return memoryview(self._memory)

    def close(self) -> None:
        self._memory.close()


class RealLock:
    """A flock, which the kernel also drops when the process dies."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        os.close(self._descriptor)


def _refusal(operation: str, path: str, error: OSError) -> DistlogError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(path=path)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return DescriptorsExhausted(path=path)
    return _failure(operation, path, error)


def sync_failure(path: str, error: OSError) -> DiskFailed:
    """Return what a failed sync of the file `path` is to everybody: a reason to stop the process."""
    return _failure("sync", path, error)


def _failure(operation: str, path: str, error: OSError) -> DiskFailed:
    problem = error.strerror or str(error)
    remedy = REMEDIES.get(error.errno or 0, "")
    if not remedy and operation.startswith("sync"):
        remedy = SYNC_REMEDY
    elif not remedy and operation in WRITING:
        remedy = WRITE_REMEDY
    return DiskFailed(path, operation, f"{problem}: {remedy}" if remedy else problem)
