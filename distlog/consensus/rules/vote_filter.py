"""Count each voter once per term, and only in this node's own.

pysyncobj adds one for every vote message, so a message that arrives twice elects a leader without a majority, and a term can have
two leaders.  A vote of a term in which this node has not asked for any is no vote.
"""

from __future__ import annotations

from collections.abc import Set

from distlog.consensus.messages import VoteReply


class VoteFilter:
    """Remembers who has voted in the newest term of this node."""

    def __init__(self) -> None:
        self._term = 0
        self._voted: set[str] = set()

    def admits(self, sender: str, reply: VoteReply, *, term: int, voters: Set[str]) -> bool:
        """Tell whether this vote may be counted; `term` is this node's."""
        if reply.sender_term != term or sender not in voters:
            return False
        if term > self._term:
            self._term = term
            self._voted = set()
        if sender in self._voted:
            return False
        self._voted.add(sender)
        return True
