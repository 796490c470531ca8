"""Hold every message until the journal operations that it promises may be promised: they are durable.

Without it a follower acknowledges entries, and a voter gives votes, that a power cut then forgets: an acknowledged record is lost
after one crash, and two leaders can share a term.  Simulated crash schedules show it within seconds.

A node with durability OS promises entries that are only written; terms and votes are durable there, too.  The journal counts both
as one sequence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from distlog.consensus.messages import (
    AppendEntries,
    AppendReply,
    CheckpointNeeded,
    LeadershipQuery,
    LeadershipReply,
    Message,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    TermNotice,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)


@dataclass(frozen=True, slots=True)
class _Held:
    sequence: int
    receiver: str
    message: Message


class PersistenceGate:
    """The last station before a message leaves the node."""

    def __init__(self, transmit: Callable[[str, Message], None]) -> None:
        self._transmit = transmit
        # Messages in the order in which they were sent.  Invariant: the first one's sequence may not be promised yet.
        self._held: deque[_Held] = deque()

    @property
    def held_count(self) -> int:
        """How many messages wait for the journal."""
        return len(self._held)

    def send(
        self,
        receiver: str,
        message: Message,
        *,
        sequence: int,
        vote_sequence: int,
        promisable: int,
    ) -> None:
        """Transmit `message` now, or when what it rests on may be promised.

        sequence, vote_sequence, promisable: the journal's last operation, its last term and vote, and what may be promised.
        """
        needed = required_sequence(message, sequence, vote_sequence)
        if needed > promisable:
            self._held.append(_Held(needed, receiver, message))
        else:
            self._transmit(receiver, message)

    def release(self, promisable: int) -> None:
        """Transmit what rests on operations up to `promisable`."""
        held, self._held = self._held, deque()
        for item in held:
            if item.sequence <= promisable:
                self._transmit(item.receiver, item.message)
            else:
                self._held.append(item)

    def drop(self, receiver: str) -> None:
        """Forget what was meant for a peer whose connection is gone."""
        self._held = deque(item for item in self._held if item.receiver != receiver)


def required_sequence(message: Message, sequence: int, vote_sequence: int) -> int:
    """Return the journal sequence that must be promisable before `message` may leave."""
    match message:
        case AppendEntries() | CheckpointNeeded():
            # The entries promise nothing by themselves, so their fsync overlaps the network; the term must be durable.
            return vote_sequence
        case AppendReply() | VoteRequest() | VoteReply():
            # Refusals too: they reveal the term, and a rewind hint rests on a truncation.
            return sequence
        case LeadershipQuery() | LeadershipReply() | ReadIndexRequest() | ReadIndexReply():
            # They state what is true now and promise nothing that a crash could take back.
            return 0
        case PreVoteRequest() | PreVoteReply() | TermNotice() | TimeoutNow():
            # Nor do these: an election that follows asks for durable votes.
            return 0
