"""Let the leader count itself only up to what its own journal may promise: what is durable.

pysyncobj counts the leader's own copy at once, so with one follower's acknowledgement it commits entries that exist durably on
one disk of three.  A commit needs at least one follower's acknowledgement, hence it is enough to hold those back: an
acknowledgement beyond that index is passed on up to it, and the rest when the fsync is done; with durability OS, the write.
"""

from __future__ import annotations

import msgspec

from distlog.consensus.messages import AppendReply


class CommitGate:
    """Holds the newest acknowledgement of each voter that runs ahead of the leader's own journal."""

    def __init__(self) -> None:
        # By voter: the newest success beyond the promisable index, of the current term.
        self._held: dict[str, AppendReply] = {}

    def admit(self, voter: str, reply: AppendReply, promisable_index: int) -> AppendReply:
        """Return what may be delivered of `reply` now."""
        if not reply.success or reply.next_index - 1 <= promisable_index:
            return reply
        held = self._held.get(voter)
        if held is None or held.next_index <= reply.next_index:
            self._held[voter] = msgspec.structs.replace(reply, reset=False)
        # Still delivered: the answer shows that the voter lives, and where to go on.
        return msgspec.structs.replace(reply, success=False)

    def release(self, promisable_index: int) -> list[tuple[str, AppendReply]]:
        """Return the held acknowledgements of what the leader has promisable by now."""
        ready = [
            (voter, reply)
            for voter, reply in self._held.items()
            if reply.next_index - 1 <= promisable_index
        ]
        for voter, _ in ready:
            del self._held[voter]
        return ready

    def drop(self, voter: str) -> None:
        """Forget a voter whose connection is gone."""
        self._held.pop(voter, None)

    def clear(self) -> None:
        """Forget everything: the leadership or the term changed."""
        self._held.clear()
