"""What a journal should hold: every state that its operations went through, by sequence."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from distlog.consensus.journal import Journal, JournalEntry, SyncTicket

DIRECTORY = "group/journal"


class State(NamedTuple):
    """What the operations up to some sequence make."""

    entries: tuple[JournalEntry, ...]
    term: int
    vote: str | None


def sync(journal: Journal) -> None:
    """Make everything queued durable."""
    ticket = journal.begin_sync()
    if ticket is not None:
        carry_out(ticket)
        journal.finish_sync(ticket)


def carry_out(ticket: SyncTicket) -> None:
    """Write and sync, in the way that a node does it."""
    if ticket.write is None:
        ticket.run()
    else:
        ticket.write().sync()


def state(journal: Journal) -> State:
    """Return what a journal holds."""
    entries = journal.entries(journal.first_index, journal.last_index + 1) if len(journal) else []
    return State(tuple(entries), journal.term, journal.vote)


class History:
    """A journal and, beside it, what a list makes of the same calls.

    Compaction changes no state here.  Every payload must be another one where entries are compacted.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._sequences = [journal.sequence]
        self._states = [state(journal)]
        # Entries that a compaction has allowed to go.
        self._forgotten: set[JournalEntry] = set()

    @property
    def now(self) -> State:
        return self._states[-1]

    def at(self, sequence: int) -> State:
        """Return the state that the operations up to `sequence` make."""
        return self._states[bisect_right(self._sequences, sequence) - 1]

    def append(self, payload: bytes, *, raft_index: int | None = None) -> None:
        entries = self.now.entries
        if raft_index is None:
            raft_index = entries[-1].raft_index + 1 if entries else 1
        entry = JournalEntry(payload, raft_index, self.now.term)
        self.journal.append(*entry)
        self._record(State((*entries, entry), self.now.term, self.now.vote))

    def truncate_from(self, raft_index: int) -> None:
        self.journal.truncate_from(raft_index)
        entries = tuple(entry for entry in self.now.entries if entry.raft_index < raft_index)
        self._record(State(entries if len(self.journal) else (), self.now.term, self.now.vote))

    def set_term_vote(self, term: int, vote: str | None) -> None:
        self.journal.set_term_vote(term, vote)
        self._record(State(self.now.entries, term, vote))

    def compact(self, raft_index: int) -> None:
        self._forgotten.update(self.now.entries[: raft_index - self.now.entries[0].raft_index])
        remove = self.journal.compact(raft_index)
        if remove is not None:
            remove()

    def sync(self) -> None:
        sync(self.journal)

    def check_recovered(self, recovered: Journal, *, durable_sequence: int) -> None:
        """Hold a journal that was opened on this one's files against what it may have found there."""
        assert durable_sequence <= recovered.sequence <= self.journal.sequence
        found, expected = state(recovered), self.at(recovered.sequence)
        assert (found.term, found.vote) == (expected.term, expected.vote)
        missing = expected.entries[: len(expected.entries) - len(found.entries)]
        assert (*missing, *found.entries) == expected.entries
        assert self._forgotten.issuperset(missing)

    def _record(self, now: State) -> None:
        if self._sequences[-1] == self.journal.sequence:
            assert now == self.now
            return
        self._sequences.append(self.journal.sequence)
        self._states.append(now)
