"""The service `log.v1.Log`: reading and writing records."""

from __future__ import annotations

from collections import Counter
from typing import Any

from distlog.api.log.v1 import log_pb2
from distlog.consensus.views import Consistency
from distlog.errors import DistlogError, InvalidRequest
from distlog.server.consume_batch import send_batches
from distlog.server.consume_stream import check_start, tail
from distlog.server.deadlines import acknowledged, read_deadline, write_deadline
from distlog.server.gate import Access
from distlog.server.limits import ServerLimits
from distlog.server.open_streams import OpenStreams
from distlog.server.produce_batch import ProduceBatch
from distlog.server.produce_stream import ProduceStream
from distlog.server.records import block_of, check_topic, responses_from, stamp_of
from distlog.server.refusals import proven
from distlog.server.served_log import ServedLog
from distlog.server.traced import note_topic
from distlog.server.unread import Unread
from distlog.tracing.spans import NO_TRACER, Tracer

CONSISTENCIES = {
    log_pb2.CONSISTENCY_LINEARIZABLE: Consistency.LINEARIZABLE,
    log_pb2.CONSISTENCY_LOCAL: Consistency.LOCAL,
}
# Enough for one batch: a read returns at least one.
ONE_BATCH = 1


class LogService:
    """One method for each rpc; the caller's deadline and cancel end them from outside."""

    def __init__(
        self,
        log: ServedLog,
        limits: ServerLimits,
        streams: OpenStreams,
        refused: Counter[str] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """refused: counts, by the reason of the error, what is refused without ending a call."""
        self._log = log
        self._limits = limits
        self._tracer = tracer
        self._streams = streams
        self._unread = Unread(limits)
        self._refused: Counter[str] = Counter() if refused is None else refused

    @property
    def unread_size(self) -> int:
        """Bytes that were read for consumers that have not taken them."""
        return self._unread.size

    async def produce(
        self, request: log_pb2.ProduceRequest, context: Any
    ) -> log_pb2.ProduceResponse:
        """Append one record; answer when it is acknowledged."""
        check_topic(request.topic)
        block = block_of(request, self._limits.record_size_max)
        stamp = stamp_of(request)
        if self._tracer.is_on:
            note_topic(request.topic, 1)
        try:
            future = self._log.propose_append(request.topic, block, stamp)
        except DistlogError as error:
            raise await proven(self._log, error, self._limits) from None
        result = await acknowledged(future, self._limits.write_timeout_s)
        return log_pb2.ProduceResponse(offset=result.base_offset, duplicate=result.duplicate)

    async def consume(
        self, request: log_pb2.ConsumeRequest, context: Any
    ) -> log_pb2.ConsumeResponse:
        """Return the record at one offset."""
        check_topic(request.topic)
        consistency = consistency_of(request)
        async with read_deadline(self._limits.read_timeout_s):
            if request.HasField("min_offset"):
                await self._log.wait_for(request.topic, request.min_offset)
            batches = await self._log.read(
                request.topic, request.offset, size_max=ONE_BATCH, consistency=consistency
            )
        return next(responses_from(batches[0], request.offset))

    async def produce_stream(self, access: Access, context: Any) -> None:
        """Append records in order, pipelined."""
        stream = ProduceStream(
            self._log, self._limits, self._streams, access, context, self._tracer
        )
        await stream.run()

    async def consume_stream(self, request: log_pb2.ConsumeRequest, context: Any) -> None:
        """Send records from an offset on, for ever."""
        check_topic(request.topic)
        consistency = consistency_of(request)
        async with self._streams.open_tail():
            async with read_deadline(self._limits.read_timeout_s):
                await check_start(self._log, request.topic, request.offset, consistency)
            # The tail is open, though there may be nothing to send for long; and an interrupted first write would leave
            # it open whether the metadata is sent, and with it how the call can end.
            await context.send_initial_metadata(())
            with self._unread.reader(context.peer()) as reader:
                await tail(self._log, request.topic, request.offset, context.write, reader)

    async def produce_batch(self, access: Access, context: Any) -> None:
        """Append blocks in order, pipelined, each with an answer of its own."""
        stream = ProduceBatch(
            self._log, self._limits, self._streams, self._refused, access, context, self._tracer
        )
        await stream.run()

    async def consume_batch(self, request: log_pb2.ConsumeBatchRequest, context: Any) -> None:
        """Send batches from an offset on, for ever."""
        check_topic(request.topic)
        consistency = consistency_of(request)
        async with self._streams.open_tail():
            async with read_deadline(self._limits.read_timeout_s):
                if request.HasField("min_offset"):
                    await self._log.wait_for(request.topic, request.min_offset)
                await check_start(self._log, request.topic, request.offset, consistency)
            # For the same reason as in `consume_stream`.
            await context.send_initial_metadata(())
            with self._unread.reader(context.peer()) as reader:
                await send_batches(self._log, request.topic, request.offset, context.write, reader)

    async def get_servers(
        self, request: log_pb2.GetServersRequest, context: Any
    ) -> log_pb2.GetServersResponse:
        """Return the nodes of the cluster, without asking them."""
        status, standing = self._log.status(with_topics=False), self._log.standing()
        return log_pb2.GetServersResponse(
            cluster_id=status.cluster_id,
            problem="" if standing.is_ready else standing.problem,
            servers=[
                log_pb2.Server(
                    id=member.node_id,
                    rpc_addr=member.client_address,
                    is_leader=member.is_leader,
                    connected=member.connected,
                )
                for member in status.members
            ],
        )

    async def offset_for_time(
        self, request: log_pb2.OffsetForTimeRequest, context: Any
    ) -> log_pb2.OffsetForTimeResponse:
        """Find the first record of a time or later."""
        check_topic(request.topic)
        consistency = consistency_of(request)
        async with read_deadline(self._limits.read_timeout_s):
            position = await self._log.offset_for_time(
                request.topic, request.timestamp_ms, consistency=consistency
            )
        return log_pb2.OffsetForTimeResponse(offset=position.offset, found=position.found)

    async def open_producer(
        self, request: log_pb2.OpenProducerRequest, context: Any
    ) -> log_pb2.OpenProducerResponse:
        """Open a producer; when the outcome is unknown, opening again is safe: at worst an id or an epoch is left out."""
        async with write_deadline(self._limits.write_timeout_s):
            opened = await self._log.open_producer(request.producer_id)
        return log_pb2.OpenProducerResponse(producer_id=opened.producer_id, epoch=opened.epoch)


def consistency_of(
    request: log_pb2.ConsumeRequest | log_pb2.ConsumeBatchRequest | log_pb2.OffsetForTimeRequest,
) -> Consistency:
    """Return the consistency that is asked for.  Raises InvalidRequest for one that is not known."""
    try:
        return CONSISTENCIES[request.consistency]
    except KeyError:
        raise InvalidRequest(
            field="consistency",
            problem=f"{request.consistency} is not known: 0 (linearizable) and 1 (local) are",
        ) from None
