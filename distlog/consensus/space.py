"""Disk space before promises: what the entries that are not applied yet will cost, held against the node's reserve.

An entry that is in the journal must be applied one day, whatever has filled the disk meanwhile.  So what is in the journal
and not applied never costs more than the reserve can pay.  A node whose reserve is not whole is *full*:

- as the leader it proposes nothing but what frees space, while half of the reserve is left;
- as a follower it takes what the leader proposed before, while that leaves half of the reserve, and then nothing but the empty entry
  with which a leader begins its term: when all disks are full there is still a leader that can prove reads;
- it goes on voting, reading, applying and compacting, for which the other half is kept, until there is space again.

The reserve itself, and who takes from it, is storage/reserve.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from distlog.consensus.commands import COMMAND_HEADER, ENTRY_HEADER, NO_OP
from distlog.consensus.journal_entries import JournalEntry
from distlog.errors import DistlogError

# A leader puts commands to so many different topics into one entry, and so many creations, or the cost would have no bound.
ENTRY_TOPIC_COUNT_MAX = 256
ENTRY_CREATED_COUNT_MAX = 16
# So many times, a topic's records in one entry become another batch and not a part of the one before: with small segments, each is one.
ENTRY_SPLIT_COUNT_MAX = 16
# Three files of a topic, or of its next segment, each up to a block more than its data, and their names.
TOPIC_SIZE = 32 << 10
# The journal's operation around the payload, and its share of a block.
ENTRY_SIZE = 4 << 10
# A row of the batch table for each command.
COMMAND_SIZE = 64
# The payload goes into the journal and into a log, and what is small in it is larger there: a record has a row of the index.
COPIES = 3


class Reserve(Protocol):
    """What pays (storage/reserve.py).  Sizes in bytes."""

    path: str
    # When it is whole.
    size: int

    @property
    def held(self) -> int:
        """What is left of it."""

    @property
    def is_whole(self) -> bool: ...

    def refusal(self) -> DistlogError:
        """What is told to who wants a promise while it is not whole."""


def entry_cost(payload: bytes, topic_count: int) -> int:
    """Return the bytes of disk that an entry takes at most: in the journal, and in the logs of so many topics."""
    command_count = 0
    if len(payload) >= ENTRY_HEADER.size:
        # None in a configuration, which only the journal holds.
        command_count = ENTRY_HEADER.unpack_from(payload)[4]
    return commands_cost(len(payload), command_count, topic_count)


def commands_cost(size: int, command_count: int, topic_count: int) -> int:
    """Return what an entry of `size` bytes with so many commands costs at most."""
    # A header that says more than the bytes have room for is found corrupt when the entry is applied.
    command_count = min(command_count, size // COMMAND_HEADER.size)
    most = topic_count + ENTRY_CREATED_COUNT_MAX + ENTRY_SPLIT_COUNT_MAX
    touched = min(command_count, most, ENTRY_TOPIC_COUNT_MAX)
    return COPIES * size + COMMAND_SIZE * command_count + TOPIC_SIZE * touched + ENTRY_SIZE


class Space:
    """The costs of the entries in the journal that are not applied, in order."""

    def __init__(self, reserve: Reserve, topic_count: Callable[[], int]) -> None:
        """topic_count(): how many topics there are now."""
        self._reserve = reserve
        self._topic_count = topic_count
        # (raft index, cost) of each entry that is not applied, ascending; and the sum.
        self._unapplied: deque[tuple[int, int]] = deque()
        self.promised = 0
        # Entries were refused since the reserve was whole last.
        self._has_refused = False

    def begin_with(self, entries: Iterable[JournalEntry]) -> None:
        """Take over what the journal already holds beyond the checkpoint."""
        for entry in entries:
            self.taken(entry.raft_index, entry.payload)

    @property
    def is_full(self) -> bool:
        """Tell whether this node may propose nothing but what frees space: its reserve is used up, or a part of it."""
        return not self._reserve.is_whole

    @property
    def is_refusing(self) -> bool:
        """Tell whether a leader had better send no entries, for lack of space, until this is False again."""
        if self._has_refused and self._reserve.is_whole:
            self._has_refused = False
        return self._has_refused

    def refusal(self) -> DistlogError:
        """Return what a full node answers: StorageFull, or DescriptorsExhausted."""
        return self._reserve.refusal()

    @property
    def room(self) -> int:
        """Bytes that further entries may cost."""
        reserve = self._reserve
        if reserve.is_whole:
            return max(0, reserve.size - self.promised)
        return max(0, reserve.held - reserve.size // 2 - self.promised)

    @property
    def is_crowded(self) -> bool:
        """Tell whether half of the reserve is promised: what is committed should be applied before more is taken."""
        return 2 * self.promised > self._reserve.size

    def cost(self, payload: bytes) -> int:
        """Return what an entry would cost at most, with the topics that there are now."""
        return entry_cost(payload, self._topic_count())

    def commands_cost(self, size: int, command_count: int) -> int:
        """Return what an entry of so many commands would cost at most."""
        return commands_cost(size, command_count, self._topic_count())

    def pays_for(self, size: int) -> bool:
        """Tell whether an entry of one command and so many bytes may follow now, also on a full disk."""
        return self.commands_cost(size, 1) <= self.room

    def admissible(self, payloads: Iterable[bytes], older_count: int = 0) -> int:
        """Return how many of these entries, from the first on, may be taken into the journal now.

        older_count: so many of them, from the first on, are of an older term than their leader's.  A whole reserve takes those whatever
        they cost: before the leader's own first entry, which is behind them, none is known to be committed, so waiting until some are
        applied would be waiting for ever.
        """
        room, count = self.room, 0
        older_count = older_count if self._reserve.is_whole else 0
        for payload in payloads:
            room -= self.cost(payload)
            is_free = payload == NO_OP or count < older_count or (count == 0 and self.may_exceed)
            if room < 0 and not is_free:
                self._has_refused = self._has_refused or self.is_full
                break
            count += 1
        return count

    @property
    def may_exceed(self) -> bool:
        """Tell whether the next entry may be taken whatever it costs: a whole reserve is larger than any costs that a leader makes."""
        return self._reserve.is_whole and not self._unapplied

    def taken(self, raft_index: int, payload: bytes) -> None:
        """An entry is in the journal from now on."""
        cost = self.cost(payload)
        self._unapplied.append((raft_index, cost))
        self.promised += cost

    def truncated(self, raft_index: int) -> None:
        """The entries from `raft_index` on are out of the journal."""
        while self._unapplied and self._unapplied[-1][0] >= raft_index:
            self.promised -= self._unapplied.pop()[1]

    def applied(self, raft_index: int) -> None:
        """An entry is applied: what it took of the disk it has."""
        first, cost = self._unapplied.popleft()
        assert first == raft_index, "entries are applied in order"
        self.promised -= cost

    def applicable(self, count_max: int) -> int:
        """Return how many entries, up to `count_max`, may be applied now: what is left of the reserve pays for them.

        All of them while the reserve is whole; fewer if the node was started on a full disk, or something other than promises
        has used the reserve up.
        """
        held = self._reserve.held
        if self.promised <= held:
            return count_max
        if self._reserve.is_whole:
            # There is nothing to wait for.
            return count_max
        for number, (_, cost) in enumerate(self._unapplied):
            held -= cost
            if held < 0:
                return min(number, count_max)
        return count_max
