"""One ConsumeBatch: what a ConsumeStream sends, in whole batches as they are stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from distlog.api import large_field
from distlog.api.log.v1 import log_pb2
from distlog.server.consume_stream import READ_SIZE, tail_batches
from distlog.server.served_log import Batch, ServedLog
from distlog.server.unread import Reader

FRAMES_FIELD = log_pb2.ConsumeBatchResponse.FRAMES_FIELD_NUMBER


async def send_batches(
    log: ServedLog,
    topic: str,
    offset: int,
    write: Callable[[bytes], Awaitable[None]],
    reader: Reader,
) -> NoReturn:
    """Write the batches of `topic`, the first one with `offset` in it, for ever; raises what `tail_batches` raises."""

    async def write_batch(batch: Batch, _offset: int) -> None:
        await write(serialized(batch))

    await tail_batches(log, topic, offset, READ_SIZE, write_batch, reader)


def serialized(batch: Batch) -> bytes:
    """Return a ConsumeBatchResponse as it is sent."""
    response = log_pb2.ConsumeBatchResponse(
        base_offset=batch.base_offset,
        record_count=batch.record_count,
        attributes=batch.attributes,
        timestamp_ms=batch.timestamp_ms,
        data_crc32c=batch.data_crc32c,
    )
    return large_field.join(response.SerializeToString(), FRAMES_FIELD, batch.frames)
