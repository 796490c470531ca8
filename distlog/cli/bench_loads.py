"""The loads of `distlog bench`: what a program does with the client, and nothing beside it.

Each is a coroutine that ends when its samples say so, or raises what the cluster failed with.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from distlog.block import PREFIX_SIZE
from distlog.cli.bench_samples import Samples
from distlog.errors import InvalidRequest, ProducerStopped, Unreachable

if TYPE_CHECKING:
    from distlog.client import Client, Consumer, Producer

# Of a record that is followed through the cluster: the run, and the record's number in it.
STAMP = struct.Struct("<QQ")
# Instead of a number, in the record behind the last one.
LAST = (1 << 64) - 1
# Of single records that are grouped by the client only one in so many is waited for by itself.
RECORDS_PER_SAMPLE = 100
# When single records are read, one sample is so many of them.
READ_RECORDS_PER_SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be done.  Sizes in bytes."""

    topic: str = ""
    record_size: int = 100
    # Records in a batch; 0: the client groups single records.
    batch: int = 0
    # Batches that were handed over and are not acknowledged; of no meaning where the client groups.
    in_flight: int = 16
    linger_s: float = 0.0
    memory_size: int = 32 << 20
    # How records are read: "records", "lists" or "batches".
    by: str = "records"
    # The offset to read from; None: the first one that is kept.
    start: int | None = None
    # What is waited for: the answer to a "call", to a record on a "stream", or the record itself at a "tail".
    of: str = "stream"
    callers: int = 1
    rate: float = 200.0
    timeout_s: float = 30.0


def payload_of(load: Load) -> bytes:
    """Return the bytes of a record, the same in each run, and such that compressing them gains nothing."""
    return Random(1).randbytes(load.record_size)


# --- produce ----------------------------------------------------------------------------------------


async def produce(client: Client, load: Load, samples: Samples) -> None:
    """Append as fast as the cluster takes it."""
    async with opened(client, load) as producer:
        if load.batch:
            await _produce_batches(producer, load, samples)
        else:
            await _produce_records(producer, load, samples)


async def _produce_batches(producer: Producer, load: Load, samples: Samples) -> None:
    payload = payload_of(load)
    records = [payload] * load.batch
    room = asyncio.Semaphore(load.in_flight)
    while count := samples.take(load.batch):
        await room.acquire()
        began_at = samples.now()
        acknowledgement = await producer.produce_batch(records[:count])

        def done(
            future: asyncio.Future[range], began_at: float = began_at, count: int = count
        ) -> None:
            room.release()
            if not future.cancelled() and future.exception() is None:
                samples.add(began_at, count, count * len(payload))

        acknowledgement.add_done_callback(done)


async def _produce_records(producer: Producer, load: Load, samples: Samples) -> None:
    payload = payload_of(load)
    while count := samples.take(RECORDS_PER_SAMPLE):
        began_at = samples.now()
        await producer.produce_many([payload] * (count - 1))
        # The order of acknowledgements is that of the records, so this one speaks for those before it.
        acknowledgement = await producer.produce(payload)

        def done(
            future: asyncio.Future[int], began_at: float = began_at, count: int = count
        ) -> None:
            if not future.cancelled() and future.exception() is None:
                samples.add(began_at, count, count * len(payload))

        acknowledgement.add_done_callback(done)


@asynccontextmanager
async def opened(client: Client, load: Load) -> AsyncIterator[Producer]:
    """Open a producer; wait for every acknowledgement at the end.  Raises what stopped it, if it did."""
    producer = await client.open_producer(
        load.topic,
        delivery_timeout_s=load.timeout_s,
        linger_s=load.linger_s,
        memory_size=load.memory_size,
    )
    try:
        # `flush` says why it stopped.
        with contextlib.suppress(ProducerStopped):
            yield producer
        await producer.flush()
    finally:
        await producer.abort()


# --- consume ----------------------------------------------------------------------------------------


async def consume(client: Client, load: Load, samples: Samples) -> None:
    """Read the topic from its start to where it ends now, and again, as fast as the client can."""
    topic = await client.describe_topic(load.topic)
    start = topic.start_offset if load.start is None else load.start
    if not topic.start_offset <= start < topic.high_watermark:
        problem = (
            f"has no record from offset {start} on: its offsets are [{topic.start_offset}, {topic.high_watermark}); "
            "distlog bench produce writes some"
        )
        raise InvalidRequest(f"topic {topic.name}", problem)
    read = {"records": _read_records, "lists": _read_lists, "batches": _read_batches}[load.by]
    end = topic.high_watermark
    has_time = True
    while has_time:
        async with client.consume(load.topic, start=start, end=end) as consumer:
            has_time = await read(consumer, end, samples)


async def _read_records(consumer: Consumer, end: int, samples: Samples) -> bool:
    """Read to `end`; return whether there is time for more, as the other two do."""
    while remaining := end - consumer.next_offset:
        count = left = samples.take(min(READ_RECORDS_PER_SAMPLE, remaining))
        if not count:
            return False
        size = 0
        began_at = samples.now()
        async for record in consumer:
            size += len(record.value)
            left -= 1
            if not left:
                break
        samples.add(began_at, count, size)
    return True


async def _read_lists(consumer: Consumer, _end: int, samples: Samples) -> bool:
    began_at = samples.now()
    async for batch in consumer.batches():
        if not samples.take(len(batch.wanted)):
            return False
        size = 0
        for record in batch.records():
            size += len(record.value)
        samples.add(began_at, len(batch.wanted), size)
        began_at = samples.now()
    return True


async def _read_batches(consumer: Consumer, _end: int, samples: Samples) -> bool:
    began_at = samples.now()
    async for batch in consumer.batches():
        if not samples.take(len(batch.wanted)):
            return False
        size = len(batch.frames) - PREFIX_SIZE * batch.record_count
        samples.add(began_at, len(batch.wanted), size * len(batch.wanted) // batch.record_count)
        began_at = samples.now()
    return True


# --- latency ----------------------------------------------------------------------------------------


async def latency(client: Client, load: Load, samples: Samples) -> None:
    """Append one record at a time, by each caller, and wait for it."""
    if load.of == "tail":
        await _follow(client, load, samples)
    elif load.of == "call":
        await _call(client, load, samples)
    else:
        await _stream(client, load, samples)


async def _call(client: Client, load: Load, samples: Samples) -> None:
    payload = payload_of(load)

    async def caller() -> None:
        while samples.take(1):
            began_at = samples.now()
            await client.produce(payload, topic=load.topic)
            samples.add(began_at, 1, len(payload))

    await _together(load.callers, caller)


async def _stream(client: Client, load: Load, samples: Samples) -> None:
    payload = payload_of(load)
    async with opened(client, load) as producer:

        async def caller() -> None:
            while samples.take(1):
                began_at = samples.now()
                await (await producer.produce(payload))
                samples.add(began_at, 1, len(payload))

        await _together(load.callers, caller)


async def _together(count: int, caller: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run so many callers to their end.  Raises what the first one failed with; then none of them runs any more."""
    tasks = [asyncio.create_task(caller()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _follow(client: Client, load: Load, samples: Samples) -> None:
    """Append so many records a second, and see when each arrives at a consumer that waits at the end of the topic."""
    tail = _Tail(load, samples)
    start = (await client.describe_topic(load.topic)).high_watermark
    async with (
        client.consume(load.topic, start=start) as consumer,
        opened(client, load) as producer,
    ):
        reading = asyncio.create_task(tail.read(consumer))
        try:
            await tail.write(producer, reading)
            await asyncio.wait([reading], timeout=load.timeout_s)
            if not reading.done():
                problem = f"{tail.missing_count} acknowledged records did not come within {load.timeout_s:g} s"
                raise Unreachable("the nodes that were read from", problem)
            reading.result()
        finally:
            reading.cancel()
            await asyncio.wait([reading])


class _Tail:
    """Records on their way through the cluster."""

    def __init__(self, load: Load, samples: Samples) -> None:
        self._samples = samples
        self._interval_s = 1 / load.rate
        self._filler = payload_of(load)[STAMP.size :]
        # Others may write to the topic, too.
        self._run = secrets.randbits(64)
        # When each was given to the producer, until it has arrived.
        self._given_at: dict[int, float] = {}

    @property
    def missing_count(self) -> int:
        """How many have not arrived."""
        return len(self._given_at)

    async def write(self, producer: Producer, reading: asyncio.Task[None]) -> None:
        """Append at the rate that was asked for, until the run is over or nobody reads any more."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        number = 0
        while not reading.done() and self._samples.take(1):
            self._given_at[number] = self._samples.now()
            await producer.produce(STAMP.pack(self._run, number) + self._filler)
            number += 1
            next_at += self._interval_s
            await asyncio.sleep(max(0.0, next_at - loop.time()))
        await producer.produce(STAMP.pack(self._run, LAST) + self._filler)
        await producer.flush()

    async def read(self, consumer: Consumer) -> None:
        """Read until the last record has come."""
        async for record in consumer:
            if len(record.value) < STAMP.size:
                continue
            run, number = STAMP.unpack_from(record.value)
            if run != self._run:
                continue
            if number == LAST:
                return
            self._samples.add(self._given_at.pop(number), 1, len(record.value))
