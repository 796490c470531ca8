"""One ConsumeStream: from an offset on, then whatever is appended, until somebody ends it.

Records that are present are final, so they are sent without asking anybody.  The only claim that a tail can make is "this
offset does not exist", about the offset that it was asked to begin at; that one is proven with the leader.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn

from distlog.api.log.v1 import log_pb2
from distlog.consensus.views import Consistency
from distlog.errors import OffsetOutOfRange, TopicNotFound
from distlog.server.records import responses_from
from distlog.server.served_log import Batch, ServedLog
from distlog.server.unread import Reader

# What a tail holds in memory at most, unless a single batch is larger: 10,000 tails may do it at once.
READ_SIZE = 256 << 10


async def tail(
    log: ServedLog,
    topic: str,
    offset: int,
    write: Callable[[log_pb2.ConsumeResponse], Awaitable[None]],
    reader: Reader,
) -> NoReturn:
    """Write the records of `topic` from `offset` on, for ever; raises what `tail_batches` raises."""

    async def write_records(batch: Batch, offset: int) -> None:
        for response in responses_from(batch, offset):
            await write(response)

    await tail_batches(log, topic, offset, READ_SIZE, write_records, reader)


async def tail_batches(
    log: ServedLog,
    topic: str,
    offset: int,
    size_max: int,
    write: Callable[[Batch, int], Awaitable[None]],
    reader: Reader,
) -> NoReturn:
    """Write the batches of `topic` from the one with `offset` on, for ever; `offset` exists or is the end of the log.

    write(batch, offset): the records of the batch are wanted from `offset` on; returns when there is room for more.
    size_max: bytes that are read at a time, unless a single batch has more.  reader: says when there is room for them.
    Raises Overloaded when there is none for long, OffsetOutOfRange when the log was trimmed past this tail, TopicNotFound when the
    topic was deleted (also when another one has its name now), ShuttingDown.
    """
    topic_id = log.topic(topic).topic_id
    expected_size = size_max
    while True:
        description = log.topic(topic)
        if description.topic_id != topic_id:
            raise TopicNotFound(topic=description.name)
        if description.high_watermark <= offset:
            await log.wait_for(topic, offset)
            continue
        await reader.room_for(expected_size)
        batches = await log.read(topic, offset, size_max=size_max, consistency=Consistency.LOCAL)
        size = sum(len(batch.frames) for batch in batches)
        if reader.has_read(size):
            offset = await _write_all(batches, offset, write)
            reader.release()
            size = size_max
        # Nothing is kept in memory while the tail waits: for room, or for more records.
        del batches
        expected_size = size


async def _write_all(
    batches: Sequence[Batch], offset: int, write: Callable[[Batch, int], Awaitable[None]]
) -> int:
    """Write batches; return where they end."""
    for batch in batches:
        await write(batch, offset)
        offset = batch.base_offset + batch.record_count
    return offset


async def check_start(log: ServedLog, topic: str, offset: int, consistency: Consistency) -> None:
    """Return if a tail may begin at `offset`: it exists, or it is the end of the log.

    Raises OffsetOutOfRange and TopicNotFound, proven unless LOCAL; NoLeader when nobody can prove it.  A LOCAL tail may begin
    beyond what this node has: it waits.
    """
    if consistency is Consistency.LINEARIZABLE:
        try:
            description = log.topic(topic)
        except TopicNotFound:
            description = None
        if description is None or offset > description.high_watermark:
            description = await log.confirmed_topic(topic)
            if offset > description.high_watermark:
                raise OffsetOutOfRange(
                    offset=offset,
                    start_offset=description.start_offset,
                    high_watermark=description.high_watermark,
                )
