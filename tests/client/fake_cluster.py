"""A cluster that speaks the client API and fails on demand, with the log of all its nodes in one list.

    async with FakeCluster(faults=[Fault.BREAK_AFTER]) as cluster:
        Client(cluster.addresses) ...

It keeps the two promises that a client stands on: a repeat of a producer's sequence is recognised (`remembers=False` takes that
away, to show that a test would notice), and nothing behind a refused request of a stream is written.  Everything else goes
wrong as `faults` says: one of them is taken for each request to produce, and when they are used up nothing goes wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.api.status import status_of
from distlog.errors import (
    DistlogError,
    LeadershipNotTransferred,
    NoLeader,
    NotLeader,
    OffsetOutOfRange,
    OutcomeUnknown,
    OutOfSequence,
    ProducerFenced,
    ProducerUnknown,
    RecordTooLarge,
    TopicExists,
    TopicNotFound,
)
from tests.client.faults import REFUSALS, UNTOLD, Fault

REMEMBERED_COUNT = 16
RECORD_SIZE_MAX = 1 << 20
TIMESTAMP_MS = 1_700_000_000_000


class Broken(Exception):
    """Ends a call with a status that no node of distlog sent."""


class Muted(Exception):
    """The call goes on, and nobody is told anything."""


@dataclass
class FakeTopic:
    records: list[log_pb2.ProduceRequest] = field(default_factory=list)
    start_offset: int = 0
    topic_id: int = 1
    # What was asked for when it was made, and changed since.
    created: log_pb2.CreateTopicRequest = field(default_factory=log_pb2.CreateTopicRequest)

    @property
    def values(self) -> list[bytes]:
        return [request.record for request in self.records]


class FakeCluster:
    """Some nodes on loopback, each with a server of its own and one view of the one log."""

    def __init__(
        self,
        node_count: int = 3,
        *,
        faults: Iterable[Fault] = (),
        remembers: bool = True,
        message_size_max: int = -1,
    ) -> None:
        self.nodes = [FakeNode(self, f"n{number}") for number in range(1, node_count + 1)]
        # Index of the leader, None during an election; how many more questions it takes.
        self.leader: int | None = 0
        self.election_rounds = 0
        # How many questions an election takes that a fault begins.
        self.election_length = 2
        self.term = 1
        self.topics: dict[str, FakeTopic] = {"default": FakeTopic()}
        self.remembers = remembers
        self.message_size_max = message_size_max
        # While it is not set, what comes in waits.
        self.gate = asyncio.Event()
        self.gate.set()
        # What a client may be told wrongly: added to every offset that is acknowledged.
        self.offset_error = 0
        # Ends a tail after this many records; 0: never.
        self.tail_count_max = 0
        # Between two records of a topic.
        self.interval_ms = 0
        # Forget every producer as soon as something was appended.
        self.expire_after_next_append = False
        self._faults: Iterator[Fault] = iter(faults)
        # Epochs by producer id; ids are never used again.
        self._producers: dict[int, int] = {}
        self._producer_count = 0
        self._sequences: dict[tuple[int, int, str], list[int]] = {}
        self._appended = asyncio.Condition()

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    @property
    def log(self) -> list[bytes]:
        """What the topic `default` holds."""
        return self.topics["default"].values

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            await node.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))

    # --- What a test does to it ---

    def move_leader(self) -> None:
        self.leader = ((self.leader or 0) + 1) % len(self.nodes)
        self.term += 1

    def fill(self, values: Iterable[bytes], topic: str = "default") -> None:
        """Append without a client; a tail that waits is not woken."""
        self.topics.setdefault(topic, FakeTopic()).records.extend(
            log_pb2.ProduceRequest(record=value) for value in values
        )

    async def append_value(self, value: bytes) -> None:
        """Append without a client, and wake the tails."""
        await self.append(log_pb2.ProduceRequest(record=value))

    def lose_last(self, count: int) -> None:
        """Do what no healthy cluster does: forget acknowledged records, and that they were written."""
        for _ in range(count):
            request = self.topics["default"].records.pop()
            self._offsets(request).pop()

    def expire(self, producer_id: int) -> None:
        """Forget a producer, as the cluster does after seven days."""
        del self._producers[producer_id]

    def set_faults(self, faults: Iterable[Fault]) -> None:
        """Have the next requests that write meet these, one each."""
        self._faults = iter(faults)

    # --- What the nodes ask ---

    def next_fault(self) -> Fault:
        return next(self._faults, Fault.NONE)

    def asked_for_leader(self) -> None:
        if self.leader is None:
            self.election_rounds -= 1
            if self.election_rounds <= 0:
                self.leader = self.term % len(self.nodes)
                self.term += 1

    def require_leader(self, node: FakeNode) -> None:
        if self.leader is None:
            raise NoLeader("election", 0.1)
        if self.nodes[self.leader] is not node:
            leader = self.nodes[self.leader]
            raise NotLeader(leader.node_id, leader.address)

    def topic(self, name: str) -> FakeTopic:
        if (name or "default") not in self.topics:
            raise TopicNotFound(name)
        return self.topics[name or "default"]

    def open_producer(self, producer_id: int) -> tuple[int, int]:
        if producer_id == 0:
            self._producer_count += 1
            producer_id = self._producer_count << 16
            self._producers[producer_id] = 0
        elif producer_id not in self._producers:
            raise ProducerUnknown(producer_id)
        else:
            self._producers[producer_id] += 1
        return producer_id, self._producers[producer_id]

    async def append(self, request: log_pb2.ProduceRequest) -> log_pb2.ProduceResponse:
        """Write, or recognise, or refuse: the rules of the replicated state machine."""
        topic = self.topic(request.topic)
        if len(request.record) > RECORD_SIZE_MAX:
            raise RecordTooLarge(len(request.record), RECORD_SIZE_MAX)
        offset = len(topic.records)
        if request.producer_id:
            offsets = self._offsets(request)
            if request.sequence < len(offsets) and self.remembers:
                if request.sequence < len(offsets) - REMEMBERED_COUNT:
                    raise OutOfSequence(request.producer_id, len(offsets), request.sequence)
                offset = offsets[request.sequence]
                return log_pb2.ProduceResponse(offset=offset + self.offset_error, duplicate=True)
            if request.sequence > len(offsets):
                raise OutOfSequence(request.producer_id, len(offsets), request.sequence)
            offsets.append(offset)
        async with self._appended:
            topic.records.append(request)
            self._appended.notify_all()
        if self.expire_after_next_append:
            self._producers.clear()
        return log_pb2.ProduceResponse(offset=offset + self.offset_error)

    def _offsets(self, request: log_pb2.ProduceRequest) -> list[int]:
        epoch = self._producers.get(request.producer_id)
        if epoch is None:
            raise ProducerUnknown(request.producer_id)
        if request.producer_epoch < epoch:
            raise ProducerFenced(request.producer_id, epoch)
        key = (request.producer_id, request.producer_epoch, request.topic or "default")
        return self._sequences.setdefault(key, [])

    async def create_topic(self, request: log_pb2.CreateTopicRequest) -> Any:
        if request.topic in self.topics:
            raise TopicExists(request.topic)
        topic_id = 1 + max(topic.topic_id for topic in self.topics.values())
        self.topics[request.topic] = FakeTopic(topic_id=topic_id, created=request)
        return log_pb2.CreateTopicResponse(topic_id=topic_id)

    async def configure_topic(self, request: log_pb2.ConfigureTopicRequest) -> Any:
        created = self.topic(request.topic).created
        if request.HasField("retention_size"):
            created.retention_size = request.retention_size
        if request.HasField("retention_age_ms"):
            created.retention_age_ms = request.retention_age_ms
        return log_pb2.ConfigureTopicResponse(
            retention_size=created.retention_size, retention_age_ms=created.retention_age_ms
        )

    async def trim_topic(self, request: log_pb2.TrimTopicRequest) -> Any:
        topic = self.topic(request.topic)
        if request.start_offset > len(topic.records):
            raise OffsetOutOfRange(request.start_offset, topic.start_offset, len(topic.records))
        topic.start_offset = max(topic.start_offset, request.start_offset)
        return log_pb2.TrimTopicResponse(start_offset=topic.start_offset)

    async def delete_topic(self, request: log_pb2.DeleteTopicRequest) -> Any:
        if request.topic_id not in (0, self.topic(request.topic).topic_id):
            raise TopicNotFound(request.topic)
        del self.topics[request.topic]
        return log_pb2.DeleteTopicResponse()

    def offset_for_time(self, request: log_pb2.OffsetForTimeRequest) -> Any:
        topic = self.topic(request.topic)
        for offset in range(topic.start_offset, len(topic.records)):
            if self.timestamp_ms(offset) >= request.timestamp_ms:
                return log_pb2.OffsetForTimeResponse(offset=offset, found=True)
        if self.leader is None:
            raise NoLeader("election", 0.1)
        return log_pb2.OffsetForTimeResponse(offset=len(topic.records))

    def timestamp_ms(self, offset: int) -> int:
        return TIMESTAMP_MS + offset * self.interval_ms

    async def wait_for(self, topic: FakeTopic, offset: int) -> None:
        async with self._appended:
            await self._appended.wait_for(lambda: len(topic.records) > offset)

    async def serve_one(
        self, node: FakeNode, request: Any, act: Callable[[Any], Awaitable[Any]] | None = None
    ) -> Any:
        """Answer one request, or fail as the next fault says.  Raises DistlogError, Broken, Muted or EOFError.

        act: what the leader does with it; None: append.
        """
        await self.gate.wait()
        fault = self.next_fault() if self.leader is not None else Fault.NONE
        if fault is Fault.BREAK_BEFORE:
            raise Broken
        if fault in (Fault.MOVE, Fault.MOVE_UNHINTED):
            self.move_leader()
        if fault in (Fault.ELECTION, Fault.ELECTION_AFTER):
            self.election_rounds = self.election_length
        if fault is Fault.ELECTION:
            self.leader = None
        if fault is Fault.NOT_CAUGHT_UP:
            raise OutOfSequence(request.producer_id, 0, request.sequence)
        if fault in REFUSALS:
            raise REFUSALS[fault]
        self.require_leader(node)
        answer = await (act or self.append)(request)
        if fault is Fault.ELECTION_AFTER:
            self.leader = None
            raise OutcomeUnknown("leadership lost")
        if fault in UNTOLD:
            raise UNTOLD[fault]
        if fault is Fault.MOVE_AND_BREAK_AFTER:
            self.move_leader()
        if fault in (Fault.BREAK_AFTER, Fault.MOVE_AND_BREAK_AFTER):
            raise Broken
        if fault is Fault.END_AFTER:
            raise EOFError
        if fault is Fault.MUTE:
            raise Muted
        return answer


class FakeNode:
    """One address; the log and the leadership belong to the cluster."""

    def __init__(self, cluster: FakeCluster, node_id: str) -> None:
        self._cluster = cluster
        self.node_id = node_id
        self.address = ""
        # Calls by method, to see where a client went.
        self.calls: list[str] = []
        self._has_call = asyncio.Event()
        # While set, every call breaks.
        self.is_down = False
        # A tail of this node gets nothing from this offset on: it is cut off and behind.
        self.tail_stops_at: int | None = None
        # What this node wrongly says of the leader: an address, or None for what is so.
        self.delusion: str | None = None
        self._server: Any = None

    async def start(self) -> None:
        # A node that starts again keeps its address.
        port = self.address.rpartition(":")[2] or "0"
        self._server = grpc.aio.server(
            options=[("grpc.max_receive_message_length", self._cluster.message_size_max)]
        )
        log_pb2_grpc.add_LogServicer_to_server(FakeLogService(self._cluster, self), self._server)
        log_pb2_grpc.add_ClusterServicer_to_server(
            FakeClusterService(self._cluster, self), self._server
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port(f'127.0.0.1:{port}')}"
        await self._server.start()

    async def stop(self) -> None:
        """Cut every connection; nothing listens there any more."""
        await self._server.stop(None)

    async def called(self, method: str) -> None:
        """Return when this node has been called."""
        while method not in self.calls:
            self._has_call.clear()
            await self._has_call.wait()

    async def enter(self, method: str, context: Any) -> None:
        self.calls.append(method)
        self._has_call.set()
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the fake is down")


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

    async def Consume(self, request: log_pb2.ConsumeRequest, context: Any) -> Any:
        await self._node.enter("Consume", context)
        try:
            topic = self._cluster.topic(request.topic)
            self._check_offset(topic, request.offset, end=len(topic.records) - 1)
            return self._response(topic, request.offset)
        except DistlogError as error:
            await fail(context, error)

    async def ConsumeStream(self, request: log_pb2.ConsumeRequest, context: Any) -> None:
        await self._node.enter("ConsumeStream", context)
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
            await context.write(self._response(topic, offset))
            offset += 1
        await fail(context, Broken())

    async def GetServers(self, request: log_pb2.GetServersRequest, context: Any) -> Any:
        await self._node.enter("GetServers", context)
        self._cluster.asked_for_leader()
        leader = self._cluster.leader
        named = self._cluster.nodes[leader].address if leader is not None else ""
        if self._node.delusion is not None:
            named = self._node.delusion
        return log_pb2.GetServersResponse(
            servers=[
                log_pb2.Server(
                    id=node.node_id,
                    rpc_addr=node.address,
                    is_leader=node.address == named,
                    connected=not node.is_down,
                )
                for node in self._cluster.nodes
            ]
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
