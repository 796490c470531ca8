"""How empty nodes that were started alike agree, once, on whom the cluster begins with.

    heard: the N smallest names -> I propose them -> all of them propose the same -> I agree, for good -> all of them agree: form

Every node says in its hello what it proposes and whether it has agreed to it, and writes that down before it says so.

Two sets that share a node are never both formed.  Names that were heard are not forgotten, so a node's proposals only ever move to smaller
names, over restarts, too.  Who has agreed to a set proposes nothing else, unless one of the set proposes smaller names: that one has not
agreed and never will, so nobody ever forms the set.  What was formed has the agreement of all its nodes, and none of them ever took it
back; so none of them has agreed to another one.

Who knows of a cluster agrees to nothing more: it waits to join that one.  So nobody agrees before it has asked around once.

What this cannot do is in docs/decisions/0024-how-empty-nodes-agree.md: two groups that hear nothing of each other form two clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Proposal:
    """Whom a node would form a cluster with."""

    # Node id -> directory id, in the order of the node ids; empty while it has heard too few.
    voters: Mapping[str, str]
    # It has agreed to them, and proposes nothing else any more.
    is_agreed: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.voters))


NOTHING = Proposal({})


class Agreement:
    """What one node that is not formed yet knows of the others like it."""

    def __init__(
        self,
        node_id: str,
        directory_id: str,
        expect: int,
        proposal: Proposal,
        write: Callable[[Proposal], None],
    ) -> None:
        """proposal: what this directory proposed last; write(): make one durable, before anybody hears of it."""
        self._node_id = node_id
        self._directory_id = directory_id
        self.expect = expect
        self._write = write
        # What this node proposes.  Invariant: it is written down.
        self.proposal = proposal
        # The smallest names that were ever heard of: node id -> directory id, as it said last.  More are of no use, and have no limit.
        self._heard = {**proposal.voters, node_id: directory_id}
        # What each has proposed last, and the directory under which it did.
        self._said: dict[str, tuple[str, Proposal]] = {}
        # Whether everybody that it knows of was asked since it runs: until then there may be a cluster that it has not heard of.
        self._has_looked = False
        # A cluster that there is; "": none is known.
        self._cluster_id = ""
        self._advance()

    def hear(self, node_id: str, directory_id: str, proposal: Proposal) -> None:
        """Take what another node that was started alike says.  Raises StorageFull, DiskFailed: hear it again."""
        self._heard[node_id] = directory_id
        self._said[node_id] = (directory_id, proposal)
        try:
            self._advance()
        finally:
            self._forget_the_others()

    def looked_around(self) -> bool:
        """Everybody that this node knows of was asked; tell whether for the first time: then hear the others again."""
        had_looked, self._has_looked = self._has_looked, True
        return not had_looked

    def found(self, cluster_id: str) -> None:
        """There is a cluster, which this node shall join: it agrees to form none beside it."""
        self._cluster_id = cluster_id

    def outcome(self) -> Mapping[str, str] | None:
        """Return the voters when all of them have agreed to each other; None: not yet."""
        if not self.proposal.is_agreed or self._node_id not in self.proposal.voters:
            return None
        is_complete = all(
            said is not None and said.is_agreed and said.voters == self.proposal.voters
            for said in self._said_by_others()
        )
        return self.proposal.voters if is_complete else None

    def missing(self) -> str:
        """Say what this node waits for."""
        if self._cluster_id:
            return f"cluster {self._cluster_id}, which it has found, to take it in"
        if not self.proposal.voters:
            names = ", ".join(sorted(self._heard))
            return f"{self.expect} nodes, of which it knows {names}"
        if self._node_id not in self.proposal.voters:
            return f"{', '.join(self.proposal.names)} to form the cluster, which it then joins"
        waiting = [
            f"{each} with data directory {self.proposal.voters[each]}"
            for each, said in zip(self._others(), self._said_by_others(), strict=True)
            if said is None or said.voters != self.proposal.voters or not said.is_agreed
        ]
        return f"{', '.join(waiting)} to agree"

    # --- One step after the other ----------------------------------------------------------------

    def _advance(self) -> None:
        if self.proposal.is_agreed and self._is_void():
            self._propose(Proposal(self._smallest() or self.proposal.voters))
        if not self.proposal.is_agreed:
            smallest = self._smallest()
            if not smallest:
                return
            if smallest != self.proposal.voters:
                self._propose(Proposal(smallest))
            if self._has_looked and not self._cluster_id and self._all_propose_it():
                self._propose(Proposal(smallest, is_agreed=True))

    def _forget_the_others(self) -> None:
        kept = {*sorted(self._heard)[: self.expect], self._node_id}
        self._heard = {each: self._heard[each] for each in sorted(kept)}
        kept |= self.proposal.voters.keys()
        self._said = {each: self._said[each] for each in self._said if each in kept}

    def _propose(self, proposal: Proposal) -> None:
        self._write(proposal)
        self.proposal = proposal

    def _smallest(self) -> Mapping[str, str]:
        names = sorted(self._heard)[: self.expect]
        return {each: self._heard[each] for each in names} if len(names) == self.expect else {}

    def _all_propose_it(self) -> bool:
        return self._node_id in self.proposal.voters and all(
            said is not None and said.voters == self.proposal.voters
            for said in self._said_by_others()
        )

    def _is_void(self) -> bool:
        """Tell whether nobody can ever form what this node has agreed to."""
        own = self.proposal.names
        return any(
            # One of another size is of a node that was started otherwise meanwhile.
            said is not None and len(said.names) == len(own) and said.names < own
            for said in self._said_by_others()
        )

    def _others(self) -> list[str]:
        return [each for each in self.proposal.names if each != self._node_id]

    def _said_by_others(self) -> list[Proposal | None]:
        """Return what the others of this node's proposal have said under the directories that it names."""
        found = []
        for each in self._others():
            directory_id, said = self._said.get(each, ("", NOTHING))
            found.append(said if directory_id == self.proposal.voters[each] else None)
        return found
