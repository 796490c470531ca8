"""A producer: records into one topic, in blocks, pipelined, each record exactly once and in order.

    produce -> Window -> _write -> | ProduceBatch to the leader | -> _read -> the records' futures
                 ^                                                      |
                 +---- a new stream: every unacknowledged block again --+

One task lives as long as the producer.  It opens a stream to the leader, and when that ends for whatever reason it opens another
one and sends the blocks that are not acknowledged again, byte for byte, in order and with the same sequences; the cluster
tells a repeat from a new block.  The only ways out are an acknowledgement, a refusal that no repetition can change, or
`delivery_timeout_s` without progress.  After either of the last two the producer stops for good, because a record behind a
missing one must not be written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from distlog.api.log.v1 import log_pb2
from distlog.api.status import error_from_message
from distlog.block import ATTRIBUTE_STRUCTURED, PREFIX_SIZE
from distlog.client.attempts import AMBIGUOUS, RETRIED
from distlog.client.linger import Linger
from distlog.client.produce_stream import ANSWER_TIMEOUT_S, ProduceStream
from distlog.client.records import bytes_of, stored_form, structured
from distlog.client.routing import Routing
from distlog.client.values import DEFAULT_TOPIC, Headers, NewRecord
from distlog.client.window import BATCH_SIZE_MAX, BatchLimits, Window
from distlog.errors import (
    AnswerInvalid,
    DistlogError,
    InvalidRequest,
    OutcomeUnknown,
    OutOfSequence,
    Overloaded,
    ProducerStopped,
    RecordTooLarge,
)
from distlog.tracing.spans import NO_TRACER, Tracer

logger = logging.getLogger(__name__)

# The record itself is refused, so no earlier attempt can have written it.
NEVER_WRITTEN = (InvalidRequest, RecordTooLarge)
# A new leader may for a moment not have applied what the old one acknowledged; more often, something is lost.
OUT_OF_SEQUENCE_COUNT_MAX = 5


class Producer:
    """Made by `Client.open_producer`.  Use it as an async context manager: a normal exit waits for every acknowledgement."""

    def __init__(
        self,
        routing: Routing,
        topic: str,
        producer_id: int,
        epoch: int,
        *,
        delivery_timeout_s: float,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        linger_s: float = 0.0,
        limits: BatchLimits | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self.topic = topic
        self.producer_id = producer_id
        self.epoch = epoch
        # What stopped the producer; None while it works.
        self.failure: DistlogError | None = None
        # How many records behind the acknowledged ones may be in the log; known when the producer has stopped.
        self.in_doubt_count = 0
        # Records whose answer named an earlier write of their block: how often repeating was needed.
        self.duplicate_count = 0
        self._routing = routing
        self._delivery_timeout_s = delivery_timeout_s
        self._answer_timeout_s = min(answer_timeout_s, delivery_timeout_s)
        self._limits = limits or BatchLimits()
        self._window = Window(topic, producer_id, epoch, self._limits, tracer)
        # Of the first and the last acknowledged record, None before there is one.
        self.first_offset: int | None = None
        self.last_offset: int | None = None
        # Whether it takes no more records because the caller said so.
        self.is_closed = False
        # Set while there is room for another record; while nothing is unacknowledged; when there is something to deliver.
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._work = asyncio.Event()
        self._room.set()
        self._idle.set()
        self._linger = Linger(linger_s)
        # When an acknowledgement came last, or the first record after a pause was produced; on the loop's clock.
        self._progress_at = 0.0
        self._out_of_sequence_count = 0
        # The window's next sequence when the caller gave way last.
        self._noticed_sequence = 0
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run(), name=f"producer {producer_id}")
        self._task.add_done_callback(self._ended)

    @property
    def acknowledged_count(self) -> int:
        """How many records are acknowledged.  They are the first ones: a record is never acknowledged before an earlier one."""
        return self._window.acknowledged_count

    # --- What the caller does ---

    async def produce(
        self, value: bytes, *, key: bytes | None = None, headers: Headers = ()
    ) -> asyncio.Future[int]:
        """Take a record, and return a future of its offset; wait only while there is no room in memory.

        The order of calls is the order in the log.  The future raises what became of the record: OutcomeUnknown if it may be
        in the log, anything else if it is not.  It need not be awaited: `flush` and `close` raise the first failure too.
        Raises ProducerStopped after a failure or `close`.
        """
        if self._window.is_full:
            await self._wait_for_room()
        elif self._window.next_sequence != self._noticed_sequence:
            await self._let_send()
        return self._take(value, key, headers)

    def produce_nowait(
        self, value: bytes, *, key: bytes | None = None, headers: Headers = ()
    ) -> asyncio.Future[int]:
        """Take a record at once, as `produce` does.  Raises Overloaded, and has taken nothing, while there is no room."""
        if self._window.is_full:
            self._check_working()
            raise Overloaded(
                queue="bytes of this producer that are not acknowledged",
                limit=self._limits.memory_size_max,
            )
        return self._take(value, key, headers)

    async def produce_many(self, values: Iterable[bytes]) -> None:
        """Take records that are only values, in order, and wait while there is no room.

        It is the fastest way in: nobody is told the offset of each.  `flush` and `close` tell that all are in the log, or
        what failed, and `acknowledged_count` how many are.  Raises ProducerStopped after a failure or `close`; what was taken
        before is not taken back.
        """
        window = self._window
        self._check_working()
        for value in values:
            if window.is_full:
                await self._wait_for_room()
                self._check_working()
            elif window.next_sequence != self._noticed_sequence:
                await self._let_send()
                self._check_working()
            if not len(window):
                self._begin()
            if window.add(bytes_of(value)):
                self._linger.begin()

    async def produce_batch(self, records: Sequence[bytes | NewRecord]) -> asyncio.Future[range]:
        """Take records that become one batch: all of them are written, next to each other, or none.

        Returns a future of their offsets, which raises as that of `produce` does; waits only while there is no room in memory.
        Raises InvalidRequest for no record, or for more than 4 MiB of several records with 8 bytes for each.
        """
        values, attributes = stored_form(records)
        size = sum(map(len, values)) + PREFIX_SIZE * len(values)
        if not values or (size > BATCH_SIZE_MAX and len(values) > 1):
            problem = f"{len(values)} records of {size} bytes: a batch is one record or more, and at most {BATCH_SIZE_MAX} bytes"
            raise InvalidRequest("records", problem)
        if self._window.is_full:
            await self._wait_for_room()
        self._check_working()
        if not len(self._window):
            self._begin()
        offsets: asyncio.Future[range] = self._loop.create_future()
        self._window.add_batch(values, attributes, offsets)
        self._linger.begin()
        return offsets

    async def flush(self) -> None:
        """Wait until everything produced so far is acknowledged.  Raises what stopped the producer, if it did."""
        self._linger.end()
        await self._idle.wait()
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        """Flush, then stop.  Raises what stopped the producer, if it did."""
        self.is_closed = True
        try:
            await self.flush()
        finally:
            await self.abort()

    async def abort(self) -> None:
        """Stop at once; what is not acknowledged may or may not be written."""
        self.is_closed = True
        self._linger.close()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await (self.close() if kind is None else self.abort())

    async def _wait_for_room(self) -> None:
        while self._window.is_full and self.failure is None:
            self._room.clear()
            # What fills the memory must not wait for more.
            self._linger.end()
            await self._room.wait()

    async def _let_send(self) -> None:
        """Give way once for each block: it is sent while its caller, who may never wait otherwise, fills the next one."""
        self._noticed_sequence = self._window.next_sequence
        await asyncio.sleep(0)

    def _take(self, value: bytes, key: bytes | None, headers: Headers) -> asyncio.Future[int]:
        if self.failure is not None or self.is_closed:
            self._check_working()
        attributes = 0
        if key is None and not headers:
            record = bytes_of(value)
        else:
            record, attributes = structured(value, key, headers), ATTRIBUTE_STRUCTURED
        if not len(self._window):
            self._begin()
        offset: asyncio.Future[int] = self._loop.create_future()
        if self._window.add(record, attributes, offset):
            self._linger.begin()
        return offset

    def _begin(self) -> None:
        """There is something to deliver again."""
        self._progress_at = self._loop.time()
        self._idle.clear()
        self._work.set()

    def _check_working(self) -> None:
        if self.failure is not None:
            raise ProducerStopped(cause=str(self.failure))
        if self.is_closed:
            raise ProducerStopped(cause="it is closed")

    # --- The task ---

    async def _run(self) -> None:
        self._stop(await self._deliver())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Leave nobody waiting for an answer that will not come, however the task ended."""
        if self.failure is not None:
            return
        self._window.restart(may_be_written=True)
        if not task.cancelled():
            logger.error(
                "the producer failed by a mistake of ours: please report it",
                exc_info=task.exception(),
            )
            self._stop(OutcomeUnknown(cause=f"the producer failed: {task.exception()!r}"))
        elif len(self._window):
            self._stop(ProducerStopped(cause="it was closed"))

    async def _deliver(self) -> DistlogError:
        """Keep a stream to the leader open while there is something to send; return what no new stream can change."""
        backoff = self._routing.backoff()
        loop = self._loop
        while True:
            while not len(self._window):
                self._work.clear()
                await self._work.wait()
            acknowledged = self._window.acknowledged_count
            error = await self._attempt()
            self._routing.note_failure(error)
            if self._window.acknowledged_count > acknowledged:
                backoff.reset()
                self._out_of_sequence_count = 0
            if not self._is_worth_another_stream(error):
                return error
            pause_s = backoff.next_pause_s(error)
            if (
                len(self._window)
                and loop.time() + pause_s > self._progress_at + self._delivery_timeout_s
            ):
                return error
            await asyncio.sleep(pause_s)

    def _is_worth_another_stream(self, error: DistlogError) -> bool:
        if isinstance(error, OutOfSequence):
            self._out_of_sequence_count += 1
            return self._out_of_sequence_count < OUT_OF_SEQUENCE_COUNT_MAX
        return isinstance(error, RETRIED)

    async def _attempt(self) -> DistlogError:
        """Open a stream and use it until it ends; return why it did.  Nothing is in flight afterwards."""
        try:
            node = await self._routing.leader()
        except DistlogError as error:
            return error
        stream = ProduceStream(
            node, self._window, self._linger, self._acknowledge, self._answer_timeout_s
        )
        end = await stream.run()
        self._window.restart(may_be_written=isinstance(end, AMBIGUOUS))
        return end

    def _acknowledge(self, answer: log_pb2.ProduceBatchResponse) -> None:
        """Tell those who wait for the oldest block in flight where its records are.

        Raises the error that the answer is, and AnswerInvalid if the records cannot be where it says.
        """
        if answer.HasField("error"):
            raise error_from_message(answer.error)
        topic, base_offset = self.topic or DEFAULT_TOPIC, answer.base_offset
        if not self._window.in_flight_count:
            raise AnswerInvalid(topic, "was acknowledged more often than it was written to")
        record_count = self._window.oldest().record_count
        if answer.record_count != record_count:
            problem = f"took {answer.record_count} records of a batch that has {record_count}"
            raise AnswerInvalid(topic, problem)
        if self.last_offset is not None and base_offset <= self.last_offset:
            problem = f"has a record at offset {base_offset} that was written after offset {self.last_offset}"
            raise AnswerInvalid(topic, problem)
        block = self._window.take_answered()
        if self.first_offset is None:
            self.first_offset = base_offset
        self.last_offset = base_offset + record_count - 1
        self._progress_at = self._loop.time()
        if answer.duplicate:
            self.duplicate_count += record_count
        block.settle(base_offset)
        self._room.set()
        # There is room in flight for another one.
        self._linger.look()
        if not len(self._window):
            self._idle.set()

    def _stop(self, error: DistlogError) -> None:
        """Fail everything that is not acknowledged, and refuse everything that would follow it."""
        self.failure = error
        self._linger.close()
        for index, block in enumerate(self._window.take_all()):
            if block.may_be_written and not isinstance(error, NEVER_WRITTEN):
                self.in_doubt_count += block.record_count
                outcome: DistlogError = OutcomeUnknown(cause=str(error))
            else:
                outcome = error if index == 0 else ProducerStopped(cause=str(error))
            if block.span is not None:
                block.span.end(outcome.reason)
            for future in block.futures():
                if not future.done():
                    future.set_exception(outcome)
                    # Not an oversight if nobody looks at it: `flush` and `close` raise the failure.
                    future.exception()
        self._room.set()
        self._idle.set()
