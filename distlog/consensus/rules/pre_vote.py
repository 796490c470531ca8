"""Ask a majority whether an election could be won before one begins (Raft thesis, section 9.6).

pysyncobj raises its term whenever it has missed the leader for a while.  A voter that was cut off comes back with a higher term than
all others, and the leader that they follow must step down for nothing; with a voter whose incoming messages are lost that goes
on for ever.  So a voter asks first, which changes nothing anywhere: the others would vote for it only if they miss the
leader, too, and lack nothing that it lacks.
"""

from __future__ import annotations

from collections.abc import Set

from distlog.consensus.messages import PreVoteReply, PreVoteRequest


class PreVote:
    """The round of questions of one voter, and its answers to those of others."""

    def __init__(self) -> None:
        # Counts the rounds of this process; the replies repeat it.
        self._number = 0
        # The term in which the round under way was begun; None: there is none.
        self._term: int | None = None
        self._granted: set[str] = set()

    @property
    def is_asking(self) -> bool:
        return self._term is not None

    def begin(self, term: int) -> int:
        """Begin a round, the older one is over; return its number."""
        self._number += 1
        self._term = term
        self._granted = set()
        return self._number

    def abandon(self) -> None:
        """End the round: a leader was heard, or another voter goes first."""
        self._term = None

    def take(self, sender: str, reply: PreVoteReply) -> None:
        """Count a voter that would vote, once."""
        if reply.number == self._number:
            self._granted.add(sender)

    def is_won(self, term: int, voters: Set[str]) -> bool:
        """Tell whether a majority of this voter and `voters` would vote, in a round begun in `term`."""
        return self._term == term and 2 * (len(self._granted & voters) + 1) > len(voters) + 1

    def grants(
        self,
        request: PreVoteRequest,
        *,
        term: int,
        last_index: int,
        last_term: int,
        hears_leader: bool,
    ) -> bool:
        """Tell whether this voter would vote for who asks.

        hears_leader: whether it was in contact with a leader, or has only begun, within the minimum election time-out.
        """
        is_up_to_date = (request.last_term, request.last_index) >= (last_term, last_index)
        return not hears_leader and is_up_to_date and request.sender_term >= term
