"""What can go wrong with one request to produce, and what a client is told then."""

from __future__ import annotations

from enum import Enum, auto

from distlog.errors import (
    DistlogError,
    InternalError,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    StorageFull,
)


class Fault(Enum):
    """What happens to one request to produce.  AFTER: the record is in the log, and nobody is told."""

    NONE = auto()
    # The connection breaks: a status that no node of distlog sent.
    BREAK_BEFORE = auto()
    BREAK_AFTER = auto()
    # The stream ends as if the client had ended it.
    END_AFTER = auto()
    # The node says that it does not know.
    UNKNOWN_BEFORE = auto()
    UNKNOWN_AFTER = auto()
    INTERNAL_AFTER = auto()
    # Another node leads from now on, and this one says so, or does not know which, or says nothing.
    MOVE = auto()
    MOVE_UNHINTED = auto()
    MOVE_AND_BREAK_AFTER = auto()
    # Nobody leads, until somebody has been asked for the leader twice.
    ELECTION = auto()
    ELECTION_AFTER = auto()
    # Refused; nothing is written.
    OVERLOADED = auto()
    FULL = auto()
    STOPPING = auto()
    # An order of sequences that only a healthy leader a moment later understands.
    NOT_CAUGHT_UP = auto()
    # From here on this stream writes what comes and answers nothing.
    MUTE = auto()


REFUSALS: dict[Fault, DistlogError] = {
    Fault.OVERLOADED: Overloaded("proposals", 1),
    Fault.FULL: StorageFull("data"),
    Fault.STOPPING: ShuttingDown(0.1),
    Fault.UNKNOWN_BEFORE: OutcomeUnknown("leadership lost"),
    Fault.MOVE_UNHINTED: NotLeader("", ""),
    Fault.ELECTION: NoLeader("election", 0.1),
}
UNTOLD: dict[Fault, DistlogError] = {
    Fault.UNKNOWN_AFTER: OutcomeUnknown("leadership lost"),
    Fault.INTERNAL_AFTER: InternalError("1f"),
    Fault.ELECTION_AFTER: NoLeader("election", 0.1),
}
