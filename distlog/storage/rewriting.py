"""Writes bytes again that are there already, so that the next sync really writes them.

What a process finds after a restart may be in the page cache alone.  If a sync of it had failed before, the kernel takes those
pages for clean: another sync succeeds and means nothing.  Written again, they are dirty again.
"""

from __future__ import annotations

from distlog.storage.disk import DiskFile

CHUNK_SIZE = 1 << 20


def rewrite(file: DiskFile, position: int, end: int) -> None:
    """Write the bytes [position, end) of a file again, as they are, or up to its end.  Blocks; the caller syncs."""
    end = min(end, file.size())
    while position < end:
        data = file.read_at(position, min(CHUNK_SIZE, end - position))
        file.write_at(position, [data])
        position += len(data)
