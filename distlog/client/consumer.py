"""A consumer: the records of one topic from an offset on, without a gap, whichever node they come from.

It reads from one node until that fails, then goes on at the next one, at the offset after the last record that it handed out.
Every record is checked to be exactly that one, so a consumer can neither skip nor repeat.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.client.answers import record_of
from distlog.client.attempts import READ_ELSEWHERE, read_error
from distlog.client.patience import Patience
from distlog.client.routing import Routing
from distlog.client.values import Record
from distlog.errors import AnswerInvalid, DistlogError, Unreachable

# How long a node may keep silent about a record that is known to exist before another node is asked.
RECORD_TIMEOUT_S = 5.0
# A tail that lived this long was a success: what ends it begins a new series of failures.
STREAM_LIFE_MIN_S = 5.0


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
    ) -> None:
        # The offset of the record that comes next: what to begin with in order to go on later.
        self.next_offset = start
        self._end = end
        self._routing = routing
        self._request = log_pb2.ConsumeRequest(
            topic=topic,
            consistency=log_pb2.CONSISTENCY_LOCAL if local else log_pb2.CONSISTENCY_LINEARIZABLE,
        )
        self._prefer = prefer
        self._timeout_s = timeout_s
        self._record_timeout_s = record_timeout_s
        self.is_closed = False
        self._call: Any = None
        self._address = ""
        self._patience: Patience
        self._is_reading = False
        # How many nodes were left behind; with the read order it says which one is next.
        self._moves = 0
        self._backoff = routing.backoff()
        # When the stream was opened, and when the present series of failures began; on the loop's clock.
        self._opened_at = 0.0
        self._failing_since: float | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        """Return the next record; wait for it if it does not exist yet.  Ends at `end`, if one was given.

        Raises OffsetOutOfRange if the offset to begin with does not exist or was trimmed, TopicNotFound, and whatever the
        nodes fail with when none could be read from for the timeout of the consumer.
        """
        if self.is_closed or (self._end is not None and self.next_offset >= self._end):
            raise StopAsyncIteration
        while True:
            try:
                if self._call is None:
                    await self._open()
                answer = await self._read()
            except grpc.aio.AioRpcError as failure:
                await self._move(read_error(failure, self._address))
            except Unreachable as error:
                await self._move(error)
            else:
                return self._checked(answer)

    def close(self) -> None:
        """End the stream.  Iterating further ends at once."""
        self.is_closed = True
        self._leave()

    def _leave(self) -> None:
        if self._call is not None:
            self._patience.stop()
            self._call.cancel()
            self._call = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def _open(self) -> None:
        await self._routing.learn()
        addresses = self._routing.read_order(self._prefer)
        self._address = addresses[self._moves % len(addresses)]
        self._request.offset = self.next_offset
        self._opened_at = asyncio.get_running_loop().time()
        self._call = self._routing.node(self._address).log.ConsumeStream(self._request)
        self._patience = Patience(
            self._record_timeout_s,
            progress=lambda: self.next_offset,
            is_waiting=lambda: self._is_reading,
            cut=self._call.cancel,
        )

    async def _read(self) -> log_pb2.ConsumeResponse:
        if self._end is not None:
            self._patience.watch()
        self._is_reading = True
        try:
            answer = await self._call.read()
        except asyncio.CancelledError:
            if not self._patience.ran_out():
                raise
            problem = (
                f"it did not send offset {self.next_offset} within {self._record_timeout_s:g} s"
            )
            raise Unreachable(self._address, problem) from None
        finally:
            self._is_reading = False
        if answer is grpc.aio.EOF:
            raise Unreachable(self._address, "it ended the stream")
        response: log_pb2.ConsumeResponse = answer
        return response

    def _checked(self, answer: log_pb2.ConsumeResponse) -> Record:
        if answer.offset != self.next_offset:
            raise AnswerInvalid(
                self._address, f"sent offset {answer.offset} where {self.next_offset} comes next"
            )
        self.next_offset += 1
        self._failing_since = None
        return record_of(answer)

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
