"""A producer: records into one topic, pipelined, each exactly once and in order.

    produce -> Window -> _write -> | ProduceStream to the leader | -> _read -> the record's future
                 ^                                                       |
                 +---- a new stream: everything unacknowledged again ----+

One task lives as long as the producer.  It opens a stream to the leader, and when that ends for whatever reason it opens another
one and sends what is not acknowledged again, in order and with the same sequences; the cluster tells a repeat from a new
record.  The only ways out are an acknowledgement, a refusal that no repetition can change, or `delivery_timeout_s` without
progress.  After either of the last two the producer stops for good, because a record behind a missing one must not be written.
"""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Self

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import AMBIGUOUS, RETRIED
from distlog.client.produce_stream import ANSWER_TIMEOUT_S, ProduceStream
from distlog.client.routing import Routing
from distlog.client.values import DEFAULT_TOPIC, Headers
from distlog.client.window import Window
from distlog.errors import (
    AnswerInvalid,
    DistlogError,
    InvalidRequest,
    OutcomeUnknown,
    OutOfSequence,
    ProducerStopped,
    RecordTooLarge,
)

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
    ) -> None:
        self.topic = topic
        self.producer_id = producer_id
        self.epoch = epoch
        # What stopped the producer; None while it works.
        self.failure: DistlogError | None = None
        # How many records behind the acknowledged ones may be in the log; known when the producer has stopped.
        self.in_doubt_count = 0
        # Answers that named an earlier write of the same record: how often repeating was needed.
        self.duplicate_count = 0
        self._routing = routing
        self._delivery_timeout_s = delivery_timeout_s
        self._answer_timeout_s = min(answer_timeout_s, delivery_timeout_s)
        self._window = Window()
        # Of the last acknowledged record, None before the first: the next one lies behind it, or the log is not the same.
        self.last_offset: int | None = None
        # Whether it takes no more records because the caller said so.
        self.is_closed = False
        # Set while there is room for another record; while nothing is unacknowledged; when there is something to send.
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._work = asyncio.Event()
        self._room.set()
        self._idle.set()
        # When an acknowledgement came last, or the first record after a pause was produced; on the loop's clock.
        self._progress_at = 0.0
        self._out_of_sequence_count = 0
        self._task = asyncio.create_task(self._run(), name=f"producer {producer_id}")
        self._task.add_done_callback(self._ended)

    @property
    def acknowledged_count(self) -> int:
        """How many records are acknowledged.  They are the first ones: a record is never acknowledged before an earlier one."""
        return self._window.first_sequence

    # --- What the caller does ---

    async def produce(
        self, value: bytes, *, key: bytes | None = None, headers: Headers = ()
    ) -> asyncio.Future[int]:
        """Take a record, and return a future of its offset; wait only while 1,000 records or 32 MiB are unacknowledged.

        The order of calls is the order in the log.  The future raises what became of the record: OutcomeUnknown if it may be
        in the log, anything else if it is not.  It need not be awaited: `flush` and `close` raise the first failure too.
        Raises ProducerStopped after a failure or `close`.
        """
        while self._window.is_full and self.failure is None:
            self._room.clear()
            await self._room.wait()
        self._check_working()
        request = log_pb2.ProduceRequest(
            record=value,
            topic=self.topic,
            key=key,
            headers=[log_pb2.Header(name=name, value=content) for name, content in headers]
            if headers
            else None,
            producer_id=self.producer_id,
            producer_epoch=self.epoch,
            sequence=self._window.next_sequence,
        )
        loop = asyncio.get_running_loop()
        acknowledgement = loop.create_future()
        if not len(self._window):
            self._progress_at = loop.time()
            self._idle.clear()
        self._window.add(request, acknowledgement)
        self._work.set()
        return acknowledgement

    async def flush(self) -> None:
        """Wait until everything produced so far is acknowledged.  Raises what stopped the producer, if it did."""
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
            logger.error("producer failed", exc_info=task.exception())
            self._stop(OutcomeUnknown(cause=f"the producer failed: {task.exception()!r}"))
        elif len(self._window):
            self._stop(ProducerStopped(cause="it was closed"))

    async def _deliver(self) -> DistlogError:
        """Keep a stream to the leader open while there is something to send; return what no new stream can change."""
        backoff = self._routing.backoff()
        loop = asyncio.get_running_loop()
        while True:
            while not len(self._window):
                self._work.clear()
                await self._work.wait()
            acknowledged = self._window.first_sequence
            error = await self._attempt()
            self._routing.note_failure(error)
            if self._window.first_sequence > acknowledged:
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
            node, self._window, self._work, self._acknowledge, self._answer_timeout_s
        )
        end = await stream.run()
        self._window.restart(may_be_written=isinstance(end, AMBIGUOUS))
        return end

    def _acknowledge(self, answer: log_pb2.ProduceResponse) -> None:
        """Tell the oldest request in flight where its record is.  Raises AnswerInvalid if it cannot be there."""
        if not self._window.in_flight_count:
            raise AnswerInvalid(
                self.topic or DEFAULT_TOPIC, "was acknowledged more often than it was written to"
            )
        if self.last_offset is not None and answer.offset <= self.last_offset:
            problem = f"has a record at offset {answer.offset} that was written after offset {self.last_offset}"
            raise AnswerInvalid(self.topic or DEFAULT_TOPIC, problem)
        request = self._window.take_answered()
        self.last_offset = answer.offset
        self._progress_at = asyncio.get_running_loop().time()
        self.duplicate_count += answer.duplicate
        if not request.acknowledgement.done():
            request.acknowledgement.set_result(answer.offset)
        self._room.set()
        # There is room in flight for another one.
        self._work.set()
        if not len(self._window):
            self._idle.set()

    def _stop(self, error: DistlogError) -> None:
        """Fail everything that is not acknowledged, and refuse everything that would follow it."""
        self.failure = error
        for index, request in enumerate(self._window.take_all()):
            if request.may_be_written and not isinstance(error, NEVER_WRITTEN):
                self.in_doubt_count += 1
                outcome: DistlogError = OutcomeUnknown(cause=str(error))
            else:
                outcome = error if index == 0 else ProducerStopped(cause=str(error))
            if not request.acknowledgement.done():
                request.acknowledgement.set_exception(outcome)
                # Not an oversight if nobody looks at it: `flush` and `close` raise the failure.
                request.acknowledgement.exception()
        self._room.set()
        self._idle.set()
