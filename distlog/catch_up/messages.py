"""What nodes ask each other for on the FILES channel, and their encoding: msgpack by msgspec, checked against the types on arrival.

A request is answered once, under its number, by what was asked for or by a Refusal.  The one that answers keeps nothing between two
requests: any node with the same bytes can answer the next one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec

from distlog.errors import PeerRefused
from distlog.storage.listing import SegmentListing
from distlog.storage.log_mark import LogMark

Unsigned = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Text = Annotated[str, msgspec.Meta(max_length=1000)]

# Bytes of a file in one answer, and segments.
PART_SIZE_MAX = 512 << 10
LISTED_MAX = 1000


class CheckpointRequest(msgspec.Struct, array_like=True, tag=1, gc=False):
    """Asks for the newest checkpoint, from byte `position` on.

    index_min: an older one is of no use.  raft_index: of the one whose first part was sent already; 0 at position 0.
    """

    number: Unsigned
    index_min: Unsigned
    raft_index: Unsigned
    position: Unsigned


class CheckpointPart(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Bytes of the checkpoint at `raft_index`, which has `size` in all."""

    number: Unsigned
    raft_index: Unsigned
    size: Unsigned
    data: bytes


class SegmentsRequest(msgspec.Struct, array_like=True, tag=3, gc=False):
    """Asks for what a topic has up to a checkpoint's mark, segment by segment, from base offset `from_base` on."""

    number: Unsigned
    topic_id: Unsigned
    # As LogMark.
    mark: tuple[Unsigned, Unsigned, int, Unsigned, Unsigned]
    from_base: Unsigned


class Segments(msgspec.Struct, array_like=True, tag=4, gc=False):
    """As SegmentListing; more follow unless `is_last`."""

    number: Unsigned
    segments: list[tuple[Unsigned, Unsigned, Unsigned, Unsigned, Unsigned]]
    is_last: bool


class PartRequest(msgspec.Struct, array_like=True, tag=5, gc=False):
    """Asks for bytes of a segment's file: `file` counts store, index, batch table from 0."""

    number: Unsigned
    topic_id: Unsigned
    base_offset: Unsigned
    file: Annotated[int, msgspec.Meta(ge=0, le=2)]
    position: Unsigned
    size: Annotated[int, msgspec.Meta(ge=1, le=PART_SIZE_MAX)]


class Part(msgspec.Struct, array_like=True, tag=6, gc=False):
    """The bytes, fewer than were asked for if that is too much at once; at least one.  On arrival they are a part of the frame."""

    number: Unsigned
    data: memoryview


class Reason(IntEnum):
    """Why a request is refused."""

    # What is asked for is not here (any more): trimmed, deleted, or replaced by a newer checkpoint.
    GONE = 1
    # The checkpoint is older than is of use.
    TOO_OLD = 2
    # Too many requests wait.
    BUSY = 3
    # It cannot be read here.
    DAMAGED = 4


class Refusal(msgspec.Struct, array_like=True, tag=7, gc=False):
    """Nothing comes for this number."""

    number: Unsigned
    reason: Reason
    problem: Text


Request = CheckpointRequest | SegmentsRequest | PartRequest
Answer = CheckpointPart | Segments | Part | Refusal
REQUESTS = (CheckpointRequest, SegmentsRequest, PartRequest)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Request | Answer] = msgspec.msgpack.Decoder(Request | Answer)
# A hostile message can nest deeper than the decoder recurses, and hold text that is not UTF-8.
_DECODING_ERRORS = (msgspec.MsgspecError, RecursionError, ValueError)


def encode(message: Request | Answer) -> bytes:
    """Return the bytes of one message."""
    return _encoder.encode(message)


def decode(payload: bytes, sender: str) -> Request | Answer:
    """Parse one message.  Raises PeerRefused if it is not one: the connection to `sender` must be closed."""
    try:
        return _decoder.decode(payload)
    except _DECODING_ERRORS as error:
        raise PeerRefused(
            peer=sender, problem=f"malformed message about files ({error})"
        ) from error


def mark_of(request: SegmentsRequest) -> LogMark:
    return LogMark(*request.mark)


def listings_of(answer: Segments) -> list[SegmentListing]:
    return [SegmentListing(*each) for each in answer.segments]
