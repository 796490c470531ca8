"""What the services need of a replicated log: `consensus.ReplicatedLog` has it, and so has the fake of the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from distlog.block import Block
from distlog.consensus.commands import ProducerStamp
from distlog.consensus.results import AppendResult, ProducerOpened
from distlog.consensus.views import Consistency, NodeStatus, TopicDescription


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
    def frames(self) -> bytes: ...


class ServedLog(Protocol):
    """Topics that can be appended to, read, and waited on.  A topic "" is the default one."""

    def propose_append(
        self, topic: str, block: Block, producer: ProducerStamp | None = None
    ) -> asyncio.Future[AppendResult]:
        """Propose; raises what is refused at once.  The future may be cancelled by who does not care any more."""

    async def open_producer(self, producer_id: int = 0) -> ProducerOpened:
        """Open a new producer (0), or the next epoch of one."""

    def topic(self, name: str) -> TopicDescription:
        """Describe a topic as applied here; TopicNotFound."""

    async def confirmed_topic(self, name: str) -> TopicDescription:
        """Describe a topic with everything acknowledged before the call; TopicNotFound, NoLeader."""

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

    def status(self) -> NodeStatus:
        """Describe this node and what it knows of the others."""

    @property
    def is_leader(self) -> bool: ...

    @property
    def has_leader(self) -> bool: ...

    def on_role_change(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever leader, term or readiness changed."""
