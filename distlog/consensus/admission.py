"""What a leader may propose: the state machine's own check, with what is in flight taken into account.

The state machine knows what was applied.  Between that and a new command lie the proposals of this leader that are not
applied yet, and for producers they matter: sequence 6 may be proposed while 5 is in flight, and a repeat of 5 must not be
proposed again but wait for the same outcome.  For everything else it is enough to check against what was applied: an append to
a topic whose deletion is in flight, or the second of two equal creations, is admitted, and `apply` refuses it with certainty,
where a guess here could refuse what would have been fine.

Use it only while this node leads and has applied an entry of its own term: an older state would refuse what the leader
before has accepted.  When leadership is lost, `clear`.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from distlog.consensus.commands import Append, Command, ProducerStamp
from distlog.consensus.producers import WINDOW_SEQUENCE_COUNT
from distlog.consensus.state_machine import AppendResult, StateMachine
from distlog.errors import (
    DistlogError,
    OffsetOutOfRange,
    OutOfSequence,
    Overloaded,
    ProducerFenced,
    ProducerUnknown,
    TopicExists,
    TopicNotFound,
)

Proposal = TypeVar("Proposal")
# What a deposed leader, which has not heard of its successor yet, may say wrongly.
STALE_IF_DEPOSED = (
    OutOfSequence,
    ProducerUnknown,
    ProducerFenced,
    TopicNotFound,
    TopicExists,
    OffsetOutOfRange,
)
# (producer id, epoch, topic id)
WindowKey = tuple[int, int, int]


class Admission(Generic[Proposal]):
    """The proposals in flight of one leader that carry a producer's sequence."""

    def __init__(self, state_machine: StateMachine) -> None:
        self._state_machine = state_machine
        # Invariant: a window is here while at least one of its proposals is in flight.
        self._windows: dict[WindowKey, _Window[Proposal]] = {}

    def admit(self, command: Command, proposal: Proposal) -> Proposal | AppendResult | DistlogError:
        """Tell what `command`, which `proposal` would carry, is to become.

        - `proposal` itself: propose it now, before anything else is admitted, and `settle` it later;
        - another proposal: `command` repeats what that one carries; wait for its outcome;
        - a result: `command` repeats what was applied already, and this is the original answer;
        - an error: it is refused, and nothing is written.
        """
        if not isinstance(command, Append) or command.producer is None:
            return self._state_machine.check(command) or proposal
        stamp = command.producer
        key = (stamp.producer_id, stamp.epoch, command.topic_id)
        window = self._windows.get(key)
        if window is None:
            refused = self._state_machine.check(command)
            if refused is not None:
                return refused
            window = self._windows[key] = _Window()
        else:
            in_flight = window.proposals.get(stamp.sequence)
            if in_flight is not None:
                return in_flight
            refused = self._state_machine.check(command, window.next_sequence) or _check_room(
                window, stamp
            )
            if refused is not None:
                return refused
        window.proposals[stamp.sequence] = proposal
        window.next_sequence = stamp.sequence + 1
        return proposal

    def settle(self, command: Command) -> None:
        """Forget an admitted command: it was applied (with whatever result), or certainly never will be."""
        if not isinstance(command, Append) or command.producer is None:
            return
        stamp = command.producer
        key = (stamp.producer_id, stamp.epoch, command.topic_id)
        window = self._windows[key]
        del window.proposals[stamp.sequence]
        if not window.proposals:
            del self._windows[key]

    def clear(self) -> None:
        """Forget everything in flight: this node leads no more, and what becomes of it is not known here."""
        self._windows.clear()

    @property
    def in_flight_count(self) -> int:
        """Proposals in flight that carry a producer's sequence."""
        return sum(len(window.proposals) for window in self._windows.values())


class _Window(Generic[Proposal]):
    """What one producer has in flight in one topic."""

    __slots__ = ("next_sequence", "proposals")

    def __init__(self) -> None:
        # One past the sequence that was admitted last.
        self.next_sequence = 0
        self.proposals: dict[int, Proposal] = {}


def _check_room(window: _Window[Proposal], stamp: ProducerStamp) -> DistlogError | None:
    # With more in flight than the table remembers, a retry after a change of the leader could not be answered.
    if len(window.proposals) < WINDOW_SEQUENCE_COUNT:
        return None
    return Overloaded(
        queue=f"requests in flight of producer {stamp.producer_id}", limit=WINDOW_SEQUENCE_COUNT
    )
