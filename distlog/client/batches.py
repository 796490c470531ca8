"""A batch as a consumer gets it: the bytes that the producer framed, and its records when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from google.protobuf.message import DecodeError

from distlog.api import large_field
from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED, PREFIX, PREFIX_SIZE, crc32c, split_exactly
from distlog.client.records import plain_records, structured_record
from distlog.client.values import Record
from distlog.errors import AnswerInvalid, Unreachable

FRAMES_FIELD = log_pb2.ConsumeBatchResponse.FRAMES_FIELD_NUMBER


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records that were appended together, checked against their checksum and not taken apart yet."""

    # The address of the node that sent it.
    source: str
    base_offset: int
    record_count: int
    # Bit 0: the records are `log.v1.Record` messages and not plain values.
    attributes: int
    # When the leader took them, milliseconds since the Unix epoch.
    timestamp_ms: int
    data_crc32c: int
    # For each record [8-byte little-endian length][data], as they are stored; not copied since they arrived.
    frames: memoryview
    # The offsets of it that were asked for: the first batch may begin before them, the last one end behind.
    wanted: range

    @property
    def next_offset(self) -> int:
        """One past its last record."""
        return self.base_offset + self.record_count

    def from_offset(self, offset: int) -> Batch:
        """Return the batch with only the records from `offset` on asked for."""
        return replace(self, wanted=range(offset, self.wanted.stop))

    def values(self) -> list[bytes]:
        """Return the values of the records that were asked for.  Raises AnswerInvalid if the frames are no such records."""
        if self.attributes & ATTRIBUTE_STRUCTURED:
            return [record.value for record in self.records()]
        return self._data()

    def records(self) -> Iterator[Record]:
        """Yield the records that were asked for.  Raises AnswerInvalid, at once, if the frames are no such records."""
        first, data = self.wanted.start, self._data()
        if self.attributes & ATTRIBUTE_STRUCTURED:
            return (
                structured_record(offset, each, self.timestamp_ms)
                for offset, each in enumerate(data, first)
            )
        return plain_records(first, data, self.timestamp_ms)

    def views(self) -> Iterator[memoryview]:
        """Yield the stored bytes of each record that was asked for without copying them: worth it for large records."""
        position, end = 0, len(self.frames) - PREFIX_SIZE
        for offset in range(self.base_offset, self.wanted.stop):
            size = PREFIX.unpack_from(self.frames, position)[0] if position <= end else end
            start = position + PREFIX_SIZE
            position = start + size
            if position > len(self.frames):
                raise self._malformed()
            if offset >= self.wanted.start:
                yield self.frames[start:position]

    def _data(self) -> list[bytes]:
        try:
            data = split_exactly(bytes(self.frames), self.record_count)
        except ValueError:
            raise self._malformed() from None
        wanted = self.wanted
        if len(wanted) == self.record_count:
            return data
        return data[wanted.start - self.base_offset : wanted.stop - self.base_offset]

    def _malformed(self) -> AnswerInvalid:
        problem = (
            f"sent frames that are not the {self.record_count} records from {self.base_offset} on"
        )
        return AnswerInvalid(self.source, problem)


def batch_of(data: bytes, source: str, next_offset: int, end: int | None) -> Batch:
    """Return the batch in a serialized ConsumeBatchResponse, in which `next_offset` is what is asked for, to before `end`.

    Raises AnswerInvalid for another batch than that, and Unreachable if its bytes changed on their way: ask again.
    """
    try:
        rest, frames = large_field.split(data, FRAMES_FIELD)
        answer = log_pb2.ConsumeBatchResponse.FromString(rest)
    except DecodeError:
        raise AnswerInvalid(source, "sent what is not a batch") from None
    base_offset = answer.base_offset
    batch_end = base_offset + answer.record_count
    if not base_offset <= next_offset < batch_end:
        raise AnswerInvalid(source, f"sent offset {base_offset} where {next_offset} comes next")
    if crc32c(frames) != answer.data_crc32c:
        problem = f"the batch of offsets {base_offset} to {batch_end - 1} was changed on its way"
        raise Unreachable(source, problem)
    return Batch(
        source,
        base_offset,
        answer.record_count,
        answer.attributes,
        answer.timestamp_ms,
        answer.data_crc32c,
        frames,
        range(next_offset, batch_end if end is None else min(batch_end, end)),
    )
