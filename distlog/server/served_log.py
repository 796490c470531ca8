"""What the services need of a replicated log: `consensus.ReplicatedLog` has it, and so has the fake of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Protocol

from distlog.block import Block
from distlog.consensus.commands import ProducerStamp
from distlog.consensus.results import (
    AppendResult,
    PolicyChanged,
    ProducerOpened,
    TopicConfigured,
    TopicCreated,
    TopicTrimmed,
)
from distlog.consensus.views import (
    Consistency,
    NodeStatus,
    Retention,
    SegmentLimits,
    Standing,
    TimePosition,
    TopicDescription,
)
from distlog.errors import DistlogError
from distlog.security.policy import Policy, Rule


class ServedPolicy(Protocol):
    """The policy that the cluster has agreed on: `consensus.ReplicatedPolicy`."""

    # Called, on the loop, whenever another policy may be in force here.
    changed: list[Callable[[], None]]

    @property
    def current(self) -> Policy: ...

    # Returns when everything acknowledged before the call is applied here; NoLeader.
    @property
    def learn(self) -> Callable[[], Awaitable[None]]: ...

    async def change(
        self, added: Sequence[Rule], removed: Sequence[Rule], *, may_open: bool = False
    ) -> PolicyChanged:
        """Add rules, then remove others; InvalidRequest, NotLeader, NoLeader, OutcomeUnknown."""


class Batch(Protocol):
    """A stored batch, as far as a consumer sees it."""

    @property
    def base_offset(self) -> int: ...
    @property
    def record_count(self) -> int: ...
    @property
    def attributes(self) -> int: ...
    @property
    def timestamp_ms(self) -> int: ...
    @property
    def data_crc32c(self) -> int: ...
    @property
    def frames(self) -> bytes: ...


class ServedLog(Protocol):
    """Topics that can be appended to, read, and waited on.  A topic "" is the default one."""

    def propose_append(
        self, topic: str, block: Block, producer: ProducerStamp | None = None
    ) -> asyncio.Future[AppendResult]:
        """Propose; raises what is refused at once.  The future may be cancelled by who does not care any more."""

    async def proven(self, refusal: DistlogError) -> DistlogError:
        """Return what a caller may be told of a refusal that `propose_append` raised in this step."""

    async def open_producer(self, producer_id: int = 0) -> ProducerOpened:
        """Open a new producer (0), or the next epoch of one."""

    def topic(self, name: str) -> TopicDescription:
        """Describe a topic as applied here; TopicNotFound."""

    async def confirmed_topic(self, name: str) -> TopicDescription:
        """Describe a topic with everything acknowledged before the call; TopicNotFound, NoLeader."""

    def topic_pages(self, count: int) -> Iterator[Sequence[TopicDescription]]:
        """Describe all topics as applied here, by name, `count` at a time; NoLeader at once while there is no state."""

    async def confirm(self) -> None:
        """Return when everything acknowledged before the call is applied here; NoLeader."""

    async def create_topic(
        self, name: str, limits: SegmentLimits, retention: Retention
    ) -> TopicCreated:
        """Create a topic; TopicExists, InvalidRequest."""

    async def configure_topic(
        self, name: str, *, retention_size: int | None, retention_age_ms: int | None
    ) -> TopicConfigured:
        """Change how much of a topic is kept, None: as it is; TopicNotFound, InvalidRequest."""

    async def trim_topic(self, name: str, start_offset: int) -> TopicTrimmed:
        """Forget the records below `start_offset`; OffsetOutOfRange, TopicNotFound."""

    async def delete_topic(self, name: str, topic_id: int = 0) -> None:
        """Delete a topic, with `topic_id` (not 0) only if the name is still that topic's; TopicNotFound."""

    async def offset_for_time(
        self,
        topic: str,
        timestamp_ms: int,
        *,
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> TimePosition:
        """Find the first record of that time or later."""

    async def read(
        self,
        topic: str,
        offset: int,
        *,
        size_max: int,
        consistency: Consistency = Consistency.LINEARIZABLE,
    ) -> Sequence[Batch]:
        """Return whole batches from the one that holds `offset`: at least one, about `size_max` bytes."""

    async def wait_for(self, topic: str, offset: int) -> None:
        """Return when the topic's high watermark is above `offset`; ShuttingDown, TopicNotFound."""

    async def transfer_leadership(self, target: str | None = None) -> str:
        """Have another node lead, and return its id; LeadershipNotTransferred, NotLeader, NoLeader.  It has its own deadline."""

    async def add_member(self, node_id: str, peer_address: str) -> None:
        """Greet a node that waits to join; MemberExists, NotLeader, NoLeader."""

    async def remove_member(
        self, node_id: str, *, force: bool = False, cluster_id: str = "", directory_id: str = ""
    ) -> None:
        """Remove a member; MemberNotFound, MembershipChangeUnderWay, MembershipChangeRefused, NotLeader, NoLeader, OutcomeUnknown."""

    async def set_target(self, voter_count: int) -> None:
        """Have the cluster meant for so many voters; InvalidRequest, MembershipChangeUnderWay, NotLeader, NoLeader, OutcomeUnknown."""

    @property
    def policy(self) -> ServedPolicy: ...

    @property
    def leave(self) -> Callable[[], Awaitable[None]]:
        """Have this node removed from its cluster, and stop; MembershipChangeRefused, NoLeader.  It has its own deadline."""

    def status(self, *, with_topics: bool = True) -> NodeStatus:
        """Describe this node and what it knows of the others."""

    def standing(self) -> Standing:
        """Say whether this node serves its clients, and if not, why."""

    @property
    def is_leader(self) -> bool: ...

    def on_role_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever leader, term or readiness changed."""
