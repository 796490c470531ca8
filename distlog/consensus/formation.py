"""Who belongs together: how a cluster is formed, how a node joins one, and whom a member speaks with.

A fixed set of voters becomes a cluster once, with everybody present.  Every node has a random directory id, and says it in its hello.  A
node that has heard all voters, itself included, writes the base configuration: node id -> directory id for each.  The cluster id is a
hash of it, so two nodes that heard different directories can never take each other for the same cluster; a node that is not formed yet
adopts the configuration of one that is, if that names its own directory.  A set of one forms by itself.

A node that joins forms nothing.  It waits until a member's hello has it among the members under its own directory, and adopts the base.
One that was also told how many nodes to expect agrees meanwhile with others like it (agreement.py), and the first of the two decides.

From then on a known node id with another directory is no member: a wiped node cannot vote away what it had acknowledged, not even
together with a voter that had never met it.  An identity that was removed is refused for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from distlog.consensus.agreement import Agreement, Proposal
from distlog.consensus.configuration import Configuration
from distlog.errors import PeerRefused
from distlog.peer.handshake import Hello

WIPED = (
    "its data directory is not the one that the cluster knows under this node id (it was replaced or wiped), so it is no voter: "
    "restore the old directory, or replace the member"
)
REMOVED = (
    "it was removed from the cluster, and its data directory never comes back: stop it, and if the node shall be a member again, start "
    "it with an empty data directory and --join"
)
TAKEN = (
    "a member with another data directory has this node id: remove that one first (distlog cluster remove), or choose another "
    "--node-id"
)
OLD_COPY = (
    "its data directory lacks entries that it had before (a backup, or an older copy, was put in its place), so it must not vote: stop it, "
    "remove the member (distlog cluster remove), and start it with an empty data directory and --join"
)
NO_MEMBER = "it is not one of the nodes named in --peers, no member, and does not ask to --join"
WAITS = "this node waits to join a cluster"
# Who has just become a member, or is about to, is refused so by those that have not heard of it yet.
PASSING = (NO_MEMBER, WAITS)


class Formation:
    """What this node knows of who belongs to its cluster."""

    def __init__(
        self,
        node_id: str,
        directory_id: str,
        voters: Set[str],
        configuration: Configuration | None,
        agreement: Agreement | None = None,
    ) -> None:
        """voters: the fixed set, this node included; empty: this node joins a cluster that there is, or agrees on one."""
        self._node_id = node_id
        self._directory_id = directory_id
        self._voters = frozenset(voters)
        # What the cluster was formed with; None until it is formed, and it never changes afterwards.
        self.configuration = configuration
        # The newest configuration of the log, and the newest one that is committed; set when there is a log.
        self.members: Callable[[], tuple[Configuration, Configuration]] | None = None
        # Directory ids heard from nodes that are not formed either.
        self._heard: dict[str, str] = {node_id: directory_id}
        # What this node has agreed with others like it; None: it forms nothing with them.
        self.agreement = agreement

    @property
    def joins(self) -> bool:
        """Tell whether this node belongs to no cluster yet, and asks to become a member of one."""
        return self.configuration is None and not self._voters

    def judge(self, hello: Hello) -> PeerRefused | None:
        """Return why a peer may not speak with this node; None: it may."""
        if hello.node_id == self._node_id:
            problem = NO_MEMBER
        elif self.configuration is not None:
            problem = self._judge_formed(hello, self.configuration)
        elif self.joins:
            problem = self._judge_waiting(hello)
        else:
            problem = self._judge_unformed(hello)
        return PeerRefused(peer=hello.node_id, problem=problem) if problem else None

    def _judge_formed(self, hello: Hello, base: Configuration) -> str:
        newest, committed = self.members() if self.members is not None else (base, base)
        if (hello.node_id, hello.directory_id) in committed.removed:
            return REMOVED
        known = {each.directory_of(hello.node_id) for each in (newest, committed)} - {None}
        # Who has a newer configuration than this node, which has this node in it, may well lead the cluster.
        knows_more = (
            hello.cluster_id == base.cluster_id
            and hello.configuration_index > newest.raft_index
            and hello.members.get(self._node_id) == self._directory_id
        )
        if hello.directory_id not in known and not knows_more:
            if hello.joins and not hello.cluster_id:
                return TAKEN if known else ""
            return WIPED if known else NO_MEMBER
        if hello.cluster_id not in ("", base.cluster_id):
            return self._wrong_cluster(hello, base)
        return ""

    def _judge_waiting(self, hello: Hello) -> str:
        expect = self.agreement.expect if self.agreement is not None else 0
        if hello.cluster_id or (expect and hello.expect == expect):
            return ""
        if expect and hello.expect:
            return (
                f"this node was started with --expect {expect}, and that one with --expect {hello.expect}: give all nodes the same "
                "number, that of the voters which the cluster shall begin with"
            )
        if expect:
            return (
                f"this node waits for {expect} nodes with --expect {expect} to form a cluster, and that one was started without: it joins "
                "when there is one"
            )
        return WAITS

    def _judge_unformed(self, hello: Hello) -> str:
        if hello.node_id not in self._voters:
            return NO_MEMBER
        if hello.cluster_id and hello.voters.get(self._node_id) != self._directory_id:
            return (
                f"it belongs to cluster {hello.cluster_id}, which knows {self._node_id} with another data directory "
                "or not at all"
            )
        return ""

    def _wrong_cluster(self, hello: Hello, base: Configuration) -> str:
        return (
            f"it belongs to cluster {hello.cluster_id} and this node to {base.cluster_id}: "
            "check --peers and --data-dir on both. (If a data directory was replaced while the cluster formed for the first time, "
            "nothing was acknowledged yet: start all nodes again with empty ones.)"
        )

    def hear(self, hello: Hello) -> Configuration | None:
        """Take an accepted hello; return the base configuration when this one completes it."""
        if self.configuration is not None:
            return None
        if self.joins:
            if hello.members.get(self._node_id) == self._directory_id:
                self.configuration = _adopted(hello.cluster_id, hello.voters)
            elif self.agreement is not None and hello.cluster_id:
                self.agreement.found(hello.cluster_id)
            elif self.agreement is not None:
                said = Proposal(hello.proposal, hello.agreed)
                self.agreement.hear(hello.node_id, hello.directory_id, said)
                voters = self.agreement.outcome()
                self.configuration = Configuration.form(voters) if voters else None
        elif hello.cluster_id:
            self.configuration = _adopted(hello.cluster_id, hello.voters)
        else:
            self._heard[hello.node_id] = hello.directory_id
            self._form_if_complete()
        return self.configuration

    def forget(self) -> None:
        """What `hear` returned could not be written down: the cluster is not formed, as far as this node is concerned."""
        self.configuration = None

    def known(self) -> Configuration | None:
        """Return the base configuration if it is stored already, or if this node is the only voter; otherwise None."""
        if self.configuration is None:
            self._form_if_complete()
        return self.configuration

    def missing(self) -> list[str]:
        """Return the voters that were not heard yet, sorted; or in words what an agreement waits for."""
        if self.agreement is not None:
            return [self.agreement.missing()]
        return sorted(self._voters - self._heard.keys())

    def _form_if_complete(self) -> None:
        if self._heard.keys() == self._voters:
            self.configuration = Configuration.form(self._heard)


def _adopted(cluster_id: str, voters: Mapping[str, str]) -> Configuration | None:
    """Return the peer's configuration, if its cluster id is the hash that it must be."""
    configuration = Configuration.form(dict(voters))
    return configuration if configuration.cluster_id == cluster_id else None
