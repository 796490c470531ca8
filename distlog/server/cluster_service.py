"""The service `log.v1.Cluster`: looking after the cluster."""

from __future__ import annotations

from typing import Any

from distlog.api.log.v1 import log_pb2
from distlog.consensus.views import MemberStatus, TopicDescription
from distlog.server.limits import ServerLimits
from distlog.server.log_service import read_deadline
from distlog.server.records import check_topic
from distlog.server.served_log import ServedLog


class ClusterService:
    """One method for each rpc."""

    def __init__(self, log: ServedLog, limits: ServerLimits, version: str) -> None:
        self._log = log
        self._limits = limits
        self._version = version

    async def status(self, request: log_pb2.StatusRequest, context: Any) -> log_pb2.StatusResponse:
        """Describe this node and what it knows, without asking anybody: it answers also without a leader."""
        status = self._log.status()
        return log_pb2.StatusResponse(
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
            topics=[topic_message(topic) for topic in status.topics],
            version=self._version,
        )

    async def describe_topic(
        self, request: log_pb2.DescribeTopicRequest, context: Any
    ) -> log_pb2.DescribeTopicResponse:
        """Describe a topic with everything that was acknowledged before the call."""
        check_topic(request.topic)
        async with read_deadline(self._limits.read_timeout_s):
            topic = await self._log.confirmed_topic(request.topic)
        return log_pb2.DescribeTopicResponse(topic=topic_message(topic))


def member_message(member: MemberStatus) -> log_pb2.MemberStatus:
    """Return the member as a message; what is None is not set."""
    return log_pb2.MemberStatus(
        node_id=member.node_id,
        client_address=member.client_address,
        is_leader=member.is_leader,
        connected=member.connected,
        match_index=member.match_index,
        lag=member.lag,
    )


def topic_message(topic: TopicDescription) -> log_pb2.TopicStatus:
    """Return the topic as a message."""
    return log_pb2.TopicStatus(
        name=topic.name,
        topic_id=topic.topic_id,
        start_offset=topic.start_offset,
        high_watermark=topic.high_watermark,
        last_timestamp_ms=topic.last_timestamp_ms,
    )
