"""How far a log is known to be durable: what a checkpoint keeps of it, and the file that a log
keeps itself.

The file `synced` has two slots of 64 bytes, little-endian, written in turn and synced after what
they speak of; the one with the higher sequence and a right checksum counts:

    magic "DLOGMARK"   sequence u64   start_offset u64   next_offset u64   last_timestamp_ms i64
    segment_base_offset u64   store_position u64   zero u32   crc32c u32 of the 60 bytes before

It tells corruption from a torn tail when a log is opened without a checkpoint: a batch that ends at
or before the mark was promised; what comes after may be missing in any part.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from distlog.block import crc32c
from distlog.storage.disk import Disk
from distlog.storage.rewriting import rewrite

MARK_NAME = "synced"
_SLOT = struct.Struct("<8sQQQqQQI")
_CRC = struct.Struct("<I")
_SLOT_SIZE = 64
_MAGIC = b"DLOGMARK"
# None that was counted up to here, one at a time, is ever reached: behind it there would be no next one.
_SEQUENCE_MAX = 1 << 62


class LogMark(NamedTuple):
    """A point of a log: everything before it is there, what comes after may not be.  A plain tuple: a checkpoint makes thousands."""

    start_offset: int
    next_offset: int
    last_timestamp_ms: int
    # Of the active segment: its base offset and the size of its store.
    segment_base_offset: int
    store_position: int


EMPTY_MARK = LogMark(0, 0, 0, 0, 0)


class MarkFile:
    """The file `synced` of one log.  It is open only while it is read or written: there may be thousands of logs."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        mark: LogMark | None,
        sequence: int,
        *,
        exists: bool,
        problem: str = "",
    ) -> None:
        """Use `open`, `create` or `absent`."""
        self._disk = disk
        self._path = f"{directory}/{MARK_NAME}"
        # What is wrong with the file, in a sentence; empty if nothing is.
        self.problem = problem
        # What the file says; None if it never said anything that can be read.
        self.mark = mark
        self._sequence = sequence
        self._exists = exists

    @classmethod
    def open(cls, disk: Disk, directory: str) -> MarkFile | None:
        """Read the mark of a log's directory; None if there is no such file."""
        path = f"{directory}/{MARK_NAME}"
        if not disk.exists(path):
            return None
        file = disk.open(path, writable=False)
        mark, sequence = None, 0
        try:
            for slot in range(2):
                data = file.read_at(slot * _SLOT_SIZE, _SLOT_SIZE)
                found = _decode_slot(data)
                if found is not None and found[1] > sequence:
                    mark, sequence = found
        finally:
            file.close()
        problem = ""
        if mark is None:
            problem = f"{path} has no mark that can be read: what was synced is inferred"
        elif damaged_slots(disk, directory):
            problem = f"{path} has a damaged mark: the other one, which may be older, counts"
        return cls(disk, directory, mark, sequence, exists=True, problem=problem)

    @classmethod
    def create(cls, disk: Disk, directory: str) -> MarkFile:
        """Make the file; it says nothing yet."""
        marks = cls.absent(disk, directory)
        marks.make()
        return marks

    @classmethod
    def absent(cls, disk: Disk, directory: str) -> MarkFile:
        """Return what stands for a file that `make` or `write` will make."""
        return cls(disk, directory, None, 0, exists=False)

    def make(self) -> None:
        """Make the file if there is none.  Its name is durable after `sync_directory`."""
        if not self._exists:
            self._disk.open(self._path, create=True).close()
            self._exists = True

    def confirm(self) -> None:
        """Make the mark that was found durable: a killed process may have written it and not synced it.  Blocks."""
        if self.mark is None:
            return
        position = self._sequence % 2 * _SLOT_SIZE
        file = self._disk.open(self._path)
        try:
            rewrite(file, position, position + _SLOT_SIZE)
            file.sync()
        finally:
            file.close()

    def write(self, mark: LogMark) -> None:
        """Make `mark` durable.  Blocks; what it speaks of is durable already."""
        if mark == self.mark:
            return
        self.make()
        data = _encode_slot(mark, self._sequence + 1)
        file = self._disk.open(self._path)
        try:
            file.write_at((self._sequence + 1) % 2 * _SLOT_SIZE, [data])
            file.sync()
        finally:
            file.close()
        self._sequence += 1
        self.mark = mark


def damaged_slots(disk: Disk, directory: str) -> list[int]:
    """Return where, in the file of a log's directory, a slot begins that was written and is not whole."""
    file = disk.open(f"{directory}/{MARK_NAME}", writable=False)
    try:
        data = file.read_at(0, 2 * _SLOT_SIZE)
    finally:
        file.close()
    slots = {at: data[at : at + _SLOT_SIZE] for at in (0, _SLOT_SIZE)}
    return [at for at, slot in slots.items() if slot.strip(b"\0") and _decode_slot(slot) is None]


def _encode_slot(mark: LogMark, sequence: int) -> bytes:
    checked = _SLOT.pack(
        _MAGIC,
        sequence,
        mark.start_offset,
        mark.next_offset,
        mark.last_timestamp_ms,
        mark.segment_base_offset,
        mark.store_position,
        0,
    )
    return checked + _CRC.pack(crc32c(checked))


def _decode_slot(data: bytes) -> tuple[LogMark, int] | None:
    if len(data) != _SLOT_SIZE or _CRC.unpack_from(data, _SLOT.size)[0] != crc32c(
        data[: _SLOT.size]
    ):
        return None
    magic, sequence, start, end, timestamp_ms, base, position, _ = _SLOT.unpack_from(data)
    if magic != _MAGIC or sequence > _SEQUENCE_MAX:
        return None
    return LogMark(start, end, timestamp_ms, base, position), sequence
