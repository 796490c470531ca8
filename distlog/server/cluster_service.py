"""The service `log.v1.Cluster`: looking after the cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from distlog.api.log.v1 import log_pb2
from distlog.consensus.views import (
    CopyStatus,
    MemberStatus,
    Retention,
    SegmentLimits,
    TopicDescription,
)
from distlog.discovery.view import NOTHING_SEEN, Member, Sight
from distlog.errors import InvalidRequest, NoLeader
from distlog.security.subject import subject_of
from distlog.server.about import NOTHING_KNOWN, About
from distlog.server.deadlines import read_deadline, write_deadline
from distlog.server.limits import ServerLimits
from distlog.server.policy_calls import PolicyCalls
from distlog.server.records import check_topic
from distlog.server.served_log import ServedLog

# Described in one step of the event loop.
TOPICS_PER_STEP = 200


class ClusterService:
    """One method for each rpc."""

    def __init__(
        self,
        log: ServedLog,
        limits: ServerLimits,
        version: str,
        policy: PolicyCalls,
        itself: Callable[[], Member | None] = lambda: None,
        view: Callable[[], Sight] = lambda: NOTHING_SEEN,
        about: Callable[[], About] = lambda: NOTHING_KNOWN,
    ) -> None:
        """itself(): how this node sees itself; None: it has only begun to start.  view(): the others as well.

        about(): what it says of its process.
        """
        self._log = log
        self._limits = limits
        self._version = version
        self._policy = policy
        self._itself = itself
        self._view = view
        self._about = about

    async def status(self, request: log_pb2.StatusRequest, context: Any) -> log_pb2.StatusResponse:
        """Describe this node and what it knows, without asking anybody: it answers also without a leader."""
        status, standing = self._log.status(with_topics=False), self._log.standing()
        response = log_pb2.StatusResponse(
            node_id=status.node_id,
            cluster_id=status.cluster_id,
            role=status.role,
            term=status.term,
            leader_id=status.leader_id,
            leader_address=status.leader_address,
            commit_index=status.commit_index,
            applied_index=status.applied_index,
            last_index=status.last_index,
            checkpoint_index=status.checkpoint_index,
            journal_size=status.journal_size,
            members=[member_message(member) for member in status.members],
            version=self._version,
            storage_full=status.is_storage_full,
            stall_max_ms=1000 * status.stalls.longest_s,
            stall_count=status.stalls.count,
            durability=status.durability,
            copy=copy_message(status.copy),
            scrub=log_pb2.ScrubStatus(**asdict(status.scrub)),
            target=status.target,
            planned=[
                log_pb2.PlannedChange(
                    change=each.change,
                    node_id=each.node_id,
                    why=each.why,
                    waits_for=each.waits_for,
                )
                for each in status.planned
            ],
            ready=standing.is_ready,
            state=standing.state,
            problem=standing.problem,
        )
        add_about(response, self._about())
        # A node that waits for its cluster, or is between two states, has none to show.
        with contextlib.suppress(NoLeader):
            await self._add_topics(response)
        return response

    async def _add_topics(
        self, response: log_pb2.StatusResponse | log_pb2.ListTopicsResponse
    ) -> None:
        """Put all topics into a response, and let others run meanwhile: there may be ten thousand."""
        for page in self._log.topic_pages(TOPICS_PER_STEP):
            response.topics.extend([topic_message(topic) for topic in page])
            await asyncio.sleep(0)

    async def describe_topic(
        self, request: log_pb2.DescribeTopicRequest, context: Any
    ) -> log_pb2.DescribeTopicResponse:
        """Describe a topic with everything that was acknowledged before the call."""
        check_topic(request.topic)
        async with read_deadline(self._limits.read_timeout_s):
            topic = await self._log.confirmed_topic(request.topic)
        return log_pb2.DescribeTopicResponse(topic=topic_message(topic))

    async def transfer_leadership(
        self, request: log_pb2.TransferLeadershipRequest, context: Any
    ) -> log_pb2.TransferLeadershipResponse:
        """Have another node lead."""
        leader_id = await self._log.transfer_leadership(request.node_id or None)
        return log_pb2.TransferLeadershipResponse(leader_id=leader_id)

    async def members(
        self, request: log_pb2.MembersRequest, context: Any
    ) -> log_pb2.MembersResponse:
        """Say who the members are, without asking anybody: who joins may ask any of them."""
        status, view = self._log.status(with_topics=False), self._view()
        return log_pb2.MembersResponse(
            cluster_id=status.cluster_id,
            leader_id=status.leader_id,
            members=[member_message(member) for member in status.members],
            answering=description_message(self._itself()),
            seen=[seen_message(view.members[each], view.now) for each in sorted(view.members)],
            seen_age_s=view.age_s if view.members else None,
        )

    async def add_member(
        self, request: log_pb2.AddMemberRequest, context: Any
    ) -> log_pb2.AddMemberResponse:
        """Greet a node that waits to join."""
        async with write_deadline(self._limits.write_timeout_s):
            await self._log.add_member(request.node_id, request.peer_address)
        return log_pb2.AddMemberResponse()

    async def remove_member(
        self, request: log_pb2.RemoveMemberRequest, context: Any
    ) -> log_pb2.RemoveMemberResponse:
        """Remove a member."""
        if not request.node_id:
            raise InvalidRequest(field="node_id", problem="name the member that is to be removed")
        async with write_deadline(self._limits.write_timeout_s):
            await self._log.remove_member(
                request.node_id,
                force=request.force,
                cluster_id=request.cluster_id,
                directory_id=request.directory_id,
            )
        return log_pb2.RemoveMemberResponse()

    async def set_target(
        self, request: log_pb2.SetTargetRequest, context: Any
    ) -> log_pb2.SetTargetResponse:
        """Have the cluster meant for so many voters."""
        async with write_deadline(self._limits.write_timeout_s):
            await self._log.set_target(request.voter_count)
        return log_pb2.SetTargetResponse()

    async def leave(self, request: log_pb2.LeaveRequest, context: Any) -> log_pb2.LeaveResponse:
        """Have this node removed from the cluster, for good; it stops then."""
        own_id = self._log.status(with_topics=False).node_id
        if request.node_id != own_id:
            problem = f"this is {own_id}, and {request.node_id or 'nobody'} was named"
            raise InvalidRequest(field="node_id", problem=problem)
        await self._log.leave()
        return log_pb2.LeaveResponse()

    async def get_policy(
        self, request: log_pb2.GetPolicyRequest, context: Any
    ) -> log_pb2.GetPolicyResponse:
        """Return the rules that the cluster has agreed on."""
        return await self._policy.get()

    async def change_policy(
        self, request: log_pb2.ChangePolicyRequest, context: Any
    ) -> log_pb2.ChangePolicyResponse:
        """Change them."""
        return await self._policy.change(request, subject_of(context.auth_context()))

    async def list_topics(
        self, request: log_pb2.ListTopicsRequest, context: Any
    ) -> log_pb2.ListTopicsResponse:
        """Describe all topics that were created before the call."""
        async with read_deadline(self._limits.read_timeout_s):
            await self._log.confirm()
        response = log_pb2.ListTopicsResponse()
        await self._add_topics(response)
        return response

    async def create_topic(
        self, request: log_pb2.CreateTopicRequest, context: Any
    ) -> log_pb2.CreateTopicResponse:
        """Create a topic; a limit that is not given is the default's."""
        check_topic(request.topic)
        limits = SegmentLimits()
        limits = SegmentLimits(
            request.segment_size_max or limits.store_size_max,
            request.segment_record_count_max or limits.row_count_max,
        )
        retention = Retention(request.retention_size, request.retention_age_ms)
        async with write_deadline(self._limits.write_timeout_s):
            created = await self._log.create_topic(request.topic, limits, retention)
        return log_pb2.CreateTopicResponse(topic_id=created.topic_id)

    async def configure_topic(
        self, request: log_pb2.ConfigureTopicRequest, context: Any
    ) -> log_pb2.ConfigureTopicResponse:
        """Change how much of a topic is kept."""
        check_topic(request.topic)
        size = request.retention_size if request.HasField("retention_size") else None
        age_ms = request.retention_age_ms if request.HasField("retention_age_ms") else None
        async with write_deadline(self._limits.write_timeout_s):
            configured = await self._log.configure_topic(
                request.topic, retention_size=size, retention_age_ms=age_ms
            )
        return log_pb2.ConfigureTopicResponse(
            retention_size=configured.retention.size, retention_age_ms=configured.retention.age_ms
        )

    async def trim_topic(
        self, request: log_pb2.TrimTopicRequest, context: Any
    ) -> log_pb2.TrimTopicResponse:
        """Forget the records before an offset."""
        check_topic(request.topic)
        async with write_deadline(self._limits.write_timeout_s):
            trimmed = await self._log.trim_topic(request.topic, request.start_offset)
        return log_pb2.TrimTopicResponse(start_offset=trimmed.start_offset)

    async def delete_topic(
        self, request: log_pb2.DeleteTopicRequest, context: Any
    ) -> log_pb2.DeleteTopicResponse:
        """Delete a topic with everything in it."""
        check_topic(request.topic)
        if not request.topic:
            # Everywhere else that means the default topic, which nobody deletes by leaving something out.
            raise InvalidRequest(field="topic", problem="name the topic that is to be deleted")
        async with write_deadline(self._limits.write_timeout_s):
            await self._log.delete_topic(request.topic, request.topic_id)
        return log_pb2.DeleteTopicResponse()


def copy_message(copy: CopyStatus | None) -> log_pb2.CopyStatus | None:
    """Return how far a copy is as a message; None if there is none."""
    return None if copy is None else log_pb2.CopyStatus(**asdict(copy))


def member_message(member: MemberStatus) -> log_pb2.MemberStatus:
    """Return the member as a message; what is None is not set."""
    return log_pb2.MemberStatus(
        node_id=member.node_id,
        client_address=member.client_address,
        is_leader=member.is_leader,
        connected=member.connected,
        match_index=member.match_index,
        lag=member.lag,
        storage_full=member.is_storage_full,
        learner=not member.is_voter,
        peer_address=member.peer_address,
    )


def description_message(member: Member | None) -> log_pb2.NodeDescription | None:
    """Return what a node says of itself as a message."""
    if member is None:
        return None
    description = member.description
    return log_pb2.NodeDescription(
        node_id=description.node_id,
        directory_id=description.directory_id,
        peer_address=description.peer_address,
        client_address=description.client_address,
        cluster_id=description.cluster_id,
        expect=description.expect,
        version=description.version,
        run=member.run,
    )


def seen_message(member: Member, now: float) -> log_pb2.SeenNode:
    """Return what discovery sees of a node as a message."""
    return log_pb2.SeenNode(
        description=description_message(member),
        status=member.status.value,
        for_s=max(0.0, now - member.since),
    )


def topic_message(topic: TopicDescription) -> log_pb2.TopicStatus:
    """Return the topic as a message."""
    return log_pb2.TopicStatus(
        name=topic.name,
        topic_id=topic.topic_id,
        start_offset=topic.start_offset,
        high_watermark=topic.high_watermark,
        last_timestamp_ms=topic.last_timestamp_ms,
        size=topic.size,
        segment_size_max=topic.limits.store_size_max,
        segment_record_count_max=topic.limits.row_count_max,
        retention_size=topic.retention.size,
        retention_age_ms=topic.retention.age_ms,
    )


def add_about(response: log_pb2.StatusResponse, about: About) -> None:
    """Put into a response what the node says of its process."""
    response.uptime_s = about.uptime_s
    if about.disk_free is not None:
        response.disk_free = about.disk_free
    response.reserve, response.reserve_max = about.reserve, about.reserve_max
    response.last_problems.extend(
        log_pb2.LogLine(time_ms=line.time_ms, level=line.level, logger=line.logger, text=line.text)
        for line in about.last_problems
    )
