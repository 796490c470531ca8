"""The limits of the client side of a node, in one table."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
# Room in a message beside the record: field tags, the topic's name, a record one byte over its limit and some more, so that
# the refusal is ours, with its numbers, and not the transport's.
MESSAGE_HEADROOM = 1 * MIB


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Sizes in bytes, times in seconds.  Above each limit there is an error, or the sender has to wait."""

    # Of a record as it is stored: the value, or the Record message with key and headers.  RecordTooLarge.
    record_size_max: int = 1 * MIB
    # Of the frames of a block with more than one record.  InvalidRequest.
    batch_size_max: int = 4 * MIB
    # Requests of one ProduceStream or ProduceBatch that are proposed and not answered.  The stream is not read meanwhile.
    stream_in_flight_count_max: int = 16
    stream_in_flight_size_max: int = 32 * MIB
    # Connections of clients at the same time: each is a file descriptor, and some must be left for files.  gRPC closes what is
    # beyond, and the client tries again, here or elsewhere.
    connection_count_max: int = 10_000
    # Calls at the same time on one connection.  HTTP/2 makes the client wait.
    connection_stream_count_max: int = 100
    # ConsumeStream and ConsumeBatch calls open on this node.  Overloaded.
    tail_count_max: int = 10_000
    # Bytes that tails have read and their clients have not taken, each of which costs four or five of memory: of one connection, in which
    # a hundred tails with usual reads have room, and of all, beside one read for each connection.  A tail waits so long for room.
    # Overloaded.
    connection_unread_size_max: int = 32 * MIB
    unread_size_max: int = 64 * MIB
    unread_timeout_s: float = 30.0
    # How long a new connection may take until its first frames are there.  gRPC closes it.
    handshake_timeout_s: float = 10.0
    # Calls of all kinds on this node, tails included.  RESOURCE_EXHAUSTED from gRPC, before a handler runs.
    call_count_max: int = 20_000
    # How long a write waits for a majority, whatever deadline the caller has.  OutcomeUnknown.
    write_timeout_s: float = 10.0
    # How long a read waits for proof, or for the offset that it must not miss.  NoLeader.
    read_timeout_s: float = 10.0

    @property
    def message_size_max(self) -> int:
        """Largest gRPC message taken.  RESOURCE_EXHAUSTED from gRPC."""
        return max(
            12 * MIB,
            self.batch_size_max + MESSAGE_HEADROOM,
            self.record_size_max + MESSAGE_HEADROOM,
        )
