"""What a node is made with: what an operator decides, and the ports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from distlog.catch_up.scrub import ScrubSettings
from distlog.consensus.configuration import Configuration
from distlog.consensus.durability import Durability
from distlog.consensus.group import GroupSettings
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.discovery.backend import Backend
from distlog.discovery.dns import AskNode, Resolve
from distlog.discovery.serf.options import SerfOptions
from distlog.discovery.view import Description
from distlog.errors import ConfigurationInvalid
from distlog.membership.joining import AskMembers
from distlog.peer.limits import PeerLimits
from distlog.programs import Programs
from distlog.runtime import Clock, Network, Worker
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import Disk
from distlog.tracing.spans import NO_TRACER, Tracer


class MemberIdentity(NamedTuple):
    """Which member of which cluster is meant, and no namesake."""

    cluster_id: str
    node_id: str
    directory_id: str


# Returns when a member is none any more; raises what the leader refuses with.
RemoveMember = Callable[[tuple[str, int], MemberIdentity], Awaitable[None]]
RESERVE_SIZE = 64 << 20
# Bytes in a second that others copy from a node.
COPY_RATE_MAX = 64 << 20
DEAD_AFTER_S = 600.0


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """Which backend, and where it looks: the name and the clients' port of dns, an agent of serf that others run; else "" and 0."""

    backend: Backend = Backend.STATIC
    host: str = ""
    port: int = 0
    serf: SerfOptions = field(default_factory=SerfOptions)


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
    # Of how many nodes like this one a cluster is formed, if there is none to join; 0: none is formed.
    expect: int = 0
    # So long a voter must have failed before another one takes its place.
    dead_after_s: float = DEAD_AFTER_S
    discovery: DiscoverySettings = field(default_factory=DiscoverySettings)
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

    @property
    def joins(self) -> bool:
        """Tell whether this node, while its directory is empty, looks for a cluster to become a member of."""
        is_found = (
            self.discovery.backend.finds_strangers and not self.bootstrap and len(self.peers) == 1
        )
        return bool(self.join) or is_found


async def _nobody_answers(_address: tuple[str, int]) -> Mapping[str, str]:
    raise OSError("this node has no way to ask")


async def _nobody_removes(_address: tuple[str, int], _member: MemberIdentity) -> None:
    raise OSError("this node has no way to ask")


async def _nobody_is_there(address: tuple[str, int], known_as: str = "") -> tuple[Description, int]:
    raise OSError("this node has no way to ask")


async def _nothing_is_known(_name: str) -> Sequence[str]:
    raise OSError("this node has no way to resolve a name")


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
    # Ask the leader at a client address to remove a member.  Only who leaves does.
    remove_member: RemoveMember = _nobody_removes
    # Ask the node at a client address who it is, and for the addresses of a name.  Only discovery by dns does.
    ask_node: AskNode = _nobody_is_there
    resolve: Resolve = _nothing_is_known
    # Run another program, and bytes for keys.  Only discovery by a Serf agent of the node's own does.
    programs: Programs | None = None
    random_bytes: Callable[[int], bytes] = bytes
    # Records what becomes of requests.
    tracer: Tracer = NO_TRACER


def stored_configuration(settings: NodeSettings, directory: DataDirectory) -> Configuration | None:
    """Return what a data directory knows of its cluster; None: nothing yet.  Raises ConfigurationInvalid if the settings name another."""
    voters, cluster_id = directory.voters, directory.cluster_id
    if voters is None or cluster_id is None:
        agreed_on, is_agreed = directory.proposal
        if is_agreed and not settings.joins:
            # Those may have formed it since, with this node: it must not form another one.
            names = ", ".join(sorted(agreed_on))
            raise ConfigurationInvalid(
                key="join",
                problem=f"is missing, but {settings.data_dir} has agreed to be a cluster with {names}: start it with --join and --expect "
                "as before, or with an empty --data-dir",
            )
        return None
    if settings.bootstrap or settings.joins:
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
