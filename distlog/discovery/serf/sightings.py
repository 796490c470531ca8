"""From the members that an agent knows to nodes: which of them are nodes of this cluster, and which of two runs of a node counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from distlog.discovery.serf.client import AgentAddress
from distlog.discovery.serf.tags import NodeState, TaggedNode, gossip_name, node_of
from distlog.discovery.serf.values import AgentMember, AgentStatus
from distlog.discovery.view import Description, MemberStatus, Sighting, two_nodes

STATUSES = {
    AgentStatus.ALIVE: MemberStatus.ALIVE,
    # A member can stay like this for good, and alive, after restarts close to each other.
    AgentStatus.LEAVING: MemberStatus.ALIVE,
    AgentStatus.LEFT: MemberStatus.LEFT,
    AgentStatus.FAILED: MemberStatus.FAILED,
    AgentStatus.NONE: MemberStatus.FAILED,
}
# What a node has said itself goes before what its agent looks like, which may live on without it.
STATES = {NodeState.STOPPED: MemberStatus.FAILED, NodeState.LEFT: MemberStatus.LEFT}


@dataclass(slots=True)
class Sightings:
    """What one look at the members has found.  The node that looks is not among the nodes."""

    nodes: dict[str, Sighting] = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)
    # Gossip names of failed nodes, by node id.
    failed_names: dict[str, list[str]] = field(default_factory=dict)
    # Those of them, and of the node that looks, that a later run of the same node has made meaningless.
    superseded_names: list[str] = field(default_factory=list)
    # HOST:PORT in the gossip of the other nodes that are alive, in order.
    addresses: list[str] = field(default_factory=list)
    # Members that are left out: without tags of ours, and of another cluster.
    stranger_count: int = 0
    other_cluster_count: int = 0


def sightings_of(members: Iterable[AgentMember], own: TaggedNode) -> Sightings:
    """Return what the members are to this node."""
    found = Sightings()
    described = own.description
    candidates: dict[str, list[Sighting]] = {}
    named: list[tuple[str, Sighting]] = []
    for member in members:
        node = node_of(member.tags)
        if node is None:
            found.stranger_count += 1
            continue
        theirs = node.description
        # Who has no cluster yet may become a member; who looks and has none may join that one.
        if theirs.cluster_id and described.cluster_id and theirs.cluster_id != described.cluster_id:
            found.other_cluster_count += 1
            continue
        seen = _sighting(member, node)
        candidates.setdefault(theirs.node_id, []).append(seen)
        is_own = theirs.node_id == described.node_id
        if seen.status is MemberStatus.FAILED:
            found.failed_names.setdefault(theirs.node_id, []).append(member.name)
        if seen.status is MemberStatus.ALIVE and not is_own and member.host:
            found.addresses.append(str(AgentAddress(member.host, member.port)))
        if _is_own_agent(member, node):
            named.append((member.name, seen))
    found.addresses.sort()
    found.superseded_names = _superseded(named)
    for node_id, all_seen in candidates.items():
        is_own = node_id == described.node_id
        up = [each.description for each in all_seen if each.status is MemberStatus.ALIVE]
        conflict = _conflict(node_id, [described, *up] if is_own else up)
        if conflict:
            found.conflicts[node_id] = conflict
        if not is_own:
            found.nodes[node_id] = max(all_seen, key=_rank)
    return found


def _superseded(named: Sequence[tuple[str, Sighting]]) -> list[str]:
    """Return the failed names of which the directory has a later one."""
    latest: dict[str, int] = {}
    for _, seen in named:
        directory_id = seen.description.directory_id
        latest[directory_id] = max(seen.run, latest.get(directory_id, 0))
    return [
        name
        for name, seen in named
        if seen.status is MemberStatus.FAILED and seen.run < latest[seen.description.directory_id]
    ]


def _sighting(member: AgentMember, node: TaggedNode) -> Sighting:
    status = STATES.get(node.state, STATUSES[member.status])
    if (
        status is MemberStatus.LEFT
        and node.state is not NodeState.LEFT
        and not _is_own_agent(member, node)
    ):
        # Its agent has left, as one does with its machine: that is no good-bye of the node, which is removed for that.
        status = MemberStatus.FAILED
    return Sighting(node.description, status, node.run)


def _is_own_agent(member: AgentMember, node: TaggedNode) -> bool:
    """Tell whether a node has started this agent, for one run and under a name of that: it leaves when its node does."""
    return member.name == gossip_name(node.description.node_id, node.run)


def _rank(sighting: Sighting) -> tuple[bool, int, str]:
    """Of two sightings of one node the one that is alive counts, then that of the later run; the directory makes it the same everywhere."""
    is_alive = sighting.status is MemberStatus.ALIVE
    return is_alive, sighting.run, sighting.description.directory_id


def _conflict(node_id: str, up: Sequence[Description]) -> str:
    """Say what is wrong if nodes with different data directories are up under one id; "" if not: one directory is one node."""
    first = up[0] if up else None
    for other in up[1:]:
        if first is not None and other.directory_id != first.directory_id:
            return two_nodes(node_id, first, other)
    return ""
