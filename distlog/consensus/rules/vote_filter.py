"""Count each voter once per term.

pysyncobj adds one for every vote message, so a message that arrives twice elects a leader without a majority, and a term can have
two leaders.
"""

from __future__ import annotations

from collections.abc import Set

from distlog.consensus.messages import VoteReply


class VoteFilter:
    """Remembers who has voted in the newest term seen."""

    def __init__(self) -> None:
        self._term = 0
        self._voted: set[str] = set()

    def admits(self, sender: str, reply: VoteReply, voters: Set[str]) -> bool:
        """Tell whether this vote may be counted."""
        if reply.sender_term > self._term:
            self._term = reply.sender_term
            self._voted = set()
        if reply.sender_term < self._term or sender not in voters or sender in self._voted:
            return False
        self._voted.add(sender)
        return True
