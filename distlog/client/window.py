"""The records of one producer that are not acknowledged yet, in order, in blocks: no I/O, only what is sent next.

    produced ->  [ open block | cut blocks that wait to be sent | blocks in flight on this stream ]  -> acknowledged
                   newest                                                     oldest

A record joins the open block, until that is full, or is to be sent, or the next record must not be in it.  Then the block is cut: it gets
its sequence and becomes the bytes of one request, and neither ever changes.  A new stream starts again at the oldest block and
sends the same bytes with the same sequences.  So however often a stream breaks, the log can only get each block once, in the
order of their sequences, and what was acknowledged is always a prefix of what was produced.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from distlog.api import large_field
from distlog.api.log.v1 import log_pb2
from distlog.block import PREFIX_SIZE, Block
from distlog.client.traced import begin_send
from distlog.errors import InvalidRequest
from distlog.tracing.spans import NO_TRACER, Span, Tracer

# What the server remembers of a producer and takes on a stream: one more in flight could not be told from a repeat.
IN_FLIGHT_COUNT_MAX = 16
IN_FLIGHT_SIZE_MAX = 32 << 20
# A block that is not full is cut while fewer than so many are in flight: a lone record goes at once, and under load blocks grow by
# themselves.
PARTIAL_IN_FLIGHT_MAX = 4
# When a block is full, and how much may be unacknowledged, unless the caller says otherwise.
BATCH_SIZE = 1 << 20
BATCH_RECORD_COUNT = 10_000
MEMORY_SIZE = 32 << 20
# Of frames: what the server takes.
BATCH_SIZE_MAX = 4 << 20
# A record of more bytes has a block of its own: should it be too large for the cluster, those around it are not refused with it.
ALONE_SIZE_MIN = 64 << 10
# What a record costs beside its bytes while it is not acknowledged, roughly: itself, its future, its frame's prefix.
RECORD_COST = 128
BLOCK_FIELD = log_pb2.ProduceBatchRequest.BLOCK_FIELD_NUMBER


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """When a block is full, and how much may be unacknowledged.  Sizes in bytes."""

    # Of the frames; at most BATCH_SIZE_MAX, unless a single record has more.
    size_max: int = BATCH_SIZE
    record_count_max: int = BATCH_RECORD_COUNT
    # Of everything that is not acknowledged: whoever produces then waits.
    memory_size_max: int = MEMORY_SIZE


def batch_limits(size_max: int, record_count_max: int, memory_size_max: int) -> BatchLimits:
    """Return the limits that a caller asks for.  Raises InvalidRequest for one that cannot be kept."""
    if not 0 < size_max <= BATCH_SIZE_MAX:
        raise InvalidRequest("batch_size", f"{size_max} is not in [1, {BATCH_SIZE_MAX}]")
    for name, value in ("batch_record_count", record_count_max), ("memory_size", memory_size_max):
        if value < 1:
            raise InvalidRequest(name, f"{value} is less than 1")
    return BatchLimits(size_max, record_count_max, memory_size_max)


@dataclass(slots=True, eq=False)
class OpenBlock:
    """Records that will be one block, of the same attributes."""

    attributes: int = 0
    records: list[bytes] = field(default_factory=list)
    # Who waits for the offset of a record, by the record's place in the block.
    waiters: list[tuple[int, asyncio.Future[int]]] = field(default_factory=list)
    # Of the frames.
    size: int = 0
    # From its first record on; None: it is not traced.
    span: Span | None = None


@dataclass(slots=True, eq=False)
class PendingBlock:
    """A block that was cut and is not acknowledged yet."""

    sequence: int
    # The serialized ProduceBatchRequest.
    request: bytes
    record_count: int
    # What it counts of the memory.
    cost: int
    waiters: Sequence[tuple[int, asyncio.Future[int]]]
    # Who waits for the offsets of the whole block.
    whole: asyncio.Future[range] | None = None
    # Whether it was on a stream that ended without saying what became of it.
    may_be_written: bool = False
    span: Span | None = None

    def futures(self) -> Iterator[asyncio.Future[int] | asyncio.Future[range]]:
        """Yield everybody who waits for it."""
        for _, future in self.waiters:
            yield future
        if self.whole is not None:
            yield self.whole

    def settle(self, base_offset: int) -> None:
        """Tell everybody who waits where the records are."""
        if self.span is not None:
            self.span.note({"distlog.offset": base_offset})
            self.span.end()
        for place, future in self.waiters:
            if not future.done():
                future.set_result(base_offset + place)
        if self.whole is not None and not self.whole.done():
            self.whole.set_result(range(base_offset, base_offset + self.record_count))


class Window:
    """The unacknowledged blocks, oldest first, and the open one behind them.

    Invariants: their sequences follow each other without a gap; the first `in_flight_count` of them were sent on the stream
    that is open now, in order, and no others.
    """

    def __init__(
        self,
        topic: str = "",
        producer_id: int = 0,
        epoch: int = 0,
        limits: BatchLimits | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        self._topic = topic
        self._tracer = tracer
        self._request = log_pb2.ProduceBatchRequest(
            topic=topic, producer_id=producer_id, producer_epoch=epoch
        )
        self._limits = limits or BatchLimits()
        self._blocks: deque[PendingBlock] = deque()
        self._open = OpenBlock()
        # Of all records, and bytes of the blocks in flight.
        self._cost = 0
        self._in_flight_size = 0
        self.in_flight_count = 0
        # The sequence that the next block gets.
        self.next_sequence = 0
        # Records that were taken, and those of them that are acknowledged.
        self.record_count = 0
        self.acknowledged_count = 0

    def __len__(self) -> int:
        """Return how many records are not acknowledged."""
        return self.record_count - self.acknowledged_count

    @property
    def first_sequence(self) -> int:
        """The sequence of the oldest unacknowledged block: everything below is acknowledged."""
        return self.next_sequence - len(self._blocks)

    @property
    def is_full(self) -> bool:
        """Tell whether the producer must wait before it adds another record."""
        return self._cost >= self._limits.memory_size_max

    # --- In ------------------------------------------------------------------------------------

    def add(
        self, record: bytes, attributes: int = 0, waiter: asyncio.Future[int] | None = None
    ) -> bool:
        """Take a record, as it will be stored.  Return whether there is something new to look at: an open block that was empty
        before, or one that was cut."""
        block = self._open
        size = len(record) + PREFIX_SIZE
        is_new = not block.records
        if not is_new and (
            block.attributes != attributes
            or block.size + size > self._limits.size_max
            or size > ALONE_SIZE_MIN
        ):
            self.cut()
            block, is_new = self._open, True
        if is_new and self._tracer.is_on:
            block.span = self._begin_span()
        if waiter is not None:
            block.waiters.append((len(block.records), waiter))
        block.attributes = attributes
        block.records.append(record)
        block.size += size
        self._cost += size + RECORD_COST
        self.record_count += 1
        if (
            len(block.records) >= self._limits.record_count_max
            or block.size >= self._limits.size_max
            or size > ALONE_SIZE_MIN
        ):
            self.cut()
            return True
        return is_new

    def add_batch(
        self, records: Sequence[bytes], attributes: int, waiter: asyncio.Future[range]
    ) -> None:
        """Take records that are one block, whatever the limits of blocks are."""
        self.cut()
        block = Block.from_records(records, attributes)
        cost = block.size + RECORD_COST * len(records)
        self._cost += cost
        self.record_count += len(records)
        span = self._begin_span() if self._tracer.is_on else None
        self._append(block, cost, (), waiter, span)

    def _begin_span(self) -> Span | None:
        return begin_send(self._tracer, self._topic, self._tracer.parent_here())

    def cut(self) -> bool:
        """Give the open block its sequence and its bytes; return whether there was one."""
        opened = self._open
        if not opened.records:
            return False
        self._open = OpenBlock()
        block = Block.from_records(opened.records, opened.attributes)
        cost = opened.size + RECORD_COST * len(opened.records)
        self._append(block, cost, opened.waiters, None, opened.span)
        return True

    def _append(
        self,
        block: Block,
        cost: int,
        waiters: Sequence[tuple[int, asyncio.Future[int]]],
        whole: asyncio.Future[range] | None,
        span: Span | None,
    ) -> None:
        self._request.sequence = self.next_sequence
        if self._tracer.is_on:
            self._request.traceparent = "" if span is None else span.traceparent
            if span is not None:
                span.note({"messaging.batch.message_count": block.record_count})
        request = large_field.join(self._request.SerializeToString(), BLOCK_FIELD, *block.parts())
        self._blocks.append(
            PendingBlock(
                self.next_sequence, request, block.record_count, cost, waiters, whole, span=span
            )
        )
        self.next_sequence += 1

    # --- Out -----------------------------------------------------------------------------------

    @property
    def has_open_block(self) -> bool:
        """Tell whether there are records in no block yet."""
        return bool(self._open.records)

    @property
    def may_cut(self) -> bool:
        """Tell whether a block that is not full may be cut now: it would be sent at once, and not many are in flight."""
        return (
            bool(self._open.records)
            and self.in_flight_count == len(self._blocks)
            and self.in_flight_count < PARTIAL_IN_FLIGHT_MAX
        )

    def take_next(self) -> PendingBlock | None:
        """Return the block to send now and count it as in flight; None while there is none, or no room."""
        count = self.in_flight_count
        if count == len(self._blocks) or count == IN_FLIGHT_COUNT_MAX:
            return None
        block = self._blocks[count]
        # One that is larger than the limit goes alone.
        if count and self._in_flight_size + len(block.request) > IN_FLIGHT_SIZE_MAX:
            return None
        self.in_flight_count += 1
        self._in_flight_size += len(block.request)
        return block

    def oldest(self) -> PendingBlock:
        """Return the block that the next answer of the stream belongs to."""
        assert self.in_flight_count, "an answer belongs to a block in flight"
        return self._blocks[0]

    def take_answered(self) -> PendingBlock:
        """Remove and return the oldest block in flight, which is acknowledged."""
        assert self.in_flight_count, "an answer belongs to a block in flight"
        block = self._blocks.popleft()
        self.in_flight_count -= 1
        self._in_flight_size -= len(block.request)
        self._cost -= block.cost
        self.acknowledged_count += block.record_count
        return block

    def restart(self, *, may_be_written: bool) -> None:
        """Count nothing as in flight: the stream is gone, and the next one starts at the oldest block.

        may_be_written: the stream did not say what became of the blocks in flight on it.
        """
        if may_be_written:
            for index in range(self.in_flight_count):
                self._blocks[index].may_be_written = True
        self.in_flight_count = 0
        self._in_flight_size = 0

    def take_all(self) -> list[PendingBlock]:
        """Remove and return everything: the producer stops, and what is acknowledged stays what it is."""
        assert self.in_flight_count == 0, "its stream is gone before a producer stops"
        self.cut()
        blocks = list(self._blocks)
        self.next_sequence = self.first_sequence
        self.record_count = self.acknowledged_count
        self._blocks.clear()
        self._cost = 0
        return blocks
