"""Small files that somebody else writes and renews: when they changed, and what they hold."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from distlog.errors import ConfigurationInvalid

# A chain of certificates has a few KiB, all authorities of a machine some hundred.
FILE_SIZE_MAX = 1 << 20


class Stamp(NamedTuple):
    """Differs when a file is another one, was written to, or may be read by others than before."""

    inode: int
    changed_ns: int
    size: int


@dataclass(frozen=True, slots=True, repr=False)
class Content:
    """What a file holds, and whether users of this machine other than its owner and group may read it."""

    data: bytes
    is_world_readable: bool


class Files(Protocol):
    """Where certificates and keys are."""

    def stamp(self, path: str) -> Stamp | None:
        """Return when a file changed; None if it is not there."""

    def read(self, path: str) -> Content:
        """Return what a file holds, FILE_SIZE_MAX + 1 bytes at most.  Raises OSError."""


def read_whole(files: Files, flag: str, path: str) -> Content:
    """Return what a file holds.  Raises ConfigurationInvalid, which names `flag`, if it cannot be read or is too large."""
    try:
        content = files.read(path)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "that is no path"
        raise ConfigurationInvalid(flag, f"{path} cannot be read: {problem}") from None
    if len(content.data) > FILE_SIZE_MAX:
        raise ConfigurationInvalid(flag, f"{path} is larger than {FILE_SIZE_MAX} bytes")
    return content


class RealFiles:
    """The machine's."""

    def stamp(self, path: str) -> Stamp | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        # Not the time of the last write: a mode that was put right counts, and a copy that keeps the time of what it copies.
        return Stamp(found.st_ino, found.st_ctime_ns, found.st_size)

    def read(self, path: str) -> Content:
        # Not to wait for ever for whoever writes into a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(0, "it is not a file")
            data = b""
            while len(data) <= FILE_SIZE_MAX:
                part = os.read(descriptor, FILE_SIZE_MAX + 1 - len(data))
                if not part:
                    break
                data += part
            return Content(data, bool(found.st_mode & stat.S_IROTH))
        finally:
            os.close(descriptor)
