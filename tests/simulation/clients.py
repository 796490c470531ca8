"""What loads a cluster while everything goes wrong: the product's own client, and some that are less patient.

Each notes in a `History` what it was told, and nothing else.
"""

from __future__ import annotations

import asyncio
from random import Random

from distlog.api.log.v1 import log_pb2
from distlog.block import Block
from distlog.client.attempts import Deadline
from distlog.client.producer import Producer
from distlog.client.unary import UnaryProducer, open_identity
from distlog.errors import DistlogError, OffsetOutOfRange, OutcomeUnknown
from tests.simulation.history import History
from tests.simulation.simulated_calls import SimulatedRouting
from tests.simulation.simulated_cluster import SimulatedCluster
from tests.simulation.simulated_machine import PowerCut

ATTEMPT_S = 2.0
PATIENCE_S = 100.0
# What a request to a machine fails with that says nothing about the log.
UNANSWERED = (DistlogError, TimeoutError, ConnectionError, PowerCut)


class Clients:
    """Everything that runs against one cluster until `stop`."""

    def __init__(self, cluster: SimulatedCluster, history: History) -> None:
        self._cluster = cluster
        self._history = history
        self._stopping = asyncio.Event()
        self.tasks = [
            asyncio.ensure_future(work)
            for work in (
                self._produce_pipelined(0),
                self._produce_pipelined(1),
                self._produce_single(2),
                self._append_once(),
                self._read_acknowledged(),
                self._read_acknowledged(),
            )
        ]

    def stop(self) -> None:
        """Have everybody finish what is begun, and begin nothing more."""
        self._stopping.set()

    def _random(self) -> Random:
        return Random(self._cluster.random.getrandbits(64))

    def _routing(self, number: int) -> SimulatedRouting:
        addresses = [machine.address for machine in self._cluster.machines.values()]
        return SimulatedRouting(self._cluster.network, f"client{number}", addresses, self._random())

    async def _pause(self, random: Random, seconds: float) -> None:
        await asyncio.sleep(seconds * random.random())

    # --- The product's client -------------------------------------------------------------------

    async def _produce_pipelined(self, number: int) -> None:
        """A `Producer`: many records in flight, on one stream after the other."""
        random, routing = self._random(), self._routing(number)
        identity = await open_identity(routing, 0, Deadline(PATIENCE_S))
        producer = Producer(
            routing,
            "",
            identity.producer_id,
            identity.epoch,
            delivery_timeout_s=PATIENCE_S,
            answer_timeout_s=1.0,
        )
        sent = self._history.sent.setdefault(number, [])
        while not self._stopping.is_set():
            for _ in range(random.randint(1, 8)):
                record = self._record(number, len(sent), random)
                sent.append(record)
                future = await producer.produce(record)
                future.add_done_callback(
                    lambda done, record=record: self._produced(record, done)  # type: ignore[misc]
                )
            await self._pause(random, 0.16)
        await producer.close()
        self._cluster.counts["duplicates answered"] += producer.duplicate_count

    async def _produce_single(self, number: int) -> None:
        """A `UnaryProducer`: one record at a time, each with its own call."""
        random, routing = self._random(), self._routing(number)
        producer = UnaryProducer(routing)
        sent = self._history.sent.setdefault(number, [])
        while not self._stopping.is_set():
            record = self._record(number, len(sent), random)
            sent.append(record)
            request = log_pb2.ProduceRequest(record=record)
            await self._acknowledged(record, producer.produce(request, Deadline(PATIENCE_S)))
            await self._pause(random, 0.14)

    def _record(self, number: int, place: int, random: Random) -> bytes:
        padding = b"." * int(random.random() ** 4 * 3000)
        return b"p%d-%d-" % (number, place) + padding

    def _produced(self, record: bytes, done: asyncio.Future[int]) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None:
            self._history.acknowledge(record, done.result())
            self._cluster.counts["acknowledged"] += 1
        elif isinstance(error, OutcomeUnknown):
            self._cluster.counts["unknown"] += 1
        else:
            # The client says that it is not in the log.
            self._history.refused.add(record)

    async def _acknowledged(self, record: bytes, answer: object) -> None:
        task: asyncio.Future[int] = asyncio.ensure_future(answer)  # type: ignore[arg-type]
        await asyncio.wait([task])
        self._produced(record, task)

    # --- Less patient ones ----------------------------------------------------------------------

    async def _append_once(self) -> None:
        """Without a producer id nothing is repeated, and a refusal must mean absence."""
        random, counts = self._random(), self._cluster.counts
        number = 0
        while not self._stopping.is_set():
            await self._pause(random, 0.14)
            machine = random.choice(list(self._cluster.machines.values()))
            number += 1
            record = b"once-%d" % number
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    result = await machine.ask(
                        lambda log: log.propose_append("", Block.from_records([record]))  # noqa: B023
                    )
                self._history.acknowledge(record, result.base_offset)
                counts["acknowledged"] += 1
            except (OutcomeUnknown, TimeoutError, PowerCut):
                counts["unknown"] += 1
            except (DistlogError, ConnectionRefusedError):
                self._history.refused.add(record)
                counts["refused"] += 1

    async def _read_acknowledged(self) -> None:
        """What was acknowledged before the read is there, on any node, or the node says that it cannot tell."""
        random, history, counts = self._random(), self._history, self._cluster.counts
        while not self._stopping.is_set():
            await self._pause(random, 0.1)
            machine = random.choice(list(self._cluster.machines.values()))
            if not history.acknowledged:
                continue
            record = random.choice(list(history.acknowledged)[-20:])
            offset = history.acknowledged[record]
            try:
                async with asyncio.timeout(ATTEMPT_S):
                    batches = await machine.ask(
                        lambda log: log.read("", offset, size_max=1)  # noqa: B023
                    )
            except OffsetOutOfRange as error:
                history.failures.append(
                    f"reads: {machine.name} says that acknowledged {record!r} is not there: {error}"
                )
            except UNANSWERED:
                counts["reads refused"] += 1
            else:
                found = list(batches[0].records())[offset - batches[0].base_offset]
                if found != record:
                    history.failures.append(
                        f"reads: {machine.name} reads {found!r} where {record!r} is"
                    )
                counts["reads"] += 1
