"""The end of the journal that is written: queued operations are encoded on the loop, and written and synced in a worker.

encode -> writes        loop, in the order of the operations
write, write_small      worker; or, what is little, the loop
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from distlog.consensus.journal_format import (
    OperationKind,
    encode_header,
    file_path,
    padding,
)
from distlog.consensus.journal_recovery import JournalFile
from distlog.storage.disk import Disk, DiskFile

# Payloads up to this size are copied behind their header, which is cheaper than one more part.
JOINED_SIZE_MAX = 4096


class Queued(NamedTuple):
    """An operation that is numbered but not yet encoded."""

    kind: OperationKind
    raft_index: int
    term: int
    payload: bytes


@dataclass(slots=True)
class Batch:
    """Queued operations that go into one file, in one write."""

    file: JournalFile
    position: int
    first_sequence: int
    operations: list[Queued]


class Write(NamedTuple):
    """An encoded batch.  At position 0 it begins a new file."""

    path: str
    position: int
    parts: list[bytes]
    size: int


class JournalWriter:
    """The file at the end of a journal."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        # The checksum of the last operation encoded.
        self.crc32c = 0
        # Open on the last file; belongs to whoever writes.
        self._file: DiskFile | None = None

    @property
    def file(self) -> DiskFile:
        """Return the file that is written, while nobody begins another."""
        assert self._file is not None, "the first operation after `open` begins a file"
        return self._file

    def encode(self, batch: Batch, durable_sequence: int) -> Write:
        """Encode a batch; what is durable by now is said in each operation."""
        parts: list[bytes] = []
        crc32c = self.crc32c
        for sequence, queued in enumerate(batch.operations, batch.first_sequence):
            kind, raft_index, term, payload = queued
            header, crc32c = encode_header(
                kind, sequence, durable_sequence, raft_index, term, payload, crc32c
            )
            if len(payload) <= JOINED_SIZE_MAX:
                parts.append(header + payload + padding(len(payload)))
            else:
                parts += (header, payload, padding(len(payload)))
        self.crc32c = crc32c
        path = file_path(self._directory, batch.file.first_sequence)
        return Write(path, batch.position, parts, sum(map(len, parts)))

    def write_small(self, write: Write) -> DiskFile:
        """Write into the file that is open; return it."""
        self.file.write_at(write.position, write.parts)
        return self.file

    def write(self, writes: deque[Write], syncs: bool, is_unsynced: bool) -> None:
        """Write and, with `syncs`, sync batches in their order: none begins before the one before is durable.

        What is done leaves `writes`.  A write that found no space may be there in part: the next
        one writes the same bytes to the same place, before anything is promised of them.

        is_unsynced: the file that is open has bytes that were only written.
        """
        while writes:
            write = writes[0]
            if write.position == 0:
                if self._file is None or self._file.path != write.path:
                    if is_unsynced:
                        self.file.sync()
                    file = self._disk.open(write.path, create=True)
                    self.close()
                    self._file = file
                # Also when this is repeated: it may be what was refused.
                self._disk.sync_directory(self._directory)
            self.file.write_at(write.position, write.parts)
            if syncs:
                self.file.sync()
                is_unsynced = False
            writes.popleft()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
