"""The records in a file, a pipe or a terminal: one a line.

Exactly one newline is taken from the end of each line; every other byte belongs to the record.  A last line without a newline is
a record, too; nothing behind the last newline is none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator

from distlog.errors import RecordTooLarge

CHUNK_SIZE = 256 << 10
# No cluster takes a larger record, and a line has to be held whole.
LINE_SIZE_MAX = 32 << 20


async def read_lines(file: int) -> AsyncGenerator[list[bytes], None]:
    """Yield the lines of an open file in lists, as they arrive.

    Raises RecordTooLarge for a line over 32 MiB, after the lines before it.
    """
    # The parts of a line whose end has not come yet.
    parts: list[bytes] = []
    size = 0
    async for chunk in read_chunks(file):
        first, *others = chunk.split(b"\n")
        parts.append(first)
        size += len(first)
        if others:
            lines = [b"".join(parts), *others[:-1]]
            parts, size = [others[-1]], len(others[-1])
            yield lines
        if size > LINE_SIZE_MAX:
            raise RecordTooLarge(size=size, size_max=LINE_SIZE_MAX)
    if size:
        yield [b"".join(parts)]


async def read_chunks(file: int) -> AsyncGenerator[bytes, None]:
    """Yield what an open file holds, without holding up the loop while a pipe or a terminal has nothing."""
    while True:
        await wait_until_readable(file)
        chunk = os.read(file, CHUNK_SIZE)
        if not chunk:
            return
        yield chunk


async def wait_until_readable(file: int) -> None:
    """Return when a read will not wait.  (It is the read that takes bytes: making the file non-blocking would change it for
    every process that shares the terminal.)"""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    try:
        loop.add_reader(file, readable.set)
    except PermissionError:
        # A regular file: the system does not wait for one, and neither do we.
        return
    try:
        await readable.wait()
    finally:
        loop.remove_reader(file)
