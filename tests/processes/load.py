"""Producers and tails of the product's own client, and the history of what they were told.

Producers send as many records as they are allowed to, as fast as they are acknowledged, so that a test decides how much is
sent and still has calls in flight at the moment at which it kills a node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from distlog.client.client import Client
from tests.processes.checker import History, ProducerHistory, TailHistory
from tests.processes.process_cluster import TIMEOUT_S, ProcessCluster, until

# Most records are small; one in a hundred is not.
SIZE_MAX = 200
LARGE_SIZE_MAX = 40_000
# Many small batches: one or two large ones would be acknowledged before anything can happen to them.
BATCH_RECORD_COUNT = 5
DELIVERY_TIMEOUT_S = 60.0
# The producers give up before, and say why.
WAIT_MAX_S = 90.0
# Of a node that stands still no connection breaks.
ANSWER_TIMEOUT_S = 1.0


class Load:
    """Use as an async context manager, and `finish` at the end of it."""

    def __init__(
        self, cluster: ProcessCluster, *, producer_count: int, tail_count: int, seed: int
    ) -> None:
        self.history = History()
        self._addresses = [node.address for node in cluster]
        self._random = Random(seed)
        self._producer_count = producer_count
        self._tail_count = tail_count
        # How many records each producer may have sent so far.
        self._allowed = 0
        self._more = asyncio.Condition()
        self._ending = False
        self.acknowledged_count = 0
        # Set when the count that a test waits for is acknowledged: at that moment, not at the next look.
        self._mark: tuple[int, asyncio.Future[None]] | None = None
        # Why records were not acknowledged; a producer stops at the first.
        self._failures: list[BaseException] = []
        self._failed = asyncio.Event()
        self._producers: list[asyncio.Task[None]] = []
        self._tails: list[asyncio.Task[None]] = []
        self._clients: list[Client] = []

    async def __aenter__(self) -> Load:
        for number in range(self._producer_count):
            history = ProducerHistory(f"producer {number + 1}")
            self.history.producers.append(history)
            self._producers.append(asyncio.create_task(self._produce(history, self._client())))
        for number in range(self._tail_count):
            tail = TailHistory(f"tail {number + 1}")
            self.history.tails.append(tail)
            address = self._addresses[number % len(self._addresses)]
            self._tails.append(asyncio.create_task(self._follow(tail, self._client(), address)))
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._producers, *self._tails]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients:
            await client.close()

    def _client(self) -> Client:
        client = Client(self._addresses, timeout_s=TIMEOUT_S, random=Random(self._random.random()))
        self._clients.append(client)
        return client

    # --- What a test does -----------------------------------------------------------------------

    @property
    def in_flight_count(self) -> int:
        """How many records were sent and are not acknowledged."""
        return self.history.sent_count - self.acknowledged_count

    async def allow(self, count: int) -> None:
        """Let the producers send `count` more records, together."""
        async with self._more:
            self._allowed += -(-count // self._producer_count)
            self._more.notify_all()

    async def acknowledged(self, count: int) -> None:
        """Return at the moment at which `count` records in all are acknowledged."""
        if self.acknowledged_count < count:
            reached = asyncio.get_running_loop().create_future()
            self._mark = (count, reached)
            await self._unless_one_fails(reached)

    async def all_acknowledged(self) -> None:
        """Return when everything that was allowed was sent and is acknowledged."""
        await self.acknowledged(self._allowed * self._producer_count)

    async def finish(self) -> None:
        """Wait until everything that was sent is acknowledged, and every tail has seen it."""
        async with self._more:
            self._ending = True
            self._more.notify_all()
        done, _ = await asyncio.wait(self._producers, timeout=WAIT_MAX_S)
        for producer in done:
            producer.result()
        assert len(done) == len(self._producers), f"{self._progress()} after {WAIT_MAX_S:g} s"
        await until(self._tails_are_complete, "the tails see everything", describe=self._describe)

    def _progress(self) -> str:
        return f"{self.acknowledged_count} of {self.history.sent_count} records are acknowledged"

    async def _tails_are_complete(self) -> bool:
        for task in self._tails:
            if task.done():
                task.result()
        return all(len(tail.seen) >= self.history.sent_count for tail in self.history.tails)

    async def _describe(self) -> str:
        return ", ".join(f"{tail.name} has {len(tail.seen)}" for tail in self.history.tails)

    # --- What runs ------------------------------------------------------------------------------

    async def _produce(self, history: ProducerHistory, client: Client) -> None:
        producer = await client.open_producer(
            delivery_timeout_s=DELIVERY_TIMEOUT_S,
            answer_timeout_s=ANSWER_TIMEOUT_S,
            batch_record_count=BATCH_RECORD_COUNT,
        )
        async with producer:
            while await self._may_send(history):
                place = len(history.sent)
                value = self._value(history.name, place)
                history.sent.append(value)
                acknowledgement = await producer.produce(value)
                acknowledgement.add_done_callback(self._noter(history, place))

    async def _may_send(self, history: ProducerHistory) -> bool:
        async with self._more:
            await self._more.wait_for(lambda: self._ending or len(history.sent) < self._allowed)
            return len(history.sent) < self._allowed

    def _value(self, name: str, place: int) -> bytes:
        size_max = LARGE_SIZE_MAX if self._random.random() < 0.01 else SIZE_MAX
        padding = self._random.randbytes(self._random.randrange(size_max))
        return f"{name} record {place}: ".encode() + padding

    def _noter(self, history: ProducerHistory, place: int) -> Callable[[asyncio.Future[int]], None]:
        def note(acknowledgement: asyncio.Future[int]) -> None:
            if acknowledgement.cancelled():
                return
            if (error := acknowledgement.exception()) is not None:
                self._failures.append(error)
                self._failed.set()
                return
            history.acknowledged[place] = acknowledgement.result()
            self.acknowledged_count += 1
            if self._mark is not None and self.acknowledged_count >= self._mark[0]:
                if not self._mark[1].done():
                    self._mark[1].set_result(None)
                self._mark = None

        return note

    async def _follow(self, history: TailHistory, client: Client, address: str) -> None:
        async for record in client.consume(start=0, prefer=address):
            history.seen.append((record.offset, record.value))

    async def _unless_one_fails(self, wanted: asyncio.Future[None]) -> None:
        """Wait for `wanted`; a producer or a tail that fails meanwhile fails the test with its own error."""
        failed = asyncio.create_task(self._failed.wait())
        tasks = [*self._producers, *self._tails]
        ends: list[asyncio.Future[Any]] = [wanted, failed, *tasks]
        await asyncio.wait(ends, timeout=WAIT_MAX_S, return_when=asyncio.FIRST_COMPLETED)
        failed.cancel()
        if self._failures:
            raise self._failures[0]
        for task in tasks:
            if task.done():
                task.result()
        assert wanted.done(), f"{self._progress()} after {WAIT_MAX_S:g} s"
