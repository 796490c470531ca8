"""The one door to a replicated group: append through the majority, read what is committed, wait for more.

Appends wait until the next step of the group, and travel as one entry with everything else that waits then (`Proposals`).  A
future is fulfilled when its command is applied here, which is after a majority has it on disk.  When leadership is lost the
outcome of what was proposed is unknown, and says so; nothing is forwarded.

Present records are served at once by any node, since logs hold committed records only.  "Not there" is said only after a
read index has proven it, so a read is linearizable unless the caller asks for LOCAL.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from distlog.block import Block
from distlog.consensus.admission import STALE_IF_DEPOSED
from distlog.consensus.commands import (
    Append,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
)
from distlog.consensus.configuration import Addresses
from distlog.consensus.durability import Durability
from distlog.consensus.group import Group
from distlog.consensus.node_status import describe_node
from distlog.consensus.proposals import Proposals
from distlog.consensus.reads import no_leader
from distlog.consensus.replicated_log_settings import ReplicatedLogSettings
from distlog.consensus.replicated_policy import ReplicatedPolicy
from distlog.consensus.results import (
    AppendResult,
    ProducerOpened,
    TopicConfigured,
    TopicCreated,
    TopicTrimmed,
)
from distlog.consensus.retention import Trimmer
from distlog.consensus.served_reads import ServedReads
from distlog.consensus.standing import standing_of
from distlog.consensus.state_machine import DEFAULT_TOPIC, StateMachine
from distlog.consensus.tails import Tails
from distlog.consensus.topic_descriptions import describe, described_pages
from distlog.consensus.topics import Topic
from distlog.consensus.views import (
    Consistency,
    NodeStatus,
    Standing,
    TimePosition,
    TopicDescription,
)
from distlog.errors import (
    DistlogError,
    NotLeader,
    OffsetOutOfRange,
    Overloaded,
    ShuttingDown,
    TopicNotFound,
)
from distlog.runtime import Clock, Worker
from distlog.storage.log import StoredBatch
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits

Answer = TypeVar("Answer")
# A stopping node is gone or back after about this long; another one answers at once.
STOP_RETRY_DELAY_S = 1.0


class ReplicatedLog:
    """Topics of one group, on one node."""

    def __init__(
        self,
        *,
        node_id: str,
        clock: Clock,
        read_worker: Worker,
        settings: ReplicatedLogSettings,
        addresses_of: Callable[[str], Addresses],
        waiting_for: Callable[[], Sequence[str]],
        durability: Durability,
    ) -> None:
        """Make the door; until `attach` it refuses with NoLeader.

        addresses_of(node_id): where that node is reached, as far as it has told.
        waiting_for(): the nodes that the cluster waits for before it can form.
        """
        self._node_id = node_id
        self._waiting_for = waiting_for
        # None until the cluster is formed.
        self._attached: Group | None = None
        # Why it is None although the cluster is formed.
        self._detached_because = ""
        self._clock = clock
        self._read_worker = read_worker
        self._settings = settings
        self._durability = durability.value
        self._addresses_of = addresses_of
        self.tails = Tails(settings.waiting_reads_max)
        # What was read since the start.
        self.served = ServedReads()
        self._role_callbacks: list[Callable[[], None]] = []
        self._closing = False
        # Dials a node at an address for peers; raises InvalidRequest if that is none.
        self.invite: Callable[[str, str], None] = lambda _node_id, _peer_address: None
        # Has this node be a member no more, for good, and then stop: Node.leave.
        self.leave: Callable[[], Awaitable[None]] = self.confirm
        # What `NodeStatus` has of the files of this node: `copy` and `scrub`.
        self.files_status: Callable[[], dict[str, Any]] = dict
        self.policy = ReplicatedPolicy(self._settled, self.confirm)
        # What is done while the files of this node are opened; "": they are not.
        self.opening = ""

    def attach(self, group: Group) -> None:
        """The cluster is formed, or this node has another state: serve `group`, which has not started yet."""
        self._attached, self._detached_because = group, ""
        size_max = self._settings.proposals_size_max
        self.proposals = Proposals(
            group.state_machine, self._clock, group.space, size_max, group.kick, group.traces
        )
        group.take_proposals = self.proposals.take_entries
        self._trimmer = Trimmer(
            state_machine=group.state_machine,
            clock=self._clock,
            worker=self._read_worker,
            is_leader=lambda: self.is_leader,
            propose=self._propose,
            interval_s=self._settings.retention_interval_s,
        )
        group.ticked = self._trimmer.tick
        group.applied = self._wake_tails
        group.leadership_changed = self._leadership_changed
        self._wake_tails()
        self.policy.attach(group.state_machine)

    def detach(self, why: str) -> None:
        """Refuse everything with NoLeader, and say why, until the next `attach`."""
        self.proposals.abandon(why, self._refusal)
        # While it stops it has nobody to tell.
        self._group.silence()
        self._attached, self._detached_because = None, why

    @property
    def _group(self) -> Group:
        if self._attached is None:
            missing = ", ".join(self._waiting_for()) or "its configuration"
            why = self._detached_because or self.opening
            raise no_leader(why or f"the cluster is not formed yet: waiting for {missing}")
        return self._attached

    @property
    def _state(self) -> StateMachine:
        return self._group.state_machine

    # --- Writes --------------------------------------------------------------------------------

    def propose_append(
        self, topic: str, block: Block, producer: ProducerStamp | None = None
    ) -> asyncio.Future[AppendResult]:
        """Propose to append a block; the order of the calls is the order in the log.

        Returns a future of the result.  It raises what is refused later: OutcomeUnknown when the record may exist, every
        other error when it does not.  Raises at once, nothing written: NotLeader, NoLeader, ShuttingDown, Overloaded,
        StorageFull, TopicNotFound, OutOfSequence, ProducerUnknown, ProducerFenced, InvalidRequest, RecordTooLarge.
        Hand what it raises at once to `proven` before anybody is told.
        """
        self._require_leadership()
        return self._propose(Append(self._topic(topic).topic_id, block, producer))

    async def open_producer(self, producer_id: int = 0) -> ProducerOpened:
        """Open a new producer, or begin a new epoch of a known one.  Raises as `propose_append` and its future do."""
        opened: ProducerOpened = await self._settled(lambda: OpenProducer(producer_id))
        return opened

    async def create_topic(
        self, name: str, limits: SegmentLimits, retention: Retention = KEEP_ALL
    ) -> TopicCreated:
        """Create a topic.  Raises TopicExists, InvalidRequest, and as `propose_append` and its future do."""
        created: TopicCreated = await self._settled(lambda: CreateTopic(name, limits, retention))
        return created

    async def configure_topic(
        self, name: str, *, retention_size: int | None, retention_age_ms: int | None
    ) -> TopicConfigured:
        """Change how much of a topic is kept; None: as it is.  Raises as `create_topic`, and TopicNotFound."""
        configured: TopicConfigured = await self._settled(
            lambda: ConfigureTopic(self._topic(name).topic_id, retention_size, retention_age_ms)
        )
        return configured

    async def trim_topic(self, name: str, start_offset: int) -> TopicTrimmed:
        """Forget the records below `start_offset`.  Raises OffsetOutOfRange, and as `propose_append` and its future do."""
        trimmed: TopicTrimmed = await self._settled(
            lambda: TrimTopic(self._topic(name).topic_id, start_offset)
        )
        return trimmed

    async def delete_topic(self, name: str, topic_id: int = 0) -> None:
        """Delete a topic with everything in it; with `topic_id` only if the name is still that topic's.

        Raises TopicNotFound, and as `propose_append` and its future do.
        """

        def command() -> DeleteTopic:
            topic = self._topic(name)
            if topic_id not in (0, topic.topic_id):
                raise TopicNotFound(topic=f"{topic.name} with id {topic_id}")
            return DeleteTopic(topic.topic_id)

        await self._settled(command)

    async def _settled(self, command: Callable[[], Command]) -> Any:
        """Propose a command, and return its result; what refuses it is proven."""
        self._require_leadership()
        try:
            proposed = self._propose(command())
        except DistlogError as error:
            raise await self.proven(error) from None
        return await proposed

    async def proven(self, refusal: DistlogError) -> DistlogError:
        """Return what a client may be told instead of `refusal`, with which a write was refused at once, in this step.

        A leader that was cut off does not know what its successor has accepted, so what it says of topics and producers counts only
        if it turns out to lead still; NoLeader or NotLeader otherwise.  The caller bounds the time.
        """
        if not isinstance(refusal, STALE_IF_DEPOSED):
            return refusal
        raft = self._group.raft
        term = raft.term
        try:
            await self._group.reads.wait()
        except DistlogError as error:
            return error
        return refusal if raft.is_ready_leader and raft.term == term else self._refusal()

    def _require_leadership(self) -> None:
        if self._closing or not self._group.raft.is_ready_leader:
            raise self._refusal()

    def _refusal(self) -> DistlogError:
        """Return what a write is told that this node does not take: nothing was written."""
        if self._closing:
            return ShuttingDown(retry_delay_s=STOP_RETRY_DELAY_S)
        raft = self._group.raft
        if raft.is_leader:
            return no_leader("the new leader is not ready yet")
        leader = raft.leader_id
        address = self._addresses_of(leader).client if leader is not None else ""
        if leader is None or not address:
            return no_leader("an election is under way, or too few nodes are up")
        return NotLeader(leader_id=leader, leader_address=address)

    def _propose(self, command: Command) -> asyncio.Future[Any]:
        group = self._group
        journal, limit = group.journal, self._settings.journal_size_max
        # One entry may be larger than the limit: what is in the checkpoint is not in the way.
        if journal.size >= limit and group.checkpoints.index < journal.last_index:
            raise Overloaded("the journal, which only a checkpoint lets forget,", limit)
        return self.proposals.submit(command)

    def _leadership_changed(self) -> None:
        if not self._group.raft.is_leader:
            cause = "leadership was lost before the append was committed"
            self.proposals.abandon(cause, self._refusal)
        for callback in self._role_callbacks:
            callback()

    # --- Reads ---------------------------------------------------------------------------------

    def topic(self, name: str) -> TopicDescription:
        """Describe a topic as this node has applied it; "" means the default one.  Raises TopicNotFound."""
        return describe(self._topic(name))

    def topics(self) -> tuple[TopicDescription, ...]:
        """Describe all topics as this node has applied them, sorted by name."""
        return tuple(
            describe(topic) for topic in sorted(self._state.topics(), key=lambda topic: topic.name)
        )

    async def confirmed_topic(self, name: str) -> TopicDescription:
        """Describe a topic with everything that was acknowledged before the call.  Raises TopicNotFound, NoLeader."""
        await self._group.reads.wait()
        return self.topic(name)

    def topic_pages(self, count: int) -> Iterator[tuple[TopicDescription, ...]]:
        """Describe all topics as this node has applied them, sorted by name, `count` at a time: give way between two pages.

        Raises NoLeader, before the first page, while this node has no state.
        """
        return described_pages(self._state, count)

    async def confirm(self) -> None:
        """Return when everything that was acknowledged before the call is applied here.  Raises NoLeader."""
        await self._group.reads.wait()

    async def offset_for_time(
        self,
        topic: str,
        timestamp_ms: int,
        *,
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> TimePosition:
        """Find the first record whose time is `timestamp_ms` or later; "none" is proven, unless LOCAL.

        Raises TopicNotFound, NoLeader when nobody can prove it, CorruptBatch.  The caller bounds the time.
        """
        found = self._find(topic)
        if consistency is Consistency.LINEARIZABLE and (
            found is None
            or timestamp_ms > found.log.last_timestamp_ms
            or found.log.start_offset == found.log.next_offset
        ):
            await self._group.reads.wait()
        # Times never decrease, so the first one here is the first one anywhere.
        log = self._topic(topic).log
        end = log.next_offset
        search = log.plan_time_search(timestamp_ms)
        offset = await self._run(search.run, search.blocking)
        return TimePosition(offset, offset < end)

    async def read(
        self,
        topic: str,
        offset: int,
        *,
        size_max: int,
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> list[StoredBatch]:
        """Return whole batches from the one that holds `offset` on: at least one, about `size_max` bytes.

        Raises OffsetOutOfRange (proven, unless LOCAL), TopicNotFound, NoLeader when nobody can prove it, CorruptBatch.
        The caller bounds the time.
        """
        found = self._find(topic)
        if consistency is Consistency.LINEARIZABLE and (
            found is None or offset >= found.log.next_offset
        ):
            await self._group.reads.wait()
            found = self._find(topic)
        if found is None:
            raise TopicNotFound(topic=topic or DEFAULT_TOPIC)
        if offset < found.log.start_offset or offset >= found.log.next_offset:
            raise OffsetOutOfRange(
                offset=offset,
                start_offset=found.log.start_offset,
                high_watermark=found.log.next_offset,
            )
        plan = found.log.plan_read(offset, size_max)
        batches = await self._run(plan.run, plan.blocking)
        self.served.add(batches)
        return batches

    async def _run(self, run: Callable[[], Answer], blocking: bool) -> Answer:
        return await self._read_worker.submit(run) if blocking else run()

    async def wait_for(self, topic: str, offset: int) -> None:
        """Return when the high watermark of the topic is above `offset`.

        Raises TopicNotFound, ShuttingDown when this node stops, Overloaded when too many wait.  Costs nothing meanwhile.
        """
        found = self._find(topic)
        if found is None:
            await self._group.reads.wait()
            found = self._topic(topic)
        if found.log.next_offset > offset:
            return
        if self._closing:
            raise ShuttingDown(retry_delay_s=STOP_RETRY_DELAY_S)
        await self.tails.wait(found.topic_id, offset)

    def _wake_tails(self) -> None:
        self.tails.wake(self._high_watermark)

    def _high_watermark(self, topic_id: int) -> int | None:
        topic = self._state.topic_by_id(topic_id)
        return None if topic is None else topic.log.next_offset

    def _find(self, name: str) -> Topic | None:
        return self._state.topic_by_name(name or DEFAULT_TOPIC)

    def _topic(self, name: str) -> Topic:
        found = self._find(name)
        if found is None:
            raise TopicNotFound(topic=name or DEFAULT_TOPIC)
        return found

    # --- Leadership ----------------------------------------------------------------------------

    async def transfer_leadership(self, target: str | None = None) -> str:
        """Hand leadership over to `target`, or to the voter that has most; return the id of the new leader.

        This node may be named: then it goes on leading.  Appends that arrive meanwhile wait, and are then refused with where
        to go.  Raises LeadershipNotTransferred, and NotLeader, NoLeader, ShuttingDown where this node does not lead.
        """
        self._require_leadership()
        if target == self._node_id:
            return target
        return await self._group.transfer_leadership(target)

    # --- Role and life -------------------------------------------------------------------------

    @property
    def is_leader(self) -> bool:
        """Tell whether this node takes writes."""
        group = self._attached
        return group is not None and group.raft.is_ready_leader and not self._closing

    @property
    def has_leader(self) -> bool:
        """Tell whether this node leads, or hears a node that does."""
        return self._attached is not None and self._attached.raft.is_led

    def status(self, *, with_topics: bool = True) -> NodeStatus:
        """Describe this node and what it knows of the others, without asking anybody.

        with_topics: many take their time; `topic_pages` has them in parts.
        """
        topics = self.topics() if with_topics and self._attached is not None else ()
        status = describe_node(
            self._node_id,
            self._attached,
            self._addresses_of,
            topics,
            self._durability,
            bool(self._detached_because),
        )
        return replace(status, **self.files_status())

    def standing(self) -> Standing:
        """Say whether this node serves its clients, and if not, why."""
        return standing_of(
            self._attached,
            is_stopping=self._closing,
            opening=self.opening,
            detached_because=self._detached_because,
            waiting_for=self._waiting_for(),
            copy=self.files_status().get("copy"),
        )

    async def add_member(self, node_id: str, peer_address: str) -> None:
        """Greet a node that waits to join, so that it becomes a learner, and a voter when it has caught up.

        Raises MemberExists, InvalidRequest, NotLeader, NoLeader, ShuttingDown.
        """
        self._require_leadership()
        self._group.membership.check_new(node_id)
        self.invite(node_id, peer_address)

    async def remove_member(
        self, node_id: str, *, force: bool = False, cluster_id: str = "", directory_id: str = ""
    ) -> None:
        """Remove another member; if it is this node, hand leadership over first, and say where it is to be removed.

        cluster_id, directory_id: which cluster and which member is meant, if the caller knows.
        Raises NotLeader, NoLeader, ShuttingDown, LeadershipNotTransferred, and what Membership.removed and its future do.
        """
        self._require_leadership()
        self._group.membership.check(node_id, cluster_id, directory_id)
        if node_id == self._node_id and self._group.raft.voters:
            await self._group.transfer_leadership(None)
            raise self._refusal()
        await self._group.remove_member(node_id, force=force)

    async def set_target(self, voter_count: int) -> None:
        """Have the cluster meant for so many voters; 0: whoever joins votes.

        Raises NotLeader, NoLeader, ShuttingDown, and what Membership.targeted and its future do.
        """
        self._require_leadership()
        await self._group.set_target(voter_count)

    def on_role_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever leader, term or readiness changed, on the loop."""
        self._role_callbacks.append(callback)

    def refuse_new(self) -> None:
        """Stop taking writes and waits; what is in flight goes on."""
        self._closing = True
        self.tails.fail(ShuttingDown(retry_delay_s=STOP_RETRY_DELAY_S))
        for callback in self._role_callbacks:
            callback()

    def close(self) -> None:
        """Fail what is still in flight: its outcome is unknown."""
        self.refuse_new()
        if self._attached is not None:
            cause = "this node stopped before the append was committed"
            self.proposals.abandon(cause, self._refusal)
