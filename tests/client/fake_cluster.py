"""A cluster that speaks the client API and fails on demand, with the log of all its nodes in one list.

    async with FakeCluster(faults=[Fault.BREAK_AFTER]) as cluster:
        Client(cluster.addresses) ...

It keeps the two promises that a client stands on: a repeat of a producer's sequence is recognised (`remembers=False` takes that
away, to show that a test would notice), and nothing behind a refused request of a stream is written.  Everything else goes
wrong as `faults` says: one of them is taken for each request to produce, and when they are used up nothing goes wrong.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.block import ATTRIBUTE_STRUCTURED, Block
from distlog.errors import (
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
from tests.client.fake_services import Broken, FakeClusterService, FakeLogService, Muted
from tests.client.faults import REFUSALS, UNTOLD, Fault

REMEMBERED_COUNT = 16
RECORD_SIZE_MAX = 1 << 20
TIMESTAMP_MS = 1_700_000_000_000


@dataclass
class FakeTopic:
    records: list[log_pb2.ProduceRequest] = field(default_factory=list)
    start_offset: int = 0
    topic_id: int = 1
    # What was asked for when it was made, and changed since.
    created: log_pb2.CreateTopicRequest = field(default_factory=log_pb2.CreateTopicRequest)
    # The offsets at which batches end, ascending; records that were filled in are batches of one.
    batch_ends: list[int] = field(default_factory=list)

    def batch_at(self, offset: int) -> tuple[int, int]:
        """Return the first offset and the end of the batch with `offset`."""
        number = bisect_right(self.batch_ends, offset)
        return (self.batch_ends[number - 1] if number else 0), self.batch_ends[number]

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
        # Node id -> whether it is a learner.
        self.members = {"n1": False, "n2": False, "n3": False}
        # Whether the nodes belong to a cluster, and which one they say it is.
        self.is_formed = True
        self.cluster_id = ""
        # Why the nodes are not ready, as they say.
        self.problem = ""
        self.target = 0
        self.planned: list[log_pb2.PlannedChange] = []
        # Who was told to leave.
        self.left: list[str] = []
        # Removals that are refused since another change is under way, and those whose answer is lost.
        self.changes_under_way = 0
        self.loses_answers = 0
        self.leader: int | None = 0
        self.election_rounds = 0
        # How many questions an election takes that a fault begins.
        self.election_length = 2
        self.term = 1
        self.topics: dict[str, FakeTopic] = {"default": FakeTopic()}
        self.remembers = remembers
        self.record_size_max = RECORD_SIZE_MAX
        # Records of each block that was written; offsets of repeats that were not the same block.
        self.block_sizes: list[int] = []
        self.wrong_repeats: list[int] = []
        self.message_size_max = message_size_max
        # While it is not set, what comes in waits.
        self.gate = asyncio.Event()
        self.gate.set()
        # What a client may be told wrongly: added to every offset that is acknowledged.
        self.offset_error = 0
        # And to every number of records.
        self.record_count_error = 0
        # Answers of all tails.
        self.sent_count = 0
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
        filled = self.topics.setdefault(topic, FakeTopic())
        for value in values:
            filled.records.append(log_pb2.ProduceRequest(record=value))
            filled.batch_ends.append(len(filled.records))

    async def append_value(self, value: bytes) -> None:
        """Append without a client, and wake the tails."""
        await self.append(log_pb2.ProduceRequest(record=value))

    def lose_last(self, count: int) -> None:
        """Do what no healthy cluster does: forget acknowledged batches of one record, and that they were written."""
        for _ in range(count):
            topic = self.topics["default"]
            topic.batch_ends.pop()
            self._offsets(topic.records.pop()).pop()

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
        """Write a record, or recognise it, or refuse it."""
        offset, is_duplicate = await self._append(request, [request])
        return log_pb2.ProduceResponse(offset=offset, duplicate=is_duplicate)

    async def append_block(
        self, request: log_pb2.ProduceBatchRequest
    ) -> log_pb2.ProduceBatchResponse:
        """Write a block, or recognise it, or refuse it."""
        block = Block.decode(request.block)
        records = [record_request(request, data, block.attributes) for data in block.records()]
        offset, is_duplicate = await self._append(request, records)
        self.block_sizes.append(len(records))
        return log_pb2.ProduceBatchResponse(
            base_offset=offset,
            record_count=len(records) + self.record_count_error,
            duplicate=is_duplicate,
        )

    async def _append(
        self,
        request: log_pb2.ProduceRequest | log_pb2.ProduceBatchRequest,
        records: list[log_pb2.ProduceRequest],
    ) -> tuple[int, bool]:
        """Follow the rules of the replicated state machine; return the first offset, and whether it is a repeat."""
        topic = self.topic(request.topic)
        for record in records:
            if len(record.record) > self.record_size_max:
                raise RecordTooLarge(len(record.record), self.record_size_max)
        offset = len(topic.records)
        if request.producer_id:
            offsets = self._offsets(request)
            if request.sequence < len(offsets) and self.remembers:
                if request.sequence < len(offsets) - REMEMBERED_COUNT:
                    raise OutOfSequence(request.producer_id, len(offsets), request.sequence)
                self.check_repeat(topic, offsets[request.sequence], records)
                return offsets[request.sequence] + self.offset_error, True
            if request.sequence > len(offsets):
                raise OutOfSequence(request.producer_id, len(offsets), request.sequence)
            offsets.append(offset)
        async with self._appended:
            topic.records.extend(records)
            topic.batch_ends.append(len(topic.records))
            self._appended.notify_all()
        if self.expire_after_next_append:
            self._producers.clear()
        return offset + self.offset_error, False

    def check_repeat(
        self, topic: FakeTopic, offset: int, records: list[log_pb2.ProduceRequest]
    ) -> None:
        """Hold a repeat against what it repeats: the real cluster believes that they are the same."""
        written = topic.records[offset : offset + len(records)]
        if topic.batch_at(offset) != (offset, offset + len(records)) or written != records:
            self.wrong_repeats.append(offset)

    def _offsets(self, request: log_pb2.ProduceRequest | log_pb2.ProduceBatchRequest) -> list[int]:
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


def record_request(
    request: log_pb2.ProduceBatchRequest, data: bytes, attributes: int
) -> log_pb2.ProduceRequest:
    """Return a record of a block as if it had been produced by itself, with the block's stamp."""
    found = log_pb2.ProduceRequest(
        record=data,
        topic=request.topic,
        producer_id=request.producer_id,
        producer_epoch=request.producer_epoch,
        sequence=request.sequence,
    )
    if attributes & ATTRIBUTE_STRUCTURED:
        record = log_pb2.Record.FromString(data)
        found.record = record.value
        found.headers.extend(record.headers)
        if record.HasField("key"):
            found.key = record.key
    return found


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
        # As it says in its status; an older node says nothing.
        self.durability = ""
        # A tail of this node gets nothing from this offset on: it is cut off and behind.
        self.tail_stops_at: int | None = None
        # What this node wrongly says of the leader: an address, or None for what is so.
        self.delusion: str | None = None
        # How many of the next batches arrive damaged.
        self.damage_count = 0
        self._server: Any = None

    def next_damage(self) -> int:
        """Return what the checksum of the next batch is wrong by."""
        if not self.damage_count:
            return 0
        self.damage_count -= 1
        return 1

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
