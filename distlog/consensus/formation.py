"""How a fixed set of voters becomes a cluster: once, with everybody present.

Every node has a random directory id, and says it in its hello.  A node that has heard all voters, itself included, writes
the base configuration: node id -> directory id for each.  The cluster id is a hash of it, so two nodes that heard different directories
can never take each other for the same cluster; a node that is not formed yet adopts the configuration of one that is, if that
names its own directory.  From then on a known node id with another directory is no voter: a wiped node cannot vote away
what it had acknowledged, not even together with a voter that had never met it.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from distlog.consensus.configuration import Configuration
from distlog.errors import PeerRefused
from distlog.peer.handshake import Hello

WIPED = (
    "its data directory is not the one that the cluster knows under this node id (it was replaced or wiped), so it is no voter: "
    "restore the old directory, or replace the member"
)


class Formation:
    """What this node knows of the cluster's base configuration."""

    def __init__(
        self,
        node_id: str,
        directory_id: str,
        voters: Set[str],
        configuration: Configuration | None,
    ) -> None:
        self._node_id = node_id
        self._directory_id = directory_id
        self._voters = frozenset(voters)
        # None until the cluster is formed; never changes afterwards.
        self.configuration = configuration
        # Directory ids heard from nodes that are not formed either.
        self._heard: dict[str, str] = {node_id: directory_id}

    def judge(self, hello: Hello) -> PeerRefused | None:
        """Return why a peer may not speak with this node; None: it may."""
        if hello.node_id not in self._voters or hello.node_id == self._node_id:
            return PeerRefused(
                peer=hello.node_id, problem="it is not one of the nodes named in --peers"
            )
        if self.configuration is None:
            return self._judge_unformed(hello)
        if self.configuration.voters.get(hello.node_id) != hello.directory_id:
            return PeerRefused(peer=hello.node_id, problem=WIPED)
        if hello.cluster_id not in ("", self.configuration.cluster_id):
            return self._wrong_cluster(hello)
        return None

    def _judge_unformed(self, hello: Hello) -> PeerRefused | None:
        if hello.cluster_id and hello.voters.get(self._node_id) != self._directory_id:
            return PeerRefused(
                peer=hello.node_id,
                problem=f"it belongs to cluster {hello.cluster_id}, which knows {self._node_id} with another data directory "
                "or not at all",
            )
        return None

    def _wrong_cluster(self, hello: Hello) -> PeerRefused:
        assert self.configuration is not None
        return PeerRefused(
            peer=hello.node_id,
            problem=f"it belongs to cluster {hello.cluster_id} and this node to {self.configuration.cluster_id}: "
            "check --peers and --data-dir on both. (If a data directory was replaced while the cluster formed for the first time, "
            "nothing was acknowledged yet: start all nodes again with empty ones.)",
        )

    def hear(self, hello: Hello) -> Configuration | None:
        """Take an accepted hello; return the base configuration when this one completes it."""
        if self.configuration is not None:
            return None
        if hello.cluster_id:
            self.configuration = _adopted(hello.cluster_id, hello.voters)
        else:
            self._heard[hello.node_id] = hello.directory_id
            self._form_if_complete()
        return self.configuration

    def known(self) -> Configuration | None:
        """Return the base configuration if it is stored already, or if this node is the only voter; otherwise None."""
        if self.configuration is None:
            self._form_if_complete()
        return self.configuration

    def missing(self) -> list[str]:
        """Return the voters that were not heard yet, sorted."""
        return sorted(self._voters - self._heard.keys())

    def _form_if_complete(self) -> None:
        if self._heard.keys() == self._voters:
            self.configuration = Configuration.form(self._heard)


def _adopted(cluster_id: str, voters: Mapping[str, str]) -> Configuration | None:
    """Return the peer's configuration, if its cluster id is the hash that it must be."""
    configuration = Configuration.form(dict(voters))
    return configuration if configuration.cluster_id == cluster_id else None
