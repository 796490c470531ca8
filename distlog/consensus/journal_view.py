"""The journal as pysyncobj sees it: a list of (payload, raft_index, term), in its names and with its habits.

The library asks for entries by their place in the list, slices it, and asks for the last one very often.  What one step of the
event loop may send or apply is bounded here: a slice gives less than it was asked for, and the library goes on from there in
its next tick.  So are the entries for which there is no space on the disk: they are applied when there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from distlog.consensus.configuration import (
    Configuration,
    decode_configuration_entry,
    is_configuration,
)
from distlog.consensus.journal import Journal, JournalEntry
from distlog.consensus.rules import ConsensusViolated
from distlog.consensus.rules.configuration_log import ConfigurationLog
from distlog.consensus.space import Space

# What one step may take, in bytes and entries: larger backlogs are sent and applied in several steps.
MESSAGE_SIZE_MAX = 1 << 20
APPLY_SIZE_MAX = 2 << 20
ENTRY_COUNT_MAX = 1000


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """The checkpoint's two raw entries: everything up to `last` is applied already."""

    previous: JournalEntry
    last: JournalEntry


class JournalView:
    """The journal as the library sees it: a list of (payload, raft_index, term) from the first kept entry on."""

    def __init__(
        self,
        journal: Journal,
        restore_point: RestorePoint | None,
        last_applied: Callable[[], int],
        space: Space,
        configurations: ConfigurationLog,
    ) -> None:
        self._journal = journal
        self._last_applied = last_applied
        self._space = space
        self._configurations = configurations
        # Called when another configuration is in force.
        self.configuration_changed: Callable[[], None] = lambda: None
        # While the library is made it only puts itself in order.
        self._counts_costs = False
        # Set by the library while it takes entries to apply them.
        self.is_applying = False
        # What the library sees as the last entry, without its payload.  Only the library changes the journal's end.
        self._last = self._last_of_journal()
        self._restored_index = restore_point.last.raft_index if restore_point is not None else 1
        # While the checkpoint is loaded the view must begin with its two entries, or the library empties the journal.
        self._first_index = restore_point.previous.raft_index if restore_point is not None else None

    def _last_of_journal(self) -> tuple[bytes, int, int | None]:
        index = self._journal.last_index
        return (b"", index, self._journal.term_at(index))

    def reveal(self) -> None:
        """Show the entries before the checkpoint too: a lagging voter may need them."""
        self._first_index = None

    def count_costs(self) -> None:
        """Hold what is not applied, and from now on what the library adds, against the space that there is."""
        self._counts_costs = True
        first = max(self._last_applied() + 1, self._journal.first_index)
        self._space.begin_with(self._restored(first))

    def _restored(self, first: int) -> Iterator[JournalEntry]:
        """Yield the entries from `first` on, and have the configurations among them come into force again."""
        for raft_index in range(first, self._journal.last_index + 1):
            entry = self._journal.entry(raft_index)
            if is_configuration(entry.payload):
                self._configurations.restored(_configuration(entry.payload, raft_index))
                self.configuration_changed()
            yield entry

    @property
    def first_index(self) -> int:
        return self._journal.first_index if self._first_index is None else self._first_index

    def __len__(self) -> int:
        return max(0, self._journal.last_index - self.first_index + 1) if len(self._journal) else 0

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            return self._slice(key)
        if self._first_index is not None and key >= 0:
            return self._journal.entry(self.first_index + key)
        # Both are asked for very often: the last one for index and term, the first one for its index.
        if key == -1:
            return self._last
        assert key == 0, "the library asks for the first and the last entry only"
        return (b"", self._journal.first_index, None)

    def _slice(self, key: slice) -> Any:
        start = self.first_index + key.start
        if key.stop is None:
            return _Tail(self._journal, start)
        stop = min(self.first_index + key.stop, self._journal.last_index + 1)
        if not self.is_applying:
            return [self._journal.entry(index) for index in range(start, stop)]
        if self._counts_costs:
            stop = start + self._space.applicable(max(0, stop - start))
        # The library goes on from where this ends in the next tick.
        return list(_up_to(self._journal, start, stop, APPLY_SIZE_MAX, ENTRY_COUNT_MAX))

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._journal.append(command, idx, term)
        self._last = (b"", idx, term)
        if self._counts_costs:
            self._space.taken(idx, command)
        if is_configuration(command):
            self._configurations.appended(_configuration(command, idx))
            self.configuration_changed()

    def deleteEntriesFrom(self, entryFrom: int) -> None:
        raft_index = self.first_index + entryFrom
        if raft_index <= self._last_applied():
            raise ConsensusViolated(f"the library deletes applied entry {raft_index}")
        self._journal.truncate_from(raft_index)
        self._last = self._last_of_journal()
        self._space.truncated(raft_index)
        if self._configurations.truncated(raft_index):
            self.configuration_changed()

    def deleteEntriesTo(self, entryTo: int) -> None:
        raise ConsensusViolated("the library compacts the journal")

    def clear(self) -> None:
        raise ConsensusViolated("the library empties the journal")

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:
        self._journal.set_term_vote(term, votedForNodeId)

    def getCurrentTerm(self) -> int:
        return self._journal.term

    def getVotedForNodeId(self) -> str | None:
        return self._journal.vote

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        # Not kept: after a restart everything behind the checkpoint is confirmed again by a leader.
        return

    def getRaftCommitIndex(self) -> int:
        return self._restored_index

    def onOneSecondTimer(self) -> None:
        return

    def _destroy(self) -> None:
        return


def _configuration(payload: bytes, raft_index: int) -> Configuration:
    return decode_configuration_entry(payload, raft_index)[0]


class _Tail:
    """The journal from an entry on, without copying it: the library takes a first part, sized to one message."""

    def __init__(self, journal: Journal, start: int) -> None:
        self._journal = journal
        self._start = start
        self._taken: list[JournalEntry] = []

    def __len__(self) -> int:
        return max(0, self._journal.last_index - self._start + 1)

    def __iter__(self) -> Iterator[JournalEntry]:
        for entry in _up_to(
            self._journal,
            self._start,
            self._journal.last_index + 1,
            MESSAGE_SIZE_MAX,
            ENTRY_COUNT_MAX,
        ):
            self._taken.append(entry)
            yield entry

    def __getitem__(self, key: int | slice) -> Any:
        if isinstance(key, slice):
            assert key.start is None, "the library takes a first part"
            return self._taken[: key.stop]
        return self._journal.entry(self._start + key)


def _up_to(
    journal: Journal, start: int, stop: int, size_max: int, count_max: int
) -> Iterator[JournalEntry]:
    """Yield entries [start, stop) until their sizes pass `size_max` or their count `count_max`; at least one."""
    size = 0
    for index in range(start, min(stop, start + count_max)):
        entry = journal.entry(index)
        size += len(entry.payload)
        if size > size_max and index > start:
            return
        yield entry
