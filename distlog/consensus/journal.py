"""Raft's journal: entries, term and vote as one stream of operations, never overwritten.

    append, truncate_from, set_term_vote    loop: change what is in memory, queue an operation
    begin_sync -> ticket                    loop: takes everything queued
    ticket.run()                            worker: one write and one sync for each file it touches
    finish_sync(ticket)                     loop: what rests on it may now be promised

Operations are numbered by `sequence`; whoever promises something waits until `durable_sequence` has
reached the sequence of that moment.  Truncation is an operation too, so one sync covers everything
in order.  After a crash every operation up to some point is there, that point is at or after
`durable_sequence`, and nothing else is (journal_recovery.py).

Files: a new one begins when the last has `file_size_max` bytes, and with the first operation after
`open`, so that a torn tail is left as it is.  Before anything goes to a new file the old one is
fully synced and the new name is durable.  It begins with term and vote, so that the files before
can go (`compact`).

If `ticket.run()` raises StorageFull or DescriptorsExhausted, nothing is lost: run it again when there
is space, it goes on where it was.  If it raises DiskFailed, stop the process: what the disk holds is not known any more.
Until it has returned nothing that rests on it may be promised, and no further sync can begin.

Memory: 24 bytes an entry, and the payloads of the newest: those not yet durable, and others up to
`cache_size_max`.  Older ones are read from their file, which is the one blocking call that the loop
makes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

from distlog.consensus.journal_entries import EntryPlace, EntryReader, EntryTable, JournalEntry
from distlog.consensus.journal_format import (
    HEADER,
    PAYLOAD_SIZE_MAX,
    Operation,
    OperationKind,
    decode_vote,
    encode_header,
    encode_vote,
    file_path,
    operation_size,
    padding,
)
from distlog.consensus.journal_recovery import JournalFile, OperationReader, read_operations
from distlog.errors import CorruptJournal
from distlog.storage.disk import Disk, DiskFile
from distlog.storage.rewriting import rewrite

__all__ = ["Journal", "JournalEntry", "SyncTicket", "read_operations"]

FILE_SIZE_MAX = 64 << 20
CACHE_SIZE_MAX = 32 << 20
# Positions in a file are kept in 32 bits; the last operation may begin just before the limit.
FILE_SIZE_LIMIT = 1 << 30
# Payloads up to this size are copied behind their header, which is cheaper than one more part.
JOINED_SIZE_MAX = 4096


@dataclass(frozen=True, slots=True)
class SyncTicket:
    """A sync under way: once `run`, called in a worker, has returned, every operation up to
    `sequence` is durable.
    """

    run: Callable[[], None]
    sequence: int


class _Queued(NamedTuple):
    """An operation that is numbered but not yet encoded."""

    kind: OperationKind
    raft_index: int
    term: int
    payload: bytes


@dataclass(slots=True)
class _Batch:
    """Queued operations that go into one file, in one write."""

    file: JournalFile
    position: int
    first_sequence: int
    operations: list[_Queued]


class _Write(NamedTuple):
    """An encoded batch.  At position 0 it begins a new file."""

    path: str
    position: int
    parts: list[bytes]


class Journal:
    """The journal of one Raft group.  All of it but `SyncTicket.run` and what `compact` returns
    belongs to one thread.
    """

    def __init__(self, disk: Disk, directory: str, file_size_max: int, cache_size_max: int) -> None:
        assert 0 < file_size_max <= FILE_SIZE_LIMIT
        self._disk = disk
        self._directory = directory
        self._file_size_max = file_size_max
        self._cache_size_max = cache_size_max
        # As last set; durable once durable_sequence >= vote_sequence.
        self.term = 0
        self.vote: str | None = None
        # The operation that last changed term or vote.
        self.vote_sequence = 0
        # The last operation queued, and the last that a finished sync covers.
        self.sequence = 0
        self.durable_sequence = 0
        # The last entry that a finished sync covers as it is now; 0 if there is none.
        self.durable_index = 0
        # What recovery found that an operator should know, in sentences.
        self.recovery: list[str] = []
        # What durable_index becomes when the sync under way finishes.
        self._syncing_index = 0
        self._under_way: SyncTicket | None = None
        self._table = EntryTable()
        # Oldest first.  Invariant: all but the last are durable, or will be before anything is
        # written behind them.
        self._files: deque[JournalFile] = deque()
        # The file that operations are queued for; None until the first one after `open`.
        self._tail: JournalFile | None = None
        self._queue: list[_Batch] = []
        # The checksum of the last operation encoded.
        self._crc32c = 0
        # Open on the tail; belongs to the worker.
        self._writer: DiskFile | None = None
        # For entries that are not in memory.
        self._reader = EntryReader(disk, directory)
        # Files that no entry needs, oldest first.
        self._removable: deque[str] = deque()

    # --- Open -----------------------------------------------------------------------------------

    @classmethod
    def open(
        cls,
        disk: Disk,
        directory: str,
        *,
        proven_sequence: int = 0,
        file_size_max: int = FILE_SIZE_MAX,
        cache_size_max: int = CACHE_SIZE_MAX,
    ) -> Self:
        """Read the journal in `directory`, which is made if missing.  Blocks.

        `proven_sequence` is a sequence that was durable once, as a checkpoint knows it.  Entries
        below the index of the last `compact` may be back.  Raises CorruptJournal, with every file
        left as it was, if an operation is missing that was durable: the node may have promised it
        and must not act as the member that it was.
        """
        disk.make_directory(directory)
        journal = cls(disk, directory, file_size_max, cache_size_max)
        reader = OperationReader(disk, directory, proven_sequence)
        for operation in reader:
            try:
                journal._replay(operation)
            except ValueError as error:
                path = file_path(directory, operation.file_sequence)
                raise CorruptJournal(path, operation.position, str(error)) from error
        journal._adopt(reader)
        return journal

    def _replay(self, operation: Operation) -> None:
        """Do again what a recovered operation says.  Raises ValueError if it cannot be done."""
        if operation.kind == OperationKind.ENTRY:
            self._replay_entry(operation)
        elif operation.kind == OperationKind.TRUNCATE_FROM:
            self._table.truncate(operation.raft_index)
        else:
            self.vote = decode_vote(operation.payload)
            self.term, self.vote_sequence = operation.term, operation.sequence

    def _replay_entry(self, operation: Operation) -> None:
        entry = JournalEntry(operation.payload, operation.raft_index, operation.term)
        if len(self._table) and entry.raft_index != self._table.end:
            raise ValueError(f"entry {entry.raft_index} follows entry {self._table.end - 1}")
        size = HEADER.size + len(entry.payload)
        self._table.append(entry, EntryPlace(operation.file_sequence, operation.position, size))
        self._table.evict(self._cache_size_max, self._table.end)

    def _adopt(self, reader: OperationReader) -> None:
        """Go on behind what the reader found, once it is durable."""
        if reader.files:
            last = file_path(self._directory, reader.files[-1].first_sequence)
            if reader.last_file_is_void:
                # The next file will have the same name.
                self._disk.remove(last)
                reader.notes.append(f"{last} holds no whole operation: removed")
                reader.files.pop()
            else:
                # A killed process leaves in the page cache what a power cut would still take away,
                # and if its sync had failed, only what is written again is written at all.
                file = self._disk.open(last)
                rewrite(file, *reader.unproven_bytes)
                file.sync()
                file.close()
            self._disk.sync_directory(self._directory)
        self._files.extend(reader.files)
        self.recovery = reader.notes
        self.sequence = self.durable_sequence = reader.sequence
        self.durable_index = self.last_index
        self._crc32c = reader.crc32c or 0

    # --- Entries --------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._table)

    @property
    def first_index(self) -> int:
        """The raft index of the first entry; 0 if there is none."""
        return self._table.first if len(self._table) else 0

    @property
    def last_index(self) -> int:
        """The raft index of the last entry; 0 if there is none."""
        return self._table.end - 1 if len(self._table) else 0

    def term_at(self, raft_index: int) -> int | None:
        """Return the term of an entry; None if the journal does not hold it."""
        if self._table.first <= raft_index < self._table.end:
            return self._table.term(raft_index)
        return None

    def entry(self, raft_index: int) -> JournalEntry:
        """Return an entry that the journal holds.

        Reads it from its file if it is not in memory: raises CorruptJournal if that is not what was
        written, DiskFailed if it cannot be read.
        """
        entry = self._table.entry(raft_index)
        if entry is None:
            place, term = self._table.place(raft_index), self._table.term(raft_index)
            entry = self._reader.read(raft_index, term, place)
        return entry

    def entries(self, start: int, stop: int) -> list[JournalEntry]:
        """Return the entries [start, stop), which the journal holds; raises as `entry` does."""
        return [self.entry(raft_index) for raft_index in range(start, stop)]

    # --- Changes --------------------------------------------------------------------------------

    def append(self, payload: bytes, raft_index: int, term: int) -> None:
        """Add an entry: behind the last one, or with any index from 1 if the journal is empty."""
        assert len(payload) <= PAYLOAD_SIZE_MAX
        assert raft_index == self._table.end or (raft_index > 0 and not len(self._table))
        place = self._enqueue(_Queued(OperationKind.ENTRY, raft_index, term, payload))
        self._table.append(JournalEntry(payload, raft_index, term), place)

    def truncate_from(self, raft_index: int) -> None:
        """Remove the entries from `raft_index`, which the journal holds, to the last."""
        assert self.first_index <= raft_index <= self.last_index
        # Recovery may know entries before the first of ours; they must not be left over when ours
        # all go.
        removes_all = raft_index == self.first_index
        self._enqueue(
            _Queued(OperationKind.TRUNCATE_FROM, 0 if removes_all else raft_index, 0, b"")
        )
        self._table.truncate(raft_index)
        # Entries with these indexes may be appended again before the sync under way ends; it does
        # not cover them.
        last_index = self.last_index
        self.durable_index = min(self.durable_index, last_index)
        self._syncing_index = min(self._syncing_index, last_index)

    def set_term_vote(self, term: int, vote: str | None) -> None:
        """Remember the current term, which never falls, and whom this node voted for in it."""
        assert term >= self.term
        if (term, vote) == (self.term, self.vote):
            return
        self._enqueue(_Queued(OperationKind.TERM_VOTE, 0, term, encode_vote(vote)))
        self.term, self.vote, self.vote_sequence = term, vote, self.sequence

    def _enqueue(self, operation: _Queued) -> EntryPlace:
        """Number an operation and give it its place."""
        tail = self._tail
        if tail is None or tail.size >= self._file_size_max:
            tail = self._begin_file()
        elif not self._queue:
            self._queue.append(_Batch(tail, tail.size, self.sequence + 1, []))
        self.sequence += 1
        self._queue[-1].operations.append(operation)
        place = EntryPlace(tail.first_sequence, tail.size, HEADER.size + len(operation.payload))
        tail.size += operation_size(len(operation.payload))
        return place

    def _begin_file(self) -> JournalFile:
        """Begin a file, with the term and the vote of this moment."""
        self.sequence += 1
        self._tail = JournalFile(self.sequence, 0)
        self._files.append(self._tail)
        vote = _Queued(OperationKind.TERM_VOTE, 0, self.term, encode_vote(self.vote))
        self._queue.append(_Batch(self._tail, 0, self.sequence, [vote]))
        self._tail.size = operation_size(len(vote.payload))
        return self._tail

    # --- Sync -----------------------------------------------------------------------------------

    def begin_sync(self) -> SyncTicket | None:
        """Take what is queued; None if nothing is.  One sync is under way at a time.

        Run the ticket in the worker, and when that has returned call `finish_sync`.
        """
        assert self._under_way is None, "a sync is under way, or failed: then the process must stop"
        if not self._queue:
            return None
        batches, self._queue = self._queue, []
        writes = [self._encode(batch) for batch in batches]
        self._under_way = SyncTicket(partial(self._write, deque(writes)), self.sequence)
        self._syncing_index = self.last_index
        return self._under_way

    def finish_sync(self, ticket: SyncTicket) -> None:
        """Count what a ticket wrote as durable.  Only after its `run` has returned."""
        assert ticket is self._under_way
        self._under_way = None
        self.durable_sequence = ticket.sequence
        self.durable_index = self._syncing_index
        self._table.evict(self._cache_size_max, self.durable_index + 1)

    def _encode(self, batch: _Batch) -> _Write:
        parts: list[bytes] = []
        crc32c, durable_sequence = self._crc32c, self.durable_sequence
        for sequence, queued in enumerate(batch.operations, batch.first_sequence):
            kind, raft_index, term, payload = queued
            header, crc32c = encode_header(
                kind, sequence, durable_sequence, raft_index, term, payload, crc32c
            )
            if len(payload) <= JOINED_SIZE_MAX:
                parts.append(header + payload + padding(len(payload)))
            else:
                parts += (header, payload, padding(len(payload)))
        self._crc32c = crc32c
        return _Write(file_path(self._directory, batch.file.first_sequence), batch.position, parts)

    def _write(self, writes: deque[_Write]) -> None:
        """Write and sync batches in their order: none begins before the one before is durable.

        What is done leaves `writes`.  A write that found no space may be there in part: the next
        one writes the same bytes to the same place, before anything is promised of them.
        """
        while writes:
            write = writes[0]
            if write.position == 0:
                if self._writer is None or self._writer.path != write.path:
                    file = self._disk.open(write.path, create=True)
                    if self._writer is not None:
                        self._writer.close()
                    self._writer = file
                # Also when this is repeated: it may be what was refused.
                self._disk.sync_directory(self._directory)
            assert self._writer is not None, "the first operation after `open` begins a file"
            self._writer.write_at(write.position, write.parts)
            self._writer.sync()
            writes.popleft()

    # --- Compaction and close -------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes of the files that are kept, those queued included."""
        return sum(file.size for file in self._files)

    def size_from(self, raft_index: int) -> int:
        """Return the bytes of the files from the one on that has an entry, which the journal holds."""
        first_sequence = self._table.place(raft_index).file_sequence
        return sum(file.size for file in self._files if file.first_sequence >= first_sequence)

    def index_within(self, size_max: int) -> int:
        """Return the first entry of the newest files that have `size_max` bytes or less together.

        The last entry where that would be less than the last file; there is an entry.
        """
        size, first_sequence = 0, self._files[-1].first_sequence
        for file in reversed(self._files):
            size += file.size
            if size > size_max:
                break
            first_sequence = file.first_sequence
        entries = range(self._table.first, self._table.end)
        number = bisect_left(
            entries, first_sequence, key=lambda index: self._table.place(index).file_sequence
        )
        return entries[min(number, len(entries) - 1)]

    def compact(self, raft_index: int) -> Callable[[], None] | None:
        """Forget the entries before `raft_index`, which the journal holds and a durable checkpoint
        contains.

        Returns what removes the files that nobody needs any more, None if there are none: call it
        in the worker that runs the tickets, as removing blocks and files must go in their order.
        If it is never called or fails, the files stay and do no harm.
        """
        # Until the entry is durable, what a restart finds may need any file: a truncation before it
        # may not have happened.  Once it is, the file that it is in has restated term and vote.
        may_remove = raft_index <= self.durable_index
        oldest_needed = self._table.place(raft_index).file_sequence if may_remove else 0
        self._table.drop_before(raft_index)
        files = self._files
        while files[0].first_sequence < oldest_needed:
            first_sequence = files.popleft().first_sequence
            self._reader.forget(first_sequence)
            self._removable.append(file_path(self._directory, first_sequence))
        return self._remove_files if self._removable else None

    def _remove_files(self) -> None:
        # One after the other, each removal durable before the next: a crash must leave no hole
        # between files.
        while self._removable:
            path = self._removable[0]
            if self._disk.exists(path):
                self._disk.remove(path)
            self._disk.sync_directory(self._directory)
            self._removable.popleft()

    def close(self) -> None:
        """Close the files, when no sync is under way.  What no sync took is lost: nobody was
        promised anything on it.
        """
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
