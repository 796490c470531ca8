"""One ProduceStream: requests are proposed in the order they arrive, answers leave in the same order.

    reader   context -> room under the limits -> propose ->+
                                                           |  queue, in order: futures, then one end
    writer   context <- answer <- await the oldest <-------+

The reader stops at the first request that is refused at once, so nothing behind it is written.  The writer ends the stream
with that error after the answers of everything before it, or earlier with the error of an append that failed later.  What was in
flight behind such an append goes down with it when leadership was lost; when `apply` refused it, its successors carry sequences of
their own, or are independent of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from distlog.api.log.v1 import log_pb2
from distlog.consensus.results import AppendResult
from distlog.errors import DistlogError, OutcomeUnknown
from distlog.server.calls import parse
from distlog.server.in_flight import InFlight
from distlog.server.limits import ServerLimits
from distlog.server.open_streams import OpenStreams
from distlog.server.records import block_of, check_topic, stamp_of
from distlog.server.refusals import proven
from distlog.server.served_log import ServedLog

Proposed = tuple[asyncio.Future[AppendResult], int]


class ProduceStream:
    """The two halves of one stream and what is between them."""

    def __init__(
        self, log: ServedLog, limits: ServerLimits, streams: OpenStreams, context: Any
    ) -> None:
        self._log = log
        self._limits = limits
        self._streams = streams
        self._context = context
        # Proposed appends with their sizes in the order of the log; at its end an error, or None when the client is done.
        self._queue: asyncio.Queue[Proposed | Exception | None] = asyncio.Queue()
        self._in_flight = InFlight(limits)

    async def run(self) -> None:
        """Serve the stream to its end.  Raises the error that it ends with."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read())
                end = await self._answer()
                reading.cancel()
        finally:
            self._abandon()
        if end is not None:
            raise end

    async def _read(self) -> None:
        end: Exception | None = None
        try:
            async with self._streams.open():
                while (data := await self._context.read()) is not grpc.aio.EOF:
                    await self._propose(data)
        except (DistlogError, grpc.aio.BaseError) as error:
            end = error
        self._queue.put_nowait(end)

    async def _propose(self, data: bytes) -> None:
        request = parse(log_pb2.ProduceRequest, data)
        check_topic(request.topic)
        block = block_of(request, self._limits.record_size_max)
        producer = stamp_of(request)
        await self._in_flight.room_for(block.size)
        try:
            future = self._log.propose_append(request.topic, block, producer)
        except DistlogError as error:
            raise await proven(self._log, error, self._limits) from None
        self._in_flight.add(block.size)
        self._queue.put_nowait((future, block.size))

    async def _answer(self) -> Exception | None:
        """Write the answers; return what the stream ends with.  Never raises, as the task group would wrap it."""
        try:
            while isinstance(proposed := await self._queue.get(), tuple):
                future, size = proposed
                async with asyncio.timeout(self._limits.write_timeout_s):
                    result = await future
                await self._context.write(
                    log_pb2.ProduceResponse(offset=result.base_offset, duplicate=result.duplicate)
                )
                self._in_flight.remove(size)
        except TimeoutError:
            return not_confirmed(self._limits.write_timeout_s)
        except Exception as error:
            return error
        return proposed

    def _abandon(self) -> None:
        """Nobody waits for what is still in flight: asyncio must not report its errors as forgotten ones."""
        while not self._queue.empty():
            proposed = self._queue.get_nowait()
            if isinstance(proposed, tuple) and not proposed[0].cancel():
                proposed[0].exception()


def not_confirmed(timeout_s: float) -> OutcomeUnknown:
    """Return the error of a write that no majority confirmed in time."""
    return OutcomeUnknown(cause=f"no majority confirmed it within {timeout_s:g} s")
