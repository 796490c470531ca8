"""The client of a cluster: one object for everything, from a list of addresses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.client.answers import (
    member_of,
    membership_of,
    merged,
    node_status_of,
    record_of,
    rule_message,
    topic_range_of,
)
from distlog.client.attempts import (
    AMBIGUOUS,
    PAUSE_FIRST_S,
    Deadline,
    OnRetry,
    read_error,
    write_error,
)
from distlog.client.consumer import PREFETCH_SIZE, RECORD_TIMEOUT_S, Consumer
from distlog.client.produce_stream import ANSWER_TIMEOUT_S
from distlog.client.producer import Producer
from distlog.client.routing import ASK_TIMEOUT_S, ATTEMPT_TIMEOUT_S, Node, Routing
from distlog.client.topics import Topics
from distlog.client.traced import tracer_of
from distlog.client.unary import UnaryProducer, open_identity
from distlog.client.values import (
    Headers,
    Member,
    Membership,
    NodeStatus,
    PolicyChange,
    Record,
    Rule,
    Server,
    TimePosition,
    TopicRange,
)
from distlog.client.window import BATCH_RECORD_COUNT, BATCH_SIZE, MEMORY_SIZE, batch_limits
from distlog.errors import MemberNotFound

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

# How long a call, a producer or a consumer bears that the cluster does not answer.  An election takes about a second, a
# restart some more.
TIMEOUT_S = 30.0
DELIVERY_TIMEOUT_S = 60.0


class Client:
    """A connection to a cluster.  Use it as an async context manager, in one event loop.

    Every method retries within its deadline, at whichever node can serve it, and is then raising what the last node said, or
    Unreachable.  An empty topic is the topic `default`, which always exists.
    """

    def __init__(
        self,
        addresses: str | Sequence[str],
        *,
        timeout_s: float = TIMEOUT_S,
        retry_pause_s: float = PAUSE_FIRST_S,
        random: Random | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        tracer_provider: TracerProvider | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        """addresses: host:port of one node or more (a text may name several, with commas); the others are found.

        timeout_s: the deadline of each call.  retry_pause_s: the pause after a first failure; they double up to twenty
        times it.  random: spreads the retries of many clients; without it they are not spread.
        credentials: for nodes with certificates: what `tls_credentials` makes of the files; None: nothing is encrypted.
        tracer_provider: of OpenTelemetry; None: that of the program, if it has set one before.
        on_retry(error): is told why an attempt failed that another one may follow, for who waits and wants to know for what.
        Raises InvalidRequest for no address.
        """
        if isinstance(addresses, str):
            addresses = [address.strip() for address in addresses.split(",") if address.strip()]
        self._routing = Routing(
            addresses,
            retry_pause_s=retry_pause_s,
            random=random,
            credentials=credentials,
            on_retry=on_retry,
        )
        self._tracer = tracer_of(tracer_provider)
        self._unary = UnaryProducer(self._routing, self._tracer)
        self._topics = Topics(self._routing)
        self._timeout_s = timeout_s
        # Made here and perhaps still open: their tasks and streams must not outlive the connections.
        self._open: list[Producer | Consumer] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection.  Close producers before; one that is still open is aborted."""
        for each in self._open:
            if isinstance(each, Producer):
                await each.abort()
            else:
                each.close()
        self._open.clear()
        await self._routing.close()

    # --- Writing ---

    async def produce(
        self, value: bytes, *, topic: str = "", key: bytes | None = None, headers: Headers = ()
    ) -> int:
        """Append one record exactly once; return its offset when a majority of disks holds it.

        Raises OutcomeUnknown if it may be in the log at the deadline; after anything else it is not.  Concurrent calls are
        in no particular order.
        """
        named = [log_pb2.Header(name=name, value=content) for name, content in headers]
        request = log_pb2.ProduceRequest(record=value, topic=topic, key=key, headers=named)
        return await self._unary.produce(request, self._deadline())

    async def open_producer(
        self,
        topic: str = "",
        *,
        producer_id: int = 0,
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        linger_s: float = 0.0,
        batch_size: int = BATCH_SIZE,
        batch_record_count: int = BATCH_RECORD_COUNT,
        memory_size: int = MEMORY_SIZE,
    ) -> Producer:
        """Return a producer for many records: in batches, pipelined, in order, each exactly once.

        producer_id: 0 for a new one; an id that was used before stops every older instance of it (ProducerFenced).
        delivery_timeout_s: without any acknowledgement for this long it gives up.
        answer_timeout_s: how long a node may leave a batch unanswered before it is sent again.
        linger_s: how long a record waits for others to share a batch.  With 0 a lone record goes at once, and only while some
        batches are on their way the records behind them gather.
        batch_size, batch_record_count: when a batch is full: bytes, up to 4 MiB, and records.
        memory_size: bytes that may be unacknowledged before `produce` waits.
        """
        limits = batch_limits(batch_size, batch_record_count, memory_size)
        identity = await open_identity(self._routing, producer_id, self._deadline())
        producer = Producer(
            self._routing,
            topic,
            identity.producer_id,
            identity.epoch,
            delivery_timeout_s=delivery_timeout_s,
            answer_timeout_s=answer_timeout_s,
            linger_s=linger_s,
            limits=limits,
            tracer=self._tracer,
        )
        self._keep(producer)
        return producer

    # --- Reading ---

    def consume(
        self,
        topic: str = "",
        *,
        start: int = 0,
        end: int | None = None,
        local: bool = False,
        prefer: str = "",
        record_timeout_s: float = RECORD_TIMEOUT_S,
        prefetch_size: int = PREFETCH_SIZE,
    ) -> Consumer:
        """Return an iterator over the records from offset `start` to before `end`; without an end it waits for more.

        `Consumer.batches` iterates over whole batches instead.

        end: at most the high watermark, as `describe_topic` tells it.
        local: a node may begin beyond what it has, without asking the leader whether `start` exists.
        prefer: the address of the node to read from while it answers.
        record_timeout_s: how long a node may keep silent about a record before `end`, before another one is asked.
        prefetch_size: bytes that are read before they are asked for.
        """
        consumer = Consumer(
            self._routing,
            topic,
            start=start,
            end=end,
            local=local,
            prefer=prefer,
            timeout_s=self._timeout_s,
            record_timeout_s=record_timeout_s,
            prefetch_size=prefetch_size,
        )
        self._keep(consumer)
        return consumer

    async def read(
        self,
        offset: int,
        *,
        topic: str = "",
        local: bool = False,
        min_offset: int | None = None,
        prefer: str = "",
    ) -> Record:
        """Return the record at `offset`.

        Raises OffsetOutOfRange when there is none, for which the node has the leader's word unless `local`.
        min_offset: first wait until this offset is readable there, so that one's own writes are seen.
        """
        consistency = log_pb2.CONSISTENCY_LOCAL if local else log_pb2.CONSISTENCY_LINEARIZABLE
        request = log_pb2.ConsumeRequest(
            topic=topic, offset=offset, consistency=consistency, min_offset=min_offset
        )
        deadline = self._deadline()

        async def call(node: Node) -> log_pb2.ConsumeResponse:
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
            answer: log_pb2.ConsumeResponse = await node.log.Consume(request, timeout=timeout_s)
            return answer

        return record_of(await self._routing.read(call, deadline, prefer))

    async def describe_topic(self, topic: str = "", *, prefer: str = "") -> TopicRange:
        """Return the readable range of a topic, proven with the leader: whatever was acknowledged before is in it."""
        request = log_pb2.DescribeTopicRequest(topic=topic)
        deadline = self._deadline()

        async def call(node: Node) -> log_pb2.DescribeTopicResponse:
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
            answer: log_pb2.DescribeTopicResponse = await node.cluster.DescribeTopic(
                request, timeout=timeout_s
            )
            return answer

        return topic_range_of((await self._routing.read(call, deadline, prefer)).topic)

    async def offset_for_time(
        self, timestamp_ms: int, *, topic: str = "", local: bool = False, prefer: str = ""
    ) -> TimePosition:
        """Find the first record whose time is `timestamp_ms` (since the Unix epoch) or later.

        If there is none, which is proven with the leader unless `local`, it is the high watermark.
        """
        consistency = log_pb2.CONSISTENCY_LOCAL if local else log_pb2.CONSISTENCY_LINEARIZABLE
        request = log_pb2.OffsetForTimeRequest(
            topic=topic, timestamp_ms=timestamp_ms, consistency=consistency
        )
        deadline = self._deadline()

        async def call(node: Node) -> log_pb2.OffsetForTimeResponse:
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
            answer: log_pb2.OffsetForTimeResponse = await node.log.OffsetForTime(
                request, timeout=timeout_s
            )
            return answer

        found = await self._routing.read(call, deadline, prefer)
        return TimePosition(found.offset, found.found)

    # --- Topics ---

    async def list_topics(self) -> list[TopicRange]:
        """Return every topic that was created before the call, by name, proven with the leader."""
        return await self._topics.list(self._deadline())

    async def create_topic(
        self,
        topic: str,
        *,
        segment_size_max: int = 0,
        segment_record_count_max: int = 0,
        retention_size: int = 0,
        retention_age_ms: int = 0,
    ) -> int:
        """Create an empty topic; return its id.

        segment_*: when a segment is full, bytes and records; 0: the default, 64 MiB or 1 Mi records.
        retention_*: so many bytes, and what is so young, is kept at least; 0: everything.
        Raises TopicExists, InvalidRequest, and OutcomeUnknown if the topic may be there.
        """
        request = log_pb2.CreateTopicRequest(
            topic=topic,
            segment_size_max=segment_size_max,
            segment_record_count_max=segment_record_count_max,
            retention_size=retention_size,
            retention_age_ms=retention_age_ms,
        )
        return await self._topics.create(request, self._deadline())

    async def configure_topic(
        self,
        topic: str = "",
        *,
        retention_size: int | None = None,
        retention_age_ms: int | None = None,
    ) -> None:
        """Change how much of a topic is kept at least: bytes, milliseconds; 0: everything; None: as it is."""
        request = log_pb2.ConfigureTopicRequest(
            topic=topic, retention_size=retention_size, retention_age_ms=retention_age_ms
        )
        await self._topics.configure(request, self._deadline())

    async def trim_topic(self, topic: str = "", *, start_offset: int) -> int:
        """Forget the records before `start_offset`; return where the topic begins now.

        Raises OffsetOutOfRange for an offset beyond the high watermark.  Files go later, in whole segments.
        """
        request = log_pb2.TrimTopicRequest(topic=topic, start_offset=start_offset)
        return await self._topics.trim(request, self._deadline())

    async def delete_topic(self, topic: str) -> None:
        """Delete the topic that has this name now, with everything in it.  Raises TopicNotFound."""
        deadline = self._deadline()
        topic_id = (await self.describe_topic(topic)).topic_id
        request = log_pb2.DeleteTopicRequest(topic=topic, topic_id=topic_id)
        await self._topics.delete(request, deadline)

    # --- Who may do what ---

    async def policy(self) -> Sequence[Rule]:
        """Return the rules that the cluster has agreed on, in the order in which they were added; none: everybody may do everything."""
        return await self._topics.policy(self._deadline())

    async def change_policy(
        self,
        *,
        add: Sequence[Rule] = (),
        remove: Sequence[Rule] = (),
        may_open: bool = False,
        force: bool = False,
    ) -> PolicyChange:
        """Add rules to the policy, then take others away, all together; what is there already, or is not, is no mistake.

        may_open: no rule may be left, after which everybody may do everything.  force: also if the caller may change nothing more then.
        Raises InvalidRequest, NotAuthorized.
        """
        request = log_pb2.ChangePolicyRequest(
            add=map(rule_message, add),
            remove=map(rule_message, remove),
            open=may_open,
            force=force,
        )
        return await self._topics.change_policy(request, self._deadline())

    # --- Looking at the cluster ---

    async def servers(self) -> list[Server]:
        """Return the nodes of the cluster as those that can be reached see them.  Raises Unreachable if none can.

        One attempt.  Where they disagree on the leader, it is whom most of them name.
        """
        return merged(await self._routing.ask_all())

    async def node_status(self, address: str) -> NodeStatus:
        """Return what the node at `address` knows.  One attempt.  Raises Unreachable."""
        try:
            answer = await self._routing.node(address).cluster.Status(
                log_pb2.StatusRequest(), timeout=ASK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise read_error(error, address) from None
        return node_status_of(answer)

    async def transfer_leadership(self, node_id: str = "") -> str:
        """Have a node lead, "" for the one that is closest behind the leader; return the id of the new leader.

        Raises LeadershipNotTransferred if it did not take over.
        """
        request = log_pb2.TransferLeadershipRequest(node_id=node_id)
        deadline = self._deadline()

        async def call(node: Node) -> log_pb2.TransferLeadershipResponse:
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
            answer: log_pb2.TransferLeadershipResponse = await node.cluster.TransferLeadership(
                request, timeout=timeout_s
            )
            return answer

        return str((await self._routing.write(call, deadline)).leader_id)

    async def members(self) -> tuple[Member, ...]:
        """Return the members, as the node that leads knows them.  Raises NoLeader, Unreachable."""

        async def call(node: Node) -> log_pb2.MembersResponse:
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
            answer: log_pb2.MembersResponse = await node.cluster.Members(
                log_pb2.MembersRequest(), timeout=timeout_s
            )
            return answer

        deadline = self._deadline()
        answer = await self._routing.write(call, deadline)
        return tuple(member_of(member) for member in answer.members)

    async def membership(self, address: str) -> Membership:
        """Return who is a member and who is seen, as the node at `address` knows it.  One attempt.  Raises Unreachable."""
        try:
            answer = await self._routing.node(address).cluster.Members(
                log_pb2.MembersRequest(), timeout=ASK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise read_error(error, address) from None
        return membership_of(answer)

    async def leave(self, address: str) -> str:
        """Have the node at `address` leave the cluster for good, after which it stops; return its id.

        Raises Unreachable, MembershipChangeRefused, LeadershipNotTransferred, NoLeader, and OutcomeUnknown if it may have left.
        """
        node_id = (await self.node_status(address)).node_id
        request = log_pb2.LeaveRequest(node_id=node_id)
        try:
            await self._routing.node(address).cluster.Leave(request, timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise write_error(error, address) from None
        return node_id

    async def set_target(self, voter_count: int) -> None:
        """Have the cluster meant for so many voters: further members learn; 0: whoever joins votes.  Raises InvalidRequest."""
        request = log_pb2.SetTargetRequest(voter_count=voter_count)
        await self._change_members(lambda node: node.cluster.SetTarget, request)

    async def add_member(self, node_id: str, peer_address: str) -> None:
        """Have the leader greet a node that waits to join, at its address for peers; whether it has joined the members say.

        Raises MemberExists.
        """
        request = log_pb2.AddMemberRequest(node_id=node_id, peer_address=peer_address)
        await self._change_members(lambda node: node.cluster.AddMember, request)

    async def remove_member(self, node_id: str, *, force: bool = False) -> None:
        """Remove a member, up or down; the leader hands over before.  Another change under way is waited for.

        Raises MemberNotFound, MembershipChangeRefused, LeadershipNotTransferred, OutcomeUnknown.
        """
        request = log_pb2.RemoveMemberRequest(node_id=node_id, force=force)
        await self._change_members(lambda node: node.cluster.RemoveMember, request)

    async def _change_members(self, method: Callable[[Node], Any], request: Any) -> None:
        deadline = self._deadline()

        was_unknown = False

        async def call(node: Node) -> None:
            nonlocal was_unknown
            timeout_s = min(ATTEMPT_TIMEOUT_S, deadline.remaining_s())
            try:
                await method(node)(request, timeout=timeout_s)
            except grpc.aio.AioRpcError as failure:
                error = write_error(failure, node.address)
                # The attempt before has removed it.
                if not (was_unknown and isinstance(error, MemberNotFound)):
                    was_unknown = was_unknown or isinstance(error, AMBIGUOUS)
                    raise

        await self._routing.write(call, deadline)

    def _deadline(self) -> Deadline:
        return Deadline(self._timeout_s)

    def _keep(self, opened: Producer | Consumer) -> None:
        self._open = [each for each in self._open if not each.is_closed]
        self._open.append(opened)
