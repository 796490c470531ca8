"""Between messages and stored bytes: a request becomes a block of one record, a stored batch becomes responses.

A record that is only a value is stored as that value.  One with a key or headers is stored as a `Record` message, and
attribute bit 0 of its block says so: what a consumer gets as `record` is the value in both cases.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, PREFIX, PREFIX_SIZE, Block
from distlog.consensus.commands import ProducerStamp
from distlog.errors import InvalidRequest, RecordTooLarge
from distlog.server.limits import ServerLimits
from distlog.server.served_log import Batch

TOPIC_NAME_LENGTH_MAX = 249


def check_topic(name: str) -> None:
    """Raise InvalidRequest for a name that is too long to be repeated in an error."""
    if len(name) > TOPIC_NAME_LENGTH_MAX:
        raise InvalidRequest(
            field="topic",
            problem=f"the name has {len(name)} characters, at most {TOPIC_NAME_LENGTH_MAX} are possible",
        )


def block_of(request: log_pb2.ProduceRequest, record_size_max: int) -> Block:
    """Return the request's record as a block.  Raises RecordTooLarge (bytes, as they would be stored)."""
    data, attributes = request.record, 0
    if request.headers or request.HasField("key"):
        record = log_pb2.Record(headers=request.headers, value=request.record)
        if request.HasField("key"):
            record.key = request.key
        data, attributes = record.SerializeToString(), ATTRIBUTE_STRUCTURED
    if len(data) > record_size_max:
        raise RecordTooLarge(size=len(data), size_max=record_size_max)
    return Block.from_records((data,), attributes)


def check_block(block: Block, limits: ServerLimits) -> None:
    """Raise RecordTooLarge or InvalidRequest for a block that is larger than what a batch may be."""
    if block.size > limits.record_size_max:
        record_size = int(block.lengths.max())
        if record_size > limits.record_size_max:
            raise RecordTooLarge(size=record_size, size_max=limits.record_size_max)
    if block.size > limits.batch_size_max and block.record_count > 1:
        problem = f"its frames have {block.size} bytes, at most {limits.batch_size_max} are possible: split it"
        raise InvalidRequest(field="block", problem=problem)


def stamp_of(
    request: log_pb2.ProduceRequest | log_pb2.ProduceBatchRequest,
) -> ProducerStamp | None:
    """Return the request's producer stamp, None without one.  Raises InvalidRequest for half of one."""
    if request.producer_id:
        return ProducerStamp(request.producer_id, request.producer_epoch, request.sequence)
    if request.sequence or request.producer_epoch:
        raise InvalidRequest(
            field="producer_id",
            problem="is not given, but a sequence or an epoch is: call OpenProducer first",
        )
    return None


def responses_from(batch: Batch, offset: int) -> Iterator[log_pb2.ConsumeResponse]:
    """Yield a response for each record of `batch` from `offset` on, which lies in it."""
    frames, position = batch.frames, 0
    for _ in range(offset - batch.base_offset):
        position += PREFIX_SIZE + PREFIX.unpack_from(frames, position)[0]
    structured = batch.attributes & ATTRIBUTE_STRUCTURED
    timestamp_ms = batch.timestamp_ms
    while position < len(frames):
        start = position + PREFIX_SIZE
        position = start + PREFIX.unpack_from(frames, position)[0]
        data = frames[start:position]
        if structured:
            yield structured_response(data, offset, timestamp_ms)
        else:
            yield log_pb2.ConsumeResponse(record=data, offset=offset, timestamp_ms=timestamp_ms)
        offset += 1


def structured_response(data: bytes, offset: int, timestamp_ms: int) -> log_pb2.ConsumeResponse:
    """Return the response for a record that is stored as a `Record` message."""
    try:
        record = log_pb2.Record.FromString(data)
    except DecodeError:
        # Who framed the block did not keep its word.  The record is there, and those behind it must be readable.
        return log_pb2.ConsumeResponse(record=data, offset=offset, timestamp_ms=timestamp_ms)
    response = log_pb2.ConsumeResponse(
        record=record.value, offset=offset, headers=record.headers, timestamp_ms=timestamp_ms
    )
    if record.HasField("key"):
        response.key = record.key
    return response
