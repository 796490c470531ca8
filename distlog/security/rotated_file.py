"""A file of lines that never grows beyond a limit: `audit.log`, before it `audit.log.1`, and so on; the oldest goes.

Whoever else uses this machine cannot read it.  Blocks: for a worker.  It is written and not synced: a power cut may take its last lines.
"""

from __future__ import annotations

import errno
import os

from distlog.errors import ConfigurationInvalid

MODE = 0o600
# What an operator has to mend, and no disk mends by itself.
WRONG_PLACE = (
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP
)  # fmt: skip


class RotatedFile:
    """The files of one path."""

    def __init__(self, path: str, *, size_max: int, count_max: int) -> None:
        """size_max: bytes of each file; count_max: files, the one that is written to included."""
        self._path = path
        self._size_max = size_max
        self._count_max = count_max

    def check_place(self) -> None:
        """Make the file if it is not there.  Raises ConfigurationInvalid if there can be none; a disk that is full is not that."""
        try:
            self.append(b"")
        except OSError as error:
            if error.errno in WRONG_PLACE:
                problem = f"{self._path} cannot be written: {error.strerror}"
                raise ConfigurationInvalid(key="--audit-log", problem=problem) from error

    def append(self, data: bytes) -> None:
        """Write lines, in new files where they do not fit into the last one.  Raises OSError.

        It is opened each time: whoever moves it away gets a new one.  What was written of lines that were not written whole is cut away.
        """
        while True:
            descriptor, size = self._open()
            try:
                end = self._end_of_fitting(data, size)
                _write(descriptor, data[:end], size)
            finally:
                os.close(descriptor)
            data = data[end:]
            if not data:
                return
            self._rotate()

    def _end_of_fitting(self, data: bytes, size: int) -> int:
        """Return where the lines end that fit into a file of this size; into an empty one at least one does."""
        room = self._size_max - size
        if len(data) <= room:
            return len(data)
        fitting = data.rfind(b"\n", 0, max(0, room)) + 1
        return fitting if fitting or size else data.find(b"\n") + 1 or len(data)

    def _open(self) -> tuple[int, int]:
        flags = (
            os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        descriptor = os.open(self._path, flags, MODE)
        # A file that somebody made before with other rights.
        os.fchmod(descriptor, MODE)
        return descriptor, os.fstat(descriptor).st_size

    def _rotate(self) -> None:
        for number in range(self._count_max - 1, 0, -1):
            older = self._path if number == 1 else f"{self._path}.{number - 1}"
            if os.path.lexists(older):
                os.replace(older, f"{self._path}.{number}")
        if self._count_max == 1:
            os.unlink(self._path)


def _write(descriptor: int, data: bytes, size: int) -> None:
    """Write all, or nothing: the file has `size` bytes before."""
    done = 0
    try:
        while done < len(data):
            done += os.write(descriptor, data[done:])
    except OSError:
        os.ftruncate(descriptor, size)
        raise
