"""Bound what is on its way to each voter, and remember how far pysyncobj has sent.

pysyncobj sends a lagging voter its whole backlog in one tick and ignores whether the transport takes it; and on every
acknowledgement it goes back to the acknowledged index and sends the rest again.  The window keeps at most `size_max`
bytes of unacknowledged entries per voter: beyond that the voter is paused, which pysyncobj sees as a lost connection, while
heartbeats keep the voter from campaigning.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from distlog.consensus.messages import AppendEntries


@dataclass(slots=True)
class _Voter:
    # One past the highest entry sent since the last rewind; 0: none.
    sent_end: int = 0
    # (one past the last entry, bytes) of each AppendEntries with entries that is not acknowledged.
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    in_flight_size: int = 0
    # The entry to go on with when the window opens; None: not paused.
    paused_at: int | None = None


class SendWindow:
    """What is unacknowledged, by voter."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._voters: dict[str, _Voter] = {}

    def admit(self, voter: str, message: AppendEntries, *, is_full: bool) -> bool:
        """Count `message` as sent, or refuse it: then the voter is paused at its first entry.

        is_full: the voter has no space for entries, as it said last.
        """
        state = self._voters.setdefault(voter, _Voter())
        if not message.entries:
            return True
        first, end = message.entries[0][1], message.entries[-1][1] + 1
        if state.paused_at is not None:
            return False
        if is_full or state.in_flight_size >= self._size_max:
            state.paused_at = first
            return False
        size = sum(len(entry[0]) for entry in message.entries)
        state.in_flight.append((end, size))
        state.in_flight_size += size
        state.sent_end = max(state.sent_end, end)
        return True

    def acknowledged(self, voter: str, next_index: int) -> None:
        """Take what the voter has confirmed, everything below `next_index`, out of the window."""
        state = self._voters.get(voter)
        while state is not None and state.in_flight and state.in_flight[0][0] <= next_index:
            state.in_flight_size -= state.in_flight.popleft()[1]

    def rewound(self, voter: str, next_index: int) -> None:
        """The voter wants entries from `next_index` on: what was on its way is of no use."""
        state = self._voters.get(voter)
        if state is None:
            return
        state.in_flight.clear()
        state.in_flight_size = state.sent_end = 0
        if state.paused_at is not None:
            state.paused_at = min(state.paused_at, next_index)

    def resume(self, voter: str) -> int | None:
        """Return the entry to go on with, once, when a paused voter has room again."""
        state = self._voters.get(voter)
        if state is None or state.paused_at is None or state.in_flight_size > self._size_max // 2:
            return None
        index, state.paused_at = state.paused_at, None
        return index

    def next_to_send(self, voter: str, acknowledged_next: int) -> int | None:
        """Return where sending must go on after an acknowledgement; None: where it says."""
        state = self._voters.get(voter)
        if state is None or state.sent_end <= acknowledged_next:
            return None
        return state.sent_end

    def drop(self, voter: str) -> None:
        """Forget a voter whose connection is gone."""
        self._voters.pop(voter, None)

    def clear(self) -> None:
        """Forget everything: the leadership or the term changed."""
        self._voters.clear()
