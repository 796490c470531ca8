"""From the messages of the wire to the values that a client hands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from distlog.api.log.v1 import log_pb2
from distlog.client.values import (
    CopyProgress,
    LogLine,
    Member,
    Membership,
    NodeStatus,
    PlannedChange,
    Record,
    Rule,
    SeenNode,
    Server,
    TopicRange,
)


def record_of(answer: log_pb2.ConsumeResponse) -> Record:
    key = answer.key if answer.HasField("key") else None
    headers = (
        tuple((header.name, header.value) for header in answer.headers) if answer.headers else ()
    )
    return Record(answer.offset, answer.record, key, headers, answer.timestamp_ms)


def topic_range_of(topic: log_pb2.TopicStatus) -> TopicRange:
    return TopicRange(
        name=topic.name,
        topic_id=topic.topic_id,
        start_offset=topic.start_offset,
        high_watermark=topic.high_watermark,
        last_timestamp_ms=topic.last_timestamp_ms,
        size=topic.size,
        segment_size_max=topic.segment_size_max,
        segment_record_count_max=topic.segment_record_count_max,
        retention_size=topic.retention_size,
        retention_age_ms=topic.retention_age_ms,
    )


def rule_of(rule: log_pb2.Rule) -> Rule:
    return Rule(rule.subject, rule.topic, rule.action, rule.role)


def rule_message(rule: Rule) -> log_pb2.Rule:
    return log_pb2.Rule(subject=rule.subject, topic=rule.topic, action=rule.action, role=rule.role)


def node_status_of(answer: log_pb2.StatusResponse) -> NodeStatus:
    return NodeStatus(
        node_id=answer.node_id,
        cluster_id=answer.cluster_id,
        role=answer.role,
        term=answer.term,
        leader_id=answer.leader_id,
        commit_index=answer.commit_index,
        applied_index=answer.applied_index,
        last_index=answer.last_index,
        checkpoint_index=answer.checkpoint_index,
        journal_size=answer.journal_size,
        members=tuple(member_of(member) for member in answer.members),
        topics=tuple(topic_range_of(topic) for topic in answer.topics),
        version=answer.version,
        is_storage_full=answer.storage_full,
        stall_max_ms=answer.stall_max_ms,
        stall_count=answer.stall_count,
        # An older node does not say it, and syncs.
        durability=answer.durability or "fsync",
        copy=copy_progress_of(answer.copy) if answer.HasField("copy") else None,
        damaged=tuple(answer.scrub.damaged),
        target=answer.target,
        planned=tuple(
            PlannedChange(each.change, each.node_id, each.why, each.waits_for)
            for each in answer.planned
        ),
        is_ready=answer.ready,
        state=answer.state,
        problem=answer.problem,
        uptime_s=answer.uptime_s,
        disk_free=answer.disk_free if answer.HasField("disk_free") else None,
        last_problems=tuple(
            LogLine(each.time_ms, each.level, each.logger, each.text)
            for each in answer.last_problems
        ),
    )


def membership_of(answer: log_pb2.MembersResponse) -> Membership:
    return Membership(
        cluster_id=answer.cluster_id,
        leader_id=answer.leader_id,
        members=tuple(member_of(member) for member in answer.members),
        seen=tuple(seen_node_of(each) for each in answer.seen),
        seen_age_s=answer.seen_age_s if answer.HasField("seen_age_s") else None,
    )


def seen_node_of(seen: log_pb2.SeenNode) -> SeenNode:
    node = seen.description
    return SeenNode(
        node_id=node.node_id,
        directory_id=node.directory_id,
        address=node.client_address,
        peer_address=node.peer_address,
        cluster_id=node.cluster_id,
        expect=node.expect,
        version=node.version,
        status=seen.status,
        for_s=seen.for_s,
    )


def copy_progress_of(copy: log_pb2.CopyStatus) -> CopyProgress:
    return CopyProgress(
        source=copy.source, size=copy.size, done_size=copy.done_size, problem=copy.problem
    )


def member_of(member: log_pb2.MemberStatus) -> Member:
    return Member(
        node_id=member.node_id,
        address=member.client_address,
        is_leader=member.is_leader,
        is_connected=member.connected,
        lag=member.lag if member.HasField("lag") else None,
        is_storage_full=member.storage_full,
        is_voter=not member.learner,
        peer_address=member.peer_address,
    )


def servers_of(answer: log_pb2.GetServersResponse) -> list[Server]:
    return [
        Server(server.id, server.rpc_addr, server.is_leader, server.connected)
        for server in answer.servers
    ]


def leader_of(answers: Iterable[Sequence[Server]]) -> str:
    """Return the address of the leader that most of the answers name, "" if none does."""
    votes = Counter(
        server.address
        for servers in answers
        for server in servers
        if server.is_leader and server.address
    )
    return votes.most_common(1)[0][0] if votes else ""


def merged(answers: Iterable[Sequence[Server]]) -> list[Server]:
    """Return one list of what several nodes say, by node id: each with its address if any of them knows it, and one leader."""
    answers = list(answers)
    leader = leader_of(answers)
    by_id: dict[str, Server] = {}
    for server in (server for servers in answers for server in servers):
        known = by_id.get(server.node_id)
        address = server.address or (known.address if known else "")
        connected = server.is_connected or (known is not None and known.is_connected)
        is_leader = bool(address) and address == leader
        by_id[server.node_id] = Server(server.node_id, address, is_leader, connected)
    return [by_id[node_id] for node_id in sorted(by_id)]
