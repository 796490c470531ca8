"""A replicated log in memory, without replication: what the services are tested against.

It keeps the promises of `consensus.ReplicatedLog` that a caller can see, and lets a test hold appends back, refuse them,
take the leader away, and count what it is asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from distlog.block import Block
from distlog.consensus.commands import ChangePolicy, ProducerStamp
from distlog.consensus.policy_changes import check_change
from distlog.consensus.results import (
    AppendResult,
    PolicyChanged,
    ProducerOpened,
    TopicConfigured,
    TopicCreated,
    TopicTrimmed,
)
from distlog.consensus.stalls import NO_STALLS
from distlog.consensus.views import (
    KEEP_ALL,
    Consistency,
    MemberStatus,
    NodeStatus,
    PlannedChange,
    Retention,
    SegmentLimits,
    Standing,
    TimePosition,
    TopicDescription,
)
from distlog.errors import (
    DistlogError,
    NoLeader,
    OffsetOutOfRange,
    TopicExists,
    TopicNotFound,
)
from distlog.security.policy import NO_POLICY, Policy, Rule
from distlog.storage.stored_batch import StoredBatch

TIMESTAMP_MS = 1_700_000_000_000


@dataclass
class FakeTopic:
    topic_id: int
    name: str
    start_offset: int = 0
    batches: list[StoredBatch] = field(default_factory=list)
    limits: SegmentLimits = SegmentLimits()  # noqa: RUF009 (its values are immutable)
    retention: Retention = KEEP_ALL

    @property
    def high_watermark(self) -> int:
        return self.batches[-1].next_offset if self.batches else 0

    def describe(self) -> TopicDescription:
        last = self.batches[-1].timestamp_ms if self.batches else 0
        return TopicDescription(
            self.topic_id,
            self.name,
            self.start_offset,
            self.high_watermark,
            last,
            sum(len(batch.frames) for batch in self.batches),
            self.limits,
            self.retention,
        )


@dataclass
class Held:
    """An append that waits for the test to let it through."""

    topic: str
    block: Block
    producer: ProducerStamp | None
    future: asyncio.Future[AppendResult]


class FakePolicy:
    """A policy that changes at once."""

    def __init__(self) -> None:
        self.current: Policy = NO_POLICY
        self.changed: list[Callable[[], None]] = []
        # Raised by `learn` until it is None.
        self.unknown: DistlogError | None = None

    async def learn(self) -> None:
        if self.unknown is not None:
            raise self.unknown

    async def change(
        self, added: Sequence[Rule], removed: Sequence[Rule], *, may_open: bool = False
    ) -> PolicyChanged:
        command = ChangePolicy(tuple(added), tuple(removed), may_open)
        refused = check_change(self.current, command)
        if refused is not None:
            raise refused
        before = set(self.current.rules)
        self.put(self.current.changed(added, removed))
        after = set(self.current.rules)
        return PolicyChanged(len(after), len(after - before), len(before - after))

    def put(self, policy: Policy) -> None:
        self.current = policy
        for callback in self.changed:
            callback()


class FakeReplicatedLog:
    def __init__(self) -> None:
        self.policy = FakePolicy()
        self.topics = {"default": FakeTopic(1, "default")}
        # Every append proposed, in order, and those of them that are held back.
        self.proposed: list[Held] = []
        self.held: list[Held] = []
        self.holding = False
        # Raised by the next propose_append, read or open_producer.
        self.failure: Exception | None = None
        # What every refused write turns out to be, if this node leads no more.
        self.successor: DistlogError | None = None
        self.is_leader = True
        self.has_leader = True
        # False: it goes over to a copied one.
        self.has_state = True
        # While there is nobody to prove anything: reads that need proof wait for ever.
        self.silent = False
        self.asked: Counter[str] = Counter()
        self.read_sizes: list[int] = []
        self.sequences: dict[tuple[int, int, str, int], int] = {}
        self.producers: dict[int, int] = {}
        self.waiting: dict[asyncio.Future[None], tuple[str, int]] = {}
        self.changed = asyncio.Event()
        self.callbacks: list[Callable[[], None]] = []
        self.members: tuple[MemberStatus, ...] = ()
        self.added: list[tuple[str, str]] = []
        self.removed: list[tuple[str, bool]] = []
        self.target = 0
        self.planned: tuple[PlannedChange, ...] = ()
        self.has_left = False
        # Topics that a status has described.
        self.described_count = 0

    # --- What the services call ----------------------------------------------------------------

    def propose_append(
        self, topic: str, block: Block, producer: ProducerStamp | None = None
    ) -> asyncio.Future[AppendResult]:
        self._ask("propose_append")
        self._find(topic)
        held = Held(topic or "default", block, producer, asyncio.get_running_loop().create_future())
        self.proposed.append(held)
        self.held.append(held)
        if not self.holding:
            self.release()
        self._wake()
        return held.future

    async def proven(self, refusal: DistlogError) -> DistlogError:
        self._ask("proven")
        return self.successor or refusal

    async def open_producer(self, producer_id: int = 0) -> ProducerOpened:
        self._ask("open_producer")
        if not producer_id:
            producer_id = 1 << 16 | len(self.producers)
        self.producers[producer_id] = self.producers.get(producer_id, -1) + 1
        return ProducerOpened(producer_id, self.producers[producer_id])

    def topic(self, name: str) -> TopicDescription:
        self._ask("topic")
        return self._find(name).describe()

    async def confirmed_topic(self, name: str) -> TopicDescription:
        self._ask("confirmed_topic")
        await self._prove()
        return self._find(name).describe()

    def topic_pages(self, count: int) -> Iterator[Sequence[TopicDescription]]:
        if not self.has_state:
            raise NoLeader(problem="it is between two states", retry_delay_s=0.1)
        return self._pages(count)

    def _pages(self, count: int) -> Iterator[Sequence[TopicDescription]]:
        names = sorted(self.topics)
        for first in range(0, len(names), count):
            yield [self.topics[name].describe() for name in names[first : first + count]]

    async def confirm(self) -> None:
        self._ask("confirm")
        await self._prove()

    async def create_topic(
        self, name: str, limits: SegmentLimits, retention: Retention
    ) -> TopicCreated:
        self._ask("create_topic")
        await self._prove()
        if name in self.topics:
            raise TopicExists(topic=name)
        topic_id = 1 + max(topic.topic_id for topic in self.topics.values())
        self.topics[name] = FakeTopic(topic_id, name, limits=limits, retention=retention)
        return TopicCreated(topic_id)

    async def configure_topic(
        self, name: str, *, retention_size: int | None, retention_age_ms: int | None
    ) -> TopicConfigured:
        self._ask("configure_topic")
        await self._prove()
        topic = self._find(name)
        size = topic.retention.size if retention_size is None else retention_size
        age_ms = topic.retention.age_ms if retention_age_ms is None else retention_age_ms
        topic.retention = Retention(size, age_ms)
        return TopicConfigured(topic.retention)

    async def trim_topic(self, name: str, start_offset: int) -> TopicTrimmed:
        self._ask("trim_topic")
        await self._prove()
        topic = self._find(name)
        if start_offset > topic.high_watermark:
            raise OffsetOutOfRange(start_offset, topic.start_offset, topic.high_watermark)
        topic.start_offset = max(topic.start_offset, start_offset)
        return TopicTrimmed(topic.start_offset)

    async def delete_topic(self, name: str, topic_id: int = 0) -> None:
        self._ask("delete_topic")
        await self._prove()
        if topic_id not in (0, self._find(name).topic_id):
            raise TopicNotFound(topic=name)
        del self.topics[name]

    async def offset_for_time(
        self,
        topic: str,
        timestamp_ms: int,
        *,
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> TimePosition:
        self._ask("offset_for_time")
        found = self._find(topic)
        for batch in found.batches:
            if batch.timestamp_ms >= timestamp_ms:
                return TimePosition(max(found.start_offset, batch.base_offset), True)
        if consistency is Consistency.LINEARIZABLE:
            await self._prove()
        return TimePosition(found.high_watermark, False)

    async def read(
        self,
        topic: str,
        offset: int,
        *,
        size_max: int,
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> Sequence[StoredBatch]:
        self._ask("read")
        found = self._find(topic)
        if offset >= found.high_watermark and consistency is Consistency.LINEARIZABLE:
            await self._prove()
        if not found.start_offset <= offset < found.high_watermark:
            raise OffsetOutOfRange(
                offset=offset,
                start_offset=found.start_offset,
                high_watermark=found.high_watermark,
            )
        batches: list[StoredBatch] = []
        size = 0
        for batch in found.batches:
            if batch.next_offset <= offset:
                continue
            if batches and size + len(batch.frames) > size_max:
                break
            batches.append(batch)
            size += len(batch.frames)
        self.read_sizes.append(size)
        return batches

    async def wait_for(self, topic: str, offset: int) -> None:
        self._ask("wait_for")
        found = self._find(topic)
        if found.high_watermark > offset:
            return
        future = asyncio.get_running_loop().create_future()
        self.waiting[future] = (found.name, offset)
        self._wake()
        try:
            await future
        finally:
            del self.waiting[future]
            self._wake()

    async def transfer_leadership(self, target: str | None = None) -> str:
        self._ask("transfer_leadership")
        self.change_role(is_leader=False, has_leader=True)
        return target or "n2"

    async def add_member(self, node_id: str, peer_address: str) -> None:
        self._ask("add_member")
        self.added.append((node_id, peer_address))

    async def remove_member(
        self, node_id: str, *, force: bool = False, cluster_id: str = "", directory_id: str = ""
    ) -> None:
        self._ask("remove_member")
        self.removed.append((node_id, force))

    async def set_target(self, voter_count: int) -> None:
        self._ask("set_target")
        self.target = voter_count

    async def leave(self) -> None:
        self._ask("leave")
        self.has_left = True

    def standing(self) -> Standing:
        if not self.has_leader:
            return Standing("leaderless", False, "no leader is heard: an election is under way")
        return Standing("leading" if self.is_leader else "following", True, "")

    def status(self, *, with_topics: bool = True) -> NodeStatus:
        self.described_count += len(self.topics) if with_topics else 0
        return NodeStatus(
            node_id="n1",
            cluster_id="c0ffee",
            role="leader",
            term=3,
            leader_id="n1",
            leader_address="127.0.0.1:8400",
            commit_index=7,
            applied_index=6,
            last_index=8,
            journal_size=4096,
            checkpoint_index=5,
            members=self.members,
            topics=tuple(topic.describe() for topic in self.topics.values() if with_topics),
            stalls=replace(NO_STALLS, longest_s=0.0415, count=3),
            durability="os",
            target=self.target,
            planned=self.planned,
        )

    def on_role_change(self, callback: Callable[[], None]) -> None:
        self.callbacks.append(callback)

    # --- What the tests call -------------------------------------------------------------------

    def append(self, *records: bytes, topic: str = "default", attributes: int = 0) -> int:
        """Append one batch at once; return its base offset."""
        found = self._find(topic)
        base_offset = found.high_watermark
        block = Block.from_records(records, attributes)
        found.batches.append(
            StoredBatch(
                base_offset=base_offset,
                record_count=len(records),
                attributes=attributes,
                timestamp_ms=TIMESTAMP_MS + base_offset,
                raft_index=len(found.batches) + 1,
                term=1,
                data_crc32c=block.data_crc32c,
                frames=block.frames,
            )
        )
        for future, (name, offset) in list(self.waiting.items()):
            if name == found.name and offset < found.high_watermark and not future.done():
                future.set_result(None)
        return base_offset

    def release(self, count: int | None = None) -> None:
        """Apply the oldest held appends, all of them unless `count` is given."""
        for held in self.held[:count]:
            if not held.future.done():
                held.future.set_result(self._apply(held))
            else:
                self._apply(held)
        del self.held[:count]

    def replace_topic(self, topic: FakeTopic) -> None:
        """Delete a topic and create another one with its name; whoever waits on the old one is told."""
        self.topics[topic.name] = topic
        for future, (name, _) in list(self.waiting.items()):
            if name == topic.name:
                future.set_exception(TopicNotFound(topic=name))

    def change_role(self, *, is_leader: bool, has_leader: bool) -> None:
        self.is_leader, self.has_leader = is_leader, has_leader
        for callback in self.callbacks:
            callback()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds; it is looked at whenever something was proposed or began or ended to wait."""
        async with asyncio.timeout(20):
            while not condition():
                await self.changed.wait()

    def _apply(self, held: Held) -> AppendResult:
        count = held.block.record_count
        key = None
        if held.producer is not None:
            stamp = held.producer
            key = (stamp.producer_id, stamp.epoch, held.topic, stamp.sequence)
            if key in self.sequences:
                return AppendResult(self.sequences[key], count, duplicate=True)
        base_offset = self.append(
            *held.block.records(), topic=held.topic, attributes=held.block.attributes
        )
        if key is not None:
            self.sequences[key] = base_offset
        return AppendResult(base_offset, count, duplicate=False)

    def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure

    async def _prove(self) -> None:
        if self.silent:
            await asyncio.get_running_loop().create_future()
        if not self.has_leader:
            raise NoLeader(problem="an election is under way", retry_delay_s=0.2)

    def _find(self, name: str) -> FakeTopic:
        found = self.topics.get(name or "default")
        if found is None:
            raise TopicNotFound(topic=name)
        return found

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
