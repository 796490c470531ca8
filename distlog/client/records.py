"""Between what a program calls a record and the bytes that stand in a block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat

from google.protobuf.message import DecodeError

from distlog.api.log.v1 import log_pb2
from distlog.block import ATTRIBUTE_STRUCTURED
from distlog.client.values import Headers, NewRecord, Record


def bytes_of(value: bytes | bytearray | memoryview) -> bytes:
    """Return a value as it is stored.  Raises TypeError for what is no bytes."""
    if isinstance(value, bytes):
        return value
    # A text, or a number, raises; what may change later is copied.
    return memoryview(value).tobytes()


def structured(value: bytes, key: bytes | None = None, headers: Headers = ()) -> bytes:
    """Return a record as it stands in a block whose attribute says that records have more than a value."""
    record = log_pb2.Record(value=bytes_of(value), key=key)
    for name, content in headers:
        record.headers.add(name=name, value=content)
    data: bytes = record.SerializeToString()
    return data


def stored_form(records: Sequence[bytes | NewRecord]) -> tuple[list[bytes], int]:
    """Return records as they stand in one block, and the block's attributes."""
    plain = [bytes_of(record) for record in records if not isinstance(record, NewRecord)]
    if len(plain) == len(records):
        return plain, 0
    given = (each if isinstance(each, NewRecord) else NewRecord(each) for each in records)
    return [structured(*each) for each in given], ATTRIBUTE_STRUCTURED


def plain_records(base_offset: int, values: list[bytes], timestamp_ms: int) -> Iterator[Record]:
    """Yield the records of a block that has only values."""
    # Without a line of Python for each, since there may be a million in a second; and one at a time, as the garbage collector
    # walks those that exist.
    fields = zip(
        range(base_offset, base_offset + len(values)),
        values,
        repeat(None),
        repeat(()),
        repeat(timestamp_ms),
    )
    return map(tuple.__new__, repeat(Record), fields)


def structured_record(offset: int, data: bytes, timestamp_ms: int) -> Record:
    """Return a record of a block whose attribute says that records have more than a value."""
    try:
        record = log_pb2.Record.FromString(data)
    except DecodeError:
        # Whoever framed the block did not keep its word: all nodes give such a record as its bytes.
        return Record(offset, data, None, (), timestamp_ms)
    key = record.key if record.HasField("key") else None
    headers = tuple((header.name, header.value) for header in record.headers)
    return Record(offset, record.value, key, headers, timestamp_ms)
