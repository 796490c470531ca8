"""One ProduceBatch: blocks are proposed in the order they arrive, each answer says what became of its block.

    reader   context -> room under the limits -> check the block -> propose ->+
                                                                              |  queue, in order: futures or refusals, one end
    writer   context <- answer, or the error in it <- await the oldest <------+

A block that is refused does not end the stream: other producers may share it.  Nothing is written behind a missing block all the same,
since the later blocks of its producer are out of sequence until it is sent again.  The stream itself ends with an error only
when the node stops, or has made a mistake.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from distlog.api import large_field
from distlog.api.log.v1 import log_pb2
from distlog.api.status import CODES, message_of
from distlog.block import Block
from distlog.consensus.results import AppendResult
from distlog.errors import DistlogError
from distlog.server.calls import not_a_message, parse
from distlog.server.deadlines import acknowledged
from distlog.server.gate import Access
from distlog.server.in_flight import InFlight
from distlog.server.limits import ServerLimits
from distlog.server.open_streams import OpenStreams
from distlog.server.records import check_block, check_topic, stamp_of
from distlog.server.refusals import proven
from distlog.server.request_stream import RequestStream
from distlog.server.served_log import ServedLog
from distlog.server.traced import OK, PRODUCE_BATCH, RequestSpans
from distlog.tracing.spans import NO_TRACER, Tracer

# A block that was proposed, or why it was not.
Taken = asyncio.Future[AppendResult] | DistlogError
NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
BLOCK_FIELD = log_pb2.ProduceBatchRequest.BLOCK_FIELD_NUMBER


class ProduceBatch:
    """What one stream does with a block and with its result."""

    def __init__(
        self,
        log: ServedLog,
        limits: ServerLimits,
        streams: OpenStreams,
        refused: Counter[str],
        access: Access,
        context: Any,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """refused: counts the refusals by the reason of their error."""
        self._log = log
        self._limits = limits
        self._refused = refused
        self._access = access
        self._context = context
        self._stream: RequestStream[Taken] = RequestStream(streams, access, context)
        # Refused blocks count until they are answered, too: a client that does not read its answers must not fill the queue.
        self._in_flight = InFlight(limits)
        # None: nothing is traced.
        self._spans = RequestSpans(tracer, PRODUCE_BATCH, context) if tracer.is_on else None

    async def run(self) -> None:
        """Serve the stream to its end.  Raises the error that it ends with."""
        try:
            await self._stream.run(self._take, self._answer)
        finally:
            if self._spans is not None:
                self._spans.close()

    async def _take(self, data: bytes) -> tuple[Taken, int]:
        size = len(data)
        await self._in_flight.room_for(size)
        self._in_flight.add(size)
        if self._spans is not None:
            self._spans.taken()
        outcome = self._propose(data)
        if isinstance(outcome, DistlogError):
            outcome = await proven(self._log, outcome, self._limits)
        return outcome, size

    def _propose(self, data: bytes) -> Taken:
        try:
            request, encoded = parse_request(data)
            check_topic(request.topic)
            self._access.check(request.topic)
            block = Block.decode(encoded)
            producer = stamp_of(request)
            check_block(block, self._limits)
            if self._spans is not None:
                self._spans.begin(request.topic, block.record_count, request.traceparent)
            return self._log.propose_append(request.topic, block, producer)
        except DistlogError as error:
            return error

    async def _answer(self, outcome: Taken, size: int) -> str:
        response = await self._response(outcome)
        await self._context.write(response)
        self._in_flight.remove(size)
        code = code_of(response)
        if self._spans is not None:
            self._spans.answered(code)
        return code

    async def _response(self, outcome: Taken) -> log_pb2.ProduceBatchResponse:
        if isinstance(outcome, DistlogError):
            return self._refusal(outcome)
        try:
            result = await acknowledged(outcome, self._limits.write_timeout_s)
        except DistlogError as error:
            return self._refusal(error)
        return log_pb2.ProduceBatchResponse(
            base_offset=result.base_offset,
            record_count=result.record_count,
            duplicate=result.duplicate,
        )

    def _refusal(self, error: DistlogError) -> log_pb2.ProduceBatchResponse:
        if type(error) not in CODES:
            # Not meant for a caller: the end of the stream makes an incident of it.
            raise error
        self._refused[error.reason] += 1
        return log_pb2.ProduceBatchResponse(error=message_of(error))


def code_of(response: log_pb2.ProduceBatchResponse) -> str:
    """Return the name of the code that a response has in it."""
    return NAMES[response.error.code] if response.HasField("error") else OK


def parse_request(data: bytes) -> tuple[log_pb2.ProduceBatchRequest, memoryview]:
    """Return a request without its block, and the block as it came.  Raises InvalidRequest."""
    try:
        rest, encoded = large_field.split(data, BLOCK_FIELD)
    except DecodeError:
        raise not_a_message(log_pb2.ProduceBatchRequest) from None
    return parse(log_pb2.ProduceBatchRequest, rest), encoded
