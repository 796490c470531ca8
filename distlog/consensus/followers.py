"""What a leader knows of the other voters and the learners: how far each is, when it answered, and what it was told.

All of it is of one term and comes from acknowledgements of that term; a change of leader clears it.  What a voter has acknowledged counts
as long as the connection that said it: with durability OS it may be lost with the voter's power.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from distlog.consensus.messages import AppendReply


class Followers:
    """The other voters, as one leader sees them."""

    def __init__(self) -> None:
        # Highest raft index that each has acknowledged over the connection that there is.
        self.matched: dict[str, int] = {}
        # What it was last, also of those that are away: to be looked at, nothing rests on it.
        self.last_matched: dict[str, int] = {}
        # When each answered last.
        self._heard: dict[str, float] = {}
        # The commit index that each connected one was told last.
        self._told: dict[str, int] = {}
        # Those whose disk is full, as they said last: they take no entries.
        self.full: set[str] = set()
        # Those that could propose something if they led, and those that could not, as they said last.
        self.with_space: set[str] = set()
        self.lacking_space: set[str] = set()
        # Those whose last refusal asked for entries before the first kept one.
        self._far_behind: set[str] = set()

    def heard(self, voter: str, now: float, *, is_full: bool, lacks_space: bool) -> None:
        """Take that a voter has answered, whether it has space for entries, and whether it has enough to lead."""
        self._heard[voter] = now
        (self.lacking_space if lacks_space else self.with_space).add(voter)
        (self.with_space if lacks_space else self.lacking_space).discard(voter)
        if is_full:
            self.full.add(voter)
        else:
            self.full.discard(voter)

    def heard_since(self, voters: Collection[str], since: float) -> set[str]:
        """Return those of `voters` that have answered since then."""
        return {voter for voter in voters if self._heard.get(voter, since - 1) >= since}

    def told(self, voter: str, commit_index: int) -> None:
        self._told[voter] = commit_index

    def untold(self, connected: Iterable[str], commit_index: int) -> list[str]:
        """Return those of `connected` that were not told of this commit index, in a fixed order."""
        return sorted(voter for voter in connected if self._told.get(voter, 0) < commit_index)

    def matched_at(self, voter: str, raft_index: int) -> None:
        """Take what a voter has acknowledged; only ever more."""
        self._far_behind.discard(voter)
        self.matched[voter] = max(self.matched.get(voter, 0), raft_index)
        self.last_matched[voter] = self.matched[voter]

    def matched_by_all(self, voters: Collection[str]) -> int:
        """Return the raft index up to which all of `voters` have everything; 0 until each has told."""
        return min((self.matched.get(voter, 0) for voter in voters), default=0)

    def refused(self, voter: str, reply: AppendReply, first_index: int) -> AppendReply:
        """Return where to go on after a refusal, `first_index` being the first entry that there is."""
        if reply.next_index <= first_index and voter not in self._far_behind:
            # Its guess goes too far back, perhaps: try the first entry that there is, once.
            self._far_behind.add(voter)
            return msgspec.structs.replace(reply, next_index=first_index + 1)
        return reply

    def drop(self, voter: str) -> None:
        """Forget what a lost connection makes doubtful."""
        self._far_behind.discard(voter)
        self.full.discard(voter)
        self.with_space.discard(voter)
        self.lacking_space.discard(voter)
        self._told.pop(voter, None)
        # It may come back without what it had only written, or as another process that has lost it.
        self.matched.pop(voter, None)

    def forget(self, voter: str) -> None:
        """Forget all of one that is no member any more."""
        self.drop(voter)
        self.last_matched.pop(voter, None)
        self._heard.pop(voter, None)

    def clear(self) -> None:
        """Forget everything: the leadership or the term changed."""
        self.matched.clear()
        self.last_matched.clear()
        self._heard.clear()
        self._told.clear()
        self.full.clear()
        self.with_space.clear()
        self.lacking_space.clear()
        self._far_behind.clear()
