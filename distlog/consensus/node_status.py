"""What a node says of itself and of the members, as it knows them in this step."""

from __future__ import annotations

from collections.abc import Callable

from distlog.consensus.configuration import Addresses
from distlog.consensus.group import Group
from distlog.consensus.views import MemberStatus, NodeStatus, PlannedChange, TopicDescription


def describe_node(
    node_id: str,
    group: Group | None,
    addresses_of: Callable[[str], Addresses],
    topics: tuple[TopicDescription, ...],
    durability: str,
    is_between_states: bool,
) -> NodeStatus:
    """Describe a node; group: None while its cluster is not formed, or while it goes over to another state."""
    if group is None:
        return NodeStatus(
            node_id=node_id,
            cluster_id="",
            role="copying" if is_between_states else "forming",
            term=0,
            leader_id="",
            leader_address="",
            commit_index=0,
            applied_index=0,
            last_index=0,
            journal_size=0,
            checkpoint_index=0,
            members=(),
            topics=(),
            durability=durability,
        )
    raft = group.raft
    leader = raft.leader_id or ""
    return NodeStatus(
        node_id=node_id,
        cluster_id=group.configuration.cluster_id,
        role=_role(group),
        term=raft.term,
        leader_id=leader,
        leader_address=addresses_of(leader).client if leader else "",
        commit_index=raft.commit_index,
        applied_index=raft.last_applied,
        last_index=group.journal.last_index,
        journal_size=group.journal.size,
        checkpoint_index=group.checkpoints.index,
        members=tuple(_member(each, group, addresses_of) for each in group.configuration.members),
        topics=topics,
        is_storage_full=group.space.is_full,
        stalls=group.stalls.report(),
        durability=durability,
        target=group.configuration.target,
        planned=tuple(
            PlannedChange(each.change, each.node_id, each.why, each.waits_for)
            for each in group.membership.planned()
        ),
    )


def _role(group: Group) -> str:
    replicas, configuration = group.raft.replicas, group.configuration
    known = configuration.directory_of(replicas.node_id)
    if (replicas.node_id, replicas.directory_id) in configuration.removed:
        return "removed"
    is_voter = replicas.node_id in configuration.voters and known == replicas.directory_id
    return group.raft.role if is_voter else "learner"


def _member(node_id: str, group: Group, addresses_of: Callable[[str], Addresses]) -> MemberStatus:
    raft, own = group.raft, node_id == group.raft.replicas.node_id
    match_index = None
    if raft.is_leader:
        known = raft.followers.last_matched
        match_index = group.journal.promisable_index if own else known.get(node_id, 0)
    addresses = addresses_of(node_id)
    return MemberStatus(
        node_id=node_id,
        client_address=addresses.client,
        is_leader=node_id == raft.leader_id,
        connected=own or node_id in raft.replicas.reachable,
        match_index=match_index,
        lag=None if match_index is None else group.journal.last_index - match_index,
        is_storage_full=group.space.is_full if own else node_id in raft.followers.lacking_space,
        is_voter=node_id in group.configuration.voters,
        peer_address=addresses.peer,
    )
