"""Where each entry of the journal is: term, file, position and size, and the newest payloads.

Twenty-four bytes an entry, in chunks of fixed columns: appending, truncating and dropping cost what
they add or remove and nothing else, and what was dropped is gone from memory with its chunk.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple

from distlog.consensus.journal_format import decode_operation, file_path
from distlog.errors import CorruptJournal
from distlog.storage.disk import Disk, DiskFile

CHUNK_BITS = 10
CHUNK_SIZE = 1 << CHUNK_BITS
CHUNK_MASK = CHUNK_SIZE - 1
# What an entry in memory costs beside its payload: two objects and their numbers.
ENTRY_OVERHEAD = 200
# Files that are held open to read entries back.
OPEN_FILE_COUNT_MAX = 4


class JournalEntry(NamedTuple):
    """One entry.  A plain tuple in this order, as pysyncobj compares it with ==."""

    payload: bytes
    raft_index: int
    term: int


class EntryPlace(NamedTuple):
    """Where an entry's operation is."""

    # The file, by the sequence of its first operation.
    file_sequence: int
    # Bytes from the start of the file to the operation's header, and bytes of header and payload.
    position: int
    size: int


class _Chunk:
    """The columns of CHUNK_SIZE neighbouring entries; the row is the low bits of the index."""

    __slots__ = ("cached_size", "entries", "files", "positions", "sizes", "terms")

    def __init__(self) -> None:
        self.terms = array("Q", bytes(8 * CHUNK_SIZE))
        self.files = array("Q", bytes(8 * CHUNK_SIZE))
        self.positions = array("I", bytes(4 * CHUNK_SIZE))
        self.sizes = array("I", bytes(4 * CHUNK_SIZE))
        # The entries that are in memory, and the bytes that they take.
        self.entries: list[JournalEntry | None] = [None] * CHUNK_SIZE
        self.cached_size = 0


class EntryTable:
    """A list of entries without gaps, `[first, end)` by raft index."""

    def __init__(self) -> None:
        self.first = 1
        self.end = 1
        # Entries [cached_from, end) are in memory; those before are read from their files.
        self._cached_from = 1
        # Bytes that the entries in memory take.
        self.cached_size = 0
        # By raft_index >> CHUNK_BITS.  Exactly the chunks that [first, end) touches.
        self._chunks: dict[int, _Chunk] = {}

    def __len__(self) -> int:
        return self.end - self.first

    def append(self, entry: JournalEntry, place: EntryPlace) -> None:
        """Add the entry at `end`; at any index if the table is empty."""
        raft_index = entry.raft_index
        if self.first == self.end:
            self.first = self.end = self._cached_from = raft_index
        assert raft_index == self.end, "entries follow each other without gaps"
        chunk = self._chunks.get(raft_index >> CHUNK_BITS)
        if chunk is None:
            chunk = self._chunks[raft_index >> CHUNK_BITS] = _Chunk()
        row = raft_index & CHUNK_MASK
        chunk.terms[row] = entry.term
        chunk.files[row], chunk.positions[row], chunk.sizes[row] = place
        chunk.entries[row] = entry
        size = len(entry.payload) + ENTRY_OVERHEAD
        chunk.cached_size += size
        self.cached_size += size
        self.end = raft_index + 1

    def term(self, raft_index: int) -> int:
        assert self.first <= raft_index < self.end
        return self._chunks[raft_index >> CHUNK_BITS].terms[raft_index & CHUNK_MASK]

    def place(self, raft_index: int) -> EntryPlace:
        assert self.first <= raft_index < self.end
        chunk, row = self._chunks[raft_index >> CHUNK_BITS], raft_index & CHUNK_MASK
        return EntryPlace(chunk.files[row], chunk.positions[row], chunk.sizes[row])

    def entry(self, raft_index: int) -> JournalEntry | None:
        """Return the entry if it is in memory, else None."""
        assert self.first <= raft_index < self.end
        return self._chunks[raft_index >> CHUNK_BITS].entries[raft_index & CHUNK_MASK]

    def truncate(self, end: int) -> None:
        """Forget the entries from `end` on; all if it lies before the first."""
        end = max(end, self.first)
        while self.end > end:
            number = (self.end - 1) >> CHUNK_BITS
            chunk_first = max(number << CHUNK_BITS, self.first)
            if chunk_first >= end:
                self.cached_size -= self._chunks.pop(number).cached_size
                self.end = chunk_first
            else:
                for raft_index in range(max(end, self._cached_from), self.end):
                    self._release(self._chunks[number], raft_index & CHUNK_MASK)
                self.end = end
        self._cached_from = min(self._cached_from, self.end)

    def drop_before(self, first: int) -> None:
        """Forget the entries before `first`, which stays."""
        assert self.first <= first < self.end
        self.evict(0, first)
        for number in range(self.first >> CHUNK_BITS, first >> CHUNK_BITS):
            del self._chunks[number]
        self.first = first

    def evict(self, size_max: int, end: int) -> None:
        """Drop entries from memory, oldest first and none from `end` on, until the rest takes
        `size_max` bytes or less.
        """
        end = min(end, self.end)
        raft_index = self._cached_from
        while self.cached_size > size_max and raft_index < end:
            chunk = self._chunks[raft_index >> CHUNK_BITS]
            chunk_end = (raft_index | CHUNK_MASK) + 1
            if chunk_end <= end and self.cached_size - chunk.cached_size >= size_max:
                self.cached_size -= chunk.cached_size
                chunk.entries, chunk.cached_size = [None] * CHUNK_SIZE, 0
                raft_index = chunk_end
            else:
                self._release(chunk, raft_index & CHUNK_MASK)
                raft_index += 1
        self._cached_from = raft_index

    def _release(self, chunk: _Chunk, row: int) -> None:
        entry = chunk.entries[row]
        assert entry is not None, "what is not in memory cannot leave it"
        size = len(entry.payload) + ENTRY_OVERHEAD
        chunk.cached_size -= size
        self.cached_size -= size
        chunk.entries[row] = None


class EntryReader:
    """Reads entries back from their files."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        # By file_sequence, least recently used first.
        self._files: dict[int, DiskFile] = {}

    def read(self, raft_index: int, term: int, place: EntryPlace) -> JournalEntry:
        """Return the entry at `place`.  Raises CorruptJournal if that is not the one expected."""
        data = self._file(place.file_sequence).read_at(place.position, place.size)
        operation = decode_operation(data, 0, place.file_sequence, place.position)
        if isinstance(operation, str):
            problem = f"entry {raft_index} cannot be read back: {operation}"
        elif (operation.raft_index, operation.term) != (raft_index, term):
            problem = f"entry {operation.raft_index} is where entry {raft_index} was written"
        else:
            return JournalEntry(operation.payload, raft_index, term)
        path = file_path(self._directory, place.file_sequence)
        raise CorruptJournal(path, place.position, problem)

    def forget(self, file_sequence: int) -> None:
        """Close a file that is going to be removed."""
        file = self._files.pop(file_sequence, None)
        if file is not None:
            file.close()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, file_sequence: int) -> DiskFile:
        file = self._files.pop(file_sequence, None)
        if file is None:
            if len(self._files) == OPEN_FILE_COUNT_MAX:
                self.forget(next(iter(self._files)))
            file = self._disk.open(file_path(self._directory, file_sequence), writable=False)
        self._files[file_sequence] = file
        return file
