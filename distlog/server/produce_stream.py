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

from distlog.api.log.v1 import log_pb2
from distlog.consensus.results import AppendResult
from distlog.errors import DistlogError
from distlog.server.calls import parse
from distlog.server.deadlines import acknowledged
from distlog.server.gate import Access
from distlog.server.in_flight import InFlight
from distlog.server.limits import ServerLimits
from distlog.server.open_streams import OpenStreams
from distlog.server.records import block_of, check_topic, stamp_of
from distlog.server.refusals import proven
from distlog.server.request_stream import RequestStream
from distlog.server.served_log import ServedLog
from distlog.server.traced import OK, PRODUCE_STREAM, RequestSpans
from distlog.tracing.spans import NO_TRACER, Tracer


class ProduceStream:
    """What one stream does with a request and with its result."""

    def __init__(
        self,
        log: ServedLog,
        limits: ServerLimits,
        streams: OpenStreams,
        access: Access,
        context: Any,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._log = log
        self._limits = limits
        self._access = access
        self._context = context
        self._stream: RequestStream[asyncio.Future[AppendResult]] = RequestStream(
            streams, access, context
        )
        self._in_flight = InFlight(limits)
        # None: nothing is traced.
        self._spans = RequestSpans(tracer, PRODUCE_STREAM, context) if tracer.is_on else None

    async def run(self) -> None:
        """Serve the stream to its end.  Raises the error that it ends with."""
        try:
            await self._stream.run(self._propose, self._answer)
        finally:
            if self._spans is not None:
                self._spans.close()

    async def _propose(self, data: bytes) -> tuple[asyncio.Future[AppendResult], int]:
        request = parse(log_pb2.ProduceRequest, data)
        check_topic(request.topic)
        self._access.check(request.topic)
        block = block_of(request, self._limits.record_size_max)
        producer = stamp_of(request)
        await self._in_flight.room_for(block.size)
        if self._spans is not None:
            self._spans.taken()
            self._spans.begin(request.topic, 1)
        try:
            future = self._log.propose_append(request.topic, block, producer)
        except DistlogError as error:
            raise await proven(self._log, error, self._limits) from None
        self._in_flight.add(block.size)
        return future, block.size

    async def _answer(self, future: asyncio.Future[AppendResult], size: int) -> str:
        result = await acknowledged(future, self._limits.write_timeout_s)
        await self._context.write(
            log_pb2.ProduceResponse(offset=result.base_offset, duplicate=result.duplicate)
        )
        self._in_flight.remove(size)
        if self._spans is not None:
            self._spans.answered()
        return OK
