"""What a node is made with: what an operator decides, and the ports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

from distlog.catch_up.scrub import ScrubSettings
from distlog.consensus.configuration import Configuration
from distlog.consensus.durability import Durability
from distlog.consensus.group import GroupSettings
from distlog.consensus.replicated_log import ReplicatedLogSettings
from distlog.errors import ConfigurationInvalid
from distlog.joining import AskMembers
from distlog.peer.limits import PeerLimits
from distlog.runtime import Clock, Network, Worker
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import Disk

RESERVE_SIZE = 64 << 20
# Bytes in a second that others copy from a node.
COPY_RATE_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What an operator decides."""

    node_id: str
    data_dir: str
    peer_listen: tuple[str, int]
    # The fixed set of voters, this node included, and their peer addresses; this node alone: a cluster of one, or what follows.
    peers: Mapping[str, tuple[str, int]]
    # A cluster of one that others may join, or where clients reach members of the cluster that this node joins.  Neither means anything
    # to a node that belongs to a cluster already.
    bootstrap: bool = False
    join: tuple[tuple[str, int], ...] = ()
    # Where the other nodes reach this one; None: where it listens.
    peer_advertise: tuple[str, int] | None = None
    # Bytes of disk that are kept for what was promised: more than the largest entry costs (consensus/space.py).
    reserve_size: int = RESERVE_SIZE
    # What an entry must have survived here before this node promises it.
    durability: Durability = Durability.FSYNC
    # Bytes in a second that others may copy from this node; 0: as fast as it goes.
    copy_rate_max: int = COPY_RATE_MAX
    scrub: ScrubSettings = field(default_factory=ScrubSettings)
    group: GroupSettings = field(default_factory=GroupSettings)
    replicated_log: ReplicatedLogSettings = field(default_factory=ReplicatedLogSettings)
    peer_limits: PeerLimits = field(default_factory=PeerLimits)


async def _nobody_answers(_address: tuple[str, int]) -> Mapping[str, str]:
    raise OSError("this node has no way to ask")


@dataclass(frozen=True, slots=True)
class NodePorts:
    """What a node reaches the outside by."""

    disk: Disk
    clock: Clock
    random: Random
    network: Network
    make_worker: Callable[[str], Worker]
    # Ask the node at a client address who the members are, and where peers reach them.  Only who joins does.
    ask_members: AskMembers = _nobody_answers


def stored_configuration(settings: NodeSettings, directory: DataDirectory) -> Configuration | None:
    """Return what a data directory knows of its cluster; None: nothing yet.  Raises ConfigurationInvalid if the settings name another."""
    voters, cluster_id = directory.voters, directory.cluster_id
    if voters is None or cluster_id is None:
        return None
    if settings.bootstrap or settings.join:
        # Those mean nothing to who belongs to a cluster.
        return Configuration(cluster_id, voters)
    is_fixed = len(settings.peers) > 1
    # A cluster of one may have grown since, and a node that joined was never one of the first.
    is_known = voters.keys() != {settings.node_id} and settings.node_id in voters
    if (is_fixed or is_known) and voters.keys() != settings.peers.keys():
        raise ConfigurationInvalid(
            key="peers",
            problem=f"names {', '.join(sorted(settings.peers))}, but {settings.data_dir} belongs to the cluster of "
            f"{', '.join(sorted(voters))}: name those, or use another --data-dir",
        )
    return Configuration(cluster_id, voters)
