"""A large field is cut out of a message, or added to it, as protobuf itself would do it."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from distlog.api import large_field
from distlog.api.log.v1 import log_pb2

BLOCK = log_pb2.ProduceBatchRequest.BLOCK_FIELD_NUMBER
FRAMES = log_pb2.ConsumeBatchResponse.FRAMES_FIELD_NUMBER


@given(
    topic=st.text(max_size=5),
    block=st.binary(max_size=300),
    numbers=st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
)
def test_a_message_is_its_large_field_and_the_rest(
    topic: str, block: bytes, numbers: tuple[int, int, int]
) -> None:
    producer_id, epoch, sequence = numbers
    rest = log_pb2.ProduceBatchRequest(
        topic=topic, producer_id=producer_id, producer_epoch=epoch, sequence=sequence
    )
    whole = log_pb2.ProduceBatchRequest()
    whole.CopyFrom(rest)
    whole.block = block
    joined = large_field.join(rest.SerializeToString(), BLOCK, block)
    assert log_pb2.ProduceBatchRequest.FromString(joined) == whole
    for data in (joined, whole.SerializeToString()):
        found_rest, found = large_field.split(data, BLOCK)
        assert found == block
        assert log_pb2.ProduceBatchRequest.FromString(found_rest) == rest


def test_every_kind_of_field_may_stand_beside_it() -> None:
    response = log_pb2.ConsumeBatchResponse(
        base_offset=1, record_count=2, timestamp_ms=-1, data_crc32c=7, frames=b"frames"
    )
    # And an unknown one of 8 bytes, of a newer version.
    data = response.SerializeToString() + b"\x79" + bytes(8)
    rest, frames = large_field.split(data, FRAMES)
    assert frames == b"frames"
    parsed = log_pb2.ConsumeBatchResponse.FromString(rest)
    assert (parsed.timestamp_ms, parsed.data_crc32c, parsed.frames) == (-1, 7, b"")


def test_the_field_is_not_copied() -> None:
    data = large_field.join(b"", BLOCK, bytes(1000))
    assert large_field.split(data, BLOCK)[1].obj is data


def test_of_several_the_last_one_counts() -> None:
    data = large_field.join(large_field.join(b"", BLOCK, b"first"), BLOCK, b"last")
    assert large_field.split(data, BLOCK) == (b"", b"last")
    assert log_pb2.ProduceBatchRequest.FromString(data).block == b"last"


WHOLE = log_pb2.ProduceBatchRequest(topic="t", block=b"block", sequence=300).SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        *[WHOLE[:size] for size in (1, 2, 4, 6, len(WHOLE) - 2, len(WHOLE) - 1)],
        b"\x13",  # A group begins.
        b"\x80" * 11 + b"\x01",
        b"\x12" + b"\xff" * 9 + b"\x01",
    ],
)
def test_bytes_that_are_no_message_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        large_field.split(data, BLOCK)
