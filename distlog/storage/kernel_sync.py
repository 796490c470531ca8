"""Syncs that the kernel does by itself, without a thread of this process to wait for each of them.

    begin(file) -> number, the kernel syncs -> `descriptor` becomes readable -> finished(): [(number, its failure or None)]

Linux's native asynchronous I/O can do one thing on every file system: fdatasync (IOCB_CMD_FDSYNC, Linux 4.18, io_submit(2)).
A thread does as well, but has to be woken, and then fights with the event loop for the interpreter's lock twice for each
sync; that costs twice the processor's time, and on a busy node most of the time that a small append takes.

Where the kernel does not offer it (an older one, a sandbox, an architecture that is not known here) `open` returns None, or
`begin` does, and the caller syncs in a thread.  It is the C library's `syscall` that is called: Python has no function for it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from contextlib import suppress
from typing import Self

from distlog.errors import DiskFailed
from distlog.storage.disk import DiskFile, sync_failure

# Of include/uapi/asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_64.tbl: io_setup, io_destroy, io_getevents, io_submit.
SYSTEM_CALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
# Of include/uapi/linux/aio_abi.h.
IOCB_CMD_FDSYNC = 3
IOCB_FLAG_RESFD = 1
# Syncs under way at a time.
IN_FLIGHT_MAX = 8


class _Request(ctypes.Structure):
    """struct iocb, of a little-endian machine."""

    _fields_ = [
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("descriptor", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("result_descriptor", ctypes.c_uint32),
    ]


class _Event(ctypes.Structure):
    """struct io_event."""

    _fields_ = [
        ("data", ctypes.c_uint64),
        ("request", ctypes.c_uint64),
        ("result", ctypes.c_int64),
        ("result2", ctypes.c_int64),
    ]


class KernelSync:
    """A queue of the kernel's, for one thread."""

    def __init__(self, calls: tuple[int, int, int, int], context: int, descriptor: int) -> None:
        """Use `open`."""
        _, self._destroy, self._get_events, self._submit = calls
        self._context = ctypes.c_ulong(context)
        # Readable when a sync has ended.
        self.descriptor = descriptor
        # The kernel copies the request, so one serves all.
        self._request = _Request(
            opcode=IOCB_CMD_FDSYNC, flags=IOCB_FLAG_RESFD, result_descriptor=descriptor
        )
        self._requests = (ctypes.POINTER(_Request) * 1)(ctypes.pointer(self._request))
        self._events = (_Event * IN_FLIGHT_MAX)()
        # Of the last sync begun; and the files of those under way.
        self._number = 0
        self._paths: dict[int, str] = {}
        # With the interpreter's lock held: neither call waits for anything, and giving the lock away costs more than they do.
        self._call = ctypes.PyDLL(None).syscall

    @classmethod
    def open(cls) -> Self | None:
        """Return a queue; None if this kernel has none to give."""
        calls = SYSTEM_CALLS.get(platform.machine())
        if sys.platform != "linux" or sys.byteorder != "little" or calls is None:
            return None
        context = ctypes.c_ulong(0)
        if ctypes.PyDLL(None).syscall(calls[0], IN_FLIGHT_MAX, ctypes.byref(context)):
            return None
        try:
            descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            ctypes.PyDLL(None).syscall(calls[1], context)
            return None
        return cls(calls, context.value, descriptor)

    def begin(self, file: DiskFile) -> int | None:
        """Begin to sync what was written to `file` until now; return the number that `finished` will call it.

        None if the kernel does not take it: use a thread.  The file may be closed meanwhile.
        """
        descriptor = file.descriptor()
        if descriptor is None or len(self._paths) == IN_FLIGHT_MAX:
            return None
        number = self._number + 1
        self._request.descriptor, self._request.data = descriptor, number
        if self._call(self._submit, self._context, 1, self._requests) != 1:
            return None
        self._number = number
        self._paths[number] = file.path
        return number

    def finished(self) -> list[tuple[int, DiskFailed | None]]:
        """Return the syncs that have ended since the last call, and why one failed; does not wait.

        A failed one must stop the process, and is reported here once: a sync that is tried again would find nothing wrong.
        """
        with suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
        count = self._call(self._get_events, self._context, 0, IN_FLIGHT_MAX, self._events, None)
        assert count >= 0, "the queue and its events are there until `close`"
        return [self._ended(int(event.data), int(event.result)) for event in self._events[:count]]

    def _ended(self, number: int, result: int) -> tuple[int, DiskFailed | None]:
        path = self._paths.pop(number)
        if result == 0:
            return number, None
        # The kernel says -EIO.
        return number, sync_failure(path, OSError(-result, os.strerror(-result)))

    def close(self) -> None:
        """Give the queue back.  Blocks until the syncs under way have ended."""
        ctypes.CDLL(None).syscall(self._destroy, self._context)
        os.close(self.descriptor)
