"""Which connection of two nodes counts, when there is more than one.

Both nodes dial, so two connections can meet; and a node that lost its connection dials again while the other end still
holds the old one.  The two must agree on one without asking each other.  Every greeting carries a number that its sender
never uses twice and always counts up (`attempt`), and these rules decide:

1. Of two connections on which both ends have greeted, the one counts on which the node with the smaller id greeted last.
   Both ends know that number, so both come to the same verdict.
2. A dial that comes in is stale, and dropped without an answer, if the same process has greeted later on the connection
   that counts now: it was sent before that one came about.  Any other dial is news: its sender has no connection, or it
   would not have dialled; so it replaces the old connection at once, even one that looks healthy.
3. Who has a connection that counts does not dial, and drops a dial of its own that finished meanwhile.

A connection that lost is never read again: nothing of it is delivered after the one that replaced it has opened, which is
what Raft needs of a transport (no message of an older connection behind one of a newer).  A greeting of a process that
has died can win over its successor only until it turns out that nobody answers; then both sides dial again.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from distlog.peer.handshake import Greeting


class Greeted(Protocol):
    """A connection, as far as the rules look at it."""

    @property
    def own(self) -> Greeting | None:
        """What this end said, if it has."""

    @property
    def peer(self) -> Greeting | None:
        """What the far end said, if it has."""


Link = TypeVar("Link", bound=Greeted)


class Pairing(Generic[Link]):
    """The connections between this node and one other, seen from this node."""

    def __init__(self, own_id: str, peer_id: str) -> None:
        # Whether the numbers of rule 1 are those of this node.
        self._is_smaller = own_id < peer_id
        # The connection that counts: both ends have greeted on it.
        self.current: Link | None = None
        # Our own dial, on which the other end has not greeted yet.
        self.dialled: Link | None = None

    @property
    def may_dial(self) -> bool:
        """Whether a new dial of ours could become the connection."""
        return self.current is None and self.dialled is None

    def is_stale(self, greeting: Greeting) -> bool:
        """Tell whether a dial that came in with this greeting is older than the connection that counts (rule 2)."""
        if self.current is None or self.current.peer is None:
            return False
        known = self.current.peer
        return known.incarnation == greeting.incarnation and known.attempt > greeting.attempt

    def dial(self, link: Link) -> None:
        """Take a dial of ours on which this end has just greeted."""
        assert self.may_dial
        self.dialled = link

    def answer(self, link: Link) -> list[Link]:
        """Take a dial that came in and that this end has just greeted on.  Return the connections that lost."""
        losers = [self.current] if self.current is not None else []
        # Rule 1: our own dial is older than this greeting of ours.  The node with the greater id cannot tell yet, since the
        # other may have answered that dial in the meantime; it keeps both until the other has spoken.
        if self._is_smaller and self.dialled is not None:
            losers.append(self.dialled)
            self.dialled = None
        self.current = link
        return losers

    def answered(self, link: Link) -> list[Link]:
        """Take our own dial on which the other end has just greeted.  Return the connections that lost, maybe this one."""
        assert link is self.dialled
        self.dialled = None
        if self.current is None:
            self.current = link
            return []
        assert not self._is_smaller, "the smaller id drops its dial when it answers another"
        old, new = self.current.peer, link.peer
        assert old is not None
        assert new is not None
        if old.incarnation == new.incarnation and new.attempt > old.attempt:
            losers = [self.current]
            self.current = link
            return losers
        return [link]

    def opened(self, link: Link) -> list[Link]:
        """Take that the other end has accepted `link`.  Return the connections that lost."""
        assert link is self.current
        if self.dialled is None:
            return []
        # The other end accepted this one, so it has not answered our dial before, and must call it stale (rule 2).
        losers = [self.dialled]
        self.dialled = None
        return losers

    def forget(self, link: Link) -> None:
        """Take that `link` is gone.  Harmless for one that had lost before."""
        if self.current is link:
            self.current = None
        if self.dialled is link:
            self.dialled = None
