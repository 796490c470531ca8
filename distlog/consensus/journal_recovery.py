"""Reads the operations of a journal directory in order, and tells a torn tail from corruption.
Changes nothing.

Operations are replayed while each is whole and continues the one before.  Where that ends:

- before the last file: the file was fully synced before the next one began, so what is missing was
  durable: CorruptJournal.  (A file that has a successor is read up to the sequence in the
  successor's name only.  What follows there is the torn tail of an earlier crash: recovery leaves
  such bytes alone and goes on in a new file.)
- in the last file, at an operation that something proves durable: CorruptJournal.  The proof is a
  durable sequence at or above the bad operation's own: the one that a whole operation beyond the
  bad one carries, or the checkpoint's.  Being whole proves nothing: pages that were not synced reach
  the disk in any order.
- in the last file otherwise: the operation was not synced when the node stopped, and it is the end.  Nobody was promised
  anything on it; or a node with durability OS promised it, and a power cut took it, which is what was agreed on.

An operation that is whole but does not fit (another sequence, another predecessor, an unknown kind,
an entry that leaves a gap) was not torn by a crash, which leaves no whole one in a wrong place:
CorruptJournal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import google_crc32c
import numpy as np

from distlog.consensus.journal_format import (
    ALIGNMENT,
    HEADER,
    KIND_MAX,
    PAYLOAD_SIZE_MAX,
    SIZE_AND_CRC,
    Operation,
    OperationKind,
    decode_operation,
    file_path,
    operation_size,
    sequence_of_name,
)
from distlog.errors import CorruptJournal
from distlog.storage.disk import Disk, DiskFile

READ_SIZE = 1 << 20


@dataclass(slots=True)
class JournalFile:
    """One file of the journal."""

    # The sequence of its first operation, which is also its name.
    first_sequence: int
    # Bytes, what follows the last whole operation included.
    size: int


class _NotWhole(Exception):
    """The bytes at `position` are not a whole operation."""

    def __init__(self, position: int, problem: str) -> None:
        super().__init__(problem)
        self.position = position
        self.problem = problem


def read_operations(disk: Disk, directory: str) -> Iterator[Operation]:
    """Yield the operations of a journal that no process has open.

    Raises CorruptJournal, after what lies before, if one is missing that was durable.
    """
    return iter(OperationReader(disk, directory))


class OperationReader:
    """One pass over a journal directory; its attributes are valid when the pass has ended."""

    def __init__(self, disk: Disk, directory: str, proven_sequence: int = 0) -> None:
        self._disk = disk
        self._directory = directory
        # Every operation up to here was durable once: if it is missing, the journal is corrupt.
        self._proven_sequence = proven_sequence
        # The last operation that was yielded, and its checksum; None: any predecessor will do.
        self.sequence = 0
        self.crc32c: int | None = None
        # The files so far, oldest first.
        self.files: list[JournalFile] = []
        # What an operator should know, in sentences.
        self.notes: list[str] = []
        # (sequence, first byte) of the operations of the last file that nothing has proven durable.
        self._unproven: deque[tuple[int, int]] = deque()
        # One past the last byte of the last whole operation of the last file.
        self._whole_size = 0

    def __iter__(self) -> Iterator[Operation]:
        firsts = self._file_sequences()
        if firsts:
            self.sequence = firsts[0] - 1
            self.crc32c = 0 if firsts[0] == 1 else None
            if firsts[0] > 1:
                # The files before went away only after the first operation of this one was durable.
                self._proven_sequence = max(self._proven_sequence, firsts[0])
        elif self._proven_sequence:
            raise CorruptJournal(self._directory, 0, "the journal's files are missing")
        followings: list[int | None] = [*firsts[1:], None]
        for first, following in zip(firsts, followings, strict=False):
            yield from self._read_file(first, following)

    @property
    def unproven_bytes(self) -> tuple[int, int]:
        """Where the last file's whole operations are that may be in the page cache only: first byte, one past the last."""
        first = self._unproven[0][1] if self._unproven else self._whole_size
        return first, self._whole_size

    @property
    def last_file_is_void(self) -> bool:
        """Whether there is a last file and it holds no whole operation."""
        return bool(self.files) and self.sequence < self.files[-1].first_sequence

    def _file_sequences(self) -> list[int]:
        sequences = []
        for name in self._disk.list_directory(self._directory):
            sequence = sequence_of_name(name)
            if sequence:
                sequences.append(sequence)
            else:
                self.notes.append(f"{self._directory}/{name} is not a journal file: left alone")
        return sorted(sequences)

    def _read_file(self, first: int, following: int | None) -> Iterator[Operation]:
        """Yield the operations of a file, up to the one that the file `following` begins with."""
        path = file_path(self._directory, first)
        if self._disk.is_directory(path):
            raise CorruptJournal(path, 0, "it is a directory, not a file")
        file = self._disk.open(path, writable=False)
        try:
            size = file.size()
            self.files.append(JournalFile(first, size))
            position, problem = size, "the file ends"
            self._unproven.clear()
            self._whole_size = 0
            try:
                for operation in _whole_operations(file, first, size):
                    self._check_fits(path, operation)
                    self.sequence, self.crc32c = operation.sequence, operation.crc32c
                    self._note_proof(operation)
                    yield operation
                    if operation.sequence + 1 == following:
                        return
            except _NotWhole as end:
                position, problem = end.position, end.problem
            if following is not None:
                missing = f"operation {self.sequence + 1}, which was durable: {problem}"
                raise CorruptJournal(path, position, missing)
            self._end_in(file, position, problem)
        finally:
            file.close()

    def _note_proof(self, operation: Operation) -> None:
        self._unproven.append((operation.sequence, operation.position))
        self._whole_size = operation.position + operation_size(len(operation.payload))
        proven = max(operation.durable_sequence, self._proven_sequence)
        while self._unproven and self._unproven[0][0] <= proven:
            self._unproven.popleft()

    def _check_fits(self, path: str, operation: Operation) -> None:
        """Raise CorruptJournal if a whole operation cannot come after the one before."""
        if operation.sequence != self.sequence + 1:
            problem = f"operation {operation.sequence} follows {self.sequence}"
        elif self.crc32c is not None and operation.previous_crc32c != self.crc32c:
            problem = f"operation {operation.sequence} was written after another predecessor"
        elif operation.durable_sequence >= operation.sequence:
            problem = (
                f"operation {operation.sequence} says that it was durable before it was written"
            )
        elif not OperationKind.ENTRY <= operation.kind <= KIND_MAX:
            problem = (
                f"operation {operation.sequence} is of kind {operation.kind}, which is unknown"
            )
        elif operation.position == 0 and operation.kind != OperationKind.TERM_VOTE:
            problem = "the file does not begin with term and vote"
        else:
            return
        raise CorruptJournal(path, operation.position, problem)

    def _end_in(self, file: DiskFile, position: int, problem: str) -> None:
        """Make out what the end of the last file's operations means."""
        tail = file.read_at(position, self.files[-1].size - position)
        proven = max(self._proven_sequence, durable_sequence_in(tail, self.sequence))
        if proven > self.sequence:
            missing = f"operation {self.sequence + 1}, which was durable: {problem}"
            raise CorruptJournal(file.path, position, missing)
        if tail:
            self.notes.append(
                f"{file.path}: the last {len(tail)} bytes, from {position} on, do not begin with a "
                f"whole operation ({problem}). They were not synced when the node stopped, and nothing "
                "was promised on them, unless it ran with --durability os: ignored"
            )


def _whole_operations(file: DiskFile, file_sequence: int, size: int) -> Iterator[Operation]:
    """Yield the operations of a file until it ends.  Raises _NotWhole at anything else."""
    position = 0
    # The bytes [start, start + len(window)) of the file.
    window, start = b"", 0
    while position < size:
        end = start + len(window)
        if position + HEADER.size > end and end < size:
            window, start = file.read_at(position, READ_SIZE), position
            end = start + len(window)
        if position + SIZE_AND_CRC.size <= end:
            (operation_end, _) = SIZE_AND_CRC.unpack_from(window, position - start)
            if end - position < operation_end <= HEADER.size + PAYLOAD_SIZE_MAX and end < size:
                window, start = file.read_at(position, max(operation_end, READ_SIZE)), position
        operation = decode_operation(window, position - start, file_sequence, position)
        if isinstance(operation, str):
            raise _NotWhole(position, operation)
        yield operation
        position += operation_size(len(operation.payload))


def durable_sequence_in(tail: bytes, sequence: int) -> int:
    """Return the highest durable sequence that a whole operation in `tail` carries; 0 if none does.

    `tail` begins where operation `sequence + 1` should and is not.  An operation counts only if the
    bytes before it have room for those that it follows.
    """
    slots = len(tail) // ALIGNMENT
    candidate_count = slots - HEADER.size // ALIGNMENT + 1
    if candidate_count <= 0:
        return 0
    # Row i is what the header's fields would be if one started at slot i.
    halves = np.frombuffer(tail, dtype="<u4", count=2 * slots).reshape(slots, 2)
    words = np.frombuffer(tail, dtype="<u8", count=slots)
    sizes = halves[:candidate_count, 0]
    kinds = halves[1 : 1 + candidate_count, 1]
    sequences = words[2 : 2 + candidate_count]
    durable = words[3 : 3 + candidate_count]
    sequence_max = np.arange(candidate_count, dtype=np.uint64) * ALIGNMENT // HEADER.size
    sequence_max += sequence + 1
    plausible = (
        (sizes >= HEADER.size)
        & (sizes <= HEADER.size + PAYLOAD_SIZE_MAX)
        & (kinds >= OperationKind.ENTRY)
        & (kinds <= KIND_MAX)
        & (sequences > sequence + 1)
        & (sequences <= sequence_max)
        & (durable < sequences)
    )
    proven = end = 0
    for slot in np.flatnonzero(plausible).tolist():
        start = slot * ALIGNMENT
        # What lies inside a whole operation is its payload, whatever it looks like.
        if start < end:
            continue
        size, crc32c = SIZE_AND_CRC.unpack_from(tail, start)
        if google_crc32c.value(tail[start + SIZE_AND_CRC.size : start + size]) == crc32c:
            proven, end = max(proven, int(durable[slot])), start + size
    return proven
