"""Who votes: the set of nodes, each bound to one data directory.

A node is its id and its directory's random id.  A wiped node comes back with another directory id and is no voter any more:
it must not vote away what the old directory had acknowledged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

CLUSTER_ID_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Configuration:
    """The voters of a cluster: node id -> directory id, in the order of the node ids."""

    cluster_id: str
    voters: Mapping[str, str]

    @classmethod
    def form(cls, voters: Mapping[str, str]) -> Configuration:
        """Return the first configuration of the cluster of these nodes.

        The cluster's id follows from the voters (the first 16 hex digits of SHA-256 over the sorted lines "id=directory_id"), so
        nodes that saw the same directories form the same cluster without having to agree on anything else, and nodes
        that did not are never mistaken for members of one.  Ids hold no white space.
        """
        ordered = dict(sorted(voters.items()))
        lines = "\n".join(f"{node_id}={directory}" for node_id, directory in ordered.items())
        digest = hashlib.sha256(lines.encode()).hexdigest()
        return cls(digest[:CLUSTER_ID_LENGTH], ordered)
