"""The requests of one producer that are not acknowledged yet, in order: no I/O, only which one is sent next.

    produced ->  [ waiting to be sent | in flight on this stream ]  -> acknowledged
                   newest                       oldest

Sequences are given once and never change; a new stream starts again at the oldest request and sends the same requests.  So
however often a stream breaks, the log can only get each request once, in the order of their sequences, and what was
acknowledged is always a prefix of what was produced.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from distlog.api.log.v1 import log_pb2

# What the server remembers of a producer and takes on a stream: one more in flight could not be told from a repeat.
IN_FLIGHT_COUNT_MAX = 16
IN_FLIGHT_SIZE_MAX = 32 << 20
# In flight and waiting.
UNACKNOWLEDGED_COUNT_MAX = 1000
UNACKNOWLEDGED_SIZE_MAX = 32 << 20


@dataclass(slots=True, eq=False)
class PendingRequest:
    """One request that is not acknowledged yet."""

    request: log_pb2.ProduceRequest
    # Bytes of the request.
    size: int
    # Gets the record's offset.
    acknowledgement: asyncio.Future[int]
    # Whether it was on a stream that ended without saying what became of it.
    may_be_written: bool = False


class Window:
    """The unacknowledged requests, oldest first.

    Invariants: their sequences follow each other without a gap; the first `in_flight_count` of them were sent on the stream
    that is open now, in order, and no others.
    """

    def __init__(self) -> None:
        self._requests: deque[PendingRequest] = deque()
        # Bytes of all of them, and of those in flight.
        self._size = 0
        self._in_flight_size = 0
        self.in_flight_count = 0
        # The sequence that the next request gets.
        self.next_sequence = 0

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def first_sequence(self) -> int:
        """The sequence of the oldest unacknowledged request: everything below is acknowledged."""
        return self.next_sequence - len(self._requests)

    @property
    def is_full(self) -> bool:
        """Tell whether the producer must wait before it adds another one."""
        return (
            len(self._requests) >= UNACKNOWLEDGED_COUNT_MAX or self._size >= UNACKNOWLEDGED_SIZE_MAX
        )

    def add(self, request: log_pb2.ProduceRequest, acknowledgement: asyncio.Future[int]) -> None:
        """Append a request, which carries `next_sequence`."""
        assert request.sequence == self.next_sequence, "sequences have no gaps"
        size = request.ByteSize()
        self._requests.append(PendingRequest(request, size, acknowledgement))
        self._size += size
        self.next_sequence += 1

    def take_next(self) -> PendingRequest | None:
        """Return the request to send now and count it as in flight; None while there is none, or no room."""
        count = self.in_flight_count
        if count == len(self._requests) or count == IN_FLIGHT_COUNT_MAX:
            return None
        request = self._requests[count]
        # One that is larger than the limit goes alone.
        if count and self._in_flight_size + request.size > IN_FLIGHT_SIZE_MAX:
            return None
        self.in_flight_count += 1
        self._in_flight_size += request.size
        return request

    def take_answered(self) -> PendingRequest:
        """Remove and return the request that the next answer of the stream belongs to: the oldest in flight."""
        assert self.in_flight_count, "an answer belongs to a request in flight"
        request = self._requests.popleft()
        self.in_flight_count -= 1
        self._in_flight_size -= request.size
        self._size -= request.size
        return request

    def restart(self, *, may_be_written: bool) -> None:
        """Count nothing as in flight: the stream is gone, and the next one starts at the oldest request.

        may_be_written: the stream did not say what became of the requests in flight on it.
        """
        if may_be_written:
            for index in range(self.in_flight_count):
                self._requests[index].may_be_written = True
        self.in_flight_count = 0
        self._in_flight_size = 0

    def take_all(self) -> list[PendingRequest]:
        """Remove and return everything: the producer stops, and `first_sequence` stays what it is."""
        assert self.in_flight_count == 0, "its stream is gone before a producer stops"
        requests = list(self._requests)
        self.next_sequence = self.first_sequence
        self._requests.clear()
        self._size = 0
        return requests
