"""Frames: how a connection between peers carries messages.

    size u32      bytes of what follows the checksum: 8 + payload
    crc32c u32    of everything after it
    channel u8, 3 zero bytes
    group u32     the Raft group that the message belongs to; 0 is the only one now
    payload

All little-endian.  The decoder trusts nothing: the size is checked as soon as its four bytes are there, channel and zeros
as soon as the header is, the checksum when the frame is complete; so what it keeps is bounded by the limits, and the
verdict depends on the bytes alone, never on how the network cut them.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

import msgspec
from google_crc32c import extend as extend_crc32c
from google_crc32c import value as value_crc32c

HEADER = struct.Struct("<IIII")
HEADER_SIZE = HEADER.size
SIZE = struct.Struct("<I")
# What the checksum covers of the header.
TAIL = struct.Struct("<II")
TAIL_SIZE = TAIL.size

# A frame of this size that is not there yet is put together from its pieces, once; a smaller one is cheaper joined as it comes.
PARTIAL_SIZE_MIN = 64 << 10
PIECE_SIZE_MIN = 4 << 10

# The channel of the handshake itself; it never reaches the events.
CONTROL = 0


class Channel(IntEnum):
    """What a frame is for.  Each channel has limits of its own (`limits.py`)."""

    RAFT = 1
    GOSSIP = 2
    FILES = 3


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One message of the far end, checked."""

    channel: int
    group: int
    payload: bytes


class MalformedFrame(Exception):
    """The far end sent bytes that are not a frame.  Nothing after them can be trusted: close the connection."""


def encode_header(channel: int, group: int, *payload: bytes) -> bytes:
    """Return the 16 bytes that go before a payload, which may be in several parts."""
    crc32c = value_crc32c(TAIL.pack(channel, group))
    size = TAIL_SIZE
    for part in payload:
        crc32c = extend_crc32c(crc32c, part)
        size += len(part)
    return HEADER.pack(size, crc32c, channel, group)


def encode_frame(channel: int, group: int, payload: bytes) -> bytes:
    """Return header and payload in one piece: for small frames, since it copies."""
    return encode_header(channel, group, payload) + payload


class FrameDecoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self, payload_size_max: Mapping[int, int]) -> None:
        """Accept the channels that `payload_size_max` names, with payloads of up to that many bytes."""
        self._payload_size_max = payload_size_max
        # Largest payload of any channel that is welcome now; the connection lowers it during the handshake.
        self.payload_size_limit = max(payload_size_max.values())
        # Bytes received and not yet returned start at `_start`.
        self._buffer = b""
        self._start = 0
        # A large frame, before those bytes, of which not everything is there yet.
        self._partial: _PartialFrame | None = None

    @property
    def buffered_size(self) -> int:
        """Bytes received that no frame has been made of yet."""
        partial_size = self._partial.received_size if self._partial else 0
        return len(self._buffer) - self._start + partial_size

    def receive_data(self, data: bytes) -> None:
        """Take more bytes of the stream."""
        partial = self._partial
        if partial is not None and partial.missing_size:
            used = partial.receive(data)
            self._buffer, self._start = data, used
        elif self._start == len(self._buffer):
            self._buffer, self._start = data, 0
        else:
            self._buffer, self._start = self._buffer[self._start :] + data, 0

    def next_frame(self) -> Frame | None:
        """Return the next whole frame, or None until more data is there.

        Raises MalformedFrame, and does so again at every further call.
        """
        if self._partial is not None:
            return self._complete(self._partial)
        buffer, start = self._buffer, self._start
        available = len(buffer) - start
        if available < HEADER_SIZE:
            if available >= SIZE.size:
                self._check_size(SIZE.unpack_from(buffer, start)[0])
            return None
        size, crc32c, channel, group = HEADER.unpack_from(buffer, start)
        self._check_size(size)
        # The three zero bytes are read as the upper part of the channel's number.
        payload_size_max = self._payload_size_max.get(channel)
        if payload_size_max is None:
            raise MalformedFrame(f"unknown channel {channel:#x}")
        if size - TAIL_SIZE > payload_size_max:
            raise MalformedFrame(f"frame of {size} bytes is over the limit of channel {channel}")
        payload_start = start + HEADER_SIZE
        tail_start = payload_start - TAIL_SIZE
        end = tail_start + size
        if len(buffer) < end:
            if size >= PARTIAL_SIZE_MIN:
                header = buffer[start:payload_start]
                self._partial = _PartialFrame(header, buffer[payload_start:], end - len(buffer))
                self._buffer, self._start = b"", 0
            return None
        tail, payload = buffer[tail_start:payload_start], buffer[payload_start:end]
        if extend_crc32c(value_crc32c(tail), payload) != crc32c:
            raise MalformedFrame("wrong checksum")
        self._start = end
        return Frame(channel, group, payload)

    def _complete(self, partial: _PartialFrame) -> Frame | None:
        if partial.missing_size:
            return None
        frame = partial.frame()
        self._partial = None
        return frame

    def _check_size(self, size: int) -> None:
        if TAIL_SIZE <= size <= self.payload_size_limit + TAIL_SIZE:
            return
        if size < TAIL_SIZE:
            raise MalformedFrame(f"frame size {size} is smaller than a header")
        raise MalformedFrame(f"frame of {size} bytes where {self.payload_size_limit} is the limit")


class _PartialFrame:
    """A large frame that arrives in many pieces, which are put together once, when the last one is there."""

    def __init__(self, header: bytes, payload: bytes, missing_size: int) -> None:
        """header: checked.  payload: as much of it as is there."""
        self._header = header
        self._pieces: list[bytes | bytearray | memoryview] = [payload]
        self._size = len(payload)
        # Bytes that are still to come.
        self.missing_size = missing_size

    @property
    def received_size(self) -> int:
        return len(self._header) + self._size

    def receive(self, data: bytes) -> int:
        """Take what belongs to the frame from the beginning of `data`; return how much it was."""
        used = min(len(data), self.missing_size)
        last = self._pieces[-1]
        if used >= PIECE_SIZE_MIN:
            self._pieces.append(data if used == len(data) else memoryview(data)[:used])
        elif isinstance(last, bytearray):
            # Small pieces share one: each by itself would take a multiple of its bytes.
            last += data[:used]
        else:
            self._pieces.append(bytearray(data[:used]))
        self._size += used
        self.missing_size -= used
        return used

    def frame(self) -> Frame:
        """Return the whole frame.  Raises MalformedFrame."""
        payload = b"".join(self._pieces)
        _, crc32c, channel, group = HEADER.unpack(self._header)
        if extend_crc32c(value_crc32c(self._header[-TAIL_SIZE:]), payload) != crc32c:
            raise MalformedFrame("wrong checksum")
        return Frame(channel, group, payload)
