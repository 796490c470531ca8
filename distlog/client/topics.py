"""Looking after topics and the policy: calls to the leader that may be repeated until their outcome is known.

A configuration, a trim and a change of the policy come to the same when they are done twice.  A deletion names the topic's id, so a
repeat cannot meet another topic of that name, and one that finds none was carried out before.  Only a creation that finds the name
taken, after an attempt of unknown outcome, cannot tell whose topic that is, and is OutcomeUnknown.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.client.answers import rule_of, topic_range_of
from distlog.client.attempts import Deadline, write_error
from distlog.client.routing import ATTEMPT_TIMEOUT_S, Node, Routing
from distlog.client.values import PolicyChange, Rule, TopicRange
from distlog.errors import TopicNotFound


class Topics:
    """The topics of a cluster, as its leader has them."""

    def __init__(self, routing: Routing) -> None:
        self._routing = routing

    async def list(self, deadline: Deadline) -> list[TopicRange]:
        request = log_pb2.ListTopicsRequest()
        call = _attempt(lambda node: node.cluster.ListTopics, request, deadline)
        answer: log_pb2.ListTopicsResponse = await self._routing.read(call, deadline, "")
        return [topic_range_of(topic) for topic in answer.topics]

    async def create(self, request: log_pb2.CreateTopicRequest, deadline: Deadline) -> int:
        call = _attempt(lambda node: node.cluster.CreateTopic, request, deadline)
        answer: log_pb2.CreateTopicResponse = await self._routing.write(call, deadline)
        return answer.topic_id

    async def configure(self, request: log_pb2.ConfigureTopicRequest, deadline: Deadline) -> None:
        call = _attempt(lambda node: node.cluster.ConfigureTopic, request, deadline)
        await self._routing.write(call, deadline)

    async def trim(self, request: log_pb2.TrimTopicRequest, deadline: Deadline) -> int:
        call = _attempt(lambda node: node.cluster.TrimTopic, request, deadline)
        answer: log_pb2.TrimTopicResponse = await self._routing.write(call, deadline)
        return answer.start_offset

    async def policy(self, deadline: Deadline) -> Sequence[Rule]:
        call = _attempt(lambda node: node.cluster.GetPolicy, log_pb2.GetPolicyRequest(), deadline)
        answer: log_pb2.GetPolicyResponse = await self._routing.write(call, deadline)
        return [rule_of(rule) for rule in answer.rules]

    async def change_policy(
        self, request: log_pb2.ChangePolicyRequest, deadline: Deadline
    ) -> PolicyChange:
        call = _attempt(lambda node: node.cluster.ChangePolicy, request, deadline)
        answer: log_pb2.ChangePolicyResponse = await self._routing.write(call, deadline)
        return PolicyChange(answer.rule_count, answer.added_count, answer.removed_count)

    async def delete(self, request: log_pb2.DeleteTopicRequest, deadline: Deadline) -> None:
        """`request` names the topic's id, too."""
        attempt = _attempt(lambda node: node.cluster.DeleteTopic, request, deadline)
        attempt_count = 0

        async def call(node: Node) -> None:
            nonlocal attempt_count
            attempt_count += 1
            try:
                await attempt(node)
            except grpc.aio.AioRpcError as failure:
                is_gone = isinstance(write_error(failure, node.address), TopicNotFound)
                if attempt_count == 1 or not is_gone:
                    raise

        await self._routing.write(call, deadline)


def _attempt(
    method: Callable[[Node], Any], request: Any, deadline: Deadline
) -> Callable[[Node], Awaitable[Any]]:
    """Return the call of a generated stub's method at whichever node, within its share of the deadline."""

    async def call(node: Node) -> Any:
        timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
        return await method(node)(request, timeout=timeout_s)

    return call
