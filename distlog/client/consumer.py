"""A consumer: the records of one topic from an offset on, without a gap, whichever node they come from.

It reads batches from one node until that fails, then goes on at the next one, at the offset after the last record that it handed
out.  Every batch is checked to hold exactly that one, so a consumer can neither skip nor repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from types import TracebackType
from typing import Self

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import READ_ELSEWHERE
from distlog.client.batch_stream import BatchStream
from distlog.client.batches import Batch
from distlog.client.routing import Routing
from distlog.client.values import Record
from distlog.errors import DistlogError

# How long a node may keep silent about a record that is known to exist before another node is asked.
RECORD_TIMEOUT_S = 5.0
# A tail that lived this long was a success: what ends it begins a new series of failures.
STREAM_LIFE_MIN_S = 5.0
# Bytes that are read before somebody asks for them.
PREFETCH_SIZE = 4 << 20


class Consumer:
    """Made by `Client.consume`.  An async iterator of Record, and an async context manager that ends the stream."""

    def __init__(
        self,
        routing: Routing,
        topic: str,
        *,
        start: int,
        end: int | None,
        local: bool,
        prefer: str,
        timeout_s: float,
        record_timeout_s: float = RECORD_TIMEOUT_S,
        prefetch_size: int = PREFETCH_SIZE,
    ) -> None:
        self._end = end
        self._routing = routing
        self._request = log_pb2.ConsumeBatchRequest(
            topic=topic,
            consistency=log_pb2.CONSISTENCY_LOCAL if local else log_pb2.CONSISTENCY_LINEARIZABLE,
        )
        self._prefer = prefer
        self._timeout_s = timeout_s
        self._record_timeout_s = record_timeout_s
        self._prefetch_size = prefetch_size
        self.is_closed = False
        self._stream: BatchStream | None = None
        # The batch whose records are handed out, those of them that are not yet, and the last one that was.
        self._batch: Batch | None = None
        self._records: Iterator[Record] = iter(())
        self._last: Record | None = None
        # The offset behind everything handed out, while no batch is.
        self._next_offset = start
        # How many nodes were left behind; with the read order it says which one is next.
        self._moves = 0
        self._backoff = routing.backoff()
        # When the stream was opened, and when the present series of failures began; on the loop's clock.
        self._opened_at = 0.0
        self._failing_since: float | None = None

    @property
    def next_offset(self) -> int:
        """The offset of the record that comes next: what to begin with in order to go on later."""
        return self._next_offset if self._last is None else self._last.offset + 1

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """Return the next record; wait for it if it does not exist yet.  Ends at `end`, if one was given.

        Raises OffsetOutOfRange if the offset to begin with does not exist or was trimmed, TopicNotFound, and whatever the
        nodes fail with when none could be read from for the timeout of the consumer.
        """
        # Three lines that run for every record, and no call of Python.
        record = next(self._records, None)
        if record is None:
            record = await self._first_of_next()
        self._last = record
        return record

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Yield whole batches from where the iteration is, untouched; ends and raises as the iteration over records does.

        `Batch.wanted` tells which of its records come next: the first batch may begin before them.  A batch counts as handed out
        when it is yielded.
        """
        while True:
            batch, offset = self._batch, self.next_offset
            if batch is not None and offset in batch.wanted:
                batch = batch.from_offset(offset)
            else:
                batch = await self._take()
            if batch is None:
                return
            self._hand_out(batch)
            yield batch

    async def _first_of_next(self) -> Record:
        batch = await self._take()
        if batch is None:
            raise StopAsyncIteration
        self._batch, self._records = batch, batch.records()
        return next(self._records)

    async def _take(self) -> Batch | None:
        """Return the batch with the next record; None at the end."""
        self._hand_out(None)
        while True:
            if self.is_closed or (self._end is not None and self._next_offset >= self._end):
                self._leave()
                return None
            try:
                if self._stream is None:
                    self._stream = await self._open()
                batch = await self._stream.next()
            except DistlogError as error:
                await self._move(error)
            else:
                self._failing_since = None
                return batch

    def _hand_out(self, batch: Batch | None) -> None:
        """Count everything before the end of `batch` as handed out; None: what was."""
        self._next_offset = self.next_offset if batch is None else batch.wanted.stop
        self._batch, self._records, self._last = None, iter(()), None

    def close(self) -> None:
        """End the stream.  Iterating further ends at once."""
        self.is_closed = True
        self._hand_out(None)
        self._leave()

    def _leave(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _open(self) -> BatchStream:
        await self._routing.learn()
        addresses = self._routing.read_order(self._prefer)
        address = addresses[self._moves % len(addresses)]
        self._request.offset = self._next_offset
        self._opened_at = asyncio.get_running_loop().time()
        return BatchStream(
            await self._routing.verified_node(address),
            self._request,
            end=self._end,
            prefetch_size=self._prefetch_size,
            silence_max_s=self._record_timeout_s,
        )

    async def _move(self, error: DistlogError) -> None:
        """Go to the next node after a pause.  Raises `error` if it is final, or failures have lasted too long."""
        self._leave()
        loop = asyncio.get_running_loop()
        now = loop.time()
        # At the end of a log a stream has nothing to show for itself but its life.
        has_lived = self._end is None and now - self._opened_at > STREAM_LIFE_MIN_S
        if self._failing_since is None or has_lived:
            self._failing_since = now
            self._backoff.reset()
        pause_s = self._backoff.next_pause_s(error)
        if (
            not isinstance(error, READ_ELSEWHERE)
            or now + pause_s > self._failing_since + self._timeout_s
        ):
            raise error
        self._moves += 1
        await asyncio.sleep(pause_s)
