"""The services of the fake cluster's nodes: what they answer, and how their calls end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.api.status import message_of, status_of
from distlog.block import ATTRIBUTE_STRUCTURED, Block
from distlog.errors import (
    DistlogError,
    LeadershipNotTransferred,
    MemberExists,
    MemberNotFound,
    MembershipChangeRefused,
    MembershipChangeUnderWay,
    NoLeader,
    OffsetOutOfRange,
)

if TYPE_CHECKING:
    from tests.client.fake_cluster import FakeCluster, FakeNode, FakeTopic


class Broken(Exception):
    """Ends a call with a status that no node of distlog sent."""


class Muted(Exception):
    """The call goes on, and nobody is told anything."""


async def fail(context: Any, error: DistlogError | Broken) -> None:
    """End a call as a node, or as a network, would."""
    if isinstance(error, Broken):
        await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
    else:
        status = status_of(error)
        await context.abort(status.code, status.text, status.trailers)


class FakeLogService(log_pb2_grpc.LogServicer):
    def __init__(self, cluster: FakeCluster, node: FakeNode) -> None:
        self._cluster = cluster
        self._node = node

    async def Produce(self, request: log_pb2.ProduceRequest, context: Any) -> Any:
        await self._node.enter("Produce", context)
        try:
            return await self._cluster.serve_one(self._node, request)
        except (DistlogError, Broken) as error:
            await fail(context, error)
        except EOFError:
            await fail(context, Broken())
        except Muted:
            await asyncio.Event().wait()

    async def ProduceStream(self, requests: Any, context: Any) -> None:
        await self._node.enter("ProduceStream", context)
        is_muted = False
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                if is_muted:
                    self._cluster.require_leader(self._node)
                    await self._cluster.append(request)
                    continue
                try:
                    await context.write(await self._cluster.serve_one(self._node, request))
                except Muted:
                    is_muted = True
        except (DistlogError, Broken) as error:
            await fail(context, error)
        except EOFError:
            return

    async def ProduceBatch(self, requests: Any, context: Any) -> None:
        await self._node.enter("ProduceBatch", context)
        is_muted = False
        append = self._cluster.append_block
        try:
            while (request := await context.read()) is not grpc.aio.EOF:
                try:
                    if is_muted:
                        self._cluster.require_leader(self._node)
                        await append(request)
                        continue
                    answer = await self._cluster.serve_one(self._node, request, append)
                except Muted:
                    is_muted = True
                    continue
                except DistlogError as error:
                    if is_muted:
                        continue
                    answer = log_pb2.ProduceBatchResponse(error=message_of(error))
                await context.write(answer)
        except Broken as error:
            await fail(context, error)
        except EOFError:
            return

    async def Consume(self, request: log_pb2.ConsumeRequest, context: Any) -> Any:
        await self._node.enter("Consume", context)
        try:
            topic = self._cluster.topic(request.topic)
            self._check_offset(topic, request.offset, end=len(topic.records) - 1)
            return self._response(topic, request.offset)
        except DistlogError as error:
            await fail(context, error)

    async def ConsumeStream(self, request: log_pb2.ConsumeRequest, context: Any) -> None:
        await self._tail("ConsumeStream", request, context, self._response)

    async def ConsumeBatch(self, request: log_pb2.ConsumeBatchRequest, context: Any) -> None:
        await self._tail("ConsumeBatch", request, context, self._batch)

    async def _tail(
        self, method: str, request: Any, context: Any, answer: Callable[[FakeTopic, int], Any]
    ) -> None:
        await self._node.enter(method, context)
        try:
            topic = self._cluster.topic(request.topic)
            self._check_offset(topic, request.offset, end=len(topic.records))
        except DistlogError as error:
            await fail(context, error)
        count = self._cluster.tail_count_max
        offset = request.offset
        while not count or offset < request.offset + count:
            await self._cluster.wait_for(topic, offset)
            if offset == self._node.tail_stops_at:
                await asyncio.Event().wait()
            await context.write(answer(topic, offset))
            self._cluster.sent_count += 1
            offset = offset + 1 if method == "ConsumeStream" else topic.batch_at(offset)[1]
        await fail(context, Broken())

    async def GetServers(self, request: log_pb2.GetServersRequest, context: Any) -> Any:
        await self._node.enter("GetServers", context)
        self._cluster.asked_for_leader()
        leader = self._cluster.leader
        named = self._cluster.nodes[leader].address if leader is not None else ""
        if self._node.delusion is not None:
            named = self._node.delusion
        return log_pb2.GetServersResponse(
            cluster_id=self._cluster.cluster_id,
            problem=self._cluster.problem,
            servers=[
                log_pb2.Server(
                    id=node.node_id,
                    rpc_addr=node.address,
                    is_leader=node.address == named,
                    connected=not node.is_down,
                )
                for node in self._cluster.nodes
                if self._cluster.is_formed
            ],
        )

    async def OpenProducer(self, request: log_pb2.OpenProducerRequest, context: Any) -> Any:
        await self._node.enter("OpenProducer", context)
        try:
            self._cluster.require_leader(self._node)
            producer_id, epoch = self._cluster.open_producer(request.producer_id)
        except DistlogError as error:
            await fail(context, error)
        else:
            return log_pb2.OpenProducerResponse(producer_id=producer_id, epoch=epoch)

    async def OffsetForTime(self, request: log_pb2.OffsetForTimeRequest, context: Any) -> Any:
        await self._node.enter("OffsetForTime", context)
        try:
            return self._cluster.offset_for_time(request)
        except DistlogError as error:
            await fail(context, error)

    def _check_offset(self, topic: FakeTopic, offset: int, end: int) -> None:
        if not topic.start_offset <= offset <= end:
            raise OffsetOutOfRange(offset, topic.start_offset, len(topic.records))

    def _response(self, topic: FakeTopic, offset: int) -> log_pb2.ConsumeResponse:
        request = topic.records[offset]
        return log_pb2.ConsumeResponse(
            record=request.record,
            offset=offset + self._cluster.offset_error,
            key=request.key if request.HasField("key") else None,
            headers=request.headers,
            timestamp_ms=self._cluster.timestamp_ms(offset),
        )

    def _batch(self, topic: FakeTopic, offset: int) -> log_pb2.ConsumeBatchResponse:
        base_offset, end = topic.batch_at(offset)
        records = topic.records[base_offset:end]
        attributes = 0
        if any(record.headers or record.HasField("key") for record in records):
            attributes = ATTRIBUTE_STRUCTURED
        block = Block.from_records(
            [stored_form(record, attributes) for record in records], attributes
        )
        return log_pb2.ConsumeBatchResponse(
            base_offset=base_offset + self._cluster.offset_error,
            record_count=len(records),
            attributes=attributes,
            timestamp_ms=self._cluster.timestamp_ms(base_offset),
            data_crc32c=block.data_crc32c ^ self._node.next_damage(),
            frames=block.frames,
        )


def stored_form(request: log_pb2.ProduceRequest, attributes: int) -> bytes:
    if not attributes:
        return request.record
    record = log_pb2.Record(value=request.record, headers=request.headers)
    if request.HasField("key"):
        record.key = request.key
    return record.SerializeToString()


class FakeClusterService(log_pb2_grpc.ClusterServicer):
    def __init__(self, cluster: FakeCluster, node: FakeNode) -> None:
        self._cluster = cluster
        self._node = node

    async def Status(self, request: log_pb2.StatusRequest, context: Any) -> Any:
        await self._node.enter("Status", context)
        leader = self._cluster.leader
        is_leader = leader is not None and self._cluster.nodes[leader] is self._node
        return log_pb2.StatusResponse(
            node_id=self._node.node_id,
            problem=self._cluster.problem,
            cluster_id="c1",
            role="leader" if is_leader else "follower",
            term=self._cluster.term,
            leader_id=self._cluster.nodes[leader].node_id if leader is not None else "",
            commit_index=12,
            applied_index=11,
            last_index=13,
            members=[
                log_pb2.MemberStatus(
                    node_id=node.node_id,
                    client_address=node.address,
                    is_leader=node is self._node and is_leader,
                    connected=not node.is_down,
                    lag=(2 if node is not self._node else 0) if is_leader else None,
                )
                for node in self._cluster.nodes
            ],
            topics=[self._topic_status(name) for name in sorted(self._cluster.topics)],
            version="0.1.0",
            durability=self._node.durability,
            target=self._cluster.target,
            planned=self._cluster.planned,
        )

    async def TransferLeadership(
        self, request: log_pb2.TransferLeadershipRequest, context: Any
    ) -> Any:
        await self._node.enter("TransferLeadership", context)
        ids = [node.node_id for node in self._cluster.nodes]
        try:
            self._cluster.require_leader(self._node)
            if request.node_id and request.node_id not in ids:
                raise LeadershipNotTransferred(f"{request.node_id} is not another voter")
        except DistlogError as error:
            await fail(context, error)
        else:
            self._cluster.move_leader()
            if request.node_id:
                self._cluster.leader = ids.index(request.node_id)
            return log_pb2.TransferLeadershipResponse(leader_id=ids[self._cluster.leader or 0])

    async def Members(self, request: log_pb2.MembersRequest, context: Any) -> Any:
        await self._node.enter("Members", context)
        members = [
            log_pb2.MemberStatus(node_id=node_id, learner=is_learner, peer_address=f"{node_id}:1")
            for node_id, is_learner in self._cluster.members.items()
        ]
        for node_id in self._cluster.members:
            # A learner has caught up by the next time that somebody asks.
            self._cluster.members[node_id] = False
        description = log_pb2.NodeDescription(node_id="n9", client_address="n9:2", version="1")
        seen = log_pb2.SeenNode(description=description, status="alive", for_s=1.5)
        return log_pb2.MembersResponse(members=members, seen=[seen], seen_age_s=0.5)

    async def SetTarget(self, request: log_pb2.SetTargetRequest, context: Any) -> Any:
        await self._node.enter("SetTarget", context)
        try:
            self._cluster.require_leader(self._node)
        except DistlogError as error:
            await fail(context, error)
        self._cluster.target = request.voter_count
        return log_pb2.SetTargetResponse()

    async def Leave(self, request: log_pb2.LeaveRequest, context: Any) -> Any:
        await self._node.enter("Leave", context)
        self._cluster.left.append(request.node_id)
        return log_pb2.LeaveResponse()

    async def AddMember(self, request: log_pb2.AddMemberRequest, context: Any) -> Any:
        await self._node.enter("AddMember", context)
        try:
            self._cluster.require_leader(self._node)
            if request.node_id in self._cluster.members:
                raise MemberExists(request.node_id, "some-directory")
        except DistlogError as error:
            await fail(context, error)
        if request.peer_address.startswith("127."):
            self._cluster.members[request.node_id] = True
        return log_pb2.AddMemberResponse()

    async def RemoveMember(self, request: log_pb2.RemoveMemberRequest, context: Any) -> Any:
        await self._node.enter("RemoveMember", context)
        try:
            self._cluster.require_leader(self._node)
            if self._cluster.changes_under_way:
                self._cluster.changes_under_way -= 1
                raise MembershipChangeUnderWay(0.01)
            if request.node_id not in self._cluster.members:
                raise MemberNotFound(request.node_id)
            if request.node_id == "n2" and not request.force:
                raise MembershipChangeRefused("n2", "too few are up")
            del self._cluster.members[request.node_id]
            if self._cluster.loses_answers:
                self._cluster.loses_answers -= 1
                raise Broken
        except (DistlogError, Broken) as error:
            await fail(context, error)
        return log_pb2.RemoveMemberResponse()

    async def DescribeTopic(self, request: log_pb2.DescribeTopicRequest, context: Any) -> Any:
        await self._node.enter("DescribeTopic", context)
        try:
            self._cluster.topic(request.topic)
            if self._cluster.leader is None:
                raise NoLeader("election", 0.1)
        except DistlogError as error:
            await fail(context, error)
        else:
            name = request.topic or "default"
            return log_pb2.DescribeTopicResponse(topic=self._topic_status(name))

    async def ListTopics(self, request: log_pb2.ListTopicsRequest, context: Any) -> Any:
        await self._node.enter("ListTopics", context)
        if self._cluster.leader is None:
            await fail(context, NoLeader("election", 0.1))
        return log_pb2.ListTopicsResponse(
            topics=[self._topic_status(name) for name in sorted(self._cluster.topics)]
        )

    async def CreateTopic(self, request: log_pb2.CreateTopicRequest, context: Any) -> Any:
        return await self._write("CreateTopic", request, context, self._cluster.create_topic)

    async def ConfigureTopic(self, request: log_pb2.ConfigureTopicRequest, context: Any) -> Any:
        return await self._write("ConfigureTopic", request, context, self._cluster.configure_topic)

    async def TrimTopic(self, request: log_pb2.TrimTopicRequest, context: Any) -> Any:
        return await self._write("TrimTopic", request, context, self._cluster.trim_topic)

    async def DeleteTopic(self, request: log_pb2.DeleteTopicRequest, context: Any) -> Any:
        return await self._write("DeleteTopic", request, context, self._cluster.delete_topic)

    async def _write(
        self, method: str, request: Any, context: Any, act: Callable[[Any], Awaitable[Any]]
    ) -> Any:
        await self._node.enter(method, context)
        try:
            return await self._cluster.serve_one(self._node, request, act)
        except (DistlogError, Broken) as error:
            await fail(context, error)
        except EOFError:
            await fail(context, Broken())

    def _topic_status(self, name: str) -> log_pb2.TopicStatus:
        topic = self._cluster.topics[name]
        end, created = len(topic.records), topic.created
        return log_pb2.TopicStatus(
            name=name,
            topic_id=topic.topic_id,
            start_offset=topic.start_offset,
            high_watermark=end,
            last_timestamp_ms=self._cluster.timestamp_ms(end - 1) if end else 0,
            size=sum(8 + len(value) for value in topic.values),
            segment_size_max=created.segment_size_max or 64 << 20,
            segment_record_count_max=created.segment_record_count_max or 1 << 20,
            retention_size=created.retention_size,
            retention_age_ms=created.retention_age_ms,
        )
