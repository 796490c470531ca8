"""Raft's journal: entries, term and vote as one stream of operations, never overwritten.

    append, truncate_from, set_term_vote    loop: change what is in memory, queue an operation
    begin_sync -> ticket                    loop: takes everything queued
    ticket.run()                            worker: one write and one sync for each file it touches;
                                            or ticket.write() on the loop, and one sync by the kernel
    finish_sync(ticket)                     loop: what rests on it may now be promised

Operations are numbered by `sequence`; whoever promises something waits until `promisable_sequence` has
reached the sequence of that moment.  Truncation is an operation too, so one sync covers everything
in order.  After a power cut every operation up to some point is there, that point is at or after
`durable_sequence`, and nothing else is (journal_recovery.py).

What may be promised is what is durable, unless `durability` is OS.  Then it is what the system has in its page cache, which any
kill leaves: a ticket is only written, without a sync of its own.  But for a term and a vote, and for a new file; a ticket with one
of these is synced, and everything before it.  What is written otherwise is synced behind it:

    begin_flush -> flush                    loop: takes what is written; its file is to be synced
    finish_flush(flush)                     loop: that much is durable

No two syncs may be under way at a time: the system reports a failed write once, to one of them.

Files: a new one begins when the last has `file_size_max` bytes, and with the first operation after
`open`, so that a torn tail is left as it is.  Before anything goes to a new file the old one is
fully synced and the new name is durable.  It begins with term and vote, so that the files before
can go (`compact`).

If `ticket.run()` (or `write`) raises StorageFull or DescriptorsExhausted, nothing is lost: run it again when there
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

from distlog.consensus.durability import Durability
from distlog.consensus.journal_entries import EntryPlace, EntryReader, EntryTable, JournalEntry
from distlog.consensus.journal_format import (
    HEADER,
    PAYLOAD_SIZE_MAX,
    Operation,
    OperationKind,
    decode_vote,
    encode_vote,
    file_path,
    operation_size,
)
from distlog.consensus.journal_recovery import JournalFile, OperationReader, read_operations
from distlog.consensus.journal_writer import Batch, JournalWriter, Queued
from distlog.errors import CorruptJournal
from distlog.storage.disk import Disk, DiskFile
from distlog.storage.rewriting import rewrite

__all__ = ["Flush", "Journal", "JournalEntry", "SyncTicket", "read_operations"]

FILE_SIZE_MAX = 64 << 20
CACHE_SIZE_MAX = 32 << 20
# Positions in a file are kept in 32 bits; the last operation may begin just before the limit.
FILE_SIZE_LIMIT = 1 << 30
# What is written to the page cache on the loop, in some microseconds, instead of by the worker.
LOOP_WRITE_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class SyncTicket:
    """A sync under way: once `run`, called in a worker, has returned, every operation up to
    `sequence` is durable.

    Where `write` is not None it may be called instead, on the loop: it writes what is little, and every operation is
    durable when the file that it returns is synced.  Without `syncs` both only write, and nobody waits for a sync.
    """

    run: Callable[[], None]
    write: Callable[[], DiskFile] | None
    sequence: int
    syncs: bool
    # Bytes.
    size: int


class Flush(NamedTuple):
    """What is written and not synced: once `file` is synced, every operation up to `sequence` is durable."""

    file: DiskFile
    sequence: int


class Journal:
    """The journal of one Raft group.  All of it but `SyncTicket.run` and what `compact` returns
    belongs to one thread.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        file_size_max: int,
        cache_size_max: int,
        durability: Durability,
    ) -> None:
        assert 0 < file_size_max <= FILE_SIZE_LIMIT
        self._disk = disk
        self._directory = directory
        self.durability = durability
        self._file_size_max = file_size_max
        self._cache_size_max = cache_size_max
        # As last set; durable once promisable_sequence >= vote_sequence.
        self.term = 0
        self.vote: str | None = None
        # The operation that last changed term or vote.
        self.vote_sequence = 0
        # The last operation queued, and the last that a finished sync covers.
        self.sequence = 0
        self.durable_sequence = 0
        # The last entry that a finished sync covers as it is now; 0 if there is none.
        self.durable_index = 0
        # The last operation, and the last entry as it is now, that promises may rest on.  Invariant: every term and vote up to there
        # is durable.
        self.promisable_sequence = 0
        self.promisable_index = 0
        # Bytes that are written and no finished sync covers.
        self.unsynced_size = 0
        # What recovery found that an operator should know, in sentences.
        self.recovery: list[str] = []
        # What promisable_index becomes when the ticket under way finishes, and durable_index when the flush does.
        self._syncing_index = 0
        self._flushing_index = 0
        # Bytes of the ticket under way, and unsynced bytes that the flush covers.
        self._syncing_size = 0
        self._flushing_size = 0
        self._under_way: SyncTicket | None = None
        self._flush: Flush | None = None
        self._table = EntryTable()
        # Oldest first.  Invariant: all but the last are durable, or will be before anything is
        # written behind them.
        self._files: deque[JournalFile] = deque()
        # The file that operations are queued for; None until the first one after `open`.
        self._tail: JournalFile | None = None
        self._queue: list[Batch] = []
        self._writer = JournalWriter(disk, directory)
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
        durability: Durability = Durability.FSYNC,
    ) -> Self:
        """Read the journal in `directory`, which is made if missing.  Blocks.

        `proven_sequence` is a sequence that was durable once, as a checkpoint knows it.  Entries
        below the index of the last `compact` may be back.  Raises CorruptJournal, with every file
        left as it was, if an operation is missing that was durable: the node may have promised it
        and must not act as the member that it was.
        """
        disk.make_directory(directory)
        journal = cls(disk, directory, file_size_max, cache_size_max, durability)
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
        self.sequence = self.durable_sequence = self.promisable_sequence = reader.sequence
        self.durable_index = self.promisable_index = self.last_index
        self._writer.crc32c = reader.crc32c or 0

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
        place = self._enqueue(Queued(OperationKind.ENTRY, raft_index, term, payload))
        self._table.append(JournalEntry(payload, raft_index, term), place)

    def truncate_from(self, raft_index: int) -> None:
        """Remove the entries from `raft_index`, which the journal holds, to the last."""
        assert self.first_index <= raft_index <= self.last_index
        # Recovery may know entries before the first of ours; they must not be left over when ours
        # all go.
        removes_all = raft_index == self.first_index
        self._enqueue(Queued(OperationKind.TRUNCATE_FROM, 0 if removes_all else raft_index, 0, b""))
        self._table.truncate(raft_index)
        # Entries with these indexes may be appended again before the sync under way ends; it does
        # not cover them.
        last_index = self.last_index
        self.durable_index = min(self.durable_index, last_index)
        self.promisable_index = min(self.promisable_index, last_index)
        self._syncing_index = min(self._syncing_index, last_index)
        self._flushing_index = min(self._flushing_index, last_index)

    def set_term_vote(self, term: int, vote: str | None) -> None:
        """Remember the current term, which never falls, and whom this node voted for in it."""
        assert term >= self.term
        if (term, vote) == (self.term, self.vote):
            return
        self._enqueue(Queued(OperationKind.TERM_VOTE, 0, term, encode_vote(vote)))
        self.term, self.vote, self.vote_sequence = term, vote, self.sequence

    def _enqueue(self, operation: Queued) -> EntryPlace:
        """Number an operation and give it its place."""
        tail = self._tail
        if tail is None or tail.size >= self._file_size_max:
            tail = self._begin_file()
        elif not self._queue:
            self._queue.append(Batch(tail, tail.size, self.sequence + 1, []))
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
        vote = Queued(OperationKind.TERM_VOTE, 0, self.term, encode_vote(self.vote))
        self._queue.append(Batch(self._tail, 0, self.sequence, [vote]))
        self._tail.size = operation_size(len(vote.payload))
        return self._tail

    # --- Sync -----------------------------------------------------------------------------------

    @property
    def must_sync(self) -> bool:
        """Tell whether what is queued is to be synced, and not only written."""
        return self.durability is Durability.FSYNC or (
            self.vote_sequence > self.durable_sequence
            or any(batch.position == 0 for batch in self._queue)
        )

    def begin_sync(self) -> SyncTicket | None:
        """Take what is queued; None if nothing is.  One ticket is under way at a time, and with `must_sync` no flush.

        Run the ticket in the worker, and when that has returned call `finish_sync`.
        """
        assert self._under_way is None, "a sync is under way, or failed: then the process must stop"
        if not self._queue:
            return None
        syncs = self.must_sync
        assert self._flush is None or not syncs, "two syncs at a time"
        batches, self._queue = self._queue, []
        writes = [self._writer.encode(batch, self.durable_sequence) for batch in batches]
        size = sum(write.size for write in writes)
        is_small = len(writes) == 1 and writes[0].position > 0 and size <= LOOP_WRITE_MAX
        self._under_way = SyncTicket(
            run=partial(self._writer.write, deque(writes), syncs, self.unsynced_size > 0),
            write=partial(self._writer.write_small, writes[0]) if is_small else None,
            sequence=self.sequence,
            syncs=syncs,
            size=size,
        )
        self._syncing_index, self._syncing_size = self.last_index, size
        return self._under_way

    def finish_sync(self, ticket: SyncTicket) -> None:
        """Count what a ticket wrote as durable, or as written.  Only after its `run` has returned."""
        assert ticket is self._under_way
        self._under_way = None
        self.promisable_sequence = ticket.sequence
        self.promisable_index = self._syncing_index
        if ticket.syncs:
            self.durable_sequence, self.durable_index = ticket.sequence, self._syncing_index
            self.unsynced_size = 0
        else:
            self.unsynced_size += self._syncing_size
        self._table.evict(self._cache_size_max, self.promisable_index + 1)

    def begin_flush(self) -> Flush | None:
        """Take what is written and not synced; None if nothing is.  No other sync may be under way.

        Sync its file, and when that is done call `finish_flush`.
        """
        assert self._flush is None, "a sync is under way, or failed: then the process must stop"
        if not self.unsynced_size:
            return None
        self._flush = Flush(self._writer.file, self.promisable_sequence)
        self._flushing_index, self._flushing_size = self.promisable_index, self.unsynced_size
        return self._flush

    def finish_flush(self, flush: Flush) -> None:
        """Count what was written when the flush began as durable.  Only after its file's sync has returned."""
        assert flush is self._flush
        self._flush = None
        self.durable_sequence, self.durable_index = flush.sequence, self._flushing_index
        self.unsynced_size -= self._flushing_size

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
        self._writer.close()
